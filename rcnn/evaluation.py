"""An evaluation from end to end: the rows of a run and others, one pass over the images, and the result."""

import contextlib
import time
from functools import cache, partial
from pathlib import Path

import torch

from rcnn import checkpoint, config, progress, provenance, rows, runtime
from rcnn.config import Config, EvaluateConfig
from rcnn.datasets.images import ImageSet
from rcnn.files import digest, sweep
from rcnn.learn import elsewhere
from rcnn.results import table
from rcnn.results.result import Result
from rcnn.results.summary import summarise
from rcnn.score import one_pass, processes, views
from rcnn.score.score_file import ScoredSet, ScoreFile
from rcnn.text.classes import ClassList


def evaluate(settings: Config, images: ImageSet, classes: ClassList, again: bool = False) -> Result | None:
    """Evaluate the run in settings.output on images; write its result.json, print the table.

    Started by torchrun, every process scores its share, and the first one measures and writes; the others return None if the
    result was measured now. With `again`, scores and a result that there may be of these very settings are forgotten.
    """
    on = runtime.device(settings.device).type
    with processes.group(on == "cuda") as (rank, world, barrier):
        began = time.perf_counter()
        check(settings, images, classes)
        if rank:
            progress.quiet()
        if world > 1 and on == "cuda":
            settings = settings.model_copy(update={"device": "cuda"})  # each its own
        output = Path(settings.output)
        sweep(settings.cache, output)
        learned, metadata = checkpoint.read_run(output)
        changed = provenance.changed_sources(metadata["sources"], provenance.sources(provenance.LEARNING))
        if changed and rank == 0:
            print(f"WARNING: the code has changed since this run was learned: {', '.join(changed)}")
        load_clip = cache(partial(runtime.load_clip, settings, metadata, settings.evaluate.precision))
        if rank:
            barrier()  # sentences from elsewhere are encoded once, by the first process
        shape = learned[metadata["method"]].shape
        ours = classes, shape[1], metadata["identity"]["clip"]
        others = {row: elsewhere.read(file, *ours, load_clip, settings.cache) for row, file in settings.rows.items()}
        if rank == 0:
            barrier()
        losses = metadata["learning"].get("learned", {}).get(metadata["method"], {}).get("losses", [])
        epochs = checkpoint.read_epochs(output, metadata["method"], shape, losses) if settings.evaluate.epochs else {}
        embeddings = learned | others
        sets = scored_sets(settings.evaluate, embeddings, epochs)
        scored = {
            "sets": {name: digest(s.class_embeddings.numpy().tobytes()) for name, s in sets.items()},
            "images": digest([_stamp(path) for path in images.paths]),
            "clip": metadata["identity"]["clip"],
            "device": on,
            **config.shaping(settings, "scores", "digits"),
        }
        made_from = digest([
            scored, digest(images.labels.contiguous().numpy().tobytes()), images.left_out, list(map(str, images.missing)),
            settings.seed, config.shaping(settings, "metrics", "intervals"),
        ])  # fmt: skip
        path, sources = output / "result.json", provenance.sources(provenance.MEASURING)
        # scores of other code are not continued
        sizes = len(images.paths), len(classes), settings.evaluate.batch_size
        file = ScoreFile(output / "scores", sets, *sizes, [scored, sources])
        if again and rank == 0:
            path.unlink(missing_ok=True)
            file.delete()
        barrier()
        if result := finished(path, made_from):
            if rank == 0:
                print(f"{table.render(result)}\n\n{path} is of these very settings; --again measures anew")
                if changed := provenance.changed_sources(result.sources, sources):
                    print(f"WARNING: the code has changed since: {', '.join(changed)}; --again measures anew")
            return result
        model = load_clip()
        if settings.evaluate.compile:
            model.image.compile()
        if rank == 0:
            print(f"{len(sets)} sets of class embeddings in one pass; scores: {file.bytes / 1e9:.2f} GB in {file.folder}")
            file.open()
        barrier()
        clock = one_pass.fill(file.open(), model, images.paths, sets, settings.evaluate, rank, world)
        barrier()
        if rank:
            return None
        if lost := file.lost():
            raise ValueError(
                f"{len(lost)} of {len(file.batches)} batches of scores in {file.folder} are not as they were written: "
                "something else changed the file; run the same command again"
            )
        found = summarise(settings, metadata, classes, images, embeddings, epochs, file)
        took = _seconds(clock, began, settings.evaluate.workers)
        result = Result(**found, made_from=made_from, sources=sources, seconds=took)
        result.save(path)
        file.delete()
        print(f"{table.render(result)}\n\nresult file: {path}")
        return result


def check(settings: Config, images: ImageSet, classes: ClassList) -> None:
    """ValueError or FileNotFoundError for what would stop an evaluation later on, after long work."""
    for task, first in classes.tasks.items():
        if not (images.labels[:, first:] == 1).any():
            raise ValueError(f"{task}: no image shows any of the {len(classes) - first} classes that it scores")
    for row, path in settings.rows.items():
        if row in rows.ROWS or "/" in row:
            raise ValueError(f"rows.{row}: expected a name of your own, without '/'; the comparison has a row {row}")
        if not Path(path).is_file():
            raise FileNotFoundError(f"rows.{row}: there is no file {path}")


def scored_sets(
    settings: EvaluateConfig, embeddings: dict[str, torch.Tensor], epochs: dict[int, torch.Tensor]
) -> dict[str, ScoredSet]:
    """Rows by all their scorers, in parts if these are measured too; epochs by the last scorer, which is the method's."""
    scorers = {key: partial(scorer.score, settings=settings) for key, scorer in rows.SCORERS.items()}
    in_parts = tuple(key for key, scorer in rows.SCORERS.items() if scorer.has_parts and settings.diagnostics)
    sets = {}
    for row, z in embeddings.items():
        sets[row] = ScoredSet(z, {key: scorers[key] for key in rows.scorers(row, settings)}, in_parts)
    last = rows.method_scorer(settings)
    return sets | {f"epoch/{epoch}": ScoredSet(z, {last: scorers[last]}) for epoch, z in epochs.items()}


def _stamp(path):
    """An image file as it is now: its path, size and time of change."""
    found = path.stat()
    return f"{path} {found.st_size} {found.st_mtime_ns}"


def finished(path: Path, made_from: str) -> Result | None:
    """The result in `path` if it was made from the same."""
    with contextlib.suppress(OSError, ValueError):
        result = Result.load(path)
        return result if result.made_from == made_from else None


def _seconds(clock, began, workers):
    """Where the time of this process's last pass went; says so when the decoding of images held up the tower."""
    if clock.waiting > 0.1 * (clock.encoding + clock.scoring) and workers < views.available_cores():
        print(f"waited {clock.waiting:.0f} s for images to be decoded; evaluate.workers={views.available_cores()} may help")
    return {
        "total": time.perf_counter() - began, "waiting_for_images": clock.waiting, "image_tower": clock.encoding,
        "scores": clock.scoring, "images": clock.images,
    }  # fmt: skip
