"""Measure a run on images: `python -m rcnn.evaluate outputs/mini`.

One pass over the images serves all rows and all epochs: they differ only in their class embeddings and in the snippets that
are used. Writes RUN/result.json and prints the table. Interrupted, the same command continues where it was. Several GPUs, or
processes: `torchrun --nproc-per-node=4 -m rcnn.evaluate RUN`. Class embeddings of your own are measured beside the others:

    python -m rcnn.evaluate RUN rows.mine=mine.safetensors     (C, D), and the class names in its metadata
    python -m rcnn.evaluate RUN rows.cupl=sentences.json       {class name: [sentences]}
    python -m rcnn.evaluate RUN rows.mine=module:function      function(class names, CLIP) -> (C, D)

and so are scores, for the class names and the run's method:

    python -m rcnn.evaluate RUN scorers.mine=module:function   function(features, class embeddings, settings) -> (B, C)
"""

from rcnn import checkpoint, cli, config
from rcnn.datasets.images import read_images
from rcnn.evaluation import evaluate
from rcnn.text.classes import ClassList


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser("evaluate", __doc__, but=("learning", "rows"))
    parser.add_argument("run", metavar="RUN", help="folder of a finished run of rcnn.train")
    parser.add_argument("--again", action="store_true", help="measure although there is a result of these settings")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="configuration keys to set, but for those of learning"
    )
    args = parser.parse_intermixed_args(argv)
    metadata = checkpoint.read_run(args.run)[1]
    learned = config.override(metadata["config"] | {"output": args.run}, [])
    settings = config.override(config.to_dict(learned), args.overrides)
    if settled := config.changed(learned, settings, "learning", "rows"):
        raise ValueError(f"{settled[0]}: this was settled when the run was learned; python -m rcnn.train makes another run")
    classes = ClassList(tuple(metadata["class_names"]), metadata["seen"], tuple(metadata["notes"]))
    evaluate(settings, read_images(settings.dataset, classes, settings.cache), classes, args.again)


if __name__ == "__main__":
    cli.run(main)
