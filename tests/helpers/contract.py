"""What the contract tests of attentions and of mixers share: names, masks, and a run with its gradients."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import hydra
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lra.errors import InputError
from lra.files import ROOT
from lra.runs.factory import mechanism_of
from models.attention import Attention
from models.mechanism import Mechanism
from models.mixers import Mixer, StreamMixer

# Where the files of `attn=` are; pytest's option --attn-dir adds a folder of somebody's own.
FOLDERS = [ROOT / "configs" / "attn"]

B, H, L, D, C = 3, 2, 37, 8, 12
MAX_LEN = 128


def files() -> dict[str, Path]:
    """The file of every name of `attn=`."""
    return {path.stem: path for folder in FOLDERS for path in sorted(folder.glob("*.yaml"))}


def attentions() -> list[str]:
    """The names that are attentions, a function of (q, k, v): the others are mixers already."""
    return [name for name, path in files().items() if issubclass(mechanism_in(path), Attention)]


def mechanism_in(path: Path) -> type[Mechanism]:
    """The class that a file of `attn=` names."""
    try:
        return mechanism_of(cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path))))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def include(folder: Path) -> None:
    """Let the contract tests run over the files of one more folder, if run.py could use them.

    Raises:
        InputError: the folder has no files of `attn=`, or one that cannot be used.
    """
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise InputError(
            f"--attn-dir={folder} must be a folder with a file NAME.yaml for every attn=NAME. It has none."
        )
    for path in paths:
        mechanism_in(path)
        if path.stem in files():
            raise InputError(
                f"{path}: attn={path.stem} is {files()[path.stem]}, which Hydra finds first. Choose another name."
            )
    FOLDERS.append(folder)


def configured(name: str, budget: int = 8, **settings: Any) -> Any:
    """What `attn=<name>` instantiates: a class and its own settings, some of them changed."""
    model = {"num_heads": H, "head_dim": D}
    attn = OmegaConf.merge(OmegaConf.load(files()[name]), settings)
    config = OmegaConf.create({"budget": budget, "model": model, "attn": attn})
    return hydra.utils.instantiate(config.attn)


def attention(name: str, budget: int = 8, head_dim: int = D, dropout: float = 0.0) -> Attention:
    """The attention of that name, tiny; its parameters are drawn with seed 0."""
    make = configured(name, budget)
    torch.manual_seed(0)
    return make(num_heads=H, head_dim=head_dim, max_len=MAX_LEN, dropout=dropout)


def heads(length: int = L, batch: int = B, dtype: torch.dtype = torch.float32, head_dim: int = D) -> list[Tensor]:
    """Queries, keys, values (B, H, L, D) as `MultiHead` makes them: heads are a strided view."""
    generator = torch.Generator().manual_seed(length)
    shape = (batch, length, H, head_dim)
    return [torch.randn(shape, generator=generator, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(3)]


def rows(length: int = L, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Rows (B, L, C), alone in a list as `run` takes what has gradients."""
    generator = torch.Generator().manual_seed(length)
    return [torch.randn(B, length, C, generator=generator, dtype=dtype).requires_grad_()]


def holey_mask(length: int = L) -> Tensor:
    """Rows: holes, a prefix, everything real."""
    positions = torch.arange(length)
    return torch.stack([(positions % 3 != 1) & (positions < 30), positions < length * 2 // 3, positions >= 0])


def rows_of(mask: Tensor, x: Tensor) -> Tensor:
    """The mask (B, L), shaped to be laid over (B, L, C) or (B, H, L, D)."""
    return mask[..., None] if x.ndim == 3 else mask[:, None, :, None]


def noisy(x: Tensor, mask: Tensor, scale: float) -> Tensor:
    """The same rows with something else in the padding."""
    return torch.where(rows_of(mask, x), x, scale * torch.randn_like(x))


class TwoLayers(Mixer):
    """A mixer with a stream as one without: two layers with the same weights, so that rows show what the stream has."""

    def __init__(self, mixer: StreamMixer) -> None:
        super().__init__(dim=mixer.dim, max_len=mixer.max_len, dropout=mixer.dropout)
        self.mixer = mixer

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        stream = self.mixer.first.expand(len(x), -1, -1)
        mixed, change = self.mixer(x, mask, stream)
        return self.mixer(x + mixed, mask, stream + change)[0]


def run(module: nn.Module, inputs: list[Tensor], mask: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the output, and the gradients by all inputs of a loss that reads every real number.

    An attention leaves padded rows unspecified: they are zeroed. A mixer has to do that itself.
    """
    out = module(*inputs, mask)
    if out.ndim == 4:
        out = torch.where(rows_of(mask, out), out, 0)
    columns, rows = (torch.arange(1, size + 1, device=out.device) for size in (out.shape[-1], out.shape[-2]))
    loss = (out * columns * rows[:, None].sin()).sum()
    if not loss.requires_grad:
        return out.detach(), [torch.zeros_like(x) for x in inputs]
    grads = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    return out.detach(), list(grads)


class Uploads(TorchDispatchMode):
    """Finds what makes a GPU wait for the host: tensors made elsewhere than on a device, or from values of Python.

    An operation shows the latter only in what it takes: a tensor that is neither given nor the result of another.

    Attributes:
        found: the operations that have such a tensor.
    """

    def __init__(self, device: str, given: Iterable[Tensor]) -> None:
        super().__init__()
        self.device = device
        self.known = list(given)  # kept alive, so that no two have the same id
        self.ids = set(map(id, self.known))
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        taken, made = ([x for x in tree_leaves(xs) if isinstance(x, Tensor)] for xs in ((args, kwargs), out))
        if any(x.device.type != self.device for x in taken + made) or any(id(x) not in self.ids for x in taken):
            self.found.append(str(func))
        self.known += made
        self.ids.update(map(id, made))
        return out
