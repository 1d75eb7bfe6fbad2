"""Where the class embeddings of a tagger come from: a run, or class names alone, with descriptions where there are some.

What was found once is noted in a small file, so that photos whose scores are kept need neither CLIP's weights nor torch.
"""

import contextlib
import functools
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from rcnn import config, provenance
from rcnn.files import digest, read_json, sealed, unseal, write_json
from rcnn.text.classes import ClassList

if TYPE_CHECKING:
    from rcnn.tagger import Tagger

VOCABULARIES = ("coco", "nuswide", "openimages")  # class lists that ship, by the names of their folders in data/
DATA = Path(__file__).parents[1] / "data"  # of a checkout


@dataclass(frozen=True)
class Known:
    """What tagging needs to know of a tagger when the scores of all photos are kept."""

    identity: str  # of the tagger
    class_names: list[str]
    coinciding: list[list[str]]  # groups of classes that no score can tell apart


class Source:
    """A run, or a class list, and the settings that tagging by it has."""

    def __init__(self, run: str | None, classes: str | None, pairs: Sequence[str] = ()) -> None:
        """Exactly one of `run`, a folder, and `classes`, a file or one of VOCABULARIES; `pairs` are configuration keys to set.

        Raises:
            FileNotFoundError, ValueError: no such class list or vocabulary, or one that is none.
        """
        self.run, self.pairs, self.settings = run, list(pairs), config.override({}, pairs)
        self.classes = self.corpus = None
        if run:
            self.cutoffs = Path(run) / "cutoffs.json"
        elif classes in VOCABULARIES:
            folder = DATA / classes
            if not (folder / "seen.txt").is_file():
                raise FileNotFoundError(
                    f"the class list {classes} is in data/ of a checkout of the project, and there is no {folder}; "
                    "pip install -e . in a checkout, or name a file (./coco for one of that name)"
                )
            self.classes, self.cutoffs = ClassList.read(folder / "seen.txt", folder / "unseen.txt"), folder / "cutoffs.json"
            self.corpus = folder / "corpus.json"
        else:
            path = Path(classes)
            self.classes, self.cutoffs = ClassList.read(unseen=path), path.with_suffix(".cutoffs.json")
            self.corpus = path.with_suffix(".corpus.json")
        self.corpus = self.corpus if self.corpus and self.corpus.is_file() else None

    @functools.cached_property
    def tagger(self) -> "Tagger":
        """The tagger, for which CLIP is loaded; what is known of it is noted."""
        from rcnn.tagger import Tagger  # here, since it imports torch

        if self.run:
            return Tagger.of_run(self.run, *self.pairs)
        return Tagger.for_classes(self.classes, self.settings, bool(self.corpus), self.settings.cache, self.corpus)

    def learn(self) -> Known:
        """What is known of the tagger, which is made for it."""
        from rcnn.learn.class_embeddings import coinciding_names

        tagger = self.tagger
        known = Known(tagger.identity, tagger.class_names, coinciding_names(tagger.class_embeddings, tagger.class_names))
        write_json(self._note, sealed(asdict(known)))
        return known

    def known(self) -> Known | None:
        """The same, as it was noted when the tagger was last made of the same files and settings; None if it never was."""
        with contextlib.suppress(FileNotFoundError, ValueError, ValidationError):  # a damaged note is made again
            return TypeAdapter(Known).validate_python(unseal(self._note, read_json(self._note)))
        return None

    @functools.cached_property
    def _note(self) -> Path:
        s = self.settings
        if self.run:
            made_of = [_stamp(os.path.join(self.run, "class_embeddings.safetensors")), self.pairs]
        else:
            of_corpus, of_weights = (path and _stamp(path) for path in (self.corpus, s.clip.weights))
            made_of = [self.classes.names, of_corpus, of_weights, config.to_dict(s.clip)]
        code = provenance.sources(("clip", "text", "learn", "score", "tagger.py", "runtime.py"))
        key = digest([made_of, config.shaping(s, "scores"), s.device, code])
        return Path(s.cache) / "tagged" / f"{key[:32]}.json"


def _stamp(path: str | Path) -> list[str | int]:
    """What tells a file from itself before a change; [] if there is none."""
    with contextlib.suppress(OSError):
        status = os.stat(path)
        return [os.path.abspath(path), status.st_size, status.st_mtime_ns]
    return []
