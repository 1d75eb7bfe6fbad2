"""The frozen CLIP: weights, tokens, and the two towers (paper 3.2)."""

from rcnn.clip.model import MEAN, STD, Clip, build, file_sha256, find_weights, load, tokenize, tokenizer

__all__ = ["MEAN", "STD", "Clip", "build", "file_sha256", "find_weights", "load", "tokenize", "tokenizer"]
