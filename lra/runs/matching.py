"""Widths at which models of different backbones have the same number of parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from lra.configuration import backbones, compose_config, options_of, to_plain
from lra.errors import InputError
from lra.runs.factory import sketch
from lra.tasks import Task

TOLERANCE = 0.01  # of the number of parameters asked for
WIDEST = 2**16
MULTIPLES = (1, 2, 4, 8, 16, 32)


def matched(resolved: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """Return the configuration with the width at which its model has as many parameters as `model.match_params` asks.

    That is a number, or the name of a backbone, whose model in the same configuration is counted. `model.head_dim` and
    `model.mlp_dim` change in proportion to `model.dim`, rounded to integers; the number of heads stays. `model.dim` is
    a multiple of the smallest power of two, or of that and the heads, whose multiples the backbone takes. Where these
    are too far apart, `model.mlp_dim` takes up what is left. Models are made for their shapes alone, without memory.

    Args:
        resolved: the configuration.
        task: the task that it names.

    Raises:
        InputError: there is no such backbone, no width comes within 1 % of the number, or a model cannot be built.
    """
    asked = resolved["model"]["match_params"]
    if asked is None:
        return dict(resolved)
    target = asked if isinstance(asked, int) else _parameters_of(asked, resolved, task)
    found = _closest(resolved, task, target)
    if not _near(_count(found, task), target):
        found = _filled(found, task, target)
    number, model = _count(found, task), found["model"]
    if not _near(number, target):
        raise InputError(
            f"model.match_params={asked} asks for {target:,} parameters, and no width comes within {TOLERANCE:.0%}. "
            f"The closest is model.dim={model['dim']} with {number:,}: ask for about as many, or change attn.*."
        )
    return found


def _near(number: int, target: int) -> bool:
    return abs(number - target) <= TOLERANCE * target


def _parameters_of(name: str, resolved: Mapping[str, Any], task: Task) -> int:
    """Count the parameters with another backbone, as it is configured for the same task, protocol and scale."""
    if name not in backbones():
        raise InputError(
            f"model.match_params must be a number of parameters, or a backbone. Got {name!r}. There are: "
            f"{', '.join(backbones())}."
        )
    chosen = {"task": resolved["task_name"], "protocol": resolved["protocol"]["name"], "scale": resolved["scale"]}
    # Choices of the user's own have nothing to say of a shipped backbone.
    words = [f"{group}={choice}" for group, choice in chosen.items() if choice in options_of(group)]
    cfg = compose_config(f"attn={name}", *words)
    cfg.budget, cfg.model = resolved["budget"], dict(resolved["model"])
    try:
        return _count({**resolved, "attn": to_plain(cfg.attn)}, task)
    except InputError as error:
        raise InputError(f"model.match_params={name} has no number of parameters here: {error}") from error


def _count(resolved: Mapping[str, Any], task: Task) -> int:
    return sum(parameter.numel() for parameter in sketch(resolved, task).parameters())


def _widened(resolved: Mapping[str, Any], dim: int) -> dict[str, Any]:
    """Return the configuration with another width, and what goes with it."""
    model = resolved["model"]
    in_proportion = {name: max(1, round(model[name] * dim / model["dim"])) for name in ("head_dim", "mlp_dim")}
    return {**resolved, "model": {**model, "dim": dim, **in_proportion}}


def _closest(resolved: Mapping[str, Any], task: Task, target: int) -> dict[str, Any]:
    """Return the configuration at the width in proportion whose number of parameters is closest to one."""

    @cache
    def count(dim: int) -> int:
        return _count(_widened(resolved, dim), task)

    widths = _around(target, resolved["model"]["dim"], _step(resolved["model"], count), count)
    return _widened(resolved, min(widths, key=lambda dim: abs(count(dim) - target)))


def _filled(resolved: Mapping[str, Any], task: Task, target: int) -> dict[str, Any]:
    """Let the hidden width of perceptrons and head take up what is left, as long as it changes by a quarter at most."""
    model = resolved["model"]

    def with_hidden(width: int) -> dict[str, Any]:
        return {**resolved, "model": {**model, "mlp_dim": width}}

    hidden, number = model["mlp_dim"], _count(resolved, task)
    each = (_count(with_hidden(2 * hidden), task) - number) / hidden
    more = round((target - number) / each)
    return with_hidden(hidden + more) if abs(more) <= hidden / 4 else dict(resolved)


def _step(model: Mapping[str, Any], count: Callable[[int], int]) -> int:
    """Return the smallest step from one width to the next that the backbone takes.

    Raises:
        InputError: it takes none; the reason is that of the last one tried.
    """
    dim, heads = model["dim"], model["num_heads"]
    steps = sorted({step for multiple in MULTIPLES for step in (multiple, multiple * heads) if dim % step == 0})
    reason = InputError(f"model.dim={dim} is a multiple of none of {', '.join(map(str, MULTIPLES))}.")
    for step in steps:
        try:
            for further in range(4):
                count(dim + further * step)
        except InputError as error:
            reason = error
        else:
            return step
    raise reason


def _around(target: int, dim: int, step: int, count: Callable[[int], int]) -> tuple[int, int]:
    """Return two neighbouring widths, in steps from a first one, with a number of parameters between theirs.

    Where the narrowest or the widest model is still beyond it, that one is both.
    """
    narrow = wide = dim
    while count(narrow) > target and narrow > step:
        narrow = max(step, narrow // 2 // step * step)
    while count(wide) < target and wide < WIDEST:
        wide *= 2
    while wide - narrow > step:
        middle = (narrow + wide) // 2 // step * step
        narrow, wide = (middle, wide) if count(middle) <= target else (narrow, middle)
    return narrow, wide
