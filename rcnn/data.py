"""What a configuration needs and what of it is there: `python -m rcnn.data check --config configs/coco.yaml`.

Looks at CLIP's weights (and fetches them if they are nowhere yet), the class lists, the text corpus, the labels and the
images, and says for each what is missing and the next command. The exit code is 0 if nothing is missing.
"""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image

from rcnn import cli, clip, config, datasets
from rcnn.files import file_sha256
from rcnn.progress import progress
from rcnn.text import corpus
from rcnn.text.classes import ClassList


def check(settings: config.Config, decode: bool = False) -> bool:
    """Print one line for each part that a configuration needs; return whether nothing is missing.

    Args:
        settings: the whole configuration.
        decode: also decode every image.
    """
    good = True
    classes = None

    def part(name: str, look: Callable[[], str], hint: str = "") -> None:
        nonlocal good
        try:
            print(f"ok       {name}: {look()}")
        except (OSError, ValueError) as error:
            good = False
            print(f"MISSING  {name}: {error}\n{hint}".rstrip().replace("\n", "\n         "))

    def weights() -> str:
        path = clip.find_weights(settings.clip.model, settings.clip.pretrained, settings.clip.weights)
        return f"{path}, SHA-256 {file_sha256(path)}"

    def lists() -> str:
        nonlocal classes
        classes = ClassList.read(settings.classes.seen, settings.classes.unseen)
        return f"{classes.seen} seen, {len(classes) - classes.seen} unseen"

    def text() -> str:
        read = corpus.load(settings.corpus.path, classes)
        return f"{settings.corpus.path}, {len(read.sentences):,} sentences, fingerprint {read.fingerprint[:16]}"

    def labels() -> str:
        images = datasets.read(settings.dataset, classes, settings.cache)
        lines = [f"{len(images.paths):,} images, {images.left_out:,} without a positive label not used"]
        if images.missing:
            lines.append(
                f"{len(images.missing):,} missing, which dataset.allow_missing lets pass: {', '.join(images.missing[:10])}"
            )
        for task, first in classes.tasks.items():
            positive = images.labels[:, first:] == 1
            found, expected = int(positive.any(1).sum()), settings.dataset.expected_images.get(task)
            line = f"{task.upper()}: {found:,} images, {positive.sum().item() / max(found, 1):.3f} positives each"
            lines.append(line + (f"; EXPECTED {expected:,}" if expected not in (None, found) else ""))
        if decode:
            lines.append(broken_images(images.paths, settings.evaluate.workers, settings.dataset.allow_missing))
        return "\n         ".join(lines)

    part("CLIP's weights", weights, "they are downloaded on first use, or set clip.weights=FILE")
    part("classes", lists, "set classes.seen and classes.unseen")
    if classes is None:
        return False
    part("text corpus", text, "python -m rcnn.describe makes one for any class list")
    if settings.dataset.annotations:
        part("images and labels", labels)
    else:
        print("-        images and labels: none asked for (dataset.annotations is null)")
    return good


def broken_images(paths: Sequence[Path], workers: int, allowed: bool = False) -> str:
    """Decode every image.

    Args:
        paths: image files.
        workers: processes that decode.
        allowed: broken images are no error.

    Returns:
        a line on how many are fine, or which are broken.

    Raises:
        ValueError: some cannot be read, and that is not allowed; their number and the first ten.
    """
    loader = torch.utils.data.DataLoader(_Decoded(paths), 64, num_workers=workers, collate_fn=_reasons)
    broken = [why for batch in progress(loader, "decode", unit="batch") for why in batch]
    if not broken:
        return f"all {len(paths):,} decoded"
    listed = f"{len(broken)} of {len(paths)} images cannot be read:\n  " + "\n  ".join(broken[:10])
    if not allowed:
        raise ValueError(listed)
    return f"{listed}\n  which dataset.allow_missing lets pass"


def _reasons(items: Sequence[str | None]) -> list[str]:
    """Those of a batch that are not None; a function of the module, so that it is picklable."""
    return [item for item in items if item]


class _Decoded(torch.utils.data.Dataset):
    """Why an image cannot be decoded, or None."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> str | None:
        try:
            with Image.open(self.paths[index]) as image:
                image.load()
        except Exception as error:  # Pillow's decoders raise nearly every kind for a bad file
            return f"{self.paths[index]}: {error or type(error).__name__}"
        return None


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
