"""Learnable class names: a few vectors a class that stand where the name would stand in the prompt (paper 3.4)."""

import torch
from torch import nn
from torch.nn import functional as F

from rcnn import clip
from rcnn.clip.text_tower import TextEncoder

INITIAL_STD = 0.02  # of the normal distribution that the vectors start from


class PromptLearner(nn.Module):
    """`a photo of a` + N_c learnable vectors, `tokens`, + `.` for every class; `generator`, on the CPU, draws their start."""

    def __init__(self, text: TextEncoder, num_classes: int, tokens: int, generator: torch.Generator | None = None):
        super().__init__()
        self.text = text
        width, device = text.positional_embedding.shape[1], text.positional_embedding.device
        start = INITIAL_STD * torch.randn(num_classes, tokens, width, generator=generator)
        self.class_vectors = nn.Parameter(start.to(device))
        row = clip.tokenize([f"{clip.CONTEXT} {' '.join(['X'] * tokens)}."])[0].to(device)
        row = row[: int(row.argmax()) + 1]
        head, tail = row[: -tokens - 2], row[-2:]  # start + context | the vectors | full stop + end
        self.prefix = text.prefix(head)
        with torch.no_grad():
            self.register_buffer("suffix", text.token_embedding(tail))

    def forward(self) -> torch.Tensor:
        """Class embeddings z, (C, D) unit vectors."""
        num_classes, tokens, _ = self.class_vectors.shape
        names = torch.cat([self.class_vectors, self.suffix.expand(num_classes, -1, -1)], dim=1)  # (C, N_c + 2, width)
        end = torch.full((num_classes,), tokens + 1, device=names.device)
        return F.normalize(self.text(names, end, self.prefix), dim=-1)
