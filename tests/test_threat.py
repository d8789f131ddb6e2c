"""The attacker's ball: what it accepts, measures and allows."""

from __future__ import annotations

import math

import pytest
import torch

from attacks.surface import Surface
from attacks.threat import NORMS, Threat

MOVE = torch.tensor([[0.3, -0.4, 0.0, 0.0]]).view(1, 1, 2, 2)
LENGTH = {"linf": 0.4, "l2": 0.5, "l1": 0.7}  # of MOVE, by hand


@pytest.mark.parametrize("norm", NORMS)
def test_distance_is_the_norm_of_the_move(norm: str) -> None:
    x = torch.full((2, 1, 2, 2), 0.5)
    moved = torch.cat([x[:1] + MOVE, x[1:]])
    assert Threat(norm, 1.0).distance(x, moved).tolist() == pytest.approx([LENGTH[norm], 0.0])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("factor", "allowed"), [(1.0, True), (1 + 1e-7, True), (1 + 1e-4, False), (0.5, True)])
def test_allows_the_ball_and_a_rounding_error(norm: str, factor: float, allowed: bool) -> None:
    x = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    assert Threat(norm, LENGTH[norm]).allows(x, x + factor * MOVE.double()).tolist() == [allowed]


@pytest.mark.parametrize("value", [-1e-6, 1 + 1e-6, math.nan, math.inf])
def test_allows_nothing_outside_the_box(value: float) -> None:
    x = torch.full((2, 1, 2, 2), 0.5)
    moved = x.clone()
    moved[1, 0, 0, 0] = value
    assert Threat("linf", 1.0).allows(x, moved).tolist() == [True, False]


def test_allows_a_dense_move_of_many_pixels_and_sees_a_small_excess_in_it() -> None:
    x = torch.full((1, 3, 64, 64), 0.5)
    eps = 3 * 64 * 64 * 2**-9
    assert Threat("l1", eps).allows(x, x + 2**-9).item()
    assert not Threat("l1", eps).allows(x, x + 2**-9 * (1 + 2**-12)).item()


@pytest.mark.parametrize("eps", [-0.1, math.nan, math.inf])
def test_an_eps_that_is_no_radius_is_refused(eps: float) -> None:
    with pytest.raises(ValueError, match=r"eps: must be finite and >= 0, got"):
        Threat("linf", eps)


def test_an_unknown_norm_is_refused_with_the_known_and_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"norm: must be one of linf, l2, l1, got 'l_inf' \(did you mean linf\?\)"):
        Threat("l_inf", 0.1)


def test_scaled_changes_the_radius_alone() -> None:
    assert Threat("l2", 0.5).scaled(0.25) == Threat("l2", 0.125)


def test_a_surface_names_known_losses_and_at_least_one_draw() -> None:
    assert Surface(draws=20, losses=("dlr",)).losses == ("dlr",)
    known = "cross_entropy, margin, dlr, scaled_cross_entropy"
    with pytest.raises(ValueError, match=rf"losses: must be one of {known}, got 'margn' .*margin\?"):
        Surface(losses=("cross_entropy", "margn"))
    with pytest.raises(ValueError, match=r"draws: must be a whole number >= 1, got 0"):
        Surface(draws=0)
