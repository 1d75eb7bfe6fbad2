"""The passes over the images that an evaluation of runs needs, and where their scores go."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rcnn import rows, runtime
from rcnn.clip import Clip
from rcnn.config import Config
from rcnn.datasets.images import ImageSet
from rcnn.files import digest
from rcnn.results.measure import IMAGES, known_labels
from rcnn.score import one_pass, tagclip_pass
from rcnn.score.one_pass import Clock
from rcnn.score.processes import Group
from rcnn.score.score_file import ScoredSet, ScoreFile
from rcnn.text.classes import ClassList


@dataclass
class Run:
    """A run that is to be measured."""

    settings: Config
    metadata: dict
    embeddings: dict[str, torch.Tensor]  # row -> (C, D), with those from elsewhere
    epochs: dict[int, torch.Tensor]
    sets: dict[str, ScoredSet]
    made_from: str = ""  # digest of all that its result depends on
    names: dict[str, str] | None = None  # of its sets in the score file that runs share

    @property
    def output(self) -> Path:
        return Path(self.settings.output)

    @property
    def path(self) -> Path:
        return self.output / "result.json"

    @property
    def kept(self) -> Path:
        return self.output / "scores_kept"


@dataclass(frozen=True)
class Common:
    """What the runs of an evaluation have in common."""

    images: ImageSet
    classes: ClassList
    load_clip: Callable[[], Clip]
    as_absent: dict[str, torch.Tensor]  # task -> (C,) classes whose unknown labels count as absent in average precision
    background: tuple[str, ...]  # names that compete with the classes in TagCLIP
    identity: dict[str, Any]  # what the scores of any set of class embeddings depend on
    sources: dict[str, str]  # of the code that measures
    group: Group
    again: bool  # whether scores that there may be are forgotten


@dataclass
class Pass:
    """A pass over the images: where its scores go, and what fills the opened file."""

    what: str
    file: ScoreFile
    fill: Callable[[list[int]], Clock]  # with the scores of these batches

    def run(self, common: Common) -> tuple[Clock, dict[int, str]]:
        """(Clock of this process, {image: why it cannot be read}), when all have done their share."""
        group = common.group
        if common.again:
            self.file.delete()
            group.barrier()  # else what another process has begun anew might be deleted, too
        if group.rank == 0:
            print(f"{self.what}; scores: {self.file.bytes / 1e9:.2f} GB in {self.file.folder}")
        todo = self.file.todo(group)
        self.file.open(todo)
        clock = self.fill(todo)
        return clock, self.file.close(group)


def tower_pass(runs: list[Run], common: Common) -> Pass:
    """The pass for all sets of the runs, in the first run's folder; those that several runs share are scored once."""
    sets, known, whole = {}, {}, set()  # known: what a set is -> its name
    for i, run in enumerate(runs):
        run.names, found = {}, digests(run.sets)
        for name, scored in run.sets.items():
            what = found[name], tuple(scored.scorers), scored.in_parts
            run.names[name] = known.setdefault(what, f"{i}/{name}" if i else name)
            sets.setdefault(run.names[name], scored)
        whole |= {(run.names[row], scorer) for row, scorer in standardised(run)}
        if run.settings.evaluate.keep_scores:
            whole |= {(run.names[row], scorer) for row in run.embeddings for scorer in run.sets[row].scorers}
    # scores of other code are not continued
    file = _score_file(runs[0], "scores", sets, common, [{"sets": digests(sets)}], whole)
    e = runs[0].settings.evaluate

    def fill(todo: list[int]) -> Clock:
        model = common.load_clip()
        if e.compile:
            model.image.compile()
        return one_pass.fill(file, todo, model, common.images.paths, sets, e)

    return Pass(f"{len(sets)} sets of class embeddings in one pass", file, fill)


def tagclip(run: Run, common: Common) -> Pass:
    """The pass of TagCLIP, which is of the classes alone."""
    e = run.settings.evaluate
    model = runtime.load_clip(run.settings, run.metadata)  # in float32, whatever the precision of the other pass
    texts = tagclip_pass.encode(model, common.classes, common.background, run.settings.cache)
    sets = tagclip_pass.sets(texts, rows.TAGCLIP, common.classes.tasks)
    of = [digest(texts.background.numpy().tobytes()), model.scale, digests(sets)]
    whole = {(name, scorer) for name, s in sets.items() for scorer in s.scorers} if e.keep_scores else ()
    # in a folder of its own: each file removes what is abandoned beside it
    file = _score_file(run, "tagclip_scores", sets, common, of, whole)
    given = model, common.images.paths, texts, common.classes.tasks, e
    return Pass("TagCLIP", file, lambda todo: tagclip_pass.fill(file, todo, *given))


def _score_file(run, folder, sets, common, identity, whole):
    """The ScoreFile of a pass; where labels are unknown, of what the metrics look at alone."""
    e, known, images, classes = run.settings.evaluate, None, common.images, common.classes
    identity = [*identity, common.identity, common.sources]
    if any((part == 0).any() for part in images.labels.split(IMAGES)):
        known = known_labels(images.labels, classes.tasks, e.top_k, common.as_absent)
        identity += [digest(known.columns.tobytes()), digest(known.starts.tobytes()), list(known.places)]
    sizes = len(images.paths), len(classes), e.batch_size
    return ScoreFile(run.output / folder, sets, *sizes, identity, known, whole)


def standardised(run: Run) -> list[tuple[str, str]]:
    """The (row, scorer) of a run of which standardised scores are measured too."""
    last = rows.method_scorer(run.settings.evaluate)
    wanted = run.settings.evaluate.standardised
    return [(row, last) for row in dict.fromkeys((rows.BASELINE, run.metadata["method"])) if wanted]


def digests(sets: dict[str, ScoredSet]) -> dict[str, str]:
    """{set: digest of its class embeddings}"""
    return {name: digest(s.class_embeddings.numpy().tobytes()) for name, s in sets.items()}
