"""How class names are learned: the paper's schedule, one step, and the loop over epochs (paper 3.4)."""

import math

import numpy as np
import torch

from rcnn.learn.losses import pair_loss, reconstruction_loss


def learning_rates(epochs, rate, warmup):
    """Rate of every epoch: `warmup` in the first, then a cosine that starts at `rate`.

    The cosine is entered at epoch 1 and not finished, as in the authors' code: rate·½(1 + cos(π(e−1)/epochs)).
    """
    return [warmup] + [rate * 0.5 * (1 + math.cos(math.pi * (e - 1) / epochs)) for e in range(1, epochs)]


def new_optimiser(learner, momentum, weight_decay):
    """SGD over the class vectors alone; `step` sets the rate."""
    return torch.optim.SGD([learner.class_vectors], lr=0.0, momentum=momentum, weight_decay=weight_decay)


def step(learner, optimiser, text_features, targets, weight, rate, amp=False):
    """loss = mse + weight · pairs on one batch, and a step down its gradient.

    Args:
        learner: PromptLearner.
        text_features: (b, D) sentences of the batch.
        targets: (b,) their classes.
        weight: λ of the pair-based loss.
        rate: learning rate.
        amp: compute the tower in bfloat16 (CUDA).

    Returns:
        The loss before the step, a float.
    """
    for group in optimiser.param_groups:
        group["lr"] = rate
    with torch.autocast(text_features.device.type, torch.bfloat16, enabled=amp):
        z = learner()
    loss = reconstruction_loss(z, text_features, targets) + weight * pair_loss(z)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def batches(count, batch_size, seed, epoch):
    """Row numbers of every batch of an epoch: all rows shuffled, the last incomplete batch dropped."""
    order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(count))
    return order[: count - count % batch_size].split(batch_size)


def learn(learner, optimiser, text_features, targets, weight, rates, batch_size, seed, first=0, amp=False):
    """Learn class names, epoch after epoch; the order of sentences depends on seed and epoch alone.

    At least one batch of sentences is needed.

    Args:
        learner: PromptLearner, changed in place.
        optimiser: from `new_optimiser`.
        text_features, targets: (M, D) unit vectors of all sentences and (M,) their classes.
        weight: λ.
        rates: learning rate of every epoch.
        batch_size: b.
        seed: of the order.
        first: epoch to begin with.
        amp: see `step`.

    Yields:
        (epoch, mean loss of its steps) after each epoch.
    """
    device = learner.class_vectors.device
    text_features, targets = text_features.to(device), targets.to(device)
    for epoch in range(first, len(rates)):
        trace = []
        for rows in batches(len(targets), batch_size, seed, epoch):
            rows = rows.to(device)
            trace.append(step(learner, optimiser, text_features[rows], targets[rows], weight, rates[epoch], amp))
        yield epoch, sum(trace) / len(trace)
