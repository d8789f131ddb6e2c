"""The steepest step: its gain is the dual norm of the gradient, and in l1 what a linear programme finds."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import linprog

from attacks.draws import Draws
from attacks.steepest import steepest_step
from attacks.threat import NORMS, length

NORM = pytest.mark.parametrize("norm", NORMS)


@NORM
def test_the_steepest_step_gains_the_dual_norm(norm: str) -> None:
    gradient = Draws(0, torch.arange(8)).normal(3, 4, 4)
    point = torch.full_like(gradient, 0.5)
    step = steepest_step(point, gradient, norm, 0.25) - point
    dual = {"linf": "l1", "l2": "l2", "l1": "linf"}[norm]
    torch.testing.assert_close(length(step, norm), torch.full((8,), 0.25))
    torch.testing.assert_close((step * gradient).flatten(1).sum(1), 0.25 * length(gradient, dual))


def test_the_l1_step_is_the_best_within_the_box() -> None:
    """Against a linear programme, where walls are near and the step is longer than a pixel."""
    draws = Draws(1, torch.arange(10))
    gradient, point = draws.normal(20), draws.fork("x").uniform(20, low=-0.3, high=1.3).clamp(0, 1)
    step = steepest_step(point, gradient, "l1", 2.5) - point
    for row in range(10):
        slope, x = gradient[row].double().numpy(), point[row].double().numpy()
        bounds = [(0, 1 - value) for value in x] + [(0, value) for value in x]  # up and down
        best = linprog([*-slope, *slope], A_ub=[[1.0] * 40], b_ub=[2.5], bounds=bounds)
        assert (step[row] * gradient[row]).sum().item() == pytest.approx(-best.fun, rel=1e-5)


@NORM
@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30])
def test_the_step_has_its_length_however_small_the_gradient(norm: str, scale: float) -> None:
    gradient = torch.tensor([[3.0, -4.0, 0.0], [0.0, 0.0, 0.0]]) * scale
    point = torch.full_like(gradient, 0.5)
    step = steepest_step(point, gradient, norm, 0.25) - point
    torch.testing.assert_close(length(step, norm), torch.tensor([0.25, 0.0]))
