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

from rcnn import checkpoint, cli, config, evaluate
from rcnn.files import replace_file
from rcnn.learn import class_embeddings, closed_form, losses, optimise
from rcnn.learn.prompt_learner import PromptLearner
from rcnn.text import corpus
from rcnn.text.classes import ClassList

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
    identity, began = identity | {"pair_weight": weight}, time.perf_counter()
    learner = PromptLearner(model.text, classes, settings.tokens, torch.Generator().manual_seed(seed))
    optimiser = optimise.new_optimiser(learner, settings.momentum, settings.weight_decay)
    rates = optimise.learning_rates(settings.epochs, settings.learning_rate, settings.warmup_rate)
    state, trace = folder / "state.safetensors", []
    if state.exists():
        tensors, facts = checkpoint.read(state)
        must_be_same(folder, facts["identity"], identity)
        learner.class_vectors.data = tensors["class_vectors"].to(model.device)
        optimiser.state[learner.class_vectors]["momentum_buffer"] = tensors["momentum"].to(model.device)
        trace = facts["losses"]
    epochs = optimise.learn(
        learner, optimiser, t, targets, weight, rates, settings.batch_size, seed, len(trace), settings.amp,
    )  # fmt: skip
    bar = tqdm(total=settings.epochs, initial=len(trace), desc=f"learn {folder.name}", unit="epoch", delay=0.5)
    for epoch, loss in epochs:
        trace.append(loss)
        with torch.no_grad():
            z = learner()
        checkpoint.write(folder / "epochs" / f"{epoch:03}.safetensors", {"class_embeddings": z}, epoch=epoch, loss=loss)
        # SGD keeps no buffer at momentum 0
        momentum = optimiser.state[learner.class_vectors].get("momentum_buffer", torch.zeros_like(learner.class_vectors))
        checkpoint.write(  # last, so that a state never knows of an epoch whose embeddings are not there
            state, {"class_vectors": learner.class_vectors, "momentum": momentum}, identity=identity, losses=trace
        )
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        bar.update()
    bar.close()
    with torch.no_grad():
        return learner().cpu(), {"pair_weight": weight, "losses": trace, "seconds": time.perf_counter() - began}


def must_be_same(folder, found, identity):
    """ValueError unless the run found in `folder` is the one that is asked for."""
    if different := [key for key in identity if found.get(key) != identity[key]]:
        raise ValueError(
            f"{folder} holds a run that differs in {', '.join(different)}; choose another output=, or delete that folder"
        )


def learn_rows(settings, model, classes):
    """Class embeddings of every row of the comparison.

    Args:
        settings: Config.
        model: Clip.
        classes: ClassList.

    Returns:
        (rows, facts): name -> (C, D); what the rows were learned from, and how far learned names are from the optimum.

    Raises:
        ValueError: the output folder holds another run.
    """
    train, count, output, began = settings.train, len(classes), Path(settings.output), time.perf_counter()
    descriptions, filled = corpus.load(settings.corpus.path, classes), corpus.templates(classes)
    both = descriptions + filled
    baseline, t, f = (
        corpus.features(model, c.sentences, settings.cache) for c in (corpus.prompts(classes), descriptions, filled)
    )
    tf = torch.cat([t, f])
    rows = {
        "baseline": baseline,
        "centred": class_embeddings.centred(baseline, train.centring),
        "templates": class_embeddings.mean(f, filled.targets, count),
        "mean": class_embeddings.mean(t, descriptions.targets, count),
        "mean_with_templates": class_embeddings.mean(tf, both.targets, count),
        "principal": class_embeddings.principal_direction(t, descriptions.targets, count),
    }
    samples, features = (both, tf) if settings.corpus.templates else (descriptions, t)
    if len(features) < train.batch_size:
        raise ValueError(f"{len(features)} sentences do not fill one batch of {train.batch_size}; set train.batch_size lower")
    identity = {"clip": model.fingerprint, "corpus": samples.fingerprint, "classes": classes.fingerprint}
    identity |= {"seed": settings.seed, **dataclasses.asdict(train)}
    for key in ("ablation", "centring"):  # rows beside the result
        del identity[key]
    if (output / checkpoint.EMBEDDINGS).exists():
        must_be_same(output, checkpoint.read_run(output)[1]["identity"], identity)
    encoded = time.perf_counter() - began
    pull = losses.class_pull(features, samples.targets, count, train.batch_size)
    began = time.perf_counter()
    optimum = closed_form.minimise(pull, train.pair_weight)
    best = losses.expected_loss(optimum.class_embeddings, pull, train.pair_weight, train.batch_size).item()
    print(
        f"closed_form: expected loss of a step {best:.3f}, certified to {optimum.gap:.1e}, "
        f"{optimum.iterations} Newton steps, {time.perf_counter() - began:.3f} s"
    )
    learned = {}
    for name, weight in weights_to_learn(train).items():
        rows[name], learned[name] = learn_names(
            output / name, model, features, samples.targets, count, weight, train, settings.seed, identity
        )
        own = optimum if weight == train.pair_weight else closed_form.minimise(pull, weight)
        learned[name] |= optimality(name, rows[name], own, pull, weight, train.batch_size)
    rows["closed_form"] = optimum.class_embeddings
    record = {
        "sentences": len(samples.sentences),
        "encode_seconds": encoded,
        "learned": learned,
        "closed_form": {"expected_loss": best, "certified_to": optimum.gap, "newton_steps": optimum.iterations},
    }
    return rows, {"identity": identity, "learning": record}


def weights_to_learn(settings):
    """Row -> λ of the class names that a TrainConfig asks for."""
    if settings.method != "names":
        return {}
    return ({"cnr": 0.0} if settings.ablation else {}) | {"cnr_pbl": settings.pair_weight}


def optimality(name, z, optimum, pull, weight, batch_size):
    """How far learned names are above the least expected loss that any class embeddings can have; printed and returned."""
    bound = losses.expected_loss(optimum.class_embeddings, pull, weight, batch_size).item() - optimum.gap
    reached = losses.expected_loss(z, pull, weight, batch_size).item()
    print(
        f"{name}: expected loss of a step {reached:.3f}; no class embeddings can reach less than {bound:.3f}: "
        f"optimality gap {100 * (reached - bound) / bound:.2f} %"
    )
    return {
        "expected_loss": reached,
        "lower_bound": bound,
        "optimality_gap": reached - bound,
        "mean_cosine_to_optimum": (z * optimum.class_embeddings).sum(1).mean().item(),
    }


def train(settings, classes):
    """Learn the run that `settings` (Config) describes and write its class embeddings."""
    model = cli.load_clip(settings)
    if settings.train.amp and model.device.type != "cuda":
        raise ValueError("train.amp: needs a CUDA GPU; this run is on the CPU")
    rows, facts = learn_rows(settings, model, classes)
    output = Path(settings.output)
    with replace_file(output / "config.yaml") as file:  # for people; the embeddings carry it too
        file.write(yaml.safe_dump(config.to_dict(settings), sort_keys=False).encode())
    checkpoint.write(
        output / checkpoint.EMBEDDINGS,
        rows,
        method=METHODS[settings.train.method],
        class_names=classes.names,
        seen=classes.seen,
        weights_sha256=model.sha256,
        config=config.to_dict(settings),
        **facts,
    )
    print(f"class embeddings of {len(classes)} classes: {output / checkpoint.EMBEDDINGS}")


def main(argv=None):
    parser = cli.parser("train", __doc__)
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML configuration; see configs/")
    parser.add_argument("--no-evaluate", action="store_true", help="learn only; python -m rcnn.evaluate RUN measures")
    parser.add_argument("--resume", metavar="RUN", help="as output=RUN, but an error if there is no run to continue")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="configuration keys to set")
    args = parser.parse_intermixed_args(argv)
    overrides = args.overrides
    if args.resume:
        if not list(Path(args.resume).glob("*/state.safetensors")):
            raise FileNotFoundError(f"--resume: there is no run in {args.resume} to continue")
        overrides = [*overrides, f"output={json.dumps(args.resume)}"]
    settings = config.load(args.config, overrides)
    classes = ClassList.read(settings.classes.seen, settings.classes.unseen)
    if not settings.dataset.annotations:
        train(settings, classes)
        print("dataset.annotations is null: nothing to evaluate on")
        return
    if args.no_evaluate:
        return train(settings, classes)
    images = evaluate.read_dataset(settings, classes)  # before the long work: what is missing should show now
    train(settings, classes)
    evaluate.evaluate(settings, images)


if __name__ == "__main__":
    cli.run(main)
