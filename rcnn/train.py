"""Learn class names from text, and measure them: `python -m rcnn.train --config configs/mini.yaml`.

Reads class names and their descriptions, learns a reconstructed name per class, and writes the class embeddings of this
and of every row it is compared with to the run's folder. If the configuration names a data set, the rows are then
evaluated on it. Interrupted, the same command continues where it was and ends with the same vectors.

    python -m rcnn.train --classes names.txt     your own classes, described by python -m rcnn.describe names.txt
"""

import shlex
from pathlib import Path

from rcnn import cli, config
from rcnn.datasets.images import read_images
from rcnn.evaluation import check, evaluate
from rcnn.score import processes
from rcnn.text.classes import ClassList
from rcnn.training import train


def for_names(names: str, overrides: list[str]) -> config.Config:
    """Configuration of one's own classes: a list of names and the corpus that rcnn.describe put beside it."""
    path = Path(names)
    raw = {
        "output": f"outputs/{path.stem}",
        "classes": {"unseen": names},
        "corpus": {"path": str(path.with_suffix(".corpus.json"))},
        "train": {"pair_weight": "auto"},
    }
    settings = config.override(raw, overrides)
    if path.is_file() and settings.corpus.path and not Path(settings.corpus.path).is_file():
        command = shlex.join(["python", "-m", "rcnn.describe", str(names)])
        raise FileNotFoundError(f"there is no {settings.corpus.path}; set corpus.path, or make it: {command}")
    return settings


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser("train", __doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", metavar="FILE", help="YAML configuration; see configs/")
    source.add_argument("--classes", metavar="FILE", help="instead of --config: text file with one class name a line")
    parser.add_argument("--no-evaluate", action="store_true", help="learn only; python -m rcnn.evaluate RUN measures")
    parser.add_argument("--resume", metavar="RUN", help="as output=RUN, but an error if there is no run to continue")
    parser.add_argument("--again", action="store_true", help="learn and measure this very run anew")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="configuration keys to set")
    args = parser.parse_intermixed_args(argv)
    if processes.world_size() > 1:
        raise ValueError("learning runs in one process; torchrun is for python -m rcnn.evaluate")
    if args.resume and not list(Path(args.resume).glob("*/state.safetensors")):
        raise FileNotFoundError(f"--resume: there is no run in {args.resume} to continue")
    settings = for_names(args.classes, args.overrides) if args.classes else config.load(args.config, args.overrides)
    if args.resume:
        settings = config.override(config.to_dict(settings), [], values={"output": args.resume})
    classes = ClassList.read(settings.classes.seen, settings.classes.unseen)
    measured = settings.dataset.annotations and not args.no_evaluate
    if measured:  # before the long work: what is missing should show now
        images = read_images(settings.dataset, classes, settings.cache)
        check(settings, images, classes)
    train(settings, classes, args.again)
    if measured:
        evaluate(settings, images, classes, args.again)
    elif settings.dataset.annotations:
        print(f"next: python -m rcnn.evaluate {shlex.quote(settings.output)}")
    else:
        print(f"next: python -m rcnn.predict PHOTOS --run {shlex.quote(settings.output)}")


if __name__ == "__main__":
    cli.run(main)
