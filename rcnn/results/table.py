"""A result as a table for the terminal."""

from rcnn.results.result import STANDARDISED, Metric, Number, Result
from rcnn.text.classes import in_words


def render(result: Result) -> str:
    """Text of the comparison, of what there is to know about it, and of the diagnostics."""
    first = next(iter(result.rows[result.method].values()))
    tasks, ks = list(first), list(dict.fromkeys(name for task in first.values() for name in task if name.startswith("F1")))
    intervals = first[tasks[0]]["mAP"].interval is not None
    header = ["class embeddings"]
    for task in tasks:
        header += [f"{task.upper()} mAP{' [95 %]' if intervals else ''}", "vs class name", *ks]
    lines, last = [], result.scorer
    for scorer in dict.fromkeys(key for scorers in result.rows.values() for key in scorers):
        for row, scorers in result.rows.items():
            if scorer in scorers:
                star = "*" if (row, scorer) == (result.method, last) else " "
                lines.append([star + result.label(row, scorer), *_cells(scorers[scorer], tasks, ks)])
        lines.append([])
    text = _align([header, *lines[:-1]])
    return "\n".join(["", text, "", *_notes(result, intervals), *_diagnostics(result, tasks), *_best(result)])


def _cells(by_task, tasks, ks):
    cells = []
    for task in tasks:
        m = by_task[task]
        cells += [f"{m['mAP'].value:5.1f}{_range(m['mAP'])}", _difference(m["mAP"].versus_baseline)]
        cells += [f"{m[k].value:5.1f}" if k in m else "" for k in ks]
    return cells


def _notes(result, intervals):
    counted = ", ".join(
        f"{task.upper()} {v.images} images with {v.positives_per_image:.3f} positives each"
        for task, v in result.images.tasks.items()
    )
    out = ["* the method." + " Intervals: bootstrap over images; differences are paired." * intervals, f"{counted}."]
    out += [f"Not verified: {result.images.unverified}."] * bool(result.images.unverified)
    return out + protocol(result) + ties(result) + [f"NOT COMPARABLE with the paper: {doubt}." for doubt in result.doubts]


def protocol(result: Result) -> list[str]:
    """What a reader must know of the mean over classes, of unknown labels, and of standardised scores."""
    settings, out = result.settings.evaluate, []
    for task, found in result.classes.items():
        name, known, positive, without = task.upper(), found.known, found.positive, settings.classes_without_positives
        if known < found.scored:
            out.append(f"{name}: {found.scored - known:,} of {found.scored:,} classes have no known label and are in no mean.")
        if found.positive_or_unknown:
            ranked = "left out of their AP" if settings.unknown == "always" else "ranked as absent, as in the authors' code"
            out.append(
                f"{name}: {found.positive_or_unknown:,} classes have positive and unknown labels and no absent ones; "
                f"the unknown are {ranked} (evaluate.unknown={settings.unknown})."
            )
        if positive < known:
            if without == "zero":
                now, over, factor = "count 0", f"the {positive:,} classes with a positive", known / positive
            else:
                now, over, factor = "are left out", f"all {known:,} classes with a known label", positive / known
            row, scorer = result.method, result.scorer
            value = factor * result.rows[row][scorer][task]["mAP"].value
            out.append(
                f"{name}: {known - positive:,} of {known:,} classes have no positive and {now} "
                f"(evaluate.classes_without_positives={without}); mAP over {over}: {result.label(row, scorer)} {value:.1f} "
                f"(every mAP × {factor:.4f})."
            )
    if any(row.endswith(STANDARDISED) for row in result.rows):
        out.append(
            "Standardised: scores brought to mean 0, deviation 1 over the classes of each image, then over the images of each "
            'class (SPARC\'s "normalize only"); transductive: the second step uses the test images, and only top-k feels it.'
        )
    return out


def ties(result: Result) -> list[str]:
    """What a reader must know of classes that the scores cannot tell apart; empty if there are none."""
    out, rows_of = [], {}
    for row, groups in result.coinciding.items():
        rows_of.setdefault(str(groups), []).append(row)
    for same in rows_of.values():
        groups, names = result.coinciding[same[0]], ", ".join(result.label(row) for row in same)
        count, total = sum(map(len, groups)), len(result.class_names)
        out.append(f"{names}: {count} of {total} classes share their class embedding: {in_words(groups)}.")
    found = [
        (images, task, k, row, scorer)
        for row, scorers in result.decided_by_ties.items()
        for scorer, tasks in scorers.items()
        for task, by_k in tasks.items()
        for k, images in by_k.items()
    ]
    images, task, k, row, scorer = max(found, key=lambda entry: entry[0], default=(0, *[None] * 4))
    if images:
        out.append(
            f"Ties decide the hits among the top {k} in up to {images} of {result.images.tasks[task].images} images "
            f"({result.label(row, scorer)}, {task.upper()}): tied classes share the places that are left, tied images have the "
            "rank of the last."
        )
    return out


def _diagnostics(result, tasks):
    lines = [["mAP of the parts alone", *(f"{t.upper()} {p}" for t in tasks for p in ("global", "local"))]]
    for scorer in dict.fromkeys(key for scorers in result.diagnostics.values() for key in scorers):
        for row, scorers in result.diagnostics.items():
            if scorer in scorers:
                cells = [f"{scorers[scorer][t][p]:5.1f}" for t in tasks for p in ("global", "local")]
                lines.append([" " + result.label(row, scorer), *cells])
    return ["", _align(lines)] if len(lines) > 1 else []


def _best(result):
    """The epoch that would look best; the authors' code reports this one."""
    said = []
    for task, best in result.best_on_test.items():
        numbers = ", ".join(f"{name} {value:.1f}" for name, value in best.items() if name.startswith(("mAP", "F1")))
        said.append(f" {task.upper()}, epoch {best['epoch']:.0f}: {numbers}")
    title = "best epoch on the test images, as the authors' code chooses; our result is the last epoch:"
    return ["", title, *said] if said else []


def _range(metric: Metric) -> str:
    return " [{:.1f}, {:.1f}]".format(*metric.interval) if metric.interval else ""


def _difference(versus: Number | None) -> str:
    if versus is None:
        return ""
    return f"{versus.value:+.1f}" + (" [{:+.1f}, {:+.1f}]".format(*versus.interval) if versus.interval else "")


def _align(lines):
    widths = [max(len(line[i]) for line in lines if line) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=False)).rstrip() for line in lines)
