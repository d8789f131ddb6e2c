"""The laws of a projection: what is inside stays, what is outside goes to the nearest point of the set.

A point p of a convex set is the nearest to v exactly where (v - p).(z - p) <= 0 for every z of the set: the greatest
value of (v - p).z is known for a ball (its dual norm) and is a linear programme for the l1 ball cut with the box.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from attacks.draws import Draws
from attacks.projections import onto_ball, project
from attacks.starts import random_point
from attacks.threat import NORMS, Threat, length

NORM = pytest.mark.parametrize("norm", NORMS)
EPS = pytest.mark.parametrize("eps", [1e-3, 0.1, 0.7, 3.0])
DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}
SHAPE = (2, 3, 4)


def images(examples: int = 60, seed: int = 0) -> Tensor:
    """Pixels anywhere in the box, a third of them at its walls."""
    return Draws(seed, torch.arange(examples)).fork("x").uniform(*SHAPE, low=-0.25, high=1.25).clamp(0, 1)


def points(x: Tensor, seed: int = 0) -> Tensor:
    """Moves of all lengths, from within the smallest ball to far outside the box; some pixels tie, some stay."""
    draws = Draws(seed, torch.arange(len(x)))
    reach = 10 ** draws.fork("reach").uniform(1, low=-5, high=1)
    moves = draws.fork("moves").normal(*SHAPE).mul(4).round().div(4)
    return x + reach.view(-1, 1, 1, 1) * moves


def in_box_l1_maximum(cost: np.ndarray, x: np.ndarray, eps: float) -> float:
    """The greatest cost.z over |z - x|_1 <= eps, 0 <= z <= 1: z = x + up - down."""
    bounds = [(0, 1 - value) for value in x] + [(0, value) for value in x]
    signed = np.concatenate([cost, -cost])
    found = linprog(-signed, A_ub=np.ones((1, len(signed))), b_ub=[eps], bounds=bounds)
    assert found.success
    return float(cost @ x - found.fun)


@NORM
@EPS
def test_a_projection_is_in_ball_and_box(norm: str, eps: float) -> None:
    x, threat = images(), Threat(norm, eps)
    assert threat.allows(x, project(x, points(x), threat)).all()


@NORM
@EPS
def test_what_is_inside_comes_back_to_the_bit(norm: str, eps: float) -> None:
    x, threat = images(), Threat(norm, eps)
    inside = random_point(x, threat.scaled(0.9), Draws(1, torch.arange(len(x))))
    assert torch.equal(project(x, inside, threat), inside)
    move = inside - x
    assert torch.equal(onto_ball(move, threat), move)


@NORM
def test_what_is_at_a_wall_inside_comes_back_to_the_bit(norm: str) -> None:
    """With pixels near 0, whose distance 1 - x from the far wall float32 cannot hold."""
    draws = Draws(2, torch.arange(2000))
    x = draws.uniform(4) * draws.fork("small").uniform(4)
    point = torch.where(draws.fork("moved").signs(4) > 0, (draws.fork("wall").signs(4) > 0).float(), x)
    assert torch.equal(project(x, point, Threat(norm, 4.0)), point)


@NORM
@EPS
def test_projecting_twice_is_projecting_once(norm: str, eps: float) -> None:
    x, threat = images(), Threat(norm, eps)
    once = project(x, points(x), threat)
    torch.testing.assert_close(project(x, once, threat), once, rtol=0, atol=1e-7 * max(eps, 1))
    if norm != "l2":  # a length in float32 is not exact
        assert torch.equal(project(x, once, threat), once)


@NORM
def test_shrinks_only_what_is_too_long(norm: str) -> None:
    threat, moves = Threat(norm, 0.5), points(torch.zeros(60, *SHAPE))
    before, after = length(moves, norm), length(onto_ball(moves, threat), norm)
    is_long = before > 0.5
    assert 10 < is_long.sum() < 50
    torch.testing.assert_close(after[is_long], torch.full_like(after[is_long], 0.5))
    assert torch.equal(after[~is_long], before[~is_long])


@NORM
@EPS
def test_the_ball_has_no_nearer_point(norm: str, eps: float) -> None:
    moves = points(torch.zeros(60, *SHAPE)).double()
    nearest = onto_ball(moves, Threat(norm, eps))
    rest = (moves - nearest).flatten(1)
    greatest = eps * length(rest, DUAL[norm])
    reached = (rest * nearest.flatten(1)).sum(1)
    assert (greatest - reached <= 1e-9 * (1 + greatest)).all()
    assert (length(nearest, norm) <= eps + 1e-12).all()


@EPS
def test_ball_and_box_in_l1_have_no_nearer_point(eps: float) -> None:
    x = images(24).double()
    wish = points(x)
    nearest = project(x, wish, Threat("l1", eps))
    for row in range(len(x)):
        clean, p, v = (t[row].flatten().numpy() for t in (x, nearest, wish))
        greatest = in_box_l1_maximum(v - p, clean, eps)
        assert greatest - (v - p) @ p <= 1e-7 * (1 + abs(greatest)), f"row {row}"


def test_l1_uses_the_length_that_the_walls_leave_over() -> None:
    """Pixel 0 wants 4 but has room for 0.25; the others share what it cannot use: 1 and 0.5 lose 0.125 each."""
    x = torch.tensor([[0.75, 0.0, 0.0]])
    wish = x + torch.tensor([[4.0, 1.0, 0.5]])
    nearest = project(x, wish, Threat("l1", 1.5))
    torch.testing.assert_close(nearest, torch.tensor([[1.0, 0.875, 0.375]]))
    clipped = (x + onto_ball(wish - x, Threat("l1", 1.5))).clamp(0, 1)
    assert clipped.tolist() == [[1.0, 0.0, 0.0]]  # clipping the projection falls short


def test_linf_in_the_box_is_the_nearest_pixel_by_pixel() -> None:
    x = torch.tensor([[0.05, 0.5, 0.95, 0.5]])
    wish = torch.tensor([[-1.0, 0.55, 2.0, 0.0]])
    torch.testing.assert_close(project(x, wish, Threat("linf", 0.1)), torch.tensor([[0.0, 0.55, 1.0, 0.4]]))


@NORM
def test_nothing_moves_at_eps_zero(norm: str) -> None:
    x = images()
    nearest = project(x, points(x), Threat(norm, 0.0))
    assert torch.equal(nearest, images())
    assert nearest.data_ptr() != x.data_ptr()  # whoever writes to the answer leaves the images alone
    assert not onto_ball(points(x) - x, Threat(norm, 0.0)).any()


@NORM
def test_each_row_is_projected_alone(norm: str) -> None:
    x, threat = images(), Threat(norm, 0.3)
    wish = points(x)
    alone = torch.cat([project(x[i : i + 1], wish[i : i + 1], threat) for i in range(len(x))])
    assert torch.equal(project(x, wish, threat), alone)


@NORM
@pytest.mark.parametrize("eps", [0.01, 1.0, 30.0])
def test_many_small_roundings_do_not_leave_a_large_image_outside(norm: str, eps: float) -> None:
    draws = Draws(3, torch.arange(2))
    x = draws.uniform(3, 224, 224)
    wish = x + draws.fork("move").normal(3, 224, 224)
    nearest = project(x, wish, Threat(norm, eps))
    assert Threat(norm, eps).allows(x, nearest).all()
    assert (nearest - x).any(dim=0).any()


@NORM
@pytest.mark.parametrize("eps", [0.05, 0.3, 5.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_roundings_that_all_go_one_way_do_not_leave_a_flat_image_outside(norm: str, eps: float, sign: int) -> None:
    x = Draws(3, torch.arange(20)).uniform(1).view(20, 1, 1, 1).expand(20, 3, 32, 32).contiguous()
    threat = Threat(norm, eps)
    nearest = project(x, x + sign * 0.7, threat)
    assert threat.allows(x, nearest).all()
    assert (threat.distance(x, nearest) > min(0.9 * eps, 0.005)).all()


@NORM
def test_a_random_point_fills_the_ball_evenly(norm: str) -> None:
    """Volume goes as radius to the number of pixels: the share within half the radius, of 20,000 points in two."""
    x = torch.full((20_000, 1, 1, 2), 0.5)
    threat = Threat(norm, 0.4)
    drawn = random_point(x, threat, Draws(4, torch.arange(len(x))))
    assert threat.allows(x, drawn).all()
    share = (threat.distance(x, drawn) <= 0.2).float().mean().item()
    assert share == pytest.approx(0.25, abs=0.0125)  # four standard deviations
    assert (drawn - x).mean(0).abs().max() < 0.01
