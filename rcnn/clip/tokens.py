"""CLIP's byte-pair tokens, and the prompt that sentences and learnable class names share."""

from collections.abc import Sequence
from functools import cache

import open_clip
import torch

CONTEXT = "a photo of a"  # of CLIP's plain prompt, "a photo of a {class}.", and of the learnable one (paper 3.4)


@cache
def tokenizer() -> open_clip.SimpleTokenizer:
    """CLIP's byte-pair tokenizer (49,408 tokens), as open_clip ships it."""
    return open_clip.SimpleTokenizer()


def tokenize(sentences: Sequence[str], context: int = 77) -> torch.Tensor:
    """Token rows of M sentences with start and end: (M, context) int64, zero after the end-of-text token.

    ValueError for a sentence of more than `context` tokens; CLIP's own tokenizer would cut it without a word.
    """
    bpe = tokenizer()
    rows = torch.zeros(len(sentences), context, dtype=torch.int64)
    for i, sentence in enumerate(sentences):
        tokens = [bpe.sot_token_id, *bpe.encode(sentence), bpe.eot_token_id]
        if len(tokens) > context:
            raise ValueError(f"a sentence has {len(tokens)} tokens, CLIP takes {context}; shorten it: {sentence!r}")
        rows[i, : len(tokens)] = torch.tensor(tokens)
    return rows
