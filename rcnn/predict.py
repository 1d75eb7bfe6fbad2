"""Tag images with the classes of a run: `python -m rcnn.predict photos/ --run outputs/mini --top 5`.

From Python:

    from rcnn.predict import Tagger
    tagger = Tagger.load("outputs/mini")
    print(tagger.tag(["photo.jpg"], top=5))

Scores rank the classes of one image; they are cosines, not probabilities.
"""

import csv
import json
import sys
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from rcnn import checkpoint, cli, config
from rcnn.score import mssa
from rcnn.score.views import batches

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


class Tagger:
    """Class embeddings and the image encoder they belong to.

    Args:
        model: Clip.
        class_names: C names.
        class_embeddings: (C, D) unit vectors.
        counts: MSSA's snippets on a side; () for the plain score, which is faster.
        temperature: τ_s of the softmax over patches.
    """

    def __init__(self, model, class_names, class_embeddings, counts=(), temperature=mssa.TEMPERATURE):
        self.model, self.class_names, self.counts, self.temperature = model, list(class_names), tuple(counts), temperature
        self.class_embeddings = class_embeddings.to(model.device)

    @classmethod
    def load(cls, run, **overrides):
        """A tagger from the folder of a run.

        Args:
            run: folder that rcnn.train wrote.
            overrides: configuration keys to set, such as device="cuda" or **{"clip.weights": "moved.pt"}.

        Raises:
            FileNotFoundError, ValueError: no run, no weights, or not the weights the run was learned with.
        """
        rows, facts = checkpoint.read_run(run)
        settings = config.override(facts["config"], [f"{k}={json.dumps(v, default=str)}" for k, v in overrides.items()])
        model = cli.load_clip(settings, facts)
        return cls(model, facts["class_names"], rows[facts["method"]], settings.evaluate.counts, settings.evaluate.temperature)

    @torch.inference_mode()
    def stream(self, images, top=5, batch_size=8, workers=0):
        """Tag images batch by batch.

        Args:
            images: paths or PIL images.
            top: classes per image.
            batch_size: images at a time.
            workers: decoding processes.

        Yields:
            (index, tags, problem) in no promised order: tags is a list of (class name, score), best first; or None
            where the image cannot be read, and then problem says why.
        """
        if not 1 <= top <= len(self.class_names):
            raise ValueError(f"top: expected 1 to {len(self.class_names)} (the number of classes), got {top}")
        for batch in batches(images, self.model.image.image_size, self.counts, batch_size, workers, upright=True):
            for index, problem in batch.broken.items():
                yield index, None, problem
            if not batch.indices:
                continue
            features = self.model.encode_views(batch.pixels)
            scores = sum(mssa.score(features, self.class_embeddings, self.counts, self.temperature)) / 2
            cosines, columns = (best.tolist() for best in scores.topk(top, dim=1))
            for index, column, cosine in zip(batch.indices, columns, cosines, strict=True):
                yield index, [(self.class_names[c], s) for c, s in zip(column, cosine, strict=True)], None

    def tag(self, images, top=5):
        """Tags of each image: a list of (class name, score), best first.

        Args:
            images: paths or PIL images.
            top: classes per image.

        Raises:
            ValueError: an image cannot be read; says which.
        """
        if isinstance(images, str | Path | Image.Image):
            raise ValueError("images: expected a list of paths or PIL images, got a single one")
        out = [None] * len(images)
        for index, tags, problem in self.stream(images, top):
            if tags is None:
                raise ValueError(f"cannot read image {images[index]}: {problem}")
            out[index] = tags
        return out


def find_images(places):
    """Image files among `places`: files as they are, folders searched through."""
    found = []
    for place in map(Path, places):
        if place.is_dir():
            found += sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        elif place.is_file():
            found.append(place)
        else:
            raise FileNotFoundError(f"there is no image or folder {place}")
    if not found:
        raise FileNotFoundError(f"no images in {', '.join(map(str, places))}; looked for {' '.join(sorted(SUFFIXES))}")
    return found


def write_table(results, out):
    width = max((len(str(path)) for path, _ in results), default=0)
    for path, tags in results:
        print(str(path).ljust(width), "  ".join(f"{name} {score:.3f}" for name, score in tags), sep="  ", file=out)


def write_csv(results, out):
    writer = csv.writer(out)
    writer.writerow(["image", "rank", "class", "score"])
    for path, tags in results:
        writer.writerows([path, rank, name, f"{score:.6f}"] for rank, (name, score) in enumerate(tags, 1))


def write_json(results, out):
    entries = [
        {"image": str(path), "tags": [{"class": name, "score": round(score, 6)} for name, score in tags]}
        for path, tags in results
    ]
    print(json.dumps(entries, indent=1, ensure_ascii=False), file=out)


FORMATS = {"table": write_table, "csv": write_csv, "json": write_json}


def main(argv=None):
    parser = cli.parser("predict", __doc__, keys=None)
    parser.add_argument("images", nargs="+", metavar="IMAGES-OR-FOLDER", help="image files, or folders to search through")
    parser.add_argument("--run", required=True, metavar="RUN", help="folder of a finished run of rcnn.train")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes per image (default 5)")
    parser.add_argument("--format", choices=FORMATS, default="table", help="what to print (default table)")
    parser.add_argument("--no-mssa", action="store_true", help="score the full image alone: several times faster")
    parser.add_argument("--weights", metavar="FILE", help="CLIP weights, if they have moved since the run")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default auto)")
    args = parser.parse_intermixed_args(argv)
    paths = find_images(args.images)
    overrides = {"device": args.device} | ({"clip.weights": args.weights} if args.weights else {})
    if args.no_mssa:
        overrides["evaluate.counts"] = []
    tagger = Tagger.load(args.run, **overrides)
    tags, broken = {}, {}
    for index, found, problem in tqdm(tagger.stream(paths, args.top, workers=2), "tag", len(paths), delay=2, unit="image"):
        if found is None:
            broken[index] = problem
        else:
            tags[index] = found
    FORMATS[args.format]([(paths[i], tags[i]) for i in sorted(tags)], sys.stdout)
    for index, problem in sorted(broken.items()):
        print(f"skipped {paths[index]}: {problem}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    cli.run(main)
