"""The data sets: one entry each, from which everything else that lists data sets takes it.

A new one is an entry here and, if its format is new, a module rcnn/datasets/<reader>.py, imported when it is used, with

    find(annotations, images, classes)   {name: path} of the files with its labels, or FileNotFoundError
    labels(files, classes)               (B file names of images, (B, C) int8 labels in {1, -1, 0 = unknown})
    counts(files)                        {what: how many} of what the files name beside the B images
    unverified(files, classes)           what of the labels the files cannot prove, in words, or ""
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set before its files are opened; the paper's numbers are None where the paper does not use it."""

    title: str  # in tables and messages
    reader: str  # module of this package that reads its files
    missing: str  # what to do where its files are not there
    class_names_sha256: str | None = None  # ClassList.fingerprint of data/<key>/seen.txt and unseen.txt, the paper's classes
    positives_per_image: Mapping[str, float] | None = None  # task -> positive labels on average: 3P/R of the paper's rows
    counts: Mapping[str, int] = field(default_factory=dict)  # what its official files name, compared with ImageSet.counts
    background: tuple[str, ...] = ()  # names that compete with its classes in TagCLIP


COCO_BACKGROUND = (  # of TagCLIP's authors
    "ground", "land", "grass", "tree", "building", "wall", "sky", "lake", "water", "river", "sea", "railway", "railroad",
    "helmet", "cloud", "house", "mountain", "ocean", "road", "rock", "street", "valley", "bridge",
)  # fmt: skip
DATASETS = {
    "coco": Dataset(
        title="MS-COCO",
        reader="coco",
        missing="python scripts/prepare_coco.py downloads MS-COCO, or links a copy (--folder)",
        class_names_sha256="ecbc24512f24f1eeb0a8b5a490f6e4d172c744d35430babfd34702d30de36761",
        positives_per_image={"zsl": 1.208, "gzsl": 2.571},
        background=COCO_BACKGROUND,
    ),
    "nuswide": Dataset(
        title="NUS-WIDE",
        reader="nuswide",
        missing="python scripts/prepare_nuswide.py --help says what to get; with --folder it links a copy",
        class_names_sha256="a9e9cc595a3748e34f7d9afece0bee1cd552842ade62b558ba6af53a47343d3d",
        positives_per_image={"zsl": 2.414, "gzsl": 6.9},
        counts={"test images": 107_859, "images in all": 269_648, "tags in the official order": 1000},
    ),
    "openimages": Dataset(
        title="Open Images",
        reader="openimages",
        missing="python scripts/prepare_openimages.py downloads Open Images' test set, or links a copy (--folder)",
        class_names_sha256="27e3b00a9b94440a0552343b5cdab48da5efdb85bed3d714056a02c395e0154e",
        positives_per_image={"zsl": 1.286, "gzsl": 8.694},
        counts={"test images": 125_436, "labels": 1_667_399},
    ),
    "mini": Dataset(title="mini benchmark", reader="coco", missing="python scripts/draw_mini.py draws it"),
}
