"""How class names are learned: the paper's schedule, one step, and the loop over epochs (paper 3.4)."""

import math
from collections.abc import Iterator

import numpy as np
import torch

from rcnn.config import TrainConfig
from rcnn.learn.losses import total_loss
from rcnn.learn.prompt_learner import PromptLearner
from rcnn.text.corpus import EncodedCorpus


def learning_rates(epochs: int, rate: float, warmup: float) -> list[float]:
    """Rate of every epoch: `warmup` in the first, then a cosine that starts at `rate`.

    The cosine is entered at epoch 1 and not finished, as in the authors' code: rate·½(1 + cos(π(e−1)/epochs)).
    """
    return [warmup] + [rate * 0.5 * (1 + math.cos(math.pi * (e - 1) / epochs)) for e in range(1, epochs)]


def new_optimiser(learner: PromptLearner, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """SGD over the class vectors alone; `step` sets the rate."""
    return torch.optim.SGD([learner.class_vectors], lr=0.0, momentum=momentum, weight_decay=weight_decay)


def step(
    learner: PromptLearner,
    optimiser: torch.optim.Optimizer,
    text_features: torch.Tensor,
    targets: torch.Tensor,
    weight: float,
    rate: float,
) -> float:
    """One step down the gradient of `total_loss` on the sentences of one batch; returns the loss before the step.

    `text_features` (b, D), `targets` (b,) the class of each, `weight` λ.
    """
    for group in optimiser.param_groups:
        group["lr"] = rate
    loss = total_loss(learner(), text_features, targets, weight)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def batches(count: int, batch_size: int, seed: int, epoch: int) -> tuple[torch.Tensor, ...]:
    """Row numbers of every batch of an epoch: all rows shuffled, the last incomplete batch dropped."""
    order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(count))
    return order[: count - count % batch_size].split(batch_size)


def learn(
    learner: PromptLearner,
    optimiser: torch.optim.Optimizer,
    corpus: EncodedCorpus,
    weight: float,
    settings: TrainConfig,
    seed: int,
    first: int = 0,
) -> Iterator[tuple[int, float]]:
    """Learn class names with λ = `weight` from epoch `first` on, and yield (epoch, mean loss of its steps) after each.

    The learner is changed in place. The order of sentences depends on seed and epoch alone; they must fill a batch. ValueError
    if learning diverges.
    """
    device = learner.class_vectors.device
    t, targets = corpus.features.to(device), corpus.targets.to(device)
    rates = learning_rates(settings.epochs, settings.learning_rate, settings.warmup_rate)
    for epoch in range(first, settings.epochs):
        trace = []
        for rows in batches(len(targets), settings.batch_size, seed, epoch):
            rows = rows.to(device)
            trace.append(step(learner, optimiser, t[rows], targets[rows], weight, rates[epoch]))
            if not math.isfinite(trace[-1]):
                raise _diverged(f"in step {len(trace)} of epoch {epoch} the loss is {trace[-1]}")
        if not learner.class_vectors.isfinite().all():
            raise _diverged(f"after epoch {epoch} the class vectors are not finite")
        yield epoch, sum(trace) / len(trace)


def _diverged(found: str) -> ValueError:
    return ValueError(
        f"learning diverged: {found}; lower train.learning_rate, train.momentum or train.pair_weight (the last whole epoch is "
        "kept)"
    )
