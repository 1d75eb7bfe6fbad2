"""What a configuration needs and what of it is there: `python -m rcnn.data check --config configs/coco.yaml`.

Looks at CLIP's weights (and fetches them if they are nowhere yet), the class lists, the text corpus, the labels and the
images, and says for each what is missing and the next command. The exit code is 0 if nothing is missing.
"""

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rcnn import cli, clip, config, datasets
from rcnn.files import file_sha256
from rcnn.progress import progress
from rcnn.score.views import batches
from rcnn.text import corpus
from rcnn.text.classes import ClassList


def check(settings: config.Config, decode: bool = False) -> bool:
    """Print one line for each part that a configuration needs; return whether nothing is missing.

    Args:
        settings: the whole configuration.
        decode: also decode every image.
    """
    good = _part("CLIP's weights", _weights, settings, "they are downloaded on first use, or set clip.weights=FILE")
    if not _part("classes", _classes, settings, "set classes.seen and classes.unseen"):
        return False
    good &= _part("text corpus", _corpus, settings, "python -m rcnn.describe makes one for any class list")
    if not settings.dataset.annotations:
        print("-        images and labels: none asked for (dataset.annotations is null)")
        return good
    look = partial(_images, decode=decode)
    return good & _part("images and labels", look, settings, datasets.DATASETS[settings.dataset.kind].missing)


def _part(name: str, look: Callable[[config.Config], str], settings: config.Config, hint: str = "") -> bool:
    """Print what `look` says of a part, or why it fails and the hint; return whether the part is there."""
    try:
        print(f"ok       {name}: {look(settings)}".replace("\n", "\n         "))
    except (OSError, ValueError) as error:
        print(f"MISSING  {name}: {error}\n{hint}".rstrip().replace("\n", "\n         "))
        return False
    return True


def _weights(settings: config.Config) -> str:
    path = clip.find_weights(settings.clip.model, settings.clip.pretrained, settings.clip.weights)
    return f"{path}, SHA-256 {file_sha256(path)}"


def _class_list(settings: config.Config) -> ClassList:
    return ClassList.read(settings.classes.seen, settings.classes.unseen)


def _classes(settings: config.Config) -> str:
    classes = _class_list(settings)
    return f"{classes.seen} seen, {len(classes) - classes.seen} unseen"


def _corpus(settings: config.Config) -> str:
    read = corpus.load(settings.corpus.path, _class_list(settings))
    return f"{settings.corpus.path}, {len(read.sentences):,} sentences, fingerprint {read.fingerprint[:16]}"


def _images(settings: config.Config, decode: bool = False) -> str:
    if not datasets.is_prepared(settings.dataset):
        return "not drawn yet, which the first training does"
    classes = _class_list(settings)
    images = datasets.read(settings.dataset, classes, settings.cache)
    lines = [f"{len(images.paths):,} images, {images.left_out:,} without a positive label not used"]
    if images.missing:
        named = ", ".join(images.missing[:10])
        lines.append(f"{len(images.missing):,} missing, which dataset.allow_missing lets pass: {named}")
    for task, first in classes.tasks.items():
        positive = images.labels[:, first:] == 1
        found, expected = int(positive.any(1).sum()), settings.dataset.expected(task)
        line = f"{task.upper()}: {found:,} images, {positive.sum().item() / max(found, 1):.3f} positives each"
        lines.append(line + (f"; EXPECTED {expected:,}" if expected not in (None, found) else ""))
    if decode:
        lines.append(broken_images(images.paths, settings.evaluate.workers, settings.dataset.allow_missing))
    return "\n".join(lines)


def broken_images(paths: Sequence[Path], workers: int, allowed: bool = False) -> str:
    """Decode every image; return a line on how many are fine, or which are broken.

    Args:
        paths: image files.
        workers: processes that decode.
        allowed: broken images are no error.

    Raises:
        ValueError: some cannot be read, and that is not allowed; their number and the first ten.
    """
    loader = progress(batches(paths, size=1, grids=(), batch_size=64, workers=workers), "decode", unit="batch")
    broken = [f"{paths[i]}: {why}" for batch in loader for i, why in batch.broken.items()]
    if not broken:
        return f"all {len(paths):,} decoded"
    listed = f"{len(broken)} of {len(paths)} images cannot be read:\n  " + "\n  ".join(broken[:10])
    if not allowed:
        raise ValueError(listed)
    return f"{listed}\n  which dataset.allow_missing lets pass"


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
