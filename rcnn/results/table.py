"""A result file as a table for the terminal."""

LABELS = {
    "baseline": "class name",
    "centred": "class name, centred",
    "templates": "80 templates",
    "mean": "descriptions, mean",
    "mean_with_templates": "descriptions + templates, mean",
    "principal": "descriptions, principal direction",
    "cnr": "CNR (learned names)",
    "cnr_pbl": "CNR + PBL (learned names)",
    "closed_form": "closed form of CNR + PBL",
}
VARIANTS = {"plain": "", "mssa": " + MSSA"}


def render(result):
    """Text of the comparison and of the diagnostics."""
    rows = result["rows"]
    first = next(iter(rows.values()))["plain"]
    tasks, ks = list(first), list(dict.fromkeys(name for task in first.values() for name in task if name.startswith("F1")))
    header, intervals = ["class embeddings"], "interval" in first[tasks[0]]["mAP"]
    for task in tasks:
        header += [f"{task.upper()} mAP{' [95 %]' if intervals else ''}", "vs class name", *ks]
    lines = []
    for variant in next(iter(rows.values())):
        for row, variants in rows.items():
            star = "*" if row == result["method"] and variant == list(variants)[-1] else " "
            cells = [star + LABELS[row] + VARIANTS[variant]]
            for task in tasks:
                m = variants[variant][task]
                cells += [f"{m['mAP']['value']:5.1f}{_range(m['mAP'])}", _difference(m["mAP"].get("versus_baseline"))]
                cells += [f"{m[k]['value']:5.1f}" if k in m else "" for k in ks]
            lines.append(cells)
        lines.append([])
    text = _align([header, *lines[:-1]])
    return "\n".join(["", text, "", *_notes(result), *_diagnostics(result, tasks), *_best(result)])


def _notes(result):
    images = result["images"]
    counted = ", ".join(
        f"{t.upper()} {v['images']} images with {v['positives_per_image']:.3f} positives each"
        for t, v in images["tasks"].items()
    )
    intervals = "interval" in next(iter(result["rows"]["baseline"]["plain"].values()))["mAP"]
    out = ["* the method." + " Intervals: bootstrap over images; differences are paired." * intervals, f"{counted}."]
    if images["missing"] or images["unreadable"]:
        out.append(f"LEFT OUT: {images['missing']} missing and {images['unreadable']} unreadable images.")
    if result["config"]["dataset"]["keep_unlabelled"]:
        out.append("Images that show none of the classes are used too (dataset.keep_unlabelled).")
    return out + [f"WARNING: {warning}." for warning in result["warnings"]]


def _diagnostics(result, tasks):
    lines = [["mAP of the parts alone", *(f"{t.upper()} {p}" for t in tasks for p in ("global", "local"))]]
    for variant in VARIANTS:
        for row, variants in result["diagnostics"].items():
            if variant in variants:
                cells = [f"{variants[variant][t][p]:5.1f}" for t in tasks for p in ("global", "local")]
                lines.append([" " + LABELS[row] + VARIANTS[variant], *cells])
    return ["", _align(lines)] if len(lines) > 1 else []


def _best(result):
    """The epoch that would look best; the authors' code reports this one."""
    said = []
    for task, best in result["best_on_test"].items():
        numbers = ", ".join(f"{name} {value:.1f}" for name, value in best.items() if name.startswith(("mAP", "F1")))
        said.append(f" {task.upper()}, epoch {best['epoch']}: {numbers}")
    title = "best epoch on the test images, as the authors' code chooses; our result is the last epoch:"
    return ["", title, *said] if said else []


def _range(metric):
    return " [{:.1f}, {:.1f}]".format(*metric["interval"]) if "interval" in metric else ""


def _difference(versus):
    if versus is None:
        return ""
    if "interval" not in versus:
        return f"{versus['value']:+.1f}"
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(versus["value"], *versus["interval"])


def _align(lines):
    widths = [max(len(line[i]) for line in lines if line) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=False)).rstrip() for line in lines)
