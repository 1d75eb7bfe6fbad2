"""The scores of a class on all photos, as SVG."""

from rcnn.page.review import Review

WIDTH, HEIGHT = 600, 88  # of the bars
TAGGED, OTHERS, CUTOFF = "#2b6cb0", "#9aa5b1", "#c05621"


def histogram(review: Review, column: int) -> str:
    """Bars, blue for photos with the tag, and below them marks of those that were judged."""
    counts, edges = review.histogram(column)
    at = review.thresholds[column]

    def x(score: float) -> float:
        return WIDTH * min(max((score - edges[0]) / (edges[-1] - edges[0]), 0), 1)

    parts = []
    for count, left, right in zip(counts.tolist(), edges, edges[1:], strict=False):
        height, colour = HEIGHT * (count / counts.max()) ** 0.5, TAGGED if left + right >= 2 * at else OTHERS
        size = f"x='{x(left):.1f}' y='{HEIGHT - height:.1f}' width='{x(right) - x(left) - 1:.1f}' height='{height:.1f}'"
        parts.append(f"<rect {size} fill='{colour}'><title>{count} photos from {left:.3f} to {right:.3f}</title></rect>")
    for (photo, c), present in review.judged.items():
        if c == column:
            place = f"x='{x(review.scores[photo, column]):.1f}' y='{HEIGHT + 12}' text-anchor='middle'"
            parts.append(f"<text {place}>{'▲' if present else '▽'}</text>")
    parts.append(f"<path d='M0 {HEIGHT}H{WIDTH}' stroke='{OTHERS}'/><path d='M{x(at):.1f} -4V{HEIGHT + 2}' stroke='{CUTOFF}'/>")
    texts = (
        ("start", f"{edges[0]:.3f}"),
        ("middle", "height: root of the number of photos; ▲ accepted, ▽ rejected"),
        ("end", f"{edges[-1]:.3f}"),
    )
    for place, (anchor, text) in zip((0, WIDTH / 2, WIDTH), texts, strict=True):
        parts.append(f"<text x='{place}' y='{HEIGHT + 27}' text-anchor='{anchor}'>{text}</text>")
    return f"<svg id='histogram' viewBox='-6 -4 {WIDTH + 12} {HEIGHT + 34}' width='100%' role='img'>{''.join(parts)}</svg>"
