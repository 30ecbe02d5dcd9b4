"""What was meant by a key or a choice that does not exist: the one that other words stand for, or the nearest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

# Other words for keys. A text in brackets explains.
KEYS = {
    "optimizer.learning_rate": ("lr", "rate", "max_lr", "peak_lr", "base_lr", "step_size"),
    "optimizer.weight_decay": ("wd", "decay", "l2"),
    "optimizer.warmup_steps": ("warmup", "num_warmup_steps", "warmup_epochs", "warmup_ratio"),
    "optimizer.clip_norm": ("clip", "grad_clip", "gradient_clip_val", "max_grad_norm"),
    "optimizer.adam_betas": ("betas", "beta1", "beta2"),
    "optimizer.schedule": ("scheduler", "lr_scheduler", "lr_schedule"),
    "trainer.steps (training is counted in steps of trainer.batch_size examples)": (
        "epoch", "epochs", "num_epochs", "max_epochs", "n_epochs", "iterations", "iters", "max_iters", "max_steps",
        "num_steps", "num_train_steps", "train_steps",
    ),
    "trainer.batch_size": ("bs", "bsz", "batch", "batchsize", "train_batch_size", "per_device_train_batch_size"),
    "trainer.micro_batch": ("accumulate", "grad_accum", "gradient_accumulation_steps", "accumulate_grad_batches"),
    "trainer.precision": ("fp16", "bf16", "fp32", "amp", "dtype", "half", "mixed_precision"),
    "trainer.eval_every": ("eval_steps", "eval_freq", "eval_frequency", "val_every", "log_every", "val_check_interval"),
    "trainer.patience": ("early_stopping", "early_stop"),
    "trainer.checkpoint_seconds": ("save_every", "save_steps", "checkpoint_every"),
    "model.dim": ("hidden", "hidden_size", "hidden_dim", "width", "d_model", "embed_dim", "embedding_dim", "emb_dim"),
    "model.depth": ("layers", "num_layers", "n_layers", "nlayers", "num_hidden_layers"),
    "model.num_heads": ("heads", "n_heads", "nheads", "num_attention_heads"),
    "model.mlp_dim": ("ffn", "ffn_dim", "d_ff", "d_inner", "intermediate_size"),
    "model.head_dim": ("d_head", "dim_head"),
    "model.match_params": ("params", "num_params", "n_params"),
    "budget": ("samples", "features", "landmarks", "rank"),
    "device=cuda": ("gpu", "gpus", "cuda", "accelerator"),
    "device=cpu": ("cpu", "no_cuda", "use_cpu"),
    "results_dir": ("out", "output", "output_dir", "out_dir", "save_dir", "log_dir", "logdir", "results"),
    "cache_dir": ("cache", "data_cache"),
    "task.data_dir": ("data_path", "data_root", "dataset_dir"),
    "seed": ("random_seed", "manual_seed", "rng", "seeds"),
    "task": ("dataset", "benchmark", "task_id"),
    "attn": ("attention", "attn_type", "attention_type", "backbone", "mechanism", "mixer", "arch"),
    "protocol": ("setup", "recipe", "preset"),
    "wandb.mode": ("use_wandb", "no_wandb", "wandb_mode", "log_wandb"),
    "wandb.project": ("wandb_project",),
    "force=true": ("overwrite", "rerun", "redo", "again", "restart"),
}  # fmt: skip
# Other words for choices, written in small letters and with _.
CHOICES = {
    "attn": {
        "linear_transformer": ("linear", "linear_attention", "linear_attn", "elu"),
        "softmax": (
            "flash", "flash_attention", "flash_attn", "flashattention", "sdpa", "transformer", "vanilla", "standard",
            "full", "exact", "attention", "self_attention", "mha", "dense",
        ),
        "vmean": ("mean", "average", "pooling", "uniform"),
        "none": ("identity", "no_attention", "off"),
        "skeinformer": ("skein", "skeinformer_full"),
        "nystromformer": ("nystrom", "nystrom_attention"),
        "local": ("window", "windowed", "sliding_window", "local_attention"),
        "fnet": ("fourier", "fft"),
        "efficient": ("efficient_attention",),
        "h_transformer_1d": ("h1d", "h_transformer", "hierarchical"),
        "transformer_ls": ("long_short", "long_short_transformer"),
        "sparse_fixed": ("sparse", "sparse_transformer", "sparse_attention"),
        "synthesizer_dense": ("synthesizer",),
        "mamba": ("s6", "selective_ssm"),
        "s4": ("ssm", "state_space"),
        "long_conv": ("conv", "convolution"),
        "b2s6": ("block_biased_s6",),
        "rfa": ("random_feature_attention",),
        "performer": ("favor", "favor+"),
    },
    "task": {
        "text": ("imdb", "bytes", "byte_text", "sentiment", "classification"),
        "image": ("cifar", "cifar10", "cifar_10", "scifar", "pixels"),
        "retrieval": ("aan", "matching", "document_retrieval"),
        "listops": ("list_ops", "lo"),
        "pathfinder": ("path", "path32", "pathfinder32"),
        "pathx": ("path_x", "pathfinder_x", "path128", "pathfinder128"),
    },
    "protocol": {"controlled": ("ours", "own", "same", "fair"), "nystromformer": ("yoso",), "lra": ("original", "tay")},
    "scale": {
        "smoke": ("test", "debug", "tiny", "nano"),
        "mini": ("small", "cpu"),
        "full": ("large", "big", "paper", "published", "original"),
    },
}  # fmt: skip


def meant_key(key: str, node: str, names: Sequence[str], leaves: Sequence[str]) -> str:
    """Say which key was meant; "" if none comes near.

    Args:
        key: what came, with dots.
        node: the innermost node that exists, "" for the top level.
        names: the keys that this node has.
        leaves: all keys that hold a value, with dots.
    """
    # Pre-training has the names of the training once more; they are seldom meant.
    leaves = [leaf for leaf in leaves if not leaf.startswith("pretrain.")]
    words = _plain(key)
    name, last = words.removeprefix(f"{node}.").partition(".")[0], words.rpartition(".")[2]
    near = [f"{node}.{close}" if node else close for close in get_close_matches(name, names, n=1)]
    same = [leaf for leaf in leaves if leaf.rpartition(".")[2] == last]
    known = [meant for meant, others in KEYS.items() if last in others or words.replace(".", "_") in others]
    if found := (near if node else []) or same[:3] or known or near or get_close_matches(words, leaves, n=1):
        return " or ".join(found)
    by_last = {leaf.rpartition(".")[2]: leaf for leaf in leaves}
    return "".join(by_last[close] for close in get_close_matches(last, by_last, n=1))


def meant_choice(group: str, choice: str, options: Sequence[str]) -> str:
    """Say which choice of a group was meant; "" if none comes near."""
    words = _plain(choice)
    known = [meant for meant, others in CHOICES.get(group, {}).items() if words in others and meant in options]
    close = get_close_matches(words, options, n=1)
    return words if words in options else "".join(known or close)


def leaves_of(node: Mapping[str, Any], without: Sequence[str] = (), path: str = "") -> Iterator[str]:
    """Yield the keys of a configuration that hold a value, with dots; those that begin with _ are Hydra's.

    Args:
        node: plain values.
        without: keys of the top level that are left out.
        path: the keys that lead to the node, each with a dot behind it.
    """
    for key, value in node.items():
        name = f"{path}{key}"
        if str(key).startswith("_") or name in without:
            continue
        if isinstance(value, Mapping) and value:
            yield from leaves_of(value, without, f"{name}.")
        else:
            yield name


def _plain(word: str) -> str:
    return word.strip().lower().replace("-", "_").replace(" ", "_")
