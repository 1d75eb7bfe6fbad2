"""The frozen CLIP: weights, tokens, and the two towers (paper 3.2)."""

from rcnn.clip.model import MEAN, STD, Clip, load
from rcnn.clip.tokens import CONTEXT, tokenize, tokenizer
from rcnn.clip.towers import build
from rcnn.clip.weights import find_weights

__all__ = ["CONTEXT", "MEAN", "STD", "Clip", "build", "find_weights", "load", "tokenize", "tokenizer"]
