"""Learn class names from text, and measure them: `python -m rcnn.train --config configs/mini.yaml`.

Reads class names and their descriptions, learns a reconstructed name per class, and writes the class embeddings of this
and of every row it is compared with to the run's folder. If the configuration names a data set, the rows are then
evaluated on it. Interrupted, the same command continues where it was and ends with the same vectors.
"""

import dataclasses
import json
import time
from pathlib import Path

import torch
import yaml
from tqdm import tqdm

from rcnn import checkpoint, class_embeddings, closed_form, command, config, corpus, evaluate, losses, optimise
from rcnn.classes import ClassList
from rcnn.files import replace_file
from rcnn.prompt_learner import PromptLearner

METHODS = {"names": "cnr_pbl", "closed_form": "closed_form"}  # train.method -> the row that is the run's result


def learn_names(folder, model, t, targets, classes, weight, settings, seed, identity):
    """Learn one set of class names, or continue; return its (C, D) embeddings and a record for the result file.

    Args:
        folder: holds the state after the last epoch and the class embeddings of every epoch.
        model: Clip.
        t, targets: sentence features and classes.
        classes: C.
        weight: λ.
        settings: TrainConfig.
        seed: of the start and the order of sentences.
        identity: facts that must be equal for a state to be continued.
    """
    identity = identity | {"pair_weight": weight, "seed": seed}
    learner = PromptLearner(model.text, classes, settings.tokens, torch.Generator().manual_seed(seed))
    optimiser = optimise.new_optimiser(learner, settings.momentum, settings.weight_decay)
    rates = optimise.learning_rates(settings.epochs, settings.learning_rate, settings.warmup_rate)
    state, trace = folder / "state.safetensors", []
    if state.exists():
        tensors, facts = checkpoint.read(state)
        if different := [k for k in identity if facts["identity"].get(k) != identity[k]]:
            raise ValueError(
                f"{folder} holds a run that differs in {', '.join(different)}; choose another output=, or delete that folder"
            )
        learner.class_vectors.data = tensors["class_vectors"].to(model.device)
        optimiser.state[learner.class_vectors]["momentum_buffer"] = tensors["momentum"].to(model.device)
        trace = facts["losses"]
    amp = settings.amp
    if amp and model.device.type != "cuda":
        raise ValueError("train.amp: needs a CUDA GPU; this run is on the CPU")
    epochs = optimise.learn(
        learner, optimiser, t, targets, weight, rates, settings.batch_size, seed, len(trace), amp,
    )  # fmt: skip
    bar = tqdm(total=settings.epochs, initial=len(trace), desc=f"learn {folder.name}", unit="epoch")
    for epoch, loss in epochs:
        trace.append(loss)
        with torch.no_grad():
            z = learner()
        checkpoint.write(folder / "epochs" / f"{epoch:03}.safetensors", {"class_embeddings": z}, epoch=epoch, loss=loss)
        momentum = optimiser.state[learner.class_vectors]["momentum_buffer"]
        checkpoint.write(  # last, so that a state never knows of an epoch whose embeddings are not there
            state, {"class_vectors": learner.class_vectors, "momentum": momentum}, identity=identity, losses=trace
        )
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        bar.update()
    bar.close()
    with torch.no_grad():
        return learner().cpu(), {"pair_weight": weight, "losses": trace}


def learn_rows(settings, model, classes):
    """Class embeddings of every row of the comparison.

    Returns:
        (rows, record): name -> (C, D), and how far learned names are from the optimum.
    """
    descriptions = corpus.load(settings.corpus.path, classes)
    filled, prompts = corpus.templates(classes), corpus.prompts(classes)
    cache, count = settings.cache, len(classes)
    t, f = (corpus.features(model, c.sentences, cache) for c in (descriptions, filled))
    all_t, all_targets = torch.cat([t, f]), torch.cat([descriptions.targets, filled.targets])
    baseline = corpus.features(model, prompts.sentences)
    rows = {
        "baseline": baseline,
        "centred": class_embeddings.centred(baseline, settings.evaluate.centring),
        "templates": class_embeddings.mean(f, filled.targets, count),
        "mean": class_embeddings.mean(t, descriptions.targets, count),
        "mean_with_templates": class_embeddings.mean(all_t, all_targets, count),
        "principal": class_embeddings.principal_direction(t, descriptions.targets, count),
    }
    used, train = descriptions, settings.train
    if settings.corpus.templates:
        used, t, targets = descriptions + filled, all_t, all_targets
    else:
        targets = descriptions.targets
    pull = losses.class_pull(t, targets, count, train.batch_size)
    record = {"sentences": len(used.sentences), "corpus_fingerprint": used.fingerprint, "learned": {}}
    identity = {"weights": model.sha256, "corpus": used.fingerprint, "classes": classes.fingerprint}
    identity |= {k: v for k, v in dataclasses.asdict(train).items() if k not in ("method", "ablation", "pair_weight")}
    wanted = {}
    if train.method == "names":
        wanted = ({"cnr": 0.0} if train.ablation else {}) | {"cnr_pbl": train.pair_weight}
    for name, weight in wanted.items():
        began = time.perf_counter()
        z, learned = learn_names(Path(settings.output) / name, model, t, targets, count, weight, train, settings.seed, identity)
        rows[name] = z
        bound = closed_form.minimise(pull, weight)
        best = losses.expected_loss(bound.class_embeddings, pull, weight, train.batch_size).item()
        reached = losses.expected_loss(z, pull, weight, train.batch_size).item()
        record["learned"][name] = learned | {
            "expected_loss": reached,
            "optimum": best,
            "optimum_certified_to": bound.gap,
            "optimality_gap": reached - best,
            "mean_cosine_to_optimum": (z * bound.class_embeddings).sum(1).mean().item(),
            "seconds": time.perf_counter() - began,
        }
        print(
            f"{name}: expected loss of a step {reached:.3f}; no class embeddings can reach less than {best - bound.gap:.3f}: "
            f"optimality gap {100 * (reached - best) / best:.2f} %"
        )
    began = time.perf_counter()
    optimum = closed_form.minimise(pull, train.pair_weight)
    rows["closed_form"] = optimum.class_embeddings
    record["closed_form"] = {
        "pair_weight": train.pair_weight, "certified_to": optimum.gap, "newton_steps": optimum.iterations,
        "seconds": time.perf_counter() - began,
    }  # fmt: skip
    return rows, record


def train(settings):
    """Learn the run that `settings` (Config) describes and write its class embeddings."""
    if settings.train.method not in METHODS:
        raise ValueError(f"train.method: expected one of {', '.join(METHODS)}, got {settings.train.method!r}")
    if not settings.corpus.path:
        raise ValueError("corpus.path: expected the class descriptions, got null")
    if settings.train.epochs < 1 or settings.train.batch_size < 1 or settings.train.tokens < 1:
        raise ValueError("train.epochs, train.batch_size and train.tokens: expected at least 1")
    classes = ClassList.read(settings.classes.seen, settings.classes.unseen)
    model = command.load_clip(settings)
    rows, record = learn_rows(settings, model, classes)
    output = Path(settings.output)
    with replace_file(output / "config.yaml") as file:
        file.write(yaml.safe_dump(config.to_dict(settings), sort_keys=False).encode())
    checkpoint.write(
        output / checkpoint.EMBEDDINGS,
        rows,
        method=METHODS[settings.train.method],
        class_names=classes.names,
        seen=classes.seen,
        weights_sha256=model.sha256,
        learning=record,
    )
    print(f"class embeddings of {len(classes)} classes: {output / checkpoint.EMBEDDINGS}")
    return model


def main(argv=None):
    parser = command.parser(__doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML configuration; see configs/")
    parser.add_argument("--resume", metavar="RUN", help="continue the run in this folder; an error if there is none")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="configuration keys to set")
    args = parser.parse_args(argv)
    overrides = args.overrides
    if args.resume:
        if (
            not (Path(args.resume) / "cnr_pbl" / "state.safetensors").exists()
            and not (Path(args.resume) / "cnr" / "state.safetensors").exists()
        ):
            raise FileNotFoundError(f"--resume: there is no run in {args.resume} to continue")
        overrides = [*overrides, f"output={json.dumps(args.resume)}"]
    settings = config.load(args.config, overrides)
    model = train(settings)
    if settings.dataset.annotations:
        evaluate.evaluate(settings, model)
    else:
        print("dataset.annotations is null: nothing to evaluate on")


if __name__ == "__main__":
    command.run(main)
