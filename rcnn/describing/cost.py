"""What the answers of one run cost, and when it may ask no further."""

import math
from collections.abc import Iterable

from rcnn.config import DescribeConfig
from rcnn.describing.answers import Answers
from rcnn.describing.exchange import Exchange, expected_tokens
from rcnn.describing.service import StopError

PRICES = {"gpt-4o-mini": (0.15, 0.60)}  # USD for a million tokens in, out (November 2026)


class Cost:
    """The cost in USD of the answers that a run adds to `store`; a limit is refused for a model whose price is not known."""

    def __init__(self, settings: DescribeConfig, store: Answers, batched: bool = False, limit: float | None = None) -> None:
        prices = (settings.input_price, settings.output_price)
        self.prices = PRICES.get(settings.model) if None in prices else prices
        self.store, self.batched, self.limit = store, batched, limit
        if limit is not None and not 0 <= limit < math.inf:
            raise ValueError(f"--max-cost: expected USD, 0 or more, got {limit}")
        if limit is not None and self.prices is None:
            raise ValueError(f"--max-cost: the price of {settings.model} is not known; set input_price= and output_price=")

    def price(self, tokens: Iterable[int], batched: bool = False) -> float:
        """USD of (in, out) tokens; 0 if the price is not known."""
        return sum(p * n for p, n in zip(self.prices or (0, 0), tokens, strict=True)) / 1e6 / (2 if batched else 1)

    def __str__(self) -> str:
        spent = self.price(self.store.paid, self.batched)
        return f"${spent:.4f}" if self.prices else f"{sum(self.store.paid):,} tokens"

    def check(self, batch: Iterable[Exchange] = ()) -> None:
        """StopError unless another request, or a batch of the next requests of these exchanges, may be sent."""
        if self.limit is None:
            return
        spent = self.price(self.store.paid, self.batched)
        if self.batched:
            expected = spent + self.price(expected_tokens(batch), batched=True)
            if expected > self.limit:
                raise StopError(f"this batch would bring the cost to about ${expected:.4f}, --max-cost is {self.limit}")
        elif self.store.unmetered:
            raise StopError("the service reports no token counts, so that --max-cost cannot be kept")
        elif spent >= self.limit:
            raise StopError(f"{self} spent, --max-cost is {self.limit}; the same command with more continues")
