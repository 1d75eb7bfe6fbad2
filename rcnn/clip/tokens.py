"""CLIP's byte-pair tokens, and the prompt that sentences and learnable class names share."""

from collections.abc import Sequence
from functools import cache

import open_clip
import torch

from rcnn.printing import short

CONTEXT = "a photo of a"  # of CLIP's plain prompt, "a photo of a {class}.", and of the learnable one (paper 3.4)
MOST_BYTES = 33  # of a sentence for each token that it may have: the longest token stands for 32 bytes, and one space
MOST_CHARACTERS = 1 << 20  # of a sentence before it is cleaned of HTML entities and repeated spaces


@cache
def tokenizer() -> open_clip.SimpleTokenizer:
    """CLIP's byte-pair tokenizer (49,408 tokens), as open_clip ships it."""
    return open_clip.SimpleTokenizer()


def tokenize(sentences: Sequence[str], context: int = 77) -> torch.Tensor:
    """Token rows of M sentences with start and end: (M, context) int64, zero after the end-of-text token.

    ValueError for a sentence of more than `context` tokens, which CLIP's own tokenizer would cut without a word, and as in
    `encode`.
    """
    rows = torch.zeros(len(sentences), context, dtype=torch.int64)
    for i, sentence in enumerate(sentences):
        tokens = encode(sentence, context)
        if len(tokens) > context:
            raise ValueError(f"a sentence has {len(tokens)} tokens, CLIP takes {context}; shorten it: {short(sentence)}")
        rows[i, : len(tokens)] = torch.tensor(tokens)
    return rows


def encode(sentence: str, context: int = 77) -> list[int]:
    """The tokens of a sentence with start and end, also if they are more than `context`.

    ValueError for a sentence far too long, since the time of byte-pair encoding grows with the square of a word's length; and
    for one that holds CLIP's own tokens of start and end, however they are written.
    """
    bpe, most = tokenizer(), MOST_BYTES * context
    # a text of few characters cannot have too many bytes, and is not cleaned twice
    if len(sentence) > MOST_CHARACTERS or (4 * len(sentence) > most and len(bpe.clean_fn(sentence).encode()) > most):
        raise ValueError(f"a sentence has more than {context} tokens, all that CLIP takes; shorten it: {short(sentence)}")
    tokens = bpe.encode(sentence)
    if own := set(tokens) & set(bpe.all_special_ids):
        raise ValueError(f"a sentence holds {bpe.decoder[min(own)]}, a token of CLIP's own; remove it: {short(sentence)}")
    return [bpe.sot_token_id, *tokens, bpe.eot_token_id]
