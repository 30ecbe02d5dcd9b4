"""What tells a model where a token stands: `added` to its row, or put into the attention, by `rotary` or `alibi`."""

from __future__ import annotations

from typing import Literal, get_args

Positions = Literal["learned", "sinusoidal", "rotary", "alibi", "none"]
KINDS: tuple[str, ...] = get_args(Positions)
PERIOD = 10_000.0  # of the slowest sine, in units of 2 pi tokens, in sinusoids and in rotary positions alike
