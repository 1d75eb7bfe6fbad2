"""Tag images with any list of class names.

    from rcnn import Tagger

    tagger = Tagger.from_names(["dog", "crane [a wading bird]"])
    print(tagger.tag("photo.jpg"))  # [("dog", 0.31), …]

Scores rank the classes of one image; they are cosines, not probabilities.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rcnn import checkpoint, config, runtime
from rcnn.clip import Clip
from rcnn.learn import class_embeddings, closed_form, losses
from rcnn.printing import lossless, short
from rcnn.score import mssa
from rcnn.score.reading import MAX_PIXELS, AnyImage
from rcnn.score.views import batches
from rcnn.text import corpus
from rcnn.text.classes import ClassList, parse_name

Tags = list[tuple[str, float]]  # (class name, score), best first
TOP = 5  # tags of an image where nothing else is asked for


@dataclass(eq=False, repr=False)
class Tagger:
    """Class embeddings and the image encoder they belong to."""

    model: Clip
    class_names: list[str]  # C
    class_embeddings: torch.Tensor  # (C, D) unit vectors
    grids: Sequence[int] = ()  # MSSA's snippets on a side; () for the plain score, which is faster
    temperature: float = mssa.TEMPERATURE  # τ_s of the softmax over patches
    max_pixels: int = MAX_PIXELS  # of a file; see `rcnn.score.views.batches`

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
    ) -> "Tagger":
        """A tagger for class names alone, without descriptions and without learning.

        Args:
            class_names: C names; "crane [a wading bird]" is "crane" with a note that tells it from another "crane".
            model, pretrained, weights: which CLIP, as in `rcnn.clip.load`.
            device: auto, cpu, cuda, cuda:1, …
            grids: MSSA's snippets on a side; () for the plain score, which is faster.

        Raises:
            FileNotFoundError, ValueError: no weights, no names, or one that is listed twice.
        """
        if isinstance(class_names, str):
            raise ValueError(f"class_names: expected a list of names, got the text {short(class_names)}")
        parts = [parse_name(name) for name in class_names]
        classes = ClassList(tuple(name for name, _ in parts), 0, tuple(note for _, note in parts))
        chosen = {"model": model, "pretrained": pretrained, "weights": str(weights) if weights else None}
        settings = config.override({"clip": chosen, "device": device, "evaluate": {"grids": list(grids)}}, [])
        return cls.for_classes(classes, settings, centred)

    @classmethod
    def for_classes(
        cls, classes: ClassList, settings: config.Config, centred: bool = False, cache: str | Path | None = None
    ) -> "Tagger":
        """A tagger for a class list: the class embeddings are the mean of CLIP's 80 templates.

        Of `settings`, clip, device and evaluate are read. With `centred` the embeddings are the closed form of the templates
        instead, which moves them away from each other. The features of the templates are kept in `cache`, if there is one.
        """
        model = runtime.load_clip(settings, precision=settings.evaluate.precision)
        templates = corpus.encode(model, corpus.templates(classes), cache)
        if centred and len(classes) > 1:  # a single class has no other to move away from
            weight = losses.pair_weight(len(classes), len(templates))
            z = closed_form.minimise(losses.class_sums(templates, len(templates)), weight).class_embeddings
        else:
            z = class_embeddings.mean(templates)
        return cls._of(settings, model, list(classes.names), z)

    @classmethod
    def load(cls, run: str | Path, *pairs: str, **overrides: object) -> "Tagger":
        """A tagger from the folder that rcnn.train wrote.

        Args:
            pairs: configuration keys to set, such as "device=cuda".
            overrides: the same as keywords, such as device="cuda" or **{"clip.weights": "moved.pt"}.

        Raises:
            FileNotFoundError, ValueError: no run, no weights, or not the weights the run was learned with.
        """
        rows, metadata = checkpoint.read_run(run)
        settings = config.override(metadata["config"], pairs, values=overrides)
        model = runtime.load_clip(settings, metadata, settings.evaluate.precision)
        return cls._of(settings, model, metadata["class_names"], rows[metadata["method"]])

    @classmethod
    def _of(cls, settings: config.Config, model: Clip, class_names: list[str], z: torch.Tensor) -> "Tagger":
        e = settings.evaluate
        return cls(model, class_names, z, e.grids, e.temperature, e.max_pixels)

    def tag(self, images: AnyImage | Iterable[AnyImage], top: int | None = None) -> Tags | list[Tags]:
        """The `best` classes of an image, or a list of them for each of several; ValueError names one that cannot be read.

        An image is a path, a PIL image or an array (H, W, 3) of uint8.
        """
        tags = [self.best(row, top) for scores in self._read(images) for row in scores]
        return tags[0] if isinstance(images, AnyImage) else tags

    def scores(self, images: AnyImage | Iterable[AnyImage]) -> torch.Tensor:
        """The scores of all classes, in the order of `class_names`: (C,) float32 on the CPU, or of B images (B, C).

        `images` and errors as in `tag`.
        """
        scores = torch.cat([torch.zeros(0, len(self.class_names)), *self._read(images)])
        return scores[0] if isinstance(images, AnyImage) else scores

    def best(self, scores: torch.Tensor, top: int | None = None) -> Tags:
        """The best classes of an image by its (C,) scores; equal scores rank in the order of the class list.

        `top`: how many, from 1 to C; None for 5, or all if there are fewer.
        """
        count = len(self.class_names)
        if top is not None and not 1 <= top <= count:
            raise ValueError(f"top: expected 1 to {count} (the number of classes), got {top}")
        values, columns = scores.sort(descending=True, stable=True)
        best = zip(columns[: top or TOP].tolist(), values[: top or TOP].tolist(), strict=True)
        return [(self.class_names[column], value) for column, value in best]

    def stream(
        self, images: Sequence[AnyImage], batch_size: int = 8, workers: int = 0
    ) -> Iterator[tuple[list[int], torch.Tensor, dict[int, str]]]:
        """Score images batch by batch, in order, whether or not all can be read.

        Yields:
            (indices, scores, broken): of the b images of a batch that can be read the indices and the (b, C) scores on the
            CPU; and {index: why} of those that cannot.
        """
        z = self.class_embeddings.to(self.model.device)
        size = self.model.image.image_size
        for batch in batches(images, size, self.grids, batch_size, workers, upright=True, max_pixels=self.max_pixels):
            total = torch.zeros(0, len(self.class_names))
            if batch.indices:
                with torch.inference_mode():
                    features = self.model.encode_views(batch.pixels)
                    total = mssa.score(features, z, self.grids, self.temperature).total
                if not total.isfinite().all():
                    raise ValueError("the scores are not finite numbers; set evaluate.precision=float32")
            yield batch.indices, total.cpu(), batch.broken

    def _read(self, images: AnyImage | Iterable[AnyImage]) -> Iterator[torch.Tensor]:
        """(b, C) scores of one batch after the other of images that all have to be readable."""
        images = [images] if isinstance(images, AnyImage) else list(images)
        for _, scores, broken in self.stream(images):
            for index, problem in broken.items():
                image = images[index]
                name = lossless(str(image)) if isinstance(image, str | Path) else f"{index} ({type(image).__name__})"
                raise ValueError(f"cannot read image {name}: {problem}")
            yield scores
