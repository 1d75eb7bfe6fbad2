"""What an evaluation finds, as one versioned file: tables and pictures are made of it alone."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from rcnn.config import Config
from rcnn.files import read_json, sealed, unseal, write_json
from rcnn.printing import explain, short

VERSION = 5  # of the file; raise it when a field changes its meaning
STANDARDISED = "/standardised"  # after the key of a row, for its standardised scores


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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


class TaskClasses(_Part):
    """The classes of one task by their labels on its images."""

    scored: int  # all
    known: int  # with a known label; the others are in no mean
    positive: int  # with a positive label
    positive_or_unknown: int  # with both, and no absent one: `evaluate.unknown` decides on these alone


class Images(_Part):
    """The images of an evaluation."""

    used: int
    left_out_without_labels: int
    missing: int
    unreadable: int
    unverified: str = ""  # what of the labels could not be verified, in words
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
    class_ap: dict[str, dict[str, dict[str, list[float | None]]]]  # row -> scorer -> task -> AP in percent; null: not in mAP
    decided_by_ties: dict[str, dict[str, dict[str, dict[str, int]]]]  # row -> scorer -> task -> k -> images
    coinciding: dict[str, list[list[str]]]  # row -> groups of classes whose embeddings are the same
    diagnostics: dict[str, dict[str, dict[str, dict[str, float]]]]  # row -> scorer -> task -> part -> mAP
    epochs: list[dict[str, Any]]  # {"epoch", task: {metric: value}}
    best_on_test: dict[str, dict[str, float]]  # task -> {"epoch", metric: value}
    images: Images
    classes: dict[str, TaskClasses]
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

    @model_validator(mode="after")
    def _has_the_rows_it_speaks_of(self):
        if not self.rows.get(self.method) or not all(tasks for scorers in self.rows.values() for tasks in scorers.values()):
            raise ValueError(f"it has no numbers of its row {short(self.method)}")
        spoken_of = [*self.rows.values(), *self.decided_by_ties.values()]
        if strange := {task for scorers in spoken_of for tasks in scorers.values() for task in tasks} - set(self.images.tasks):
            raise ValueError(f"it has numbers, and no images, of the task {short(min(strange))}")
        return self

    def save(self, path: str | Path) -> None:
        """Write the file, with its checksum."""
        write_json(path, sealed(self.model_dump(mode="json", exclude_none=True)))

    @classmethod
    def load(cls, path: str | Path) -> "Result":
        """Read the result file `path`, or that of the run in the folder `path`.

        Raises:
            FileNotFoundError, ValueError: there is none, or one of another version, or one that was damaged or changed.
        """
        path = Path(path)
        path = path / "result.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"there is no result file {path}; python -m rcnn.evaluate makes one")
        try:
            value = read_json(path)
            if isinstance(value, dict) and value.get("version") != VERSION:
                raise ValueError(f"{path} is no result file of version {VERSION}, but of {short(value.get('version'))}")
            return cls.model_validate(unseal(path, value))
        except ValueError as error:
            why = f"{path} is no result file: {explain(error)}" if isinstance(error, ValidationError) else error
            raise ValueError(f"{why}; measure again: python -m rcnn.evaluate RUN --again") from None

    @property
    def settings(self) -> Config:
        """The configuration."""
        return Config.model_validate(self.config)

    def label(self, row: str, scorer: str = "plain") -> str:
        """What tables call a row under a scorer; its key, if it has no label."""
        return self.labels.get(row, {}).get(scorer, row if scorer == "plain" else f"{row}, {scorer}")

    @property
    def scorer(self) -> str:
        """Key of the scorer that counts, by which the method's numbers are the run's."""
        return list(self.rows[self.method])[-1]

    @property
    def dataset(self) -> str:
        """Key of the data set."""
        return self.settings.dataset.kind
