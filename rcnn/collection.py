"""Photos and their scores: those that are kept from the store, the others by the tagger, batch by batch."""

import operator
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rcnn.files import open_regular
from rcnn.source import Source
from rcnn.tagging.cutoffs import Statistics
from rcnn.tagging.store import Answer, Photo, Store

CHUNK = 500  # photos whose scores are in memory at a time


class Collection:
    """B photos, in order."""

    def __init__(self, paths: Sequence[Path], source: Source, rank: int = 0, world: int = 1, merge: Sequence[str] = ()) -> None:
        """Look what is kept of the photos.

        Args:
            paths: of the photos; this process, `rank` of `world`, scores its share of them.
            merge: stores of other machines; what they keep is taken over.

        Raises:
            ValueError, OSError: there is no such tagger; a file of the store is damaged or cannot be written.
        """
        self.paths, self.source, self.rank, self.world = paths, source, rank, world
        self.photos, self.problems = [], {}  # by index, of photos that may be read the next time
        for i, path in enumerate(paths):
            try:
                self.photos.append(Photo.at(path))
            except OSError as error:  # it was there a moment ago
                self.photos.append(None)
                self.problems[i] = f"cannot be read: {error.strerror}"
        noted = source.known()
        self.known = noted or source.learn()
        self.open(merge)
        if noted and self.missing and (found := source.learn()) != noted:  # another device, or other weights of that name
            self.known = found
            self.open(merge)

    def open(self, merge: Sequence[str] = ()) -> None:
        """Look again what is kept, also by other processes."""
        self.close()
        process = f".{self.rank}-of-{self.world}" if self.world > 1 else ""
        self.store = Store(self.source.folder, self.known.identity, len(self.known.class_names), process)
        for path in merge if self.rank == 0 else ():
            self.store.merge(path)
        self.missing, self.statistics = [], Statistics(len(self.known.class_names))  # of the scores that are kept
        for indices in self._chunks():
            kept = self._kept(indices)
            self.missing += [i for i, answer in kept.items() if answer is None]
            if rows := [answer for answer in kept.values() if isinstance(answer, np.ndarray)]:
                self.statistics.add(np.stack(rows))

    @property
    def share(self) -> list[int]:
        """What is missing and for this process to score; all agree on it, although some may have begun before others."""
        return [i for i in self.missing if i % self.world == self.rank]

    def close(self) -> None:
        """Close the files of the store."""
        if hasattr(self, "store"):
            self.store.close()

    def score(self) -> Iterator[tuple[int, Answer]]:
        """Score what is missing of this process's share: (index, answer) of one photo after the other, once it is kept."""
        if not (share := self.share):
            return
        for indices, scores, broken in self.source.tagger.stream([self.paths[i] for i in share], **self.workload()):
            answers: dict[int, Answer] = {share[i]: row for i, row in zip(indices, scores.numpy(), strict=True)}
            for i, problem in broken.items():
                answers[share[i]] = problem
                if not _lasts(self.paths[share[i]], problem):
                    self.problems[share[i]] = problem
            self.store.put({self.photos[i]: answer for i, answer in answers.items() if i not in self.problems})
            yield from sorted(answers.items(), key=operator.itemgetter(0))

    def answers(self, score: bool) -> Iterator[tuple[int, Answer | None]]:
        """(index, answer) of all photos; what is missing is scored meanwhile, or else has no answer."""
        missing, fresh = set(self.missing) if score else (), self.score()
        for indices in self._chunks():
            kept = self._kept(indices)
            for i in indices:
                yield next(fresh) if i in missing else (i, kept[i])

    def _chunks(self) -> Iterator[range]:
        return (range(start, min(start + CHUNK, len(self.paths))) for start in range(0, len(self.paths), CHUNK))

    def _kept(self, indices: range) -> dict[int, Answer | None]:
        readable = [i for i in indices if i not in self.problems]
        kept = dict(zip(readable, self.store.get([self.photos[i] for i in readable]), strict=True))
        return {i: self.problems[i] if i in self.problems else kept[i] for i in indices}

    def workload(self) -> dict[str, int]:
        """Images at a time and processes that decode: as the settings say, or else what suits the device."""
        given = self.source.settings.evaluate
        chosen = {key: getattr(given, key) for key in ("batch_size", "workers") if key in given.model_fields_set}
        return self.source.tagger.workload(self.world) | chosen


def _lasts(path: Path, problem: str) -> bool:
    """Whether a problem is one of the photo, which stays until that is changed, and not one of this moment."""
    from rcnn.score.decoding import KILLED  # here, since it imports torch

    try:
        with open_regular(path) as file:
            os.read(file.fileno(), 1)
    except (OSError, ValueError):
        return False
    return problem != KILLED
