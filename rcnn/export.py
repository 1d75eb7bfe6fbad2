"""Export a run, to be published or used elsewhere: `python -m rcnn.export outputs/coco FOLDER`.

FOLDER gets class_embeddings.safetensors (class embeddings, names, settings), cutoffs.json (thresholds, where rcnn.calibrate
fitted some) and README.md, a model card. `rcnn predict --run FOLDER` and, once the folder is on Hugging Face's hub,
Tagger.load("hf://user/repo") use it; CLIP's weights stay where they are. With --onnx there is also model.onnx, which needs
neither this package nor torch: from uint8 views of images to scores. No path and no name of a user is in any of them.
"""

import sys
from dataclasses import replace
from pathlib import Path

import rcnn
from rcnn import checkpoint, cli, config
from rcnn.files import read_text, replace_file
from rcnn.printing import message
from rcnn.results.result import Result
from rcnn.rows import method_scorer
from rcnn.tagger import Tagger
from rcnn.tagging.labels import full_names

CARD, ONNX = "README.md", "model.onnx"
FRONT = "---\nlibrary_name: rcnn\npipeline_tag: zero-shot-image-classification\ntags: [clip, multi-label]\n---\n"


def portable(settings: config.Config) -> config.Config:
    """What of the settings tagging reads, and no path."""
    clip, evaluate = settings.clip, settings.evaluate
    model = {"model": clip.model, "pretrained": clip.pretrained if clip.model else None}
    scoring = {key: getattr(evaluate, key) for key in ("grids", "temperature", "precision", "max_pixels")}
    here = config.override({"clip": model, "evaluate": scoring}, [])
    return here.model_copy(update={"output": "outputs/run", "cache": "outputs/cache"})  # not made absolute


def card(tagger: Tagger, result: Result | None, corpus: str) -> str:
    """The model card, Markdown; `corpus` is the fingerprint of what the class embeddings were made of."""
    clip, evaluate, cutoffs = tagger.settings.clip, tagger.settings.evaluate, tagger.cutoffs
    known = f"{clip.model} ({clip.pretrained}) of open_clip" if clip.model else "a file; set clip.weights to it"
    lines = [
        f"{FRONT}# {len(tagger.class_names)} classes for multi-label zero-shot recognition\n",
        f"Class embeddings of rcnn {rcnn.__version__}: of a photo they give the scores of these classes, by CLIP and MSSA.\n",
        '    from rcnn import Tagger\n    Tagger.load("FOLDER").tag("photo.jpg")  # or hf://user/repo\n',
        f"| | |\n|---|---|\n| CLIP | {known} |\n| SHA-256 of its weights | {tagger.model.sha256} |",
        f"| text corpus | {corpus} |\n| grids, τ_s | {list(evaluate.grids)}, {evaluate.temperature} |",
    ]
    if cutoffs:
        f1, low, high = cutoffs.facts["held_out"]["micro F1"]
        fitted = (
            f"fitted to {cutoffs.facts['photos']} checked photos; micro-F1 on held-out ones {f1:.1%} [{low:.1%}, {high:.1%}]"
        )
        lines.append(f"| thresholds | {fitted} |")
    else:
        lines.append("| thresholds | none; rcnn calibrate fits them |")
    if result:
        lines.append(f"\n## Metrics\n\nOn {result.images.used:,} images ({result.dataset}), in percent, with 95 % intervals.\n")
        lines.append("| task | metric | |\n|---|---|---|")
        for task, metrics in result.rows[result.method][method_scorer(result.settings.evaluate)].items():
            for name, metric in metrics.items():
                shown = " [{:.1f}, {:.1f}]".format(*metric.interval) if metric.interval else ""
                lines.append(f"| {task.upper()} | {name} | {metric.value:.1f}{shown} |")
        lines += [f"\nNot comparable with the paper: {doubt}." for doubt in result.doubts]
    lines += ["\n## Classes\n", *(f"    {name}" for name in full_names(tagger.class_names, tagger.notes))]
    return "\n".join(lines) + "\n"


def export(run: Path, folder: Path, pairs: list[str], onnx: bool) -> list[str]:
    """Write the files to a folder that is new, or has an older export; returns what was done, in words."""
    if folder.exists() and any(folder.iterdir()):
        written = folder / CARD
        if not written.is_file() or not read_text(written).startswith(FRONT):
            raise ValueError(f"{folder} is not empty, and holds no export of rcnn; choose another folder")
    _, metadata = checkpoint.read_run(run)
    tagger, path = Tagger.load(run, *pairs), run / "result.json"
    result = Result.load(path) if path.exists() else None
    if result and (result.class_names, result.weights_sha256) != (tagger.class_names, metadata["weights_sha256"]):
        raise ValueError(f"{path} is the result of another run; measure this one again: python -m rcnn.evaluate {run} --again")
    replace(tagger, settings=portable(tagger.settings)).save(folder)
    done = [f"{len(tagger.class_names)} classes, {'with' if tagger.cutoffs else 'without'} thresholds: {folder}"]
    (folder / ONNX).unlink(missing_ok=True)
    if onnx:
        from rcnn.tagging import onnx_file  # here, since it is not needed without

        exact = Tagger.of_run(run, *pairs, device="cpu", **{"evaluate.precision": "float32"})
        difference = onnx_file.write(replace(exact, cutoffs=tagger.cutoffs), folder / ONNX)
        done.append(f"{folder / ONNX}: its scores differ from ours by {difference:.1e} at most, on noise")
    with replace_file(folder / CARD) as file:
        file.write(card(tagger, result, metadata["identity"]["corpus"]).encode())
    return done


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser("export", __doc__, but=("learning", "rows", "metrics"))
    parser.add_argument("run", metavar="RUN", help="folder of a finished run of rcnn.train, or of Tagger.save")
    parser.add_argument("folder", metavar="FOLDER", help="what to write")
    parser.add_argument("pairs", nargs="*", metavar="key=value", help="configuration keys to set, such as clip.weights")
    parser.add_argument("--onnx", action="store_true", help="also write model.onnx (pip install '.[onnx]')")
    args = parser.parse_intermixed_args(argv)
    folder = Path(args.folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    for line in export(Path(args.run), folder, args.pairs, args.onnx):
        print(message(line), file=sys.stdout)


if __name__ == "__main__":
    cli.run(main)
