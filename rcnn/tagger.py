"""Tag images with any list of class names.

    from rcnn import Tagger

    tagger = Tagger.from_names(["dog", "crane [a wading bird]"])
    print(tagger.tag("photo.jpg"))  # [("dog", 0.31), …]

Scores rank the classes of one image; they are cosines, not probabilities.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rcnn import checkpoint, config, runtime
from rcnn.clip import Clip
from rcnn.learn import class_embeddings, closed_form, losses
from rcnn.score import mssa
from rcnn.score.views import AnyImage, batches
from rcnn.text import corpus
from rcnn.text.classes import ClassList, parse_name

Tags = list[tuple[str, float]]  # (class name, score), best first
TOP = 5  # tags of an image where nothing else is asked for


class Tagger:
    """Class embeddings and the image encoder they belong to.

    Args:
        model: Clip.
        class_names: C names.
        class_embeddings: (C, D) unit vectors.
        grids: MSSA's snippets on a side; () for the plain score, which is faster.
        temperature: τ_s of the softmax over patches.
    """

    def __init__(
        self,
        model: Clip,
        class_names: Sequence[str],
        class_embeddings: torch.Tensor,
        grids: Sequence[int] = (),
        temperature: float = mssa.TEMPERATURE,
    ) -> None:
        self.model, self.class_names, self.grids, self.temperature = model, list(class_names), tuple(grids), temperature
        self.class_embeddings = class_embeddings.to(model.device)

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
            model: open_clip's name of the ViT; None takes all sizes from the weights file.
            pretrained: open_clip's tag of the weights to download.
            weights: local file instead: OpenAI's archive, a state dict, or safetensors.
            device: auto, cpu, cuda, cuda:1, …
            grids: MSSA's snippets on a side; () for the plain score, which is faster.
            centred: see `for_classes`.

        Raises:
            FileNotFoundError, ValueError: no weights, no names, or one that is listed twice.
        """
        if isinstance(class_names, str):
            raise ValueError(f"class_names: expected a list of names, got the text {class_names!r}")
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

        Args:
            classes: ClassList.
            settings: Config, of which clip, device and evaluate are read.
            centred: the closed form of the templates instead, which moves class embeddings away from each other.
            cache: folder that keeps the features of the templates, or None.
        """
        model = runtime.load_clip(settings, precision=settings.evaluate.precision)
        templates = corpus.encode(model, corpus.templates(classes), cache)
        if centred and len(classes) > 1:  # a single class has no other to move away from
            weight = losses.pair_weight(len(classes), len(templates))
            z = closed_form.minimise(losses.class_sums(templates, len(templates)), weight).class_embeddings
        else:
            z = class_embeddings.mean(templates)
        return cls(model, classes.names, z, settings.evaluate.grids, settings.evaluate.temperature)

    @classmethod
    def load(cls, run: str | Path, *pairs: str, **overrides: object) -> "Tagger":
        """A tagger from the folder of a run.

        Args:
            run: folder that rcnn.train wrote.
            pairs: configuration keys to set, such as "device=cuda".
            overrides: the same as keywords, such as device="cuda" or **{"clip.weights": "moved.pt"}.

        Raises:
            FileNotFoundError, ValueError: no run, no weights, or not the weights the run was learned with.
        """
        rows, metadata = checkpoint.read_run(run)
        keywords = [f"{key}={json.dumps(value, default=str)}" for key, value in overrides.items()]
        settings = config.override(metadata["config"], [*pairs, *keywords])
        model = runtime.load_clip(settings, metadata, settings.evaluate.precision)
        z = rows[metadata["method"]]
        return cls(model, metadata["class_names"], z, settings.evaluate.grids, settings.evaluate.temperature)

    def tag(self, images: AnyImage | Iterable[AnyImage], top: int | None = None) -> Tags | list[Tags]:
        """The best classes of an image, or of each of several.

        Args:
            images: a path, PIL image or array (H, W, 3) of uint8; or several of them.
            top: classes per image; None for 5, or all if there are fewer.

        Returns:
            A list of (class name, score), best first; of several images a list of such lists.

        Raises:
            ValueError: an image cannot be read; says which.
        """
        several, one = _listed(images)
        top, tags = self._top(top), {}
        for indices, scores in self._read(several):
            tags |= zip(indices, self._best(scores, top), strict=True)
        out = [tags[i] for i in range(len(several))]
        return out[0] if one else out

    def scores(self, images: AnyImage | Iterable[AnyImage]) -> torch.Tensor:
        """The scores of all classes.

        Args:
            images: a path, PIL image or array (H, W, 3) of uint8; or B of them.

        Returns:
            (C,) float32 on the CPU, in the order of `class_names`; of several images (B, C).

        Raises:
            ValueError: an image cannot be read; says which.
        """
        several, one = _listed(images)
        out = torch.zeros(len(several), len(self.class_names))
        for indices, scores in self._read(several):
            out[indices] = scores
        return out[0] if one else out

    def stream(
        self,
        images: Sequence[AnyImage],
        top: int | None = None,
        batch_size: int = 8,
        workers: int = 0,
        done: Callable[[int], object] = lambda number: None,
    ) -> Iterator[tuple[int, Tags | None, str | None]]:
        """Tag images batch by batch.

        Args:
            images: paths, PIL images or arrays.
            top: classes per image; None for 5, or all if there are fewer.
            batch_size: images at a time.
            workers: decoding processes.
            done: called after every batch with the number of its images.

        Yields:
            (index, tags, problem) in no promised order: tags is a list of (class name, score), best first; or None
            where the image cannot be read, and then problem says why.
        """
        top = self._top(top)
        for indices, scores, broken in self._score(images, batch_size, workers):
            done(len(indices) + len(broken))
            yield from ((index, None, problem) for index, problem in broken.items())
            yield from ((index, tags, None) for index, tags in zip(indices, self._best(scores, top), strict=True))

    def _read(self, images: Sequence[AnyImage]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """(indices, scores) of images that all have to be readable."""
        for indices, scores, broken in self._score(images):
            for index, problem in broken.items():
                image = images[index]
                name = image if isinstance(image, str | Path) else f"{index} ({type(image).__name__})"
                raise ValueError(f"cannot read image {name}: {problem}")
            yield indices, scores

    def _score(
        self, images: Sequence[AnyImage], batch_size: int = 8, workers: int = 0
    ) -> Iterator[tuple[list[int], torch.Tensor, dict[int, str]]]:
        """(indices, (b, C) scores of these images on the CPU, {index of another: why it cannot be read}) of every batch."""
        for batch in batches(images, self.model.image.image_size, self.grids, batch_size, workers, upright=True):
            total = torch.zeros(0, len(self.class_names))
            if batch.indices:
                with torch.inference_mode():
                    features = self.model.encode_views(batch.pixels)
                    total = mssa.score(features, self.class_embeddings, self.grids, self.temperature).total
            yield batch.indices, total.cpu(), batch.broken

    def _best(self, scores: torch.Tensor, top: int) -> list[Tags]:
        """The `top` best classes of every row; equal scores are ranked in the order of the class list."""
        values, columns = (best[:, :top].tolist() for best in scores.sort(dim=1, descending=True, stable=True))
        return [
            [(self.class_names[c], value) for c, value in zip(row, best, strict=True)]
            for row, best in zip(columns, values, strict=True)
        ]

    def _top(self, top: int | None) -> int:
        count = len(self.class_names)
        if top is None:
            return min(TOP, count)
        if not 1 <= top <= count:
            raise ValueError(f"top: expected 1 to {count} (the number of classes), got {top}")
        return top


def _listed(images: AnyImage | Iterable[AnyImage]) -> tuple[list[AnyImage], bool]:
    """A list of images, and whether it was a single one."""
    one = isinstance(images, str | Path | Image.Image | np.ndarray)
    return ([images] if one else list(images)), one
