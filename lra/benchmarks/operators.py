"""The target `operators`: what convolution by FFT and the associative scan cost, at growing lengths.

The scan is measured beside two other ways to compute the same recurrence, both of which only work where its decays are
the same at every step: as a convolution with their powers, and chunk after chunk in a loop, each chunk by one product
with a matrix of powers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

import torch
from torch import Tensor

from lra.benchmarks import options as read
from lra.benchmarks.quantities import Quantity
from lra.benchmarks.timing import Progress, interleave, seconds_of
from lra.statistics import fit_exponent
from models.ops.fft_convolution import convolve
from models.ops.scan import scan

OPTIONS = {
    "lengths": "1024,4096,16384,65536", "batch": "4", "channels": "64", "repeats": "5", "seconds": "20",
    "device": "cpu",
}  # fmt: skip
CHUNK = 64  # steps of a chunk in the loop


def measure(options: Mapping[str, str]) -> Iterator[Quantity]:
    """Read the options; measure forward and backward pass of each operator at each length."""
    lengths = read.counts(options, "lengths", least=CHUNK)
    sizes = read.count(options, "batch"), read.count(options, "channels")
    device = torch.device(options["device"])
    return _measure(lengths, sizes, device, read.count(options, "repeats"), read.amount(options, "seconds"))


def _measure(
    lengths: Sequence[int], sizes: tuple[int, int], device: torch.device, repeats: int, seconds: float
) -> Iterator[Quantity]:
    medians: dict[str, list[float]] = {}
    for length in Progress("length", len(lengths)).over(lengths):
        passes = {name: _pass(make, device) for name, make in cases(*sizes, length, device).items()}
        for run in passes.values():
            run()  # warm-up
        for name, times in interleave(passes, repeats, seconds).items():
            medians.setdefault(name, []).append(median(times["both"]))
            yield Quantity(f"{name}, L = {length:,}", 1e3 * medians[name][-1], "ms", "forward and backward")
    for name, values in medians.items():
        if exponent := fit_exponent(lengths, values):
            yield Quantity(f"{name}, growth", exponent.value, "exponent", f"± {exponent.half_width:.2f}")
    for other in ("recurrence by FFT", "recurrence chunk by chunk"):
        ratios = [one / two for one, two in zip(medians["scan, the same decay"], medians[other], strict=True)]
        yield Quantity(f"scan / {other}", max(ratios), "ratio", f"the largest of {len(lengths)} lengths")


def cases(batch: int, channels: int, length: int, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """Make what is measured: each gives (B, L, C) of inputs that have gradients."""

    def numbers(*shape: int) -> Tensor:
        return torch.rand(shape, device=device, requires_grad=True)

    x, kernel, reverse = numbers(batch, length, channels), numbers(channels, length), numbers(channels, length)
    decays, decay = numbers(batch, length, channels), numbers(1, 1, channels)
    return {
        "convolution": lambda: convolve(x, kernel),
        "convolution, both directions": lambda: convolve(x, kernel, reverse),
        "scan": lambda: scan(decays, x),
        "scan, the same decay": lambda: scan(decay, x),
        "recurrence by FFT": lambda: convolve(x, powers(decay[0, 0], length)),
        "recurrence chunk by chunk": lambda: chunk_by_chunk(decay[0, 0], x),
    }


def powers(decay: Tensor, count: int) -> Tensor:
    """Return the powers 0 to count - 1 of decays (C,), as (C, count)."""
    return decay[:, None] ** torch.arange(count, device=decay.device)


def chunk_by_chunk(decay: Tensor, x: Tensor) -> Tensor:
    """Run h_t = a h_{t-1} + x_t over chunks of (B, L, C), a (C,): within a chunk by one product with powers of a."""
    taps = powers(decay, CHUNK + 1)
    places = torch.arange(CHUNK, device=x.device)
    lags = places[:, None] - places
    inside = taps[:, lags.clamp_min(0)] * (lags >= 0)  # (C, CHUNK, CHUNK)
    state, out = torch.zeros_like(x[:, 0]), []
    for chunk in x.split(CHUNK, 1):
        size = chunk.shape[1]
        own = torch.einsum("cij,bjc->bic", inside[:, :size, :size], chunk)
        out.append(own + taps[:, 1 : size + 1].T * state[:, None])
        state = out[-1][:, -1]
    return torch.cat(out, 1)


def _pass(make: Callable[[], Tensor], device: torch.device) -> Callable[[], dict[str, float]]:
    return lambda: seconds_of({"pass": lambda: make().sum().backward()}, device, "both")
