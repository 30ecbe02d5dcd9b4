"""The models, in plain PyTorch: they know nothing of the harness in `lra`.

`classifier` pools what `encoder` gives and classifies; the encoder builds each `block` around any mixer. `mixers` holds
the contract (x, mask) -> x, and `MultiHead`, which makes a mixer of an attention. `attention` holds the contract
(q, k, v, mask) -> q and one mechanism a file; both kinds share what `mechanism` defines. `ops` are functions that
several mechanisms use, `positions`, `stem`, `norms`, `dropout` and `reducer` parts of the encoder, `baselines` models
without attention. `checks` refuses bad options.

Shape letters: B batch, I inputs of an example, H heads, L length, D width of a head, C width of a row.
"""
