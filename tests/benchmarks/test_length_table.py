"""The table of the targets `attention` and `model`: mixers, attentions alone beside them, and who is too steep."""

from __future__ import annotations

import re

from lra.benchmarks.length_table import HEAD_ALONE, render
from lra.cards import is_near_linear
from tests.helpers.benchmark_rows import length_case, length_row


def row(ms: float = 12.34, **more):
    values = {"ms_quartiles": [11.0, 15.0], "ratio_to_materialised": 0.125, "least_ms": 6.17, **more}
    return length_row(ms, **values)


def cells_of(table: str) -> list[list[str]]:
    return [re.split(r" {2,}", line.strip()) for line in table.splitlines()[3:]]


def grown(backbone: str, power: float, **more):
    return [row(n**power, backbone=backbone, n=n, **more) for n in (512, 1024, 2048)]


def test_the_table_of_lengths():
    rows = [row(), row(n=1024, ms=24.68), row(n=2048, ms=49.36), length_case("out of memory", n=4096)]
    table = render(rows)
    assert table.splitlines()[0] == "ms of a forward and backward pass, batch 1, budget 256, float32"
    cells = cells_of(table)
    assert cells[0] == ["foo", "512", "12.3", "11.0 to 15.0", "0.500", "0.125", "-", "3.0", "2.00"]
    assert cells[2][-2:] == ["1.00 ± 0.00", "≤ 512"]
    assert cells[3] == ["4,096", "out of memory"]
    assert render([]).startswith("No length was measured.")


def test_an_attention_alone_stands_beside_its_mixer():
    mixers = [row(as_mixer=True), row(n=1024, as_mixer=True), row(backbone="toy", as_mixer=True)]
    alone = [row(7.0, ratio_to_fused=0.25), row(99.0, direction="forward")]
    table = render([*mixers[:2], *alone, mixers[2]])
    assert table.startswith("ms of a forward and backward pass, projections included, batch 1")
    assert re.split(r" {2,}", table.splitlines()[1])[-len(HEAD_ALONE) :] == list(HEAD_ALONE)
    first, second, toy = cells_of(table)[:3]
    assert first[-4:] == ["7.00", "0.250", "3.0", "-"]
    assert second[-1] == "-"  # that length was not measured alone
    assert len(toy) == len(first) - 4 + 2  # a mixer has no more than its own growth


def test_backbones_steeper_than_their_cards_are_named():
    alone = grown("performer", 1.3)
    rows = [
        *grown("linear_transformer", 1.1, as_mixer=True), *grown("performer", 1.0, as_mixer=True), *alone,
        *grown("softmax", 2.0, as_mixer=True), *grown("of_another_laboratory", 2.0, as_mixer=True),
    ]  # fmt: skip
    *_, said, named = render(rows).splitlines()
    assert said.startswith("Cards of 2 backbones say O(L) or O(L log L)")
    assert said.endswith("Steeper than L^1.15: 1:")
    assert named == "  performer: 1.00 ± 0.00, alone 1.30 ± 0.00; its card: O(L M) for M = `num_features`"
    assert render(rows[:3]).endswith("Steeper than L^1.15: 0.")


def test_orders_of_cards():
    near = (
        "O(L)", "O(L), none of its own", "O(L log L)", "O(L M + M^3)", "O(L b (5 + r)) for blocks of b tokens",
        "O(L^2) computed; sampled with m hashes O(L m D)",
    )  # fmt: skip
    far = ("O(L^2)", "O(L b + (L / b)^2 b)", "O(L (s + L / s))", "O(L sqrt(L))", "O(L^1.5) for S = O(log L)", "fast")
    assert [is_near_linear(time) for time in (*near, *far)] == [True] * len(near) + [False] * len(far)
