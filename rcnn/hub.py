"""Taggers on Hugging Face's hub, by addresses such as hf://user/repo or, at one commit, hf://user/repo@revision."""

from collections.abc import Sequence
from pathlib import Path

from rcnn.printing import cut, short

PREFIX = "hf://"
# a stranger's file must not choose which local file is read as CLIP's weights, or that a program in it is run
DISTRUSTED = ("clip.weights=null", "clip.trust_torchscript=false")


def fetch(address: str, files: Sequence[str]) -> Path:
    """The folder to which those of the `files` that an address has are downloaded, unless they are there.

    FileNotFoundError if they cannot be had.
    """
    from huggingface_hub import snapshot_download  # here, since it takes a while

    repo, _, revision = address.removeprefix(PREFIX).partition("@")
    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=list(files)))
    except Exception as error:  # the hub's client raises kinds of several libraries
        why = cut(" ".join(str(error).split()) or type(error).__name__)
        raise FileNotFoundError(
            f"{short(address)} cannot be had: {why}; expected hf://user/repo, where the files of rcnn export are"
        ) from None
