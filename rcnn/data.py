"""What a configuration needs and what of it is there: `python -m rcnn.data check --config configs/coco.yaml`.

Looks at CLIP's weights (and fetches them if they are nowhere yet), the class lists, the text corpus, the labels and the
images, and says for each what is missing and the next command. The exit code is 0 if nothing is missing.
"""

import shlex
from collections.abc import Iterator, Sequence

from rcnn import cli, clip, config
from rcnn.datasets import DATASETS
from rcnn.datasets.images import read_images
from rcnn.files import file_sha256
from rcnn.printing import lossless, message, printable
from rcnn.progress import progress
from rcnn.score.views import batches
from rcnn.text import corpus
from rcnn.text.classes import ClassList


def check(settings: config.Config, decode: bool = False) -> bool:
    """Print what a configuration needs and what of it is there, with `decode` reading every image; return whether all is."""
    parts = [
        ("CLIP's weights", "they are downloaded on first use, or set clip.weights=FILE", _weights),
        ("classes", "set classes.seen and classes.unseen", _classes),
        ("text corpus", "python -m rcnn.describe makes one for any class list", _corpus),
    ]
    if settings.dataset.annotations:
        parts.append(("images and labels", "", lambda settings: "\n".join(_images(settings, decode))))
    missing = []
    for name, hint, look in parts:
        try:
            state, text = "ok", look(settings)
        except (OSError, ValueError) as error:
            state, text = "MISSING", f"{message(str(error))}\n{hint}".rstrip()
            missing.append(name)
        print(f"{state:8} {name}:", "\n         ".join(map(printable, text.split("\n"))))
        if "classes" in missing:
            return False  # the other parts depend on them
    if not settings.dataset.annotations:
        print("-        images and labels: none asked for (dataset.annotations is null)")
    return not missing


def _weights(settings: config.Config) -> str:
    path = clip.find_weights(settings.clip.model, settings.clip.pretrained, settings.clip.weights)
    return f"{path}, SHA-256 {file_sha256(path)}"


def _classes(settings: config.Config) -> str:
    classes = ClassList.read(settings.classes.seen, settings.classes.unseen)
    return f"{classes.seen} seen, {len(classes) - classes.seen} unseen"


def _corpus(settings: config.Config) -> str:
    if not settings.corpus.path:
        return "none (corpus.path is null): only the rows that need no descriptions are made"
    read = corpus.load(settings.corpus.path, ClassList.read(settings.classes.seen, settings.classes.unseen))
    return f"{settings.corpus.path}, {len(read.sentences):,} sentences, fingerprint {read.fingerprint[:16]}"


def _images(settings: config.Config, decode: bool) -> Iterator[str]:
    classes = ClassList.read(settings.classes.seen, settings.classes.unseen)
    images = read_images(settings.dataset, classes, settings.cache)
    yield f"{len(images.paths):,} images, {images.left_out:,} without a positive label not used"
    if images.missing:
        yield f"{len(images.missing):,} missing, which dataset.allow_missing lets pass: {', '.join(images.missing[:10])}"
    for what, expected in DATASETS[settings.dataset.kind].counts.items():
        if images.counts[what] != expected:
            yield f"{images.counts[what]:,} {what}; EXPECTED {expected:,}"
    if images.unverified:
        yield f"not verified: {images.unverified}"
    for task, first in classes.tasks.items():
        positive = images.labels[:, first:] == 1
        found, expected = int(positive.any(1).sum()), settings.dataset.expected_images.get(task)
        line = f"{task.upper()}: {found:,} images, {positive.sum().item() / max(found, 1):.3f} positives each"
        yield line + (f"; EXPECTED {expected:,}" if expected not in (None, found) else "")
    if decode:
        e = settings.evaluate
        loader = batches(images.paths, 1, grids=(), batch_size=64, workers=e.workers, max_pixels=e.max_pixels)
        decoded = progress(loader, "decode", unit="batch")
        broken = [f"{lossless(str(images.paths[i]))}: {why}" for batch in decoded for i, why in batch.broken.items()]
        listed = f"{len(broken)} of {len(images.paths)} images cannot be read:\n  " + "\n  ".join(broken[:10])
        if broken and not settings.dataset.allow_missing:
            raise ValueError(listed)
        yield f"{listed}\n  which dataset.allow_missing lets pass" if broken else f"all {len(images.paths):,} decoded"


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser("data", __doc__)
    parser.add_argument("action", choices=["check"], help="what to do")
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML configuration; see configs/")
    parser.add_argument("--decode", action="store_true", help="also decode every image")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="configuration keys to set")
    args = parser.parse_intermixed_args(argv)
    complete = check(config.load(args.config, args.overrides), args.decode)
    if complete:
        print(f"next: python -m rcnn.train --config {shlex.join([args.config, *args.overrides])}")
    return 0 if complete else 1


if __name__ == "__main__":
    cli.run(main)
