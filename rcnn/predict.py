"""Tag photos with class names alone, or with the classes of a run: `python -m rcnn.predict photos/ --classes names.txt`.

Class names alone are enough: their embeddings are the mean of CLIP's 80 templates or, where rcnn.describe left descriptions
beside the list, the closed form of both. How many tags a photo gets is decided by a cut-off for each class: the one that
rcnn.calibrate fitted, or else one from the scores of all photos, for which there must be some tens of them.

Scores are kept in outputs/cache/tagged (cache=): only new and changed photos are scored, and interrupted, the same command goes
on. Photos that cannot be read are named, and the exit code is then 1. Several GPUs, or processes, share the photos:
`torchrun --nproc-per-node=4 -m rcnn.predict photos/ --classes names.txt`. In Python: `rcnn.Tagger`.
"""

import argparse
import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from rcnn import cli, config, progress
from rcnn.collection import Collection, Source, source_arguments
from rcnn.files import replace_file, sweep
from rcnn.photos import find_images
from rcnn.printing import cut, lossless, message
from rcnn.tagging.cutoffs import FEWEST
from rcnn.tagging.overlay import Overlays, must_be_apart
from rcnn.tagging.sidecars import hierarchy, plan
from rcnn.tagging.tags import FORMATS, TOP, Scored, must_fit, ranked, writer
from rcnn.text.classes import in_words

ENDINGS = (".csv", ".jsonl", ".json")  # of --output
PREFIX = "rcnn"  # of keywords


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments, with `pairs` and `places` for those that are images or key=value; ValueError for what does not fit."""
    parser = cli.parser("predict", __doc__, but=("learning", "rows"))
    parser.add_argument("images", nargs="+", metavar="PHOTOS", help="image files, folders, and key=value pairs")
    source_arguments(parser, required=False)
    parser.add_argument("--remove", action="store_true", help="take the keywords of the prefix from all sidecars")
    parser.add_argument("--top", type=int, metavar="K", help="classes per photo at most")
    parser.add_argument("--min-score", type=float, metavar="S", help="one cut-off for all classes, in place of their own")
    parser.add_argument("--fast", action="store_true", help="score the full image alone: several times faster")
    written = parser.add_mutually_exclusive_group()
    written.add_argument("--output", metavar="FILE", help="what to write, .csv, .jsonl or .json (default: print)")
    written.add_argument("--format", choices=FORMATS, help="what to print (default table)")
    written.add_argument("--dry-run", action="store_true", help="show how --xmp or --remove would change the sidecars")
    parser.add_argument("--merge", nargs="+", default=[], metavar="STORE", help="take over scores that other machines kept")
    parser.add_argument("--xmp", action="store_true", help="write the tags into XMP sidecars as well")
    parser.add_argument("--xmp-replace-suffix", action="store_true", help="sidecars are photo.xmp, not photo.jpg.xmp")
    found_by = f"of keywords, by which they are found (default {PREFIX})"
    parser.add_argument("--prefix", metavar="P", default=PREFIX, help=found_by)
    parser.add_argument("--maps", metavar="FOLDER", help="write a score map of each tag there, laid over its photo")
    args = parser.parse_intermixed_args(argv)
    args.places, args.pairs = cli.without_pairs(args.images)
    if args.fast:
        args.pairs.append("evaluate.grids=[]")
    if bool(args.run or args.classes) == args.remove:
        parser.error("expected one of --run, --classes and --remove")
    if args.dry_run and not (args.xmp or args.remove):
        parser.error("--dry-run: expected --xmp or --remove, whose changes it shows")
    if args.remove and (args.output or args.format):
        parser.error("--remove: no table is written then")
    if args.maps:
        if args.dry_run or args.remove:
            parser.error("--maps: neither --dry-run nor --remove writes maps")
        must_be_apart(args.maps, args.places)
    if args.output and Path(args.output).suffix not in ENDINGS:
        raise ValueError(f"--output: expected a name that ends in {', '.join(ENDINGS)}, got {cut(args.output)}")
    if args.min_score is not None and not -1 <= args.min_score <= 1:
        raise ValueError(f"--min-score: expected a cosine from -1 to 1, got {args.min_score}")
    return args


def cut_offs(args: argparse.Namespace, collection: Collection) -> tuple[np.ndarray | None, str]:
    """(C,) thresholds, or None for the best of each photo; and where they come from."""
    names = collection.known.class_names
    if args.min_score is not None:
        return np.full(len(names), args.min_score), f"{args.min_score} for all classes"
    found, why = collection.cutoffs()
    if found:
        return found.thresholds, why
    return None, f"the best {min(args.top or TOP, len(names))} of each photo, since {why}"


@contextlib.contextmanager
def output(args: argparse.Namespace, collection: Collection) -> Iterator[Callable[[Path, Scored], None]]:
    """A function that prints or writes the tags of one photo after the other; a file is there when the block ends well."""
    if args.dry_run:
        yield lambda *_: None
        return
    with contextlib.ExitStack() as stack:
        file, form = sys.stdout, args.format or "table"
        if args.output:
            raw, form = stack.enter_context(replace_file(args.output)), Path(args.output).suffix[1:]
            file = io.TextIOWrapper(raw, "utf-8", errors="backslashreplace", newline="")
            stack.callback(file.detach)  # which writes what is left, and leaves the file open
        yield stack.enter_context(writer(file, form, collection.known.class_names, collection.paths))


class Sidecars:
    """The XMP sidecars of photos, to be changed or, with --dry-run, shown as they would be."""

    def __init__(self, args: argparse.Namespace, corpus: Path | None = None) -> None:
        self.args, self.photos = args, {}  # of sidecars
        self.kinds = hierarchy(corpus) if corpus else {}  # broader ones, by class

    def update(self, photo: Path, names: Sequence[str]) -> str | None:
        """Have a photo's sidecar hold these classes; returns why it cannot, if so."""
        tags = [(*self.kinds.get(name, ()), name) for name in names]
        try:
            change = plan(photo, tags, self.args.prefix, self.args.xmp_replace_suffix)
            if (other := self.photos.setdefault(change.path, photo)) != photo:
                return f"its sidecar {lossless(change.path.name)} is that of {lossless(other.name)}, too"
            if not self.args.dry_run:
                change.write()
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # the next photo's sidecar could not be written either
            return str(error)
        if self.args.dry_run:
            sys.stdout.writelines(f"{line}\n" for line in change.lines())
        return None


def write(
    args: argparse.Namespace, collection: Collection, barrier: Callable[[], None], bar: progress.progress
) -> dict[Path, str] | None:
    """Score what is missing, and write the tags of all photos; {photo without tags, or without a sidecar: why}.

    Tags are written as they come, unless the cut-offs follow from the scores of all, or several processes share the photos:
    then the first of them writes, and the others return None.
    """
    few = len(collection.paths) < FEWEST
    known = cut_offs(args, collection) if few or args.min_score is not None or collection.source.cutoffs.exists() else None
    if collection.world > 1 or (collection.missing and not known):
        for _ in collection.score():
            bar.update()
        barrier()
        if collection.rank:
            return None
        collection.open()
    thresholds, why = known or cut_offs(args, collection)
    print(message(f"cut-offs: {why}"), file=sys.stderr)
    top = args.top or (TOP if thresholds is None else None)
    sidecars = Sidecars(args, collection.source.corpus) if args.xmp else None
    overlays = Overlays(args.maps, collection.paths, collection.source.tagger) if args.maps else None
    names, problems, fresh = collection.known.class_names, {}, set(collection.share)
    with output(args, collection) as put:
        for i, answer in collection.answers():
            path, problem = collection.paths[i], None
            if isinstance(answer, np.ndarray):
                columns = ranked(answer, thresholds, top)
                tags = list(zip(columns, answer[columns].tolist(), strict=True))
                put(path, tags)
                if sidecars:
                    problem = sidecars.update(path, [names[column] for column in columns])
                problem = (overlays.write(path, tags) if overlays else None) or problem
            else:
                problem = answer or "no scores: its process ended early, or keeps its store on another machine (--merge)"
            if problem:
                problems[path] = problem
            if i in fresh:
                sys.stdout.flush()
                if args.output or not sys.stdout.isatty():  # else the rows show how far it is
                    bar.update()
    return problems


@contextlib.contextmanager
def processes(args: argparse.Namespace) -> Iterator[tuple[int, int, Callable[[], None]]]:
    """(rank, number of processes, barrier), as torchrun has them; each process takes a GPU, if there are some."""
    if "WORLD_SIZE" not in os.environ:
        yield 0, 1, lambda: None
        return
    from rcnn import runtime  # here, since they import torch
    from rcnn.score.processes import group

    on_cuda = runtime.device(config.override({}, args.pairs).device).type == "cuda"
    with group(on_cuda) as own:
        if own.world > 1 and on_cuda:
            args.pairs.append("device=cuda")
        yield own.rank, own.world, own.barrier


def tag(args: argparse.Namespace, paths: Sequence[Path]) -> dict[Path, str] | None:
    """Tag photos; returns as `write`."""
    with processes(args) as (rank, world, barrier), contextlib.ExitStack() as stack:
        if rank:
            progress.quiet()
        source = Source(args.run, args.classes, args.pairs)
        sweep(source.settings.cache, source.folder, Path(args.output or ".").parent)
        collection = stack.enter_context(contextlib.closing(Collection(paths, source, rank, world, args.merge)))
        must_fit(args.top, collection.known.class_names)
        if rank == 0 and (same := collection.known.coinciding):
            equal = f"these classes share their class embedding, so their scores are equal: {in_words(same)}"
            print(message(equal), file=sys.stderr)
        todo = len(collection.share)
        bar = stack.enter_context(progress.progress(title="tag", total=todo, unit="image"))
        try:
            return write(args, collection, barrier, bar)
        except KeyboardInterrupt:
            done = len(paths) - todo + bar.done
            print(f"interrupted: {done} of {len(paths)} photos are scored; the same command goes on", file=sys.stderr)
            raise SystemExit(130) from None


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    paths, problems, hidden = find_images(args.places)
    if args.remove:
        sidecars = Sidecars(args)
        found = {path: why for path in paths if (why := sidecars.update(path, ()))}
    else:
        found = tag(args, paths)
    if found is None:
        return 0
    for path, problem in sorted((problems | found).items()):
        print(f"skipped {lossless(str(path))}: {problem}", file=sys.stderr)
    if hidden:
        print(f"{hidden} hidden file{'s' if hidden > 1 else ''} left alone", file=sys.stderr)
    return 1 if problems or found else 0


if __name__ == "__main__":
    cli.run(main)
