"""Taggers on Hugging Face's hub, by addresses such as hf://user/repo or, at one commit, hf://user/repo@revision."""

from collections.abc import Sequence
from pathlib import Path

from rcnn.printing import cut, short
from rcnn.tagging.cutoffs import CUTOFFS

PREFIX = "hf://"
# a stranger's file must not choose which local file is read as CLIP's weights, or that a program in it is run
DISTRUSTED = ("clip.weights=null", "clip.trust_torchscript=false")


def local(run: str | Path, pairs: Sequence[str] = ()) -> tuple[Path, list[str]]:
    """(folder, configuration pairs) of a run: the folder to which what an address has is downloaded, unless it is there.

    FileNotFoundError if it cannot be had.
    """
    if not str(run).startswith(PREFIX):
        return Path(run), list(pairs)
    from huggingface_hub import snapshot_download  # here, since both take a while

    from rcnn.checkpoint import EMBEDDINGS

    repo, _, revision = str(run).removeprefix(PREFIX).partition("@")
    try:
        folder = snapshot_download(repo, revision=revision or None, allow_patterns=[EMBEDDINGS, CUTOFFS])
    except Exception as error:  # the hub's client raises kinds of several libraries
        why = cut(" ".join(str(error).split()) or type(error).__name__)
        raise FileNotFoundError(
            f"{short(str(run))} cannot be had: {why}; expected hf://user/repo, where the files of rcnn export are"
        ) from None
    return Path(folder), [*DISTRUSTED, *pairs]
