"""The depths of the residual networks with four stages, as ImageNet papers count them."""

from __future__ import annotations

from typing import NamedTuple


class Depth(NamedTuple):
    """How many blocks each of the four stages has, and whether these are bottlenecks of three convolutions."""

    blocks: tuple[int, int, int, int]
    is_bottleneck: bool


DEPTHS = {
    18: Depth((2, 2, 2, 2), False),
    34: Depth((3, 4, 6, 3), False),
    50: Depth((3, 4, 6, 3), True),
    101: Depth((3, 4, 23, 3), True),
    152: Depth((3, 8, 36, 3), True),
}


def refuse_stages(depth: int, width: int) -> None:
    """Raises ValueError for a depth that is not in the table, or a width below 1."""
    if depth not in DEPTHS:
        raise ValueError(f"depth: must be one of {', '.join(map(str, DEPTHS))}, got {depth!r}")
    if not isinstance(width, int) or width < 1:
        raise ValueError(f"width: must be an integer >= 1, got {width!r}")
