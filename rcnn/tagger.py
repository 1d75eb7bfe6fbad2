"""Tag images with any list of class names.

    from rcnn import Tagger

    tagger = Tagger.from_names(["dog", "crane [a wading bird]"])
    for name, score, threshold, present in tagger.tag("photo.jpg"):
        print(name, score)

Scores rank the classes of one image; they are cosines, not probabilities. From which score on a class counts as present is
known after `Tagger.calibrate`, or from rcnn.calibrate.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from rcnn import checkpoint, config, hub, provenance, runtime
from rcnn.clip import Clip
from rcnn.files import digest
from rcnn.learn import class_embeddings, closed_form, losses
from rcnn.printing import lossless, short
from rcnn.score import mssa
from rcnn.score.reading import AnyImage
from rcnn.score.views import available_cores, batches
from rcnn.tagging.cutoffs import CUTOFFS, Cutoffs, Statistics, fitted
from rcnn.tagging.labels import full_names, presence
from rcnn.tagging.maps import Maps, score_maps
from rcnn.tagging.tags import TOP, Tag, must_fit, ranked
from rcnn.text import corpus
from rcnn.text.classes import ClassList, parse_name

VERSION = 1  # of scores: another one makes all that is kept be scored again
VIEWS = 256  # at a time on a GPU, of all images of a batch together
METHOD = "saved"  # the only row of a tagger that was saved


@dataclass(eq=False, repr=False)
class Tagger:
    """Class embeddings and the image encoder they belong to."""

    model: Clip
    class_names: list[str]  # C
    class_embeddings: torch.Tensor  # (C, D) unit vectors
    made_of: str  # digest of what they were made of, or of themselves
    settings: config.Config = field(default_factory=config.Config)  # of which clip, device and evaluate are read
    notes: Sequence[str] = ()  # what tells classes of one name apart, or nothing
    cutoffs: Cutoffs | None = None  # from which score on a class counts as present

    @classmethod
    def from_names(
        cls,
        class_names: Iterable[str],
        *,
        model: str | None = "ViT-B-16-quickgelu",
        pretrained: str | None = "openai",
        weights: str | Path | None = None,
        device: str = "auto",
        grids: Sequence[int] = (2, 3),
        centred: bool = False,
        cache: str | Path | None = None,
    ) -> "Tagger":
        """A tagger for class names alone, without descriptions and without learning.

        Args:
            class_names: C names; "crane [a wading bird]" is "crane" with a note that tells it from another "crane".
            model, pretrained, weights: which CLIP, as in `rcnn.clip.load`.
            device: auto, cpu, cuda, cuda:1, …
            grids: MSSA's snippets on a side; () for the plain score, which is faster.
            centred: move the class embeddings away from each other, see `for_classes`.
            cache: folder to keep the features of sentences in.

        Raises:
            FileNotFoundError, ValueError: no weights, no names, or one that is listed twice.
        """
        if isinstance(class_names, str) or not isinstance(class_names, Iterable):
            raise ValueError(f"class_names: expected a list of names, got {short(class_names)}")
        parts = [parse_name(name) for name in class_names]
        classes = ClassList(tuple(name for name, _ in parts), 0, tuple(note for _, note in parts))
        chosen = {"model": model, "pretrained": pretrained, "weights": str(weights) if weights else None}
        settings = config.override({"clip": chosen, "device": device, "evaluate": {"grids": list(grids)}}, [])
        return cls.for_classes(classes, settings, centred, cache)

    @classmethod
    def for_classes(
        cls,
        classes: ClassList,
        settings: config.Config,
        centred: bool = False,
        cache: str | Path | None = None,
        descriptions: str | Path | None = None,
    ) -> "Tagger":
        """A tagger for a class list: the class embeddings are the mean of CLIP's 80 templates.

        Of `settings`, clip, device and evaluate are read. With `centred` the embeddings are the closed form of the templates
        instead, which moves them away from each other, and with `descriptions`, a corpus file, that of both. The features of
        all sentences are kept in `cache`, if there is one.
        """
        model = runtime.load_clip(settings, precision=settings.evaluate.precision)
        parts = [corpus.load(descriptions, classes)] if descriptions else []
        parts.append(corpus.templates(classes))
        encoded = [corpus.encode(model, part, cache) for part in parts]
        sentences = encoded[0] + encoded[1] if descriptions else encoded[0]
        centred = centred and len(classes) > 1  # a single class has no other to move away from
        if centred:
            weight = losses.pair_weight(len(classes), len(sentences))
            z = closed_form.minimise(losses.class_sums(sentences, len(sentences)), weight).class_embeddings
        else:
            z = class_embeddings.mean(sentences)
        # not of the vectors themselves, whose last digits differ between machines
        made_of = digest([centred, *(part.fingerprint for part in parts)])
        return cls(model, list(classes.names), z, made_of, settings, list(classes.notes))

    @classmethod
    def load(cls, run: str | Path, *pairs: str, **overrides: object) -> "Tagger":
        """A tagger from the folder that `save`, rcnn.train or rcnn.export wrote, with the cut-offs that are there.

        Args:
            run: the folder, or where one of rcnn.export is on Hugging Face's hub: hf://user/repo, or hf://user/repo@revision.
            pairs: configuration keys to set, such as "device=cuda".
            overrides: the same as keywords, such as device="cuda" or **{"clip.weights": "moved.pt"}.

        Raises:
            FileNotFoundError, ValueError: no run, no weights, or not the weights the run was learned with; cut-offs of others.
        """
        run, pairs = hub.local(run, pairs)
        tagger, path = cls.of_run(run, *pairs, **overrides), run / CUTOFFS
        tagger.cutoffs = Cutoffs.load(path, tagger.identity, tagger.class_names) if path.exists() else None
        return tagger

    @classmethod
    def of_run(cls, run: str | Path, *pairs: str, **overrides: object) -> "Tagger":
        """The same without cut-offs, which may be of other settings."""
        rows, metadata = checkpoint.read_run(run)
        settings = config.override(metadata["config"], pairs, values=overrides)
        model = runtime.load_clip(settings, metadata, settings.evaluate.precision)
        z = rows[metadata["method"]]
        made_of = metadata["learning"].get("made_of") or digest(z.numpy().tobytes())
        return cls(model, metadata["class_names"], z, made_of, settings, metadata["notes"])

    def save(self, folder: str | Path) -> None:
        """Write a folder from which `load` makes this tagger again, with its cut-offs; ValueError if it holds a run."""
        path, cutoffs, learning = Path(folder) / checkpoint.EMBEDDINGS, Path(folder) / CUTOFFS, {"made_of": self.made_of}
        if path.exists() and not checkpoint.read_run(folder)[1]["learning"].keys() >= learning.keys():
            raise ValueError(f"{folder} holds a run of rcnn.train; choose another folder")
        checkpoint.write(
            path,
            {METHOD: self.class_embeddings},
            version=checkpoint.VERSION,
            method=METHOD,
            class_names=self.class_names,
            notes=self.notes,
            seen=0,
            weights_sha256=self.model.sha256,
            config=config.to_dict(self.settings),
            identity={"clip": self.model.fingerprint, "corpus": self.made_of, "classes": digest(self.class_names)},
            learning=learning,
            sources=provenance.sources(provenance.LEARNING),
        )
        cutoffs.unlink(missing_ok=True)
        if self.cutoffs:
            self.cutoffs.save(cutoffs)

    @property
    def identity(self) -> str:
        """Digest of all that scores depend on but the image: two taggers of one identity give the same, up to rounding."""
        e = self.settings.evaluate
        scoring = list(e.grids), e.temperature, runtime.resolved(e.precision, self.model.device), e.max_pixels
        return digest([VERSION, self.model.fingerprint, self.class_names, self.made_of, *scoring])

    def tag(self, images: AnyImage | Iterable[AnyImage], top: int | None = None) -> list[Tag] | list[list[Tag]]:
        """The classes of an image, best first, or a list of them for each of several; ValueError names one that is no image.

        An image is a path, a PIL image or an array (H, W, 3) of uint8. Those classes are given whose scores reach their
        cut-offs, or where there are none the 5 best; with `top` the best so many, whatever the cut-offs say.
        """
        tags = [self.best(row, top) for scores in self._read(images) for row in scores]
        return tags[0] if isinstance(images, AnyImage) else tags

    def scores(self, images: AnyImage | Iterable[AnyImage]) -> torch.Tensor:
        """The scores of all classes, in the order of `class_names`: (C,) float32 on the CPU, or of B images (B, C).

        `images` and errors as in `tag`.
        """
        scores = torch.cat([torch.zeros(0, len(self.class_names)), *self._read(images)])
        return scores[0] if isinstance(images, AnyImage) else scores

    def best(self, scores: torch.Tensor, top: int | None = None) -> list[Tag]:
        """The tags of an image by its (C,) scores, as in `tag`; equal scores rank in the order of the class list."""
        must_fit(top, self.class_names)
        values, known = scores.numpy(), self.cutoffs
        by_cutoffs = known is not None and top is None
        columns = ranked(values, known.thresholds) if by_cutoffs else ranked(values, None, top or TOP)
        cutoffs = known.thresholds.tolist() if known else [None] * len(values)
        names = self.class_names
        return [Tag(names[c], s := values[c].item(), t := cutoffs[c], None if t is None else s >= t) for c in columns]

    def calibrate(self, images: Iterable[AnyImage], labels: Iterable[Iterable[str]], precision: float | None = None) -> Cutoffs:
        """Fit cut-offs to checked images, for the best F1 or for a `precision` such as 0.9; `tag` and `save` use them.

        Args:
            images: as in `tag`; some 50, neighbours may be alike.
            labels: of every image the names of the classes on it; of a "crane [a wading bird]" the whole, if there are others.

        Returns:
            Thresholds, and in `facts` how well they do on images that they were not fitted to.

        Raises:
            ValueError: an image cannot be read, a label is no class, there are too few labels.
        """
        present, scores = self.presence(labels), self.scores(list(images)).numpy()
        if len(present) != len(scores):
            raise ValueError(f"labels: expected those of {len(scores)} images, got {len(present)}")
        statistics = Statistics(len(self.class_names))
        statistics.add(scores)
        self.cutoffs = self.fit(scores, present, statistics, precision)
        return self.cutoffs

    @property
    def full_names(self) -> list[str]:
        """The C class names with their notes, as in a class list: "crane [a wading bird]"."""
        return full_names(self.class_names, self.notes)

    def presence(self, labels: Iterable[Iterable[str]]) -> np.ndarray:
        """(N, C) bool: which classes N images show, by their names as in `calibrate`."""
        return presence(self.full_names, labels)

    def fit(
        self,
        scores: np.ndarray,
        present: np.ndarray,
        statistics: Statistics,
        precision: float | None = None,
        known: np.ndarray | None = None,
    ) -> Cutoffs:
        """Cut-offs for this tagger's (N, C) scores of checked images, see `rcnn.tagging.cutoffs.fitted`."""
        made_with = {"clip": self.model.fingerprint[:16], "grids": list(self.settings.evaluate.grids)}
        return fitted(self.class_names, self.identity, scores, present, statistics, precision, made_with, known)

    def workload(self, processes: int = 1) -> dict[str, int]:
        """Images at a time, and processes that decode, that suit the device; `processes` like this one share the cores.

        A CPU is as fast with one image at a time, and then the scores of an image do not depend on others beside it.
        """
        if self.model.device.type == "cpu":
            return {"batch_size": 1, "workers": 2}
        views = 1 + sum(n * n for n in self.settings.evaluate.grids)
        return {"batch_size": max(1, VIEWS // views), "workers": max(1, available_cores() // processes)}

    def stream(
        self, images: Sequence[AnyImage], batch_size: int | None = None, workers: int = 0
    ) -> Iterator[tuple[list[int], torch.Tensor, dict[int, str]]]:
        """Score images batch by batch, in order, whether or not all can be read; `batch_size` by default as `workload` says.

        Yields:
            (indices, scores, broken): of the b images of a batch that can be read the indices and the (b, C) scores on the
            CPU; and {index: why} of those that cannot.
        """
        z, e = self.class_embeddings.to(self.model.device), self.settings.evaluate
        for indices, features, broken in self._encode(images, batch_size or self.workload()["batch_size"], workers):
            total = torch.zeros(0, len(self.class_names))
            if features:
                with torch.inference_mode():
                    total = _finite(mssa.score(features, z, e.grids, e.temperature).total)
            yield indices, total.cpu(), broken

    def maps(self, image: AnyImage, names: Iterable[str] | None = None) -> Maps:
        """Where an image scores high for which class: score maps (C, H, W), and which snippets won; see `Maps`.

        `names` are classes of the list, as in `calibrate`, in the order wanted, by default all; errors as there.
        """
        columns = list(range(len(self.class_names))) if names is None else self._columns(names)
        z, e = self.class_embeddings[columns].to(self.model.device), self.settings.evaluate
        ((_, features, broken),) = self._encode([image], 1, 0)
        _must_be_read([image], broken)
        chosen = [self.class_names[column] for column in columns]
        found = score_maps(features, z, chosen, e.grids, e.temperature, self.model.image.image_size)
        return found._replace(scores=_finite(found.scores))

    def _columns(self, names):
        names = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else [None]
        if not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"names: expected a list of class names, got {short(names)}")
        return self.presence([name] for name in names).argmax(1).tolist()

    def _encode(self, images, batch_size, workers):
        """(indices, features or None, broken) of one batch after the other, as `stream`."""
        e, size = self.settings.evaluate, self.model.image.image_size
        given = size, e.grids, batch_size, workers
        for batch in batches(images, *given, upright=True, max_pixels=e.max_pixels, device=self.model.device):
            with torch.inference_mode():
                features = self.model.encode_views(batch.pixels) if batch.indices else None
            yield batch.indices, features, batch.broken

    def _read(self, images: AnyImage | Iterable[AnyImage]) -> Iterator[torch.Tensor]:
        """(b, C) scores of one batch after the other of images that all have to be readable."""
        images = [images] if isinstance(images, AnyImage) else list(images)
        for _, scores, broken in self.stream(images):
            _must_be_read(images, broken)
            yield scores


def _must_be_read(images, broken):
    for index, problem in broken.items():
        image = images[index]
        name = lossless(str(image)) if isinstance(image, str | Path) else f"{index} ({type(image).__name__})"
        raise ValueError(f"cannot read image {name}: {problem}")


def _finite(scores):
    if not scores.isfinite().all():
        raise ValueError("the scores are not finite numbers; set evaluate.precision=float32")
    return scores
