"""Photos and their scores: those that are kept from the store, the others by the tagger, batch by batch."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rcnn.files import open_regular
from rcnn.tagging.cutoffs import Statistics
from rcnn.tagging.source import Source
from rcnn.tagging.store import Answer, Photo, Store

CHUNK = 1024  # photos whose scores are in memory at a time


class Collection:
    """B photos, in order."""

    def __init__(self, paths: Sequence[Path], source: Source, rank: int = 0, world: int = 1) -> None:
        """Look what is kept of the photos.

        Args:
            paths: of the photos; this process, `rank` of `world`, scores its share of them.

        Raises:
            ValueError, OSError: there is no such tagger; a file of the store is damaged or cannot be written.
        """
        self.paths, self.source, self.rank, self.world = paths, source, rank, world
        self.photos = [_photo(path) for path in paths]
        noted = source.known()
        self.known = noted or source.learn()
        self.open()
        if noted and self.missing and (found := source.learn()) != noted:  # another device, or other weights of that name
            self.known = found
            self.open()

    def open(self, statistics: Statistics | None = None) -> None:
        """Look again what is kept, also by other processes, and count it in `statistics`."""
        self.close()
        process = f".{self.rank}-of-{self.world}" if self.world > 1 else ""
        folder = Path(self.source.settings.cache) / "tagged"
        self.store = Store(folder, self.known.identity, len(self.known.class_names), process)
        self.missing, chunk = [], []
        for i, photo in enumerate(self.photos):
            answer = photo if isinstance(photo, str) else self.store.get(photo)
            if answer is None:
                self.missing.append(i)
            if statistics:
                if not isinstance(answer, str | None):
                    chunk.append(answer)
                if chunk and (len(chunk) == CHUNK or i + 1 == len(self.photos)):
                    statistics.add(np.stack(chunk))
                    chunk = []

    def close(self) -> None:
        """Close the files of the store."""
        if hasattr(self, "store"):
            self.store.close()

    def score(self) -> Iterator[tuple[int, Answer]]:
        """Score what is missing of this process's share: (index, answer) of one photo after the other, once it is kept."""
        share = [i for i in self.missing if i % self.world == self.rank]
        if not share:
            return
        for indices, scores, broken in self.source.tagger.stream([self.paths[i] for i in share], **self.workload()):
            answers = {share[i]: row for i, row in zip(indices, scores.numpy(), strict=True)}
            answers |= {share[i]: problem for i, problem in broken.items()}
            kept = {i: a for i, a in answers.items() if not isinstance(a, str) or _lasts(self.paths[i], a)}
            self.store.put({self.photos[i]: answer for i, answer in kept.items()})
            yield from sorted(answers.items())

    def answers(self, score: bool = True) -> Iterator[tuple[int, Answer | None]]:
        """(index, answer) of all photos; what is missing is scored meanwhile, or else has no answer."""
        missing, fresh = set(self.missing), self.score() if score else None
        for i, photo in enumerate(self.photos):
            if isinstance(photo, str):
                yield i, photo
            elif i not in missing:
                yield i, self.store.get(photo)
            else:
                yield next(fresh) if fresh else (i, None)

    def workload(self) -> dict[str, int]:
        """Images at a time and processes that decode: as the settings say, or else what suits the device."""
        given = self.source.settings.evaluate
        chosen = {key: getattr(given, key) for key in ("batch_size", "workers") if key in given.model_fields_set}
        return self.source.tagger.workload(self.world) | chosen


def _photo(path: Path) -> Photo | str:
    try:
        return Photo.at(path)
    except OSError as error:  # it was there a moment ago
        return f"cannot be read: {error.strerror}"


def _lasts(path: Path, problem: str) -> bool:
    """Whether a problem is one of the photo, which stays until that is changed, and not one of this moment."""
    from rcnn.score.decoding import KILLED  # here, since it imports torch

    try:
        with open_regular(path) as file:
            os.read(file.fileno(), 1)
    except (OSError, ValueError):
        return False
    return problem != KILLED
