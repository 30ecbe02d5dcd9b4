"""S5: one diagonal state space model of all channels together, computed as a scan.

Smith, Warrington, Linderman 2022, "Simplified State Space Layers for Sequence Modeling", arXiv 2208.04933:
x' = A x + B u, y = 2 Re(C x) + D u over N / 2 conjugate pairs, discretised by a zero-order hold with a step for every
state. A starts as the normal part of HiPPO-LegS, or as several smaller ones in a row (Section 4.3).

The authors (github.com/lindermanlab/S5) draw matrices and turn them by the eigenvectors, a real B by V* and C by V. The
columns of V are orthogonal to one another and to their conjugates, so that independent normal numbers become
independent complex normal ones: here B and C are drawn as those. Theirs are cut at two standard deviations.
"""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from models.checks import at_least, one_of, ordered
from models.mechanism import ONE_WAY, Card
from models.mixers.state_space import Gating, ScanMixer, check_states, rates_of
from models.ops.state_space import as_complex, complex_normal, hippo_legs, log_uniform, zero_order_hold

OutputInitialization = Literal["lecun_normal", "trunc_standard_normal", "complex_normal"]
LARGEST_REAL_PART = -1e-4  # of a clipped eigenvalue


class S5(ScanMixer):
    """S5, with the gates and the learning rates of its authors' scripts.

    Args:
        num_states: N, even; together, not for each block.
        num_blocks: HiPPO matrices that A starts as; N / num_blocks must be even.
        output_initialization: of C, by the names of the authors' code: of variance 2 / (C N), 2 / N or 1.
        clip_eigenvalues: keep the real parts of A below 0.
        gating: "full", "half" or "raw", see `models.mixers.state_space.Gate`.
        bidirectional: whether a second output reads states that run backwards.
        dt_min, dt_max: the range of the initial steps.
        ssm_learning_rate: the peak rate of A; None for the optimiser's.
        input_learning_rate: that of B.
        input_decay: whether weight decay takes hold of B.
        dt_learning_rate: that of the steps; with None weight decay takes hold of them, too ("dt_global" there).
    """

    causal_settings = ONE_WAY
    card: ClassVar[Card] = Card(
        what="S5: one diagonal state space model of all channels together, as a scan",
        family="state space",
        time="O(L N C)",
        memory="O(L N)",
        paper="2208.04933",
        oracle="s5-pytorch S5, outputs of both directions with its parameters set to ours",
    )

    def __init__(
        self,
        *,
        num_states: int = 64,
        num_blocks: int = 8,
        output_initialization: OutputInitialization = "trunc_standard_normal",
        clip_eigenvalues: bool = False,
        gating: Gating = "half",
        bidirectional: bool = True,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        ssm_learning_rate: float | None = 1e-3,
        input_learning_rate: float | None = 1e-3,
        input_decay: bool = False,
        dt_learning_rate: float | None = 1e-3,
        dim: int,
        max_len: int,
        dropout: float,
    ) -> None:
        super().__init__(gating=gating, dim=dim, max_len=max_len, dropout=dropout)
        check_states(num_states)
        at_least(1, num_blocks=num_blocks)
        if num_states % (2 * num_blocks):
            raise ValueError(f"num_blocks must divide num_states / 2 = {num_states // 2}. Got {num_blocks}.")
        one_of(get_args(OutputInitialization), output_initialization=output_initialization)
        ordered(dt_min=dt_min, dt_max=dt_max)
        self.clip_eigenvalues = clip_eigenvalues
        num_pairs = num_states // 2
        frequencies, _ = hippo_legs(num_states // num_blocks)
        self.log_step = nn.Parameter(log_uniform((num_pairs,), dt_min, dt_max))
        self.real = nn.Parameter(torch.full((num_pairs,), -0.5))
        self.frequency = nn.Parameter(frequencies.float().repeat(num_blocks))
        self.input = nn.Parameter(complex_normal(num_pairs, dim) * num_states**-0.5)
        variances = {"lecun_normal": 2 / (dim * num_states), "trunc_standard_normal": 2 / num_states}
        scale = variances.get(output_initialization, 1.0) ** 0.5
        self.output = nn.Parameter(complex_normal(2 if bidirectional else 1, dim, num_pairs) * scale)
        self.undecayed = ("real", "frequency")
        self.undecayed += () if dt_learning_rate is None else ("log_step",)
        self.undecayed += () if input_decay else ("input",)
        self.learning_rates = rates_of(
            ssm_learning_rate=(ssm_learning_rate, ("real", "frequency")),
            input_learning_rate=(input_learning_rate, ("input",)),
            dt_learning_rate=(dt_learning_rate, ("log_step",)),
        )

    def matrices(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """See the base class."""
        real = self.real.to(dtype)
        if self.clip_eigenvalues:
            real = real.clamp(max=LARGEST_REAL_PART)
        exponents, gain = zero_order_hold(torch.complex(real, self.frequency.to(dtype)), self.log_step.to(dtype).exp())
        return exponents.exp(), gain[:, None] * as_complex(self.input, dtype), 2 * as_complex(self.output, dtype)
