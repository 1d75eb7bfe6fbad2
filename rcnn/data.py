"""What a configuration needs and what of it is there: `python -m rcnn.data check --config configs/coco.yaml`.

Looks at CLIP's weights (and fetches them if they are nowhere yet), the class lists, the text corpus, the labels and the
images, and says for each what is missing and the next command. The exit code is 0 if everything is there.
"""

from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from rcnn import cli, clip, config, evaluate
from rcnn.files import file_sha256
from rcnn.text import corpus
from rcnn.text.classes import ClassList

HINTS = {
    "coco": "python scripts/prepare_coco.py downloads MS-COCO, or links a copy (--folder)",
    "nuswide": "python scripts/prepare_nuswide.py says what to get, or links a copy (--folder)",
    "mini": "python -m rcnn.train --config configs/mini.yaml draws it",
}


def check(settings, decode=False):
    """Print one line for each part that a Config needs; return whether all are there."""
    good = True
    classes = None

    def part(name, look, hint):
        nonlocal good
        try:
            print(f"ok       {name}: {look()}")
        except (OSError, ValueError) as error:
            good = False
            print(f"MISSING  {name}: {error}\n{hint}".replace("\n", "\n         "))

    def weights():
        path = clip.find_weights(settings.clip.model, settings.clip.pretrained, settings.clip.weights)
        return f"{path}, SHA-256 {file_sha256(path)}"

    def lists():
        nonlocal classes
        classes = ClassList.read(settings.classes.seen, settings.classes.unseen)
        return f"{classes.seen} seen, {len(classes) - classes.seen} unseen"

    def text():
        read = corpus.load(settings.corpus.path, classes)
        return f"{settings.corpus.path}, {len(read.sentences):,} sentences, fingerprint {read.fingerprint[:16]}"

    def labels():
        images = evaluate.read_dataset(settings, classes)
        lines = [f"{len(images.paths):,} images, {images.left_out:,} without a positive label not used"]
        if images.missing:
            lines.append(
                f"{len(images.missing):,} missing, which dataset.allow_missing lets pass: {', '.join(images.missing[:10])}"
            )
        for task, first in classes.tasks.items():
            positive = images.labels[:, first:] == 1
            count = int(positive.any(1).sum())
            line = f"{task.upper()}: {count:,} images, {positive.sum().item() / max(count, 1):.3f} positives each"
            expected = settings.dataset.expected(task)
            lines.append(line + (f"; EXPECTED {expected:,}" if expected not in (None, count) else ""))
        if decode:
            lines.append(broken_images(images.paths, settings.evaluate.workers, settings.dataset.allow_missing))
        return "\n         ".join(lines)

    part("CLIP's weights", weights, "they are downloaded on first use, or set clip.weights=FILE")
    part("classes", lists, "set classes.seen and classes.unseen")
    if classes is None:
        return False
    part("text corpus", text, "python -m rcnn.describe makes one for any class list")
    if settings.dataset.annotations:
        part("images and labels", labels, HINTS[settings.dataset.kind])
    else:
        print("-        images and labels: none asked for (dataset.annotations is null)")
    return good


def broken_images(paths, workers, allowed=False):
    """Decode every image; returns how many are fine, or ValueError with those that are not, unless that is `allowed`."""
    loader = torch.utils.data.DataLoader(_Decoded(paths), 64, num_workers=workers, collate_fn=_reasons)
    broken = [why for batch in tqdm(loader, "decode", unit="batch", delay=2) for why in batch]
    if broken:
        said = f"{len(broken)} of {len(paths)} images cannot be read:\n  " + "\n  ".join(broken[:10])
        if allowed:
            return f"{said}\n  which dataset.allow_missing lets pass"
        raise ValueError(said)
    return f"all {len(paths):,} decoded"


def _reasons(items):
    """Those of a batch that are not None; a function of the module, so that worker processes can be started anew."""
    return [item for item in items if item]


class _Decoded(torch.utils.data.Dataset):
    """Why an image cannot be decoded, or None."""

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        try:
            with Image.open(self.paths[index]) as image:
                image.load()
        except Exception as error:  # Pillow's decoders raise nearly every kind for a bad file
            return f"{self.paths[index]}: {error or type(error).__name__}"
        return None


def main(argv=None):
    parser = cli.parser("data", __doc__)
    parser.add_argument("action", choices=["check"], help="what to do")
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML configuration; see configs/")
    parser.add_argument("--decode", action="store_true", help="also decode every image")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="configuration keys to set")
    args = parser.parse_intermixed_args(argv)
    complete = check(config.load(args.config, args.overrides), args.decode)
    if complete:
        print(f"next: python -m rcnn.train --config {Path(args.config)}")
    return 0 if complete else 1


if __name__ == "__main__":
    cli.run(main)
