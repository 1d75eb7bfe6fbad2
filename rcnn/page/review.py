"""Photos with the scores of all classes, the cut-offs as they stand, and which photos were judged: all but the page itself."""

import contextlib
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rcnn.collection import Collection, Source
from rcnn.tagging.cutoffs import FOLDS, Cutoffs, fit, label_free
from rcnn.tagging.labels import full_names
from rcnn.tagging.tags import TOP, Scored, ranked

PAGE = 48  # photos
BESIDE = 6  # photos that are shown on each side of a cut-off
BINS = 48  # of a histogram


class Review:
    """N photos, those that have scores of the C classes of a source; they are numbered in order."""

    def __init__(self, paths: Sequence[Path], source: Source, tick: Callable[[int, int], None] | None = None) -> None:
        """Take what is kept of the photos; with `tick`, which is told how many are done and of how many, score the others."""
        self.source = source
        with contextlib.closing(Collection(paths, source)) as collection:
            if tick:
                total = len(collection.missing)
                for done, _ in enumerate(collection.score(), 1):
                    tick(done, total)
                collection.open()  # its statistics are of all photos then
            answers, known, self.statistics = list(collection.kept()), collection.known, collection.statistics
            found, self.origin = collection.cutoffs()
        rows = [(paths[i], answer) for i, answer in answers if isinstance(answer, np.ndarray)]
        self.paths = [path for path, _ in rows]
        self.scores = np.stack([row for _, row in rows]) if rows else np.zeros((0, len(known.class_names)), np.float32)
        self.problems = {paths[i]: answer for i, answer in answers if isinstance(answer, str)}
        self.untagged = sum(answer is None for _, answer in answers)
        self.names = full_names(known.class_names, source.classes.notes) if source.classes else known.class_names
        self._first = found or Cutoffs(known.class_names, label_free(self.statistics), known.identity, {})
        self._fitted: dict[int, float] = {}  # cut-offs, by class
        self.judged: dict[tuple[int, int], bool] = {}  # whether photo i shows class c, by (i, c), as a person says
        self.by_hand: dict[int, float] = {}  # cut-offs that a person chose, by class
        self._are_few = found is None  # too few photos for cut-offs
        self._update()

    @property
    def identity(self) -> str:
        """Of the scores."""
        return self._first.identity

    @property
    def are_few(self) -> bool:
        """Whether there are no cut-offs, so that tags are the best of each photo."""
        return self._are_few and not self._fitted and not self.by_hand

    def resume(self, before: "Review") -> None:
        """Take over what a person said of these photos in a review of the same identity."""
        number = {path: i for i, path in enumerate(self.paths)}
        said = ((before.paths[i], column, present) for (i, column), present in before.judged.items())
        self.judged = {(number[path], column): present for path, column, present in said if path in number}
        self.by_hand = before.by_hand
        self._fit()

    def page(self, number: int) -> range:
        """The photos of a page; the first is 1."""
        return range((number - 1) * PAGE, min(number * PAGE, len(self.paths)))

    def tags(self, photo: int) -> Scored:
        """As rcnn.predict gives them with these cut-offs."""
        columns = ranked(self.scores[photo], None if self.are_few else self.thresholds, TOP if self.are_few else None)
        return list(zip(columns, self.scores[photo, columns].tolist(), strict=True))

    def histogram(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of photos (BINS,) with scores between (BINS + 1,) edges."""
        return np.histogram(self.scores[:, column].astype(float), BINS)  # float32 has no BINS numbers between some scores

    def around(self, column: int) -> tuple[list[int], list[int]]:
        """The photos just above, or at, the cut-off of a class, and just below; each with its best score first."""
        order = (-self.scores[:, column]).argsort(kind="stable")
        at = int((self.scores[:, column] >= self.thresholds[column]).sum())
        return order[max(0, at - BESIDE) : at].tolist(), order[at : at + BESIDE].tolist()

    def next(self, column: int) -> int | None:
        """The photo nearest to the cut-off that was not judged."""
        distance = abs(self.scores[:, column] - self.thresholds[column])
        distance[[i for i, c in self.judged if c == column]] = np.inf
        return None if np.isinf(distance).all() else int(distance.argmin())

    def judge(self, photo: int, column: int, present: bool) -> None:
        """A person says whether a photo shows a class; the cut-offs of all classes that were judged are fitted again."""
        self.judged[photo, column] = present
        self._fit()

    def _fit(self) -> None:
        self._fitted, (scores, labels, known) = {}, self._labels()
        if len(scores) >= FOLDS and labels.any():
            columns = known.any(0).nonzero()[0]  # the scores of others tell nothing
            parts = (part[:, columns] for part in (scores, labels, known))
            (scores, labels, known), statistics = parts, self.statistics.of(columns)
            thresholds, _ = fit(scores, labels, statistics, known=known)
            self._fitted = dict(zip(columns.tolist(), thresholds.tolist(), strict=True))
        self._update()

    def _labels(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the judged photos, in order: scores, what was accepted, and what was judged; each (n, C)."""
        rows = sorted({i for i, _ in self.judged})
        labels, known = np.zeros((2, len(rows), len(self.names)), bool)
        for (i, column), present in self.judged.items():
            at = bisect_left(rows, i), column
            labels[at], known[at] = present, True
        return self.scores[rows], labels, known

    def move(self, column: int, cutoff: float | None) -> None:
        """Set the cut-off of a class by hand; None takes that back."""
        self.by_hand.pop(column, None)
        if cutoff is not None:
            self.by_hand[column] = cutoff
        self._update()

    def _update(self) -> None:
        """Bring the thresholds up to date; classes that nobody judged keep theirs."""
        changed, self.thresholds = self._fitted | self.by_hand, self._first.thresholds.copy()
        self.thresholds[list(changed)] = list(changed.values())

    def basis(self, column: int) -> str:
        """What the cut-off of a class rests on."""
        own = [value for (_, c), value in self.judged.items() if c == column]
        photos, yes = len({i for i, _ in self.judged}), sum(own)
        said = f"{len(own)} judged photo{'s' * (len(own) != 1)} of this class ({yes} accepted)"
        if column in self.by_hand:
            return f"Set by hand. {said}."
        if own and self._fitted:
            more = "" if yes else "; with none accepted, it is that of all judged classes together"
            chance = "They lie near cut-offs and were not drawn by chance, so how good cut-offs are, only rcnn calibrate tells."
            return f"Fitted to {said} and {len(self.judged) - len(own)} judgements of other classes{more}. {chance}"
        if own and not any(self.judged.values()):
            return f"{said}: a fit needs one that is accepted."
        if own:
            return f"{said}: a fit needs {FOLDS} photos, {FOLDS - photos} more."
        return f"Not judged yet; {self.origin}."

    def save(self) -> Path:
        """Write the cut-offs to the file that rcnn.predict reads; ValueError if there are none."""
        if self.are_few:
            raise ValueError(f"there are no cut-offs to save: {self.origin}; or set one by hand")
        scores, labels, known = self._labels()
        made = self.source.tagger.fit(scores, labels, self.statistics, known=known) if self._fitted else self._first
        facts = {**made.facts, "by_hand": [self.names[column] for column in sorted(self.by_hand)]}
        replace(made, identity=self.identity, thresholds=self.thresholds, facts=facts).save(self.source.cutoffs)
        return self.source.cutoffs
