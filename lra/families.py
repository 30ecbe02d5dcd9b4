"""Families of backbones, so that forty of them can be shown side by side: by the beginnings of their names."""

from __future__ import annotations

OTHERS = "others"
FAMILIES: dict[str, tuple[str, ...]] = {
    "Skeinformer": ("skeinformer",),
    "floors": ("none", "vmean"),
    "low rank": ("linformer", "nystromformer"),
    "sampled queries": ("informer",),
    "feature maps": ("performer", "linear_transformer"),
    "windows and blocks": ("local", "longformer", "bigbird", "sinkhorn"),
    "sparse patterns": ("sparse",),
    "hashing": ("reformer", "yoso"),
    "predicted sparsity": ("fsat",),
    "synthesizer": ("synthesizer",),
    OTHERS: (),
}


def family_of(backbone: str) -> str:
    """Name the family of a backbone; softmax itself, and what is new, are among the others."""
    return next((family for family, beginnings in FAMILIES.items() if backbone.startswith(beginnings)), OTHERS)
