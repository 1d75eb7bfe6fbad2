"""What the class embeddings of a run are made of: its sentences, encoded, and the ways to learn from them.

Without descriptions (corpus.path is null) there are class names and templates alone, and nothing is learned.
"""

import functools
import time
from pathlib import Path
from typing import Any

import torch

from rcnn import config, provenance
from rcnn.clip import Clip
from rcnn.learn import closed_form, losses
from rcnn.learn.names import learn_names
from rcnn.text import corpus
from rcnn.text.classes import ClassList
from rcnn.text.corpus import EncodedCorpus


class Material:
    """Sentences of every class, encoded, and what is learned from them."""

    def __init__(self, settings: config.Config, model: Clip, classes: ClassList):
        self.settings, self.model, train = settings, model, settings.train
        described, templates = bool(settings.corpus.path), corpus.templates(classes)
        # templates stand in for descriptions where there are none; no row that is made of descriptions is made then
        descriptions = corpus.load(settings.corpus.path, classes) if described else templates
        both = described and settings.corpus.templates
        samples = descriptions + templates if both else descriptions
        if (count := len(samples.sentences)) < train.batch_size:
            raise ValueError(f"{count} sentences do not fill one batch; set train.batch_size={count}, or less")
        self.prompts, self.templates = (corpus.encode(model, c, settings.cache) for c in (corpus.prompts(classes), templates))
        self.descriptions = corpus.encode(model, descriptions, settings.cache) if described else self.templates
        # the sentences that names are learned from
        self.samples = self.descriptions + self.templates if both else self.descriptions
        automatic = losses.pair_weight(len(classes), train.batch_size)
        self.weight = automatic if train.pair_weight == "auto" else train.pair_weight  # λ
        # two runs of one identity learn the same
        self.identity = {"clip": model.fingerprint, "corpus": samples.fingerprint, "classes": classes.fingerprint}
        self.identity |= config.shaping(settings, "learning")
        self.record: dict[str, Any] = {"sentences": len(self.samples), "learned": {}}  # for the result file
        self.sources = provenance.sources(provenance.LEARNING)
        self._sums = losses.class_sums(self.samples, train.batch_size)
        self.optimum = functools.cache(functools.partial(closed_form.minimise, self._sums))  # λ -> Optimum

    def closed_form(self) -> torch.Tensor:
        """(C, D) class embeddings that minimise the expected loss."""
        began = time.perf_counter()
        optimum = self.optimum(self.weight)
        best = self._expected_loss(optimum.class_embeddings, self.weight)
        self.record["closed_form"] = {
            "expected_loss": best, "certified_to": optimum.gap, "newton_steps": optimum.iterations,
        }  # fmt: skip
        print(
            f"closed_form: expected loss of a step {best:.3f}, certified to {optimum.gap:.1e}, "
            f"{optimum.iterations} Newton steps, {time.perf_counter() - began:.3f} s"
        )
        return optimum.class_embeddings

    def learn(self, row: str, weight: float) -> torch.Tensor:
        """(C, D) embeddings of class names learned at λ = `weight`; continues where it was interrupted."""
        s = self.settings
        z, record, sources = learn_names(Path(s.output), row, self.model, self.samples, weight, s.train, s.seed, self.identity)
        self.sources = sources  # of the code that began to learn them
        self.record["learned"][row] = record | self._optimality(row, z, weight)
        return z

    def _expected_loss(self, z, weight):
        return losses.expected_loss(z, self._sums, weight, self.settings.train.batch_size).item()

    def _optimality(self, row, z, weight):
        """How far learned names are above the least expected loss that any class embeddings can have; printed and returned."""
        if not self._is_the_papers_loss(z, weight):
            print(f"{row}: total_loss is not the paper's any more, so no bound is known for it")
            return {}
        optimum = self.optimum(weight)
        bound = self._expected_loss(optimum.class_embeddings, weight) - optimum.gap
        reached = self._expected_loss(z, weight)
        print(
            f"{row}: expected loss of a step {reached:.3f}; no class embeddings can reach less than {bound:.3f}: "
            f"optimality gap {100 * (reached - bound) / bound:.2f} %"
        )
        return {
            "expected_loss": reached,
            "lower_bound": bound,
            "optimality_gap": reached - bound,
            "mean_cosine_to_optimum": (z * optimum.class_embeddings).sum(1).mean().item(),
        }

    def _is_the_papers_loss(self, z, weight):
        """Whether `total_loss` is the loss whose optimum the closed form is; it is there to be changed."""
        size = self.settings.train.batch_size
        few = EncodedCorpus(self.samples.features[:size], self.samples.targets[:size], self.samples.num_classes)
        found = losses.total_loss(z, few.features, few.targets, weight).item()
        known = losses.expected_loss(z, losses.class_sums(few, size), weight, size).item()
        return abs(found - known) <= 1e-4 * abs(known)
