"""XMP sidecars: machine tags beside the keywords of people and photo programs, all of which stay.

With the prefix "rcnn", the tag ("animal", "dog") is "dog" in dc:subject, "rcnn|animal|dog" in lr:hierarchicalSubject and
"rcnn/animal/dog" in digiKam:TagsList. What was added is also listed in a property of our own, rcnn:added, and only what is
listed there is renewed or removed: a "dog" that was there before is a person's and stays. A listed tag that a person deleted
from one of the three is withdrawn from the others and not written again, until all tags of the prefix are removed. If another
program drops rcnn:added, everything counts as a person's. Without its machine tags a file has the bytes that it had before
(but a list of no keywords), and one that was made for them disappears.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rcnn.files import read_bytes, replace_file
from rcnn.printing import lossless, printable, short
from rcnn.tagging.xmp import EMPTY, LISTS, edit, keywords, parse

MOST = 1 << 24  # bytes of a sidecar
SHOWN = ("dc:subject", "lr:hierarchicalSubject")  # by a dry run
NOT_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # what XML, or a line of text, cannot hold


@dataclass(frozen=True)
class Change:
    """What is to happen to one sidecar: its bytes before and after (None: no file), and the keywords that come and go."""

    path: Path
    before: bytes | None
    after: bytes | None
    added: tuple[str, ...]
    removed: tuple[str, ...]

    def write(self) -> None:
        """Make the change, if there is one; an error (ValueError, OSError) leaves the file as it was."""
        if self.after == self.before:
            return
        if _read(self.path) != self.before:
            raise ValueError(f"{self.path} was changed by another program meanwhile; run the same command again")
        if self.before is not None and not (self.path.stat().st_mode & 0o222 and os.access(self.path, os.W_OK)):
            raise ValueError(f"{self.path} is read-only; make it writable, or leave its photo out")
        if self.after is None:
            self.path.unlink()
            return
        with replace_file(self.path) as file:
            if self.before is not None:
                shutil.copymode(self.path, file.name)
            file.write(self.after)

    def lines(self) -> list[str]:
        """The file's name and its keywords that go (-) and come (+); no line if nothing changes."""
        signed = [f"  - {k}" for k in self.removed] + [f"  + {k}" for k in self.added]
        return [] if self.after == self.before else [lossless(str(self.path)), *map(printable, signed)]


def plan(photo: Path, tags: Sequence[Sequence[str]], prefix: str, replace_suffix: bool = False) -> Change:
    """How a photo's sidecar changes such that it holds these machine tags, and under this prefix no others.

    Args:
        photo: its path; the sidecar of photo.jpg is photo.jpg.xmp.
        tags: each a path from broad to narrow, ("animal", "dog"); "|" and "/", which separate its parts in the file, become
            "-". Without tags, those of the prefix are removed, and what people deleted is forgotten.
        prefix: the first part of all hierarchical keywords, by which they are found in a photo program.
        replace_suffix: the sidecar is photo.xmp.

    Raises:
        ValueError: the sidecar is no XMP file that can be changed, or a tag is empty.
    """
    path = photo.with_suffix(".xmp") if replace_suffix else photo.with_name(photo.name + ".xmp")
    root = _clean(prefix) + "|"
    wanted = [root + "|".join(map(_clean, tag)) for tag in tags]
    before = _read(path)
    data = EMPTY if before is None else before
    try:
        rdf = parse(data)
        old = keywords(rdf)
        going, coming = _merge({name: set(values) for name, values in old.items()}, wanted, root)
        new = {name: sorted([k for k in old[name] if k not in going[name]] + coming[name]) for name in LISTS}
        after = before
        if new != old:
            after = edit(data, rdf, going, coming)
            if keywords(parse(after)) != new:
                raise ValueError("it has an unusual form, in which an addition means something else")
            after = None if after == EMPTY else after
    except ValueError as error:
        raise ValueError(f"keywords cannot be written to {path}: {error}") from None
    added, removed = (tuple(k for name in SHOWN for k in sorted(one[name])) for one in (coming, going))
    return Change(path, before, after, added, removed)


def hierarchy(corpus: str | Path) -> dict[str, tuple[str, ...]]:
    """{class name: its broader kind, alone in a tuple} from the facts beside a text corpus; without facts, {}.

    One kind a class, since people browse trees of keywords: of a class's broader kinds the one that most classes share, and of
    equals the broadest, so that a few large groups such as "animal" and "vehicle" arise.
    """
    from rcnn.describing.stats import read_facts  # imports torch, which keywords need not wait for

    facts = read_facts(corpus) or []
    shared = Counter(kind for _, f in facts for kind in set(f.broader))
    return {name: tuple(sorted(f.broader, key=shared.get)[-1:]) for name, f in facts}


def _clean(name: str) -> str:
    """A part of a hierarchical keyword, as it is written."""
    if cleaned := " ".join(re.sub(r"[|/]", "-", NOT_TEXT.sub(" ", name)).split()):
        return cleaned
    raise ValueError(f"a keyword needs characters that can be seen, and {short(name)} has none")


def _merge(old: dict[str, set[str]], wanted: list[str], root: str) -> tuple[dict[str, set[str]], dict[str, list[str]]]:
    """For every list, which of its keywords `old` go, all of them the machine's, and which come.

    `wanted` are hierarchical keywords, and `root` is what those of the prefix begin with.
    """
    subject, hierarchical, tags_list, added = old.values()
    paths = {k for k in added if "|" in k}
    mine = {k for k in paths if k.startswith(root)}
    theirs = (hierarchical | tags_list) - paths - set(map(_slashes, paths))
    deleted = {k for k in mine if not (k in hierarchical and _slashes(k) in tags_list and _last(k) in subject)}
    denied = set(map(_last, deleted))
    tags = list(dict.fromkeys(k for k in wanted if _last(k) not in denied))
    paths_now = [k for k in tags if not theirs & {k, _slashes(k)}]
    others = added & subject & set(map(_last, paths - mine))  # tags of another prefix have them
    plain_now = [k for k in dict.fromkeys([*map(_last, tags), *sorted(others)]) if k in added or k not in subject]
    now = plain_now, paths_now, list(map(_slashes, paths_now)), [*plain_now, *paths_now, *(sorted(deleted) if wanted else [])]
    ours = added - paths, mine, set(map(_slashes, mine)), added - (paths - mine)
    return (
        {name: mine & old[name] - set(values) for name, mine, values in zip(LISTS, ours, now, strict=True)},
        {name: [k for k in values if k not in old[name]] for name, values in zip(LISTS, now, strict=True)},
    )


def _last(keyword: str) -> str:
    return keyword.split("|")[-1]


def _slashes(keyword: str) -> str:
    return keyword.replace("|", "/")


def _read(path: Path) -> bytes | None:
    """The bytes of a sidecar, None if there is none."""
    if path.is_symlink():
        raise ValueError(f"{path} is a symbolic link, which would be replaced; expected a file")
    try:
        return read_bytes(path, MOST)
    except FileNotFoundError:
        return None
