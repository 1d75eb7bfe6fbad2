"""Learning from end to end: the class embeddings of every row of a run."""

from pathlib import Path

import yaml

from rcnn import checkpoint, config, rows, runtime
from rcnn.clip import Clip
from rcnn.files import replace_file, sweep
from rcnn.learn import class_embeddings
from rcnn.learn.material import Material
from rcnn.learn.names import forget, must_be_same
from rcnn.text.classes import ClassList, in_words


def train(settings: config.Config, classes: ClassList, again: bool = False, model: Clip | None = None) -> None:
    """Learn the run that `settings` describe, or with `again` begin it anew, and write its class embeddings.

    The CLIP that the settings name is loaded unless it is given. ValueError if the output folder holds another run.
    """
    if len(classes) < 2:
        raise ValueError("expected at least two classes: a single one has nothing to be told from")
    model, output = model or runtime.load_clip(settings), Path(settings.output)
    sweep(settings.cache, output, *output.glob("*/"), *output.glob("*/epochs/"))
    material, path = Material(settings, model, classes), output / checkpoint.EMBEDDINGS
    if path.exists():
        must_be_same(output, checkpoint.read_run(output)[1]["identity"], material.identity)
    if again:
        for row in rows.ROWS:
            forget(output, row, material.identity)
        path.unlink(missing_ok=True)
    if not settings.corpus.path:
        print("corpus.path is null: only the rows that need no descriptions are made, and nothing is learned")
    embeddings, method = rows.embed(material), rows.method(settings)
    with replace_file(output / "config.yaml") as file:  # for people; the embeddings carry it too
        file.write(yaml.safe_dump(config.to_dict(settings), sort_keys=False).encode())
    checkpoint.write(
        path,
        embeddings,
        version=checkpoint.VERSION,
        method=method,
        class_names=classes.names,
        notes=classes.notes,
        seen=classes.seen,
        weights_sha256=model.sha256,
        config=config.to_dict(settings),
        identity=material.identity,
        learning=material.record,
        sources=material.sources,
    )
    if same := class_embeddings.coinciding_names(embeddings[method], classes.names):
        print(f"{method}: these classes share their class embedding, so their scores are equal: {in_words(same)}")
    print(f"class embeddings of {len(classes)} classes: {path}")
