"""Draw a figure of the paper from a run: `python -m rcnn.figure 5 outputs/nuswide`.

    3         what the class name and the method predict for some images    (needs evaluate.keep_scores=true)
    4         class embeddings of names and of learned names in the plane, and their cosines within and between groups
    5         recall of pairs of a class and its parent, precision and recall    (needs evaluate.keep_scores=true)
    epochs    loss and metrics of every epoch    (needs evaluate.epochs=true)
    classes   average precision of every class, the method's minus the class name's

Writes a PNG, a PDF and a JSON with every number that is shown, and prints the numbers. Needs matplotlib and scikit-learn.
"""

import importlib
from pathlib import Path

from rcnn import cli
from rcnn.figures import style
from rcnn.files import write_json

FIGURES = {"3": "predictions", "4": "embeddings", "5": "hierarchy", "epochs": "epochs", "classes": "classes"}


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser("figure", __doc__, keys=None)
    parser.add_argument("figure", choices=FIGURES)
    parser.add_argument("run", metavar="RUN", help="folder of a run that was measured")
    parser.add_argument("--output", metavar="FOLDER", help="where the files go; RUN/figures by default")
    parser.add_argument("--images", nargs="+", default=[], metavar="NAME", help="of figure 3: ends of image paths")
    args = parser.parse_args(argv)
    if args.images and args.figure != "3":
        parser.error("--images is of figure 3 alone")
    module = importlib.import_module(f"rcnn.figures.{FIGURES[args.figure]}")
    folder = Path(args.output or Path(args.run) / "figures")
    name = f"figure_{args.figure}"
    with style.look():  # before the work: what is missing should show now
        found = module.numbers(args.run, *([args.images] if args.images else []))
        style.save(module.draw(found, args.run), folder, name)
    write_json(folder / f"{name}.json", found)
    print("\n".join([*module.lines(found), f"figure: {folder / name}.png, .pdf; its numbers: {name}.json beside it"]))


if __name__ == "__main__":
    cli.run(main)
