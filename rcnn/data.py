"""What a configuration needs and what of it is there: `python -m rcnn.data check --config configs/coco.yaml`.

Looks at CLIP's weights (and fetches them if they are nowhere yet), the class lists, the text corpus, the labels and the
images, and says for each what is missing and the next command. The exit code is 0 if nothing is missing.
"""

import contextlib
import shlex
from collections.abc import Callable, Iterator, Sequence

from rcnn import cli, clip, config, datasets
from rcnn.files import file_sha256
from rcnn.progress import progress
from rcnn.score.views import batches
from rcnn.text import corpus
from rcnn.text.classes import ClassList


def check(settings: config.Config, decode: bool = False) -> bool:
    """Print for each part that a configuration needs what was found of it; return whether nothing is missing.

    Args:
        settings: the whole configuration.
        decode: also decode every image.
    """
    there = {}
    with _part(there, "CLIP's weights", "they are downloaded on first use, or set clip.weights=FILE") as say:
        path = clip.find_weights(settings.clip.model, settings.clip.pretrained, settings.clip.weights)
        say(f"{path}, SHA-256 {file_sha256(path)}")
    with _part(there, "classes", "set classes.seen and classes.unseen") as say:
        classes = ClassList.read(settings.classes.seen, settings.classes.unseen)
        say(f"{classes.seen} seen, {len(classes) - classes.seen} unseen")
    if not there["classes"]:
        return False
    with _part(there, "text corpus", "python -m rcnn.describe makes one for any class list") as say:
        read = corpus.load(settings.corpus.path, classes)
        say(f"{settings.corpus.path}, {len(read.sentences):,} sentences, fingerprint {read.fingerprint[:16]}")
    if not settings.dataset.annotations:
        print("-        images and labels: none asked for (dataset.annotations is null)")
        return all(there.values())
    with _part(there, "images and labels") as say:
        _count(settings, classes, decode, say)
    return all(there.values())


@contextlib.contextmanager
def _part(there: dict[str, bool], name: str, hint: str = "") -> Iterator[Callable[[str], None]]:
    """Print what the block says of a part; or, where it fails, why and the hint."""
    lines = []
    try:
        yield lines.append
        text = "\n".join(lines)
        print(f"ok       {name}: {text}".replace("\n", "\n         "))
        there[name] = True
    except (OSError, ValueError) as error:
        print(f"MISSING  {name}: {error}\n{hint}".rstrip().replace("\n", "\n         "))
        there[name] = False


def _count(settings: config.Config, classes: ClassList, decode: bool, say: Callable[[str], None]) -> None:
    """Say how many images and labels there are, and whether all images can be read."""
    images = datasets.read(settings.dataset, classes, settings.cache)
    say(f"{len(images.paths):,} images, {images.left_out:,} without a positive label not used")
    if images.missing:
        say(f"{len(images.missing):,} missing, which dataset.allow_missing lets pass: {', '.join(images.missing[:10])}")
    for task, first in classes.tasks.items():
        positive = images.labels[:, first:] == 1
        found, expected = int(positive.any(1).sum()), settings.dataset.expected_images.get(task)
        line = f"{task.upper()}: {found:,} images, {positive.sum().item() / max(found, 1):.3f} positives each"
        say(line + (f"; EXPECTED {expected:,}" if expected not in (None, found) else ""))
    if not decode:
        return
    loader = batches(images.paths, size=1, grids=(), batch_size=64, workers=settings.evaluate.workers)
    seen = progress(loader, "decode", unit="batch")
    broken = [f"{images.paths[i]}: {why}" for batch in seen for i, why in batch.broken.items()]
    listed = f"{len(broken)} of {len(images.paths)} images cannot be read:\n  " + "\n  ".join(broken[:10])
    if broken and not settings.dataset.allow_missing:
        raise ValueError(listed)
    say(f"{listed}\n  which dataset.allow_missing lets pass" if broken else f"all {len(images.paths):,} decoded")


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
