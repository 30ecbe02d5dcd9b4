"""Figures that the mechanisms of a model measure of themselves on a batch, such as the error of an approximation."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from statistics import mean

import torch
from torch import Tensor, nn


@torch.no_grad()
def diagnose(model: nn.Module, tokens: Tensor, mask: Tensor) -> dict[str, float]:
    """Pass a batch through a model in evaluation mode, and collect what its submodules measure on the way.

    A submodule measures by a method `diagnostics`, which takes the arguments of its forward pass and returns scalar
    tensors by name. Modes, hooks and random state are left as they were.

    Args:
        model: maps tokens and mask to anything.
        tokens, mask: as the model takes them.

    Returns:
        The mean of each figure over all layers that measured it, under its name, and the figure of layer i under
        `name/layer<i>`. A layer is a submodule that measured something; without any the result is empty.
    """
    figures: dict[int, dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))

    def measure(index: int, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        for name, value in module.diagnostics(*arguments).items():  # type: ignore[operator]
            figures[index][name].append(value)

    modules = list(model.modules())
    modes = [module.training for module in modules]
    hooks = [
        module.register_forward_pre_hook(partial(measure, index))
        for index, module in enumerate(modules)
        if callable(getattr(module, "diagnostics", None))
    ]
    try:
        with torch.random.fork_rng(devices=[tokens.device] if tokens.device.type == "cuda" else []):
            model.eval()
            model(tokens, mask)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in zip(modules, modes, strict=True):
            module.training = training

    layers: dict[str, dict[int, float]] = defaultdict(dict)
    for layer, index in enumerate(sorted(figures)):
        for name, values in figures[index].items():
            layers[name][layer] = torch.stack(values).double().mean().item()
    means = {name: mean(by_layer.values()) for name, by_layer in layers.items()}
    return means | {f"{name}/layer{i}": x for name, by_layer in layers.items() for i, x in by_layer.items()}
