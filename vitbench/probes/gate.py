"""Measures how far attention has moved away from the convolution that it began as: the gates of `model.gate` (ConViT,
d'Ascoli et al. 2021, arXiv 2103.10697).

The gate of a head, sigmoid(g), is the share of its attention that depends only on position. Before training it is
0.731, sigmoid(1), in every head. At 1, a head attends like one tap of a convolution, by position alone; at 0, it is a
ViT's head. `checkpoint=[init,trained]` compares the gates before and after training, and `checkpoint=kept` follows them
through the training of a run that kept weights (`keep=`).
"""

from __future__ import annotations

import torch

from vitbench.errors import DoesNotApply
from vitbench.models.gate import GatedAttention
from vitbench.probes.subject import Row, Subject, make_row

PROTOCOL = "gate@v1"


@torch.no_grad()
def probe(subject: Subject, *, seed: int) -> list[Row]:
    """Returns the gate of every head, and the mean, the smallest and the largest gate of each block and of all blocks.

    No image is used, so the numbers have no interval. Raises DoesNotApply where the network has no gates.
    """
    gated = [module for module in subject.model.modules() if isinstance(module, GatedAttention)]
    if not gated:
        raise DoesNotApply("it has no gates; train a ViT with model.gate=true")
    shares = torch.stack([attention.shares().double().cpu() for attention in gated])  # (L,A)
    rows = [
        make_row(PROTOCOL, "share", share, layer=f"block{block}", at=head, at_unit="head")
        for block, heads in enumerate(shares.tolist(), start=1)
        for head, share in enumerate(heads, start=1)
    ]
    for metric, summary in (("mean", torch.mean), ("smallest_head", torch.min), ("largest_head", torch.max)):
        rows += [
            make_row(PROTOCOL, metric, summary(heads).item(), layer=f"block{block}")
            for block, heads in enumerate(shares, start=1)
        ]
        rows.append(make_row(PROTOCOL, metric, summary(shares).item()))
    return rows
