"""State space models against independent implementations."""

from __future__ import annotations

import pytest
import torch

from models.mixers.s5 import S5

B, L, C, N = 2, 33, 6, 8


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("bidirectional", [True, False])
def test_s5_is_the_packages(bidirectional):
    """The package keeps both of every conjugate pair, and takes the real part once."""
    mixer = S5(num_states=N, num_blocks=2, bidirectional=bidirectional, dim=C, max_len=L, dropout=0.0)
    theirs = pytest.importorskip("s5").S5(C, state_width=N, block_count=2, bidir=bidirectional)
    with torch.no_grad():
        poles = torch.complex(mixer.real, mixer.frequency)
        theirs.seq.Lambda.copy_(torch.cat([poles, poles.conj()]))
        into, outputs = torch.view_as_complex(mixer.input), torch.view_as_complex(mixer.output)
        theirs.seq.B.copy_(torch.view_as_real(torch.cat([into, into.conj()])))
        theirs.seq.C.copy_(torch.cat([part for matrix in outputs for part in (matrix, matrix.conj())], 1))
        theirs.seq.D.copy_(mixer.skip)
        theirs.seq.log_step.copy_(mixer.log_step.repeat(2).view_as(theirs.seq.log_step))
    u = torch.randn(B, L, C)
    torch.testing.assert_close(mixer.respond(u) + mixer.skip * u, theirs(u), rtol=1e-4, atol=1e-5)
