"""the same as show"""

from __future__ import annotations

from lra.verbs.show import OPTIONS, answer

__all__ = ["OPTIONS", "answer"]
