"""Which examples an attack that looks at a part of them takes: always the same, whatever the batch or the seed."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from attacks.draws import Draws
from attacks.queries import Queries, querying
from attacks.survivors import filled


def sampled(draws: Draws, share: float) -> Tensor:
    """Which examples belong to a random part of that size, by their ids alone. bool [B]

    The part of a smaller share lies in that of a larger one, and several attacks with the same share take the same.
    """
    return Draws(0, draws.example_ids).fork("sampled").uniform(1).squeeze(1) < share

def attack_a_share(
    model: nn.Module, x: Tensor, share: float, draws: Draws, attack: Callable[[Queries, Tensor, Draws], Tensor]
) -> Tensor:
    """What `attack(queries, rows, draws of the rows)` makes of a share of the images, the others as they are."""
    adversarial = x.clone()
    rows = filled(sampled(draws, share).nonzero().flatten())
    if len(rows):
        with querying(model) as queries:
            adversarial[rows] = attack(queries, rows, draws.select(rows))
    return adversarial
