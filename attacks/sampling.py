"""Which examples an attack that looks at a part of them takes: always the same, whatever the batch or the seed."""

from __future__ import annotations

from torch import Tensor

from attacks.draws import Draws


def sampled(draws: Draws, share: float) -> Tensor:
    """Which examples belong to a random part of that size, by their ids alone. bool [B]

    The part of a smaller share lies in that of a larger one, and several attacks with the same share take the same.
    """
    return Draws(0, draws.example_ids).fork("sampled").uniform(1).squeeze(1) < share
