"""Measure a run on images: `python -m rcnn.evaluate outputs/mini`.

One pass over the images serves all rows and all epochs: they differ only in their class embeddings and in the snippets that
are used. Writes RUN/result.json and prints the table. Interrupted, the same command continues where it was. Several GPUs, or
processes: `torchrun --nproc-per-node=4 -m rcnn.evaluate RUN`, on several machines as well (--nnodes), each with a copy of the
run and the images. Several runs that have their CLIP, classes and images in common,
such as one for each seed, are measured in one pass as well: `python -m rcnn.evaluate RUN RUN …` writes a result for each.

Class embeddings of your own are measured beside the others:

    python -m rcnn.evaluate RUN rows.mine=mine.safetensors     (C, D), and the class names in its metadata
    python -m rcnn.evaluate RUN rows.cupl=sentences.json       {class name: [sentences]}
    python -m rcnn.evaluate RUN rows.mine=module:function      function(class names, CLIP) -> (C, D)

and so are scores, for the class names and the run's method:

    python -m rcnn.evaluate RUN scorers.mine=module:function   function(features, class embeddings, settings) -> (B, C)
"""

from pathlib import Path

from rcnn import checkpoint, cli, config
from rcnn.datasets.images import read_images
from rcnn.evaluation import evaluate
from rcnn.text.classes import ClassList


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser("evaluate", __doc__, but=("learning", "rows"))
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folders of finished runs of rcnn.train, and key=value pairs to set"
    )
    parser.add_argument("--again", action="store_true", help="measure although there is a result of these settings")
    args = parser.parse_intermixed_args(argv)
    runs, pairs = cli.without_pairs(args.runs)
    if not runs:
        parser.error("no RUN among the arguments")
    if len(runs) > len({Path(run).resolve() for run in runs}):
        raise ValueError("a run is named twice")
    several = []
    for run in runs:
        metadata = checkpoint.read_run(run)[1]
        learned = config.override(metadata["config"] | {"output": run}, [])
        several.append(config.override(config.to_dict(learned), pairs))
        if settled := config.changed(learned, several[-1], "learning", "rows"):
            raise ValueError(f"{settled[0]}: this was settled when the run was learned; python -m rcnn.train makes another run")
    first = checkpoint.read_run(runs[0])[1]
    classes = ClassList(tuple(first["class_names"]), first["seen"], tuple(first["notes"]))
    evaluate(several, read_images(several[0].dataset, classes, several[0].cache), classes, args.again)


if __name__ == "__main__":
    cli.run(main)
