"""Learning one set of class names from start to end, or from where it was interrupted (paper 3.4)."""

import copy
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from rcnn import checkpoint, provenance
from rcnn.clip import Clip
from rcnn.config import TrainConfig
from rcnn.learn import optimise
from rcnn.learn.prompt_learner import PromptLearner
from rcnn.progress import progress
from rcnn.text.corpus import EncodedCorpus


def learn_names(
    run: Path, row: str, model: Clip, corpus: EncodedCorpus, weight: float, settings: TrainConfig, seed: int, identity: dict
) -> tuple[torch.Tensor, dict[str, Any], dict[str, str]]:
    """Learn one set of class names with λ = `weight`, or continue.

    RUN/ROW/ holds the state after the last epoch, and the class embeddings of every epoch. ValueError if that state is of
    another run: if it differs in a value of `identity`.

    Returns:
        (C, D) class embeddings on the CPU; what the result file says of the learning; the sources that learned them.
    """
    began, sources = time.perf_counter(), provenance.sources(provenance.LEARNING)
    text = model.text if settings.precision == "float32" else copy.deepcopy(model.text).set_precision(torch.bfloat16)
    learner = PromptLearner(text, corpus.num_classes, settings.tokens, torch.Generator().manual_seed(seed))
    optimiser = optimise.new_optimiser(learner, settings.momentum, settings.weight_decay)
    path, state = run / row / "state.safetensors", {"identity": identity | {"λ": weight}, "losses": [], "seconds": 0.0}
    if path.exists():
        tensors, found = checkpoint.read(path, checkpoint.State)
        must_be_same(path.parent, found["identity"], state["identity"])
        checkpoint.require(path, tensors, **dict.fromkeys(("class_vectors", "momentum"), learner.class_vectors.shape))
        learner.class_vectors.data = tensors["class_vectors"].to(model.device)
        optimiser.state[learner.class_vectors]["momentum_buffer"] = tensors["momentum"].to(model.device)
        if changed := provenance.changed_sources(found["sources"], sources):
            print(f"WARNING: the code has changed since {row} was learned: {', '.join(changed)}; --again learns anew")
        state, sources = found, found["sources"]
    trace, before = state["losses"], state["seconds"]
    with progress(title=f"learn {row}", total=settings.epochs, initial=len(trace), unit="epoch") as bar:
        for epoch, loss in optimise.learn(learner, optimiser, corpus, weight, settings, seed, first=len(trace)):
            trace.append(loss)
            with torch.no_grad():
                z = learner()
            checkpoint.write(checkpoint.epoch_file(run, row, epoch), {"class_embeddings": z}, epoch=epoch, loss=loss)
            # SGD keeps no buffer at momentum 0
            momentum = optimiser.state[learner.class_vectors].get("momentum_buffer", torch.zeros_like(learner.class_vectors))
            state |= {"seconds": before + time.perf_counter() - began, "sources": sources}
            # last, so that a state never knows of an epoch whose embeddings are not there
            checkpoint.write(path, {"class_vectors": learner.class_vectors, "momentum": momentum}, **state)
            bar.note(f"loss {loss:.3f}")
            bar.update()
    with torch.no_grad():
        return learner().cpu(), {"pair_weight": weight, "losses": trace, "seconds": state["seconds"]}, sources


def must_be_same(folder: Path, found: dict, identity: dict) -> None:
    """ValueError unless the run found in `folder` is the one that is asked for."""
    if different := [key for key in identity if found.get(key) != identity[key]]:
        raise ValueError(
            f"{folder} holds a run that differs in {', '.join(different)}; choose another output=, or delete that folder"
        )


def forget(run: Path, row: str, identity: dict) -> None:
    """Delete what is learned of a row, unless it is of another run."""
    state = run / row / "state.safetensors"
    if state.exists():
        must_be_same(state.parent, checkpoint.read(state, checkpoint.State)[1]["identity"], identity)
        shutil.rmtree(state.parent)
