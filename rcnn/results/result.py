"""What an evaluation finds, as one versioned file: tables and pictures are made of it alone."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from rcnn.config import Config
from rcnn.files import replace_file

VERSION = 3  # of the file; raise it when a field changes its meaning


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Number(_Part):
    """A value in percent and the interval that holds 95 % of its resamples."""

    value: float
    interval: tuple[float, float] | None = None


class Metric(Number):
    """A metric of one row, and its differences on the same (resampled) images."""

    versus_baseline: Number | None = None  # to the plain class name, by the same scorer
    versus_plain: Number | None = None  # to the same row without MSSA


class TaskImages(_Part):
    """The images of one task."""

    images: int
    positives_per_image: float


class Images(_Part):
    """The images of an evaluation."""

    used: int
    left_out_without_labels: int
    missing: int
    unreadable: int
    tasks: dict[str, TaskImages]


class Result(_Part):
    """The result of one run on one data set."""

    version: int = VERSION
    made_from: str  # digest of all that the numbers depend on, but for this code
    method: str  # the row that is the run's result
    rows: dict[str, dict[str, dict[str, dict[str, Metric]]]]  # row -> scorer -> task -> metric
    labels: dict[str, dict[str, str]]  # row -> scorer -> what tables call it
    class_names: list[str]
    seen: int  # how many of them, from the front
    class_ap: dict[str, dict[str, dict[str, list[float]]]]  # row -> scorer -> task -> AP of its classes in percent
    decided_by_ties: dict[str, dict[str, dict[str, dict[str, int]]]]  # row -> scorer -> task -> k -> images
    coinciding: dict[str, list[list[str]]]  # row -> groups of classes whose embeddings are the same
    diagnostics: dict[str, dict[str, dict[str, dict[str, float]]]]  # row -> scorer -> task -> part -> mAP
    epochs: list[dict[str, Any]]  # {"epoch", task: {metric: value}}
    best_on_test: dict[str, dict[str, float]]  # task -> {"epoch", metric: value}
    images: Images
    comparable: bool  # with the paper's numbers
    doubts: list[str]  # why not
    learning: dict[str, Any]
    class_fingerprint: str
    corpus_fingerprint: str
    clip_fingerprint: str  # of the tensors, whatever file they came from
    weights_sha256: str  # of that file
    seed: int
    versions: dict[str, str]
    git_commit: str | None = None  # not in the file where there is none
    sources: dict[str, str]  # file of this package -> SHA-256
    config: dict[str, Any]
    seconds: dict[str, float]

    @field_validator("config")
    @classmethod
    def _known_options(cls, config):
        Config.model_validate(config)
        return config

    def save(self, path: str | Path) -> None:
        """Write the file."""
        with replace_file(path) as file:
            file.write((self.model_dump_json(indent=1, exclude_none=True) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> "Result":
        """Read the result file `path`, or that of the run in the folder `path`; ValueError if it is of another version."""
        path = Path(path)
        path = path / "result.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"there is no result file {path}; python -m rcnn.evaluate makes one")
        try:
            result = cls.model_validate_json(path.read_bytes())
        except ValidationError:
            raise ValueError(
                f"{path} is no result file of version {VERSION}; measure again: python -m rcnn.evaluate RUN --again"
            ) from None
        if result.version != VERSION:
            raise ValueError(f"{path} is a result file of version {result.version}, this code reads {VERSION}; measure again")
        return result

    @property
    def settings(self) -> Config:
        """The configuration."""
        return Config.model_validate(self.config)

    def label(self, row: str, scorer: str = "plain") -> str:
        """What tables call a row under a scorer; its key, if it has no label."""
        return self.labels.get(row, {}).get(scorer, row if scorer == "plain" else f"{row}, {scorer}")

    @property
    def dataset(self) -> str:
        """Key of the data set."""
        return self.settings.dataset.kind
