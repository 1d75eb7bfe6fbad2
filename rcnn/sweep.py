"""Learn and measure a run for every point of a grid, all in one pass over the images:

    python -m rcnn.sweep --config configs/coco.yaml train.pair_weight=0,0.05,0.1,0.2,0.5 seed=0,1,2

Keys with several values, between commas, span the grid; they are options of learning, as the points share the pass. Each point
is a run in a folder of its own, named by its keys; what is finished is not done again. Prints one table, mean ± standard
deviation over the seeds, and writes FOLDER/sweep.csv, sweep.json with the numbers of every point and, with matplotlib, a plot.
The tables of all points go to FOLDER/log.txt. train.ablation=false evaluate.epochs=false saves time.
"""

import contextlib
import importlib.util
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from rcnn import checkpoint, cli, config, rows, runtime
from rcnn.clip import Clip
from rcnn.datasets.images import read_images
from rcnn.evaluation import check, evaluate
from rcnn.figures import style, sweeps
from rcnn.files import digest, replace_file, write_json
from rcnn.learn.material import Material
from rcnn.printing import short
from rcnn.score import processes
from rcnn.text.classes import ClassList
from rcnn.training import train

COMMAS = re.compile(r",(?![^\[]*\])")  # those outside brackets


def grid(pairs: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Pairs of one value, and {key: values} of those with several; ValueError for a key that points cannot differ in."""
    several, single = {}, []
    one_pass = [o.key for o in config.options() if o.shapes == "learning" and not o.key.startswith(("output", "classes."))]
    for pair in pairs:
        key, _, text = pair.partition("=")
        values = COMMAS.split(text)
        if len(values) == 1 or key not in config.known_keys():  # an unknown one is said by what reads the configuration
            single.append(pair)
        elif key not in one_pass:
            raise ValueError(
                f"{key}: the points of a sweep share a pass over the images, so they differ in options of learning alone, such "
                f"as {', '.join(one_pass[:4])}; give each value of this one a sweep, with an --output of its own"
            )
        elif key in several:
            raise ValueError(f"{key}: expected all its values in one pair, got another, {short(pair)}")
        else:
            several[key] = values
    return single, several


def learn(settings: config.Config, classes: ClassList, model: Clip) -> None:
    """Learn a point, unless its folder has it."""
    with contextlib.suppress(FileNotFoundError):
        found = checkpoint.read_run(settings.output)[1]
        before = config.override(found["config"], [])
        is_same = found["identity"] == Material(settings, model, classes).identity
        if is_same and not config.changed(before, settings, "learning", "rows"):
            return
    train(settings, classes, model=model)


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser("sweep", __doc__)
    parser.add_argument("--config", metavar="FILE", required=True, help="YAML configuration; see configs/")
    parser.add_argument("--output", metavar="FOLDER", help="of all points; by default the configuration's, and _sweep")
    parser.add_argument("pairs", nargs="+", metavar="key=value", help="keys to set, or with values between commas to vary")
    args = parser.parse_intermixed_args(argv)
    if processes.world_size() > 1:
        raise ValueError("a sweep runs in one process; torchrun is for python -m rcnn.evaluate")
    single, several = grid(args.pairs)
    base = config.load(args.config, single)
    if not several:
        raise ValueError("expected a key with several values, such as train.pair_weight=0,0.1,0.2 or seed=0,1,2")
    folder, points = Path(args.output or f"{base.output}_sweep"), []
    keys = [dict(zip(several, values, strict=True)) for values in itertools.product(*several.values())]
    for point in keys:
        pairs = [f"{key}={value}" for key, value in point.items()]
        output = folder / ",".join(quote(pair, safe="=+,[]") for pair in pairs)
        points.append(config.override(config.to_dict(base), pairs, values={"output": str(output)}))
    if len({digest(config.to_dict(point) | {"output": ""}) for point in points}) < len(points):
        raise ValueError("two points of the sweep are the same, as of 0.1 and 0.10; expected each value once")
    classes = ClassList.read(base.classes.seen, base.classes.unseen)
    images = read_images(base.dataset, classes, base.cache)
    check(base, images, classes)  # before the long work: what is missing should show now
    folder.mkdir(parents=True, exist_ok=True)
    model = runtime.load_clip(base)
    with open(folder / "log.txt", "w+", buffering=1, encoding="utf-8") as log:
        with contextlib.redirect_stdout(log):
            for point in points:
                learn(point, classes, model)
            results = evaluate(points, images, classes)
        log.seek(0)
        for warning in dict.fromkeys(line for line in log if line.startswith("WARNING")):
            print(warning, end="")
    measured = [sweeps.metrics(result.rows[result.method][result.scorer]) for result in results]
    first, scorer = results[0], results[0].scorer
    label, baseline = first.label(rows.BASELINE, scorer), sweeps.metrics(first.rows[rows.BASELINE][scorer])
    lines = sweeps.summary(list(zip(keys, measured, strict=True)))
    write_json(folder / "sweep.json", {
        "points": [{"folder": Path(p.output).name, "keys": k, **m} for p, k, m in zip(points, keys, measured, strict=True)],
        "table": [line._asdict() for line in lines], label: baseline,
    })  # fmt: skip
    with replace_file(folder / "sweep.csv") as file:
        file.write(sweeps.as_csv(lines).encode())
    if importlib.util.find_spec("matplotlib"):
        with style.look():
            style.save(sweeps.draw(lines, label, baseline), folder, "sweep")
    reference = ", ".join(f"{name} {value:.1f}" for name, value in baseline.items())
    print(f"{len(points)} runs that differ in {' and '.join(several)}:\n\n{sweeps.markdown(lines)}\n\n{label}: {reference}")
    print(f"files: {folder}/sweep.*; the tables of all runs: log.txt beside them")


if __name__ == "__main__":
    cli.run(main)
