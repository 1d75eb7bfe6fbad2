"""Photos and their scores: those that are kept from the store, the others by the tagger of a run or of class names.

What a tagger is known by is noted in a small file, so that photos whose scores are kept need neither CLIP's weights nor torch.
"""

import argparse
import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rcnn import config, hub, provenance
from rcnn.files import digest, open_regular, read_json, sealed, unseal, write_json
from rcnn.tagging.cutoffs import CUTOFFS, FEWEST, Cutoffs, Statistics, label_free
from rcnn.tagging.store import Answer, Photo, Store
from rcnn.text.classes import ClassList

if TYPE_CHECKING:
    from rcnn.tagger import Tagger

VOCABULARIES = ("coco", "nuswide", "openimages")  # class lists that ship, by the names of their folders in data/
DATA = Path(__file__).parents[1] / "data"  # of a checkout
CHUNK = 500  # photos whose scores are in memory at a time
# keys that only learning reads; the seed, which shapes other things too, may be given
SETTLED = [known.key for known in config.options() if known.shapes in ("learning", "rows") and known.key != "seed"]


@dataclass(frozen=True)
class Known:
    """What tagging needs to know of a tagger when the scores of all photos are kept."""

    identity: str  # of the tagger
    class_names: list[str]
    coinciding: list[list[str]]  # groups of classes that no score can tell apart


def source_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add the arguments of a `Source`, at most one of which is to be given."""
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument("--run", metavar="RUN", help="folder of a finished run, or of rcnn export; or hf://user/repo")
    of_lists = f"text file with one class name a line, or {', '.join(VOCABULARIES)}"
    group.add_argument("--classes", metavar="FILE", help=of_lists)


class Source:
    """What photos are tagged by: a run, or class names with descriptions where there are some; and the settings."""

    def __init__(self, run: str | None, classes: str | None, pairs: Sequence[str] = ()) -> None:
        """Exactly one of `run` and `classes`; `pairs` are configuration keys to set.

        Args:
            run: a folder, or one of rcnn.export on the hub, hf://user/repo.
            classes: a file, or one of VOCABULARIES.

        Raises:
            FileNotFoundError, ValueError: no such class list or vocabulary, or one that is none; a key that is not read.
        """
        for key in (pair.partition("=")[0] for pair in pairs):
            if any(f"{settled}.".startswith(f"{key}.") for settled in SETTLED):
                raise ValueError(f"{key}: tagging does not read this; python -m rcnn.train does")
        self.run, self.pairs = hub.local(run, pairs) if run else (None, list(pairs))
        self.settings = config.override({}, self.pairs)
        self.folder = Path(self.settings.cache) / "tagged"  # where scores are kept
        self.classes = self.corpus = None
        if run:
            self.cutoffs = self.run / CUTOFFS
            return
        if classes in VOCABULARIES:
            folder = DATA / classes
            if not (folder / "seen.txt").is_file():
                raise FileNotFoundError(
                    f"the class list {classes} is in data/ of a checkout of the project, and there is no {folder}; "
                    "pip install -e . in a checkout, or name a file (./coco for one of that name)"
                )
            self.classes = ClassList.read(folder / "seen.txt", folder / "unseen.txt")
            self.cutoffs, corpus = folder / CUTOFFS, folder / "corpus.json"
        else:
            path = Path(classes)
            self.classes = ClassList.read(unseen=path)
            self.cutoffs, corpus = path.with_suffix(".cutoffs.json"), path.with_suffix(".corpus.json")
        self.corpus = corpus if corpus.is_file() else None

    @functools.cached_property
    def tagger(self) -> "Tagger":
        """The tagger, for which CLIP is loaded."""
        from rcnn.tagger import Tagger  # here, since it imports torch

        if self.run:
            return Tagger.of_run(self.run, *self.pairs)
        return Tagger.for_classes(self.classes, self.settings, bool(self.corpus), self.settings.cache, self.corpus)

    @functools.cached_property
    def learned(self) -> Known:
        """What is known of the tagger, which is made for it; it is noted."""
        from rcnn.learn.class_embeddings import coinciding_names

        tagger = self.tagger
        known = Known(tagger.identity, tagger.class_names, coinciding_names(tagger.class_embeddings, tagger.class_names))
        write_json(self.note, sealed(asdict(known)))
        return known

    def noted(self) -> Known | None:
        """The same, as it was noted when a tagger was made of the same files and settings; None if none was."""
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError):  # a damaged note is made again
            return Known(**unseal(self.note, read_json(self.note)))
        return None

    @functools.cached_property
    def note(self) -> Path:
        """Where that is noted; it is named after all that a tagger is made of."""
        embeddings = self.run / "class_embeddings.safetensors" if self.run else None
        paths = filter(None, (embeddings, self.corpus, self.settings.clip.weights))
        files = [[os.path.abspath(path), Photo.at(path).stamp] for path in paths]
        code = provenance.sources(("clip", "text", "learn", "score", "tagger.py", "runtime.py", "collection.py"))
        return self.folder / f"{digest([self.classes and asdict(self.classes), self.pairs, files, code])[:32]}.json"


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
        self.photos = [Photo.at(path) for path in paths]
        self.problems: dict[int, str] = {}  # by index, of photos that may be read the next time
        self.known = source.noted() or source.learned
        self.open(merge)
        if self.missing and self.known != source.learned:  # another device, or other weights of that name
            self.known = source.learned
            self.open(merge)

    def open(self, merge: Sequence[str] = ()) -> None:
        """Look again what is kept, also by other processes."""
        self.close()
        process = f".{self.rank}-of-{self.world}" if self.world > 1 else ""
        self.store = Store(self.source.folder, self.known.identity, len(self.known.class_names), process)
        for path in merge if self.rank == 0 else ():
            self.store.merge(path)
        self.missing, self.statistics = [], Statistics(len(self.known.class_names))  # of the scores that are kept
        for chunk in self._chunks():
            self.missing += [i for i, answer in chunk if answer is None]
            if rows := [answer for _, answer in chunk if isinstance(answer, np.ndarray)]:
                self.statistics.add(np.stack(rows))

    def close(self) -> None:
        """Close the files of the store."""
        if hasattr(self, "store"):
            self.store.close()

    @property
    def share(self) -> list[int]:
        """What is missing and for this process to score; all agree on it, although some may have begun before others."""
        return [i for i in self.missing if i % self.world == self.rank]

    def score(self) -> Iterator[tuple[int, Answer]]:
        """Score what is missing of this process's share: (index, answer) of one photo after the other, once it is kept."""
        if not (share := self.share):
            return
        given = self.source.settings.evaluate.model_dump(include={"batch_size", "workers"}, exclude_unset=True)
        tagger = self.source.tagger
        for indices, scores, broken in tagger.stream([self.paths[i] for i in share], **tagger.workload(self.world) | given):
            answers: dict[int, Answer] = {share[i]: row for i, row in zip(indices, scores.numpy(), strict=True)}
            answers |= {share[i]: problem for i, problem in broken.items()}
            self.problems |= {i: a for i, a in answers.items() if isinstance(a, str) and not _lasts(self.paths[i], a)}
            self.store.put({self.photos[i]: answer for i, answer in answers.items() if i not in self.problems})
            yield from ((i, answers[i]) for i in sorted(answers))

    def answers(self) -> Iterator[tuple[int, Answer | None]]:
        """(index, answer) of all photos; this process's share is scored meanwhile, and that of others has none."""
        share, fresh = set(self.share), self.score()
        for i, answer in self.kept():
            yield next(fresh) if i in share else (i, answer)

    def kept(self) -> Iterator[tuple[int, Answer | None]]:
        """(index, answer) of all photos, without an answer where none is kept."""
        for chunk in self._chunks():
            yield from chunk

    def cutoffs(self) -> tuple[Cutoffs | None, str]:
        """The cut-offs, or None where the photos are too few for any; and where they come from, or why there are none."""
        known, path, count = self.known, self.source.cutoffs, self.statistics.count
        if path.exists():
            found = Cutoffs.load(path, known.identity, known.class_names)
            return found, f"{'set by rcnn web' if 'by_hand' in found.facts else 'fitted to checked photos'}, {path}"
        if count >= FEWEST:
            why = f"by each class's scores on these {count} photos; rcnn calibrate fits better ones to some checked photos"
            return Cutoffs(known.class_names, label_free(self.statistics), known.identity, {}), why
        return None, f"they take {FEWEST} photos, or checked ones (rcnn calibrate)"

    def _chunks(self) -> Iterator[list[tuple[int, Answer | None]]]:
        """What is kept of all photos, some hundred at a time."""
        for start in range(0, len(self.photos), CHUNK):
            kept = self.store.get(self.photos[start : start + CHUNK])
            yield [(i, self.problems.get(i, answer)) for i, answer in enumerate(kept, start)]


def _lasts(path: Path, problem: str) -> bool:
    """Whether a problem is one of the photo, which stays until that is changed, and not one of this moment."""
    from rcnn.score.decoding import KILLED  # here, since it imports torch

    with contextlib.suppress(OSError, ValueError), open_regular(path) as file:
        file.read(1)
        return problem != KILLED
    return False
