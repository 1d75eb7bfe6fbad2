"""Export a run, to be published or used elsewhere: `python -m rcnn.export outputs/coco FOLDER`.

FOLDER gets class_embeddings.safetensors (class embeddings, names, settings), cutoffs.json (thresholds, where rcnn.calibrate
fitted some) and README.md, a model card. `rcnn predict --run FOLDER` and, once the folder is on Hugging Face's hub,
Tagger.load("hf://user/repo") use it; CLIP's weights stay where they are. With --onnx there is also model.onnx, which needs
neither this package nor torch: from uint8 views of images to scores. No path and no name of a user is in any of them.
"""

from dataclasses import replace
from pathlib import Path

import rcnn
from rcnn import checkpoint, cli, config
from rcnn.files import read_text, replace_file
from rcnn.printing import message
from rcnn.results.result import Result
from rcnn.tagger import Tagger

CARD, ONNX = "README.md", "model.onnx"
FRONT = "---\nlibrary_name: rcnn\npipeline_tag: zero-shot-image-classification\ntags: [clip, multi-label]\n---\n"
TEXT = """# {count} classes for multi-label zero-shot recognition

Class embeddings of rcnn {version}: the scores of these classes on a photo, by CLIP and MSSA.

    from rcnn import Tagger
    Tagger.load("FOLDER").tag("photo.jpg")  # or hf://user/repo

| | |
|---|---|
| CLIP | {clip} |
| SHA-256 of its weights | {weights} |
| text corpus | {corpus} |
| grids, τ_s | {grids}, {temperature} |
| thresholds | {thresholds} |

"""


def portable(settings: config.Config) -> config.Config:
    """What of the settings tagging reads, and no path."""
    clip, scoring = settings.clip, settings.evaluate.model_dump(include={"grids", "temperature", "precision", "max_pixels"})
    model = {"model": clip.model, "pretrained": clip.pretrained if clip.model else None}
    here = config.override({"clip": model, "evaluate": scoring}, [])
    return here.model_copy(update={"output": "outputs/run", "cache": "outputs/cache"})  # which override made absolute


def card(tagger: Tagger, corpus: str, result: Result | None) -> str:
    """The model card, Markdown; `corpus` is the fingerprint of what the class embeddings were made of."""
    clip, evaluate, thresholds = tagger.settings.clip, tagger.settings.evaluate, "none; rcnn calibrate fits some"
    if tagger.cutoffs and "by_hand" in tagger.cutoffs.facts:
        thresholds = "set on the page of rcnn web"
    elif tagger.cutoffs:
        held_out = "{:.1%} [{:.1%}, {:.1%}]".format(*tagger.cutoffs.facts["held_out"]["micro F1"])
        thresholds = f"fitted to {tagger.cutoffs.facts['photos']} checked photos; micro-F1 on those held out {held_out}"
    text = TEXT.format(
        count=len(tagger.class_names), version=rcnn.__version__, weights=tagger.model.sha256, corpus=corpus,
        clip=f"open_clip's {clip.model} ({clip.pretrained})" if clip.model else "a file; clip.weights names it",
        grids=list(evaluate.grids), temperature=evaluate.temperature, thresholds=thresholds,
    )  # fmt: skip
    if result:
        text += f"## Metrics\n\n{result.images.used:,} images ({result.dataset}); percent, with 95 % intervals.\n\n"
        for task, metrics in result.rows[result.method][result.scorer].items():
            for name, metric in metrics.items():
                interval = " [{:.1f}, {:.1f}]".format(*metric.interval) if metric.interval else ""
                text += f"- {task.upper()} {name}: {metric.value:.1f}{interval}\n"
        text += "".join(f"- not comparable with the paper: {doubt}\n" for doubt in result.doubts) + "\n"
    return f"{FRONT}{text}## Classes\n\n" + "".join(f"    {name}\n" for name in tagger.full_names)


def export(run: Path, folder: Path, pairs: list[str], onnx: bool) -> list[str]:
    """Write the files to a folder that is new, or has an older export; returns what was done, in words."""
    is_new = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_new and not ((folder / CARD).is_file() and read_text(folder / CARD).startswith(FRONT)):
        raise ValueError(f"{folder} is there, and no export of rcnn; choose another folder")
    metadata, path = checkpoint.read_run(run)[1], run / "result.json"
    tagger, result = Tagger.load(run, *pairs), Result.load(path) if path.exists() else None
    if result and (result.class_names, result.weights_sha256) != (tagger.class_names, metadata["weights_sha256"]):
        raise ValueError(f"{path} is the result of another run; measure this one again: python -m rcnn.evaluate {run} --again")
    done = [f"{len(tagger.class_names)} classes, {'with' if tagger.cutoffs else 'without'} thresholds: {folder}"]
    if onnx:
        from rcnn.tagging import onnx_file  # here, since most runs need no torch exporter

        exact = Tagger.of_run(run, *pairs, device="cpu", **{"evaluate.precision": "float32"})
        data, difference = onnx_file.convert(replace(exact, cutoffs=tagger.cutoffs))
        done.append(f"{folder / ONNX}: its scores differ from ours by {difference:.1e} at most, on noise")
    with replace_file(folder / CARD) as file:  # first, since by it a folder is known as an export
        file.write(card(tagger, metadata["identity"]["corpus"], result).encode())
    replace(tagger, settings=portable(tagger.settings)).save(folder)
    (folder / ONNX).unlink(missing_ok=True)
    if onnx:
        with replace_file(folder / ONNX) as file:
            file.write(data)
    return done


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser("export", __doc__, but=("learning", "rows", "metrics"))
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run of rcnn.train, or of Tagger.save")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="what to write")
    parser.add_argument("pairs", nargs="*", metavar="key=value", help="configuration keys to set, such as clip.weights")
    parser.add_argument("--onnx", action="store_true", help="also write model.onnx (pip install '.[onnx]')")
    args = parser.parse_intermixed_args(argv)
    for line in export(args.run, args.folder, args.pairs, args.onnx):
        print(message(line))


if __name__ == "__main__":
    cli.run(main)
