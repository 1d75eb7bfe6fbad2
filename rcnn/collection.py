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

CHUNK = 1024  # photos whose scores are in memory at a time


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
        self.open(merge=merge)
        if noted and self.missing and (found := source.learn()) != noted:  # another device, or other weights of that name
            self.known = found
            self.open(merge=merge)

    def open(self, statistics: Statistics | None = None, merge: Sequence[str] = ()) -> None:
        """Look again what is kept, also by other processes, and count it in `statistics`."""
        self.close()
        process = f".{self.rank}-of-{self.world}" if self.world > 1 else ""
        folder = Path(self.source.settings.cache) / "tagged"
        self.store = Store(folder, self.known.identity, len(self.known.class_names), process)
        for path in merge if self.rank == 0 else ():
            self.store.merge(path)
        self.missing, chunk = [], []
        for i, answer in self.answers(score=False):
            if answer is None:
                self.missing.append(i)
            elif isinstance(answer, np.ndarray) and statistics:
                chunk.append(answer)
                if len(chunk) == CHUNK:
                    statistics.add(np.stack(chunk))
                    chunk = []
        if chunk:
            statistics.add(np.stack(chunk))

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
        for i, photo in enumerate(self.photos):
            if i in self.problems:
                yield i, self.problems[i]
            else:
                yield next(fresh) if i in missing else (i, self.store.get(photo))

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
