"""The attacker's losses, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from attacks.losses import LOSSES, Loss, cross_entropy, dlr, margin, scaled_cross_entropy

LOGITS = torch.tensor([[3.0, 1.0, -1.0, 0.0], [-1.0, -5.0, -3.0, -4.0], [2.0, 2.0, 0.0, 0.0]])
Y = torch.tensor([0, 1, 1])


def test_margin_is_best_other_minus_true() -> None:
    assert margin(LOGITS, Y).tolist() == [1 - 3, -1 + 5, 2 - 2]


def test_margin_masks_the_true_class_also_where_all_logits_are_negative() -> None:
    """(1 - onehot) * z would take 0 for the best other."""
    assert margin(torch.tensor([[-1.0, -5.0, -3.0]]), torch.tensor([0])).tolist() == [-2.0]


def test_margin_is_positive_exactly_where_the_model_errs() -> None:
    logits = torch.randn(500, 5, generator=torch.Generator().manual_seed(0)) - 4
    y = torch.arange(500) % 5
    assert torch.equal(margin(logits, y) > 0, logits.argmax(1) != y)


def test_cross_entropy_is_minus_the_log_of_the_true_probability() -> None:
    """Row 0: 1 + e^-2 + e^-4 + e^-3 over the true class' 1; rows 1 and 2 likewise."""
    expected = [
        math.log(1 + math.exp(-2) + math.exp(-4) + math.exp(-3)),
        math.log(1 + math.exp(4) + math.exp(2) + math.exp(1)),
        math.log(2 + 2 * math.exp(-2)),
    ]
    assert cross_entropy(LOGITS, Y).tolist() == pytest.approx(expected, rel=1e-6)


def test_dlr_is_the_margin_over_the_gap_between_first_and_third() -> None:
    assert dlr(LOGITS, Y).tolist() == pytest.approx([-2 / 3, 4 / 3, 0.0])


def test_dlr_does_not_see_shift_and_scale() -> None:
    torch.testing.assert_close(dlr(1e4 * LOGITS + 7, Y), dlr(LOGITS, Y))


def test_dlr_needs_three_classes() -> None:
    with pytest.raises(ValueError, match="loss dlr: needs at least 3 classes, got 2; use margin or cross_entropy"):
        dlr(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))


def test_scaled_cross_entropy_is_that_of_logits_which_span_ten() -> None:
    """The spans are 4, 4 and 2: gaps count 2.5, 2.5 and 5 times."""
    expected = [
        math.log(1 + math.exp(-5) + math.exp(-10) + math.exp(-7.5)),
        math.log(1 + math.exp(10) + math.exp(5) + math.exp(2.5)),
        math.log(2 + 2 * math.exp(-10)),
    ]
    assert scaled_cross_entropy(LOGITS, Y).tolist() == pytest.approx(expected, rel=1e-5)


def test_scaled_cross_entropy_has_the_same_slope_at_every_scale_where_plain_has_none() -> None:
    """At a thousand times the logits row 0 has a probability of 1 to the last bit."""

    def slope(loss: Loss, scale: float) -> Tensor:
        logits = (scale * LOGITS[:1]).requires_grad_()
        return torch.autograd.grad(loss(logits, Y[:1]).sum(), logits)[0]

    assert slope(cross_entropy, 1e3).abs().max() == 0
    direction = slope(scaled_cross_entropy, 1.0)
    assert direction.abs().max() > 0.01
    torch.testing.assert_close(1e3 * slope(scaled_cross_entropy, 1e3), direction)


@pytest.mark.parametrize("name", LOSSES)
def test_each_row_has_a_loss_of_its_own(name: str) -> None:
    """Its value and its gradient are the same whatever stands beside it."""
    logits = LOGITS.clone().requires_grad_()
    values = LOSSES[name](logits, Y)
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    for row in range(3):
        single = LOGITS[row : row + 1].clone().requires_grad_()
        value = LOSSES[name](single, Y[row : row + 1])
        torch.testing.assert_close(value, values[row : row + 1])
        torch.testing.assert_close(torch.autograd.grad(value.sum(), single)[0], gradient[row : row + 1])


@pytest.mark.parametrize("name", LOSSES)
def test_a_higher_other_logit_never_lowers_a_loss_and_a_higher_true_one_never_raises_it(name: str) -> None:
    logits = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
    y = torch.arange(200) % 6
    best_other = logits.scatter(1, y[:, None], -math.inf).argmax(1)
    raised = logits.clone().scatter_add_(1, best_other[:, None], torch.full((200, 1), 0.1))
    lowered = logits.clone().scatter_add_(1, y[:, None], torch.full((200, 1), 0.1))
    is_right = logits.argmax(1) == y
    before = LOSSES[name](logits, y)[is_right]
    assert (LOSSES[name](raised, y)[is_right] >= before - 1e-6).all()
    assert (LOSSES[name](lowered, y)[is_right] <= before + 1e-6).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e6, 1e30])
def test_gradients_are_finite_also_where_logits_tie_or_run_away(name: str, scale: float) -> None:
    logits = (LOGITS * scale).requires_grad_()
    values = LOSSES[name](logits, Y)
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert values.isfinite().all()
    assert gradient.isfinite().all()
