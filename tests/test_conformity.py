"""Prototype conformity by hand, its gradient by finite differences, and how stages add up."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attacks.draws import Draws
from defenses.conformity import DISTANCES, Prototypes, Weights, conformity, distances

W = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 0.0]])  # apart: 5, 6 and 5
V = torch.tensor([[9.0, 9.0], [3.0, 1.0], [7.0, 3.0]])
F = torch.tensor([[3.0, 0.0], [3.0, 4.0]])  # to W: 3 4 3 and 5 0 5; to V: (10.8) 1 5 and 7.8 (3) 4.1
Y = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("settings", "repelling", "expected"),
    [
        # own distance
        ((1.0, 0.0, 0.0, "l2"), W, [3.0, 0.0]),
        ((2.0, 0.0, 0.0, "squared"), W, [18.0, 0.0]),
        # minus the mean over the two others
        ((0.0, 1.0, 0.0, "l2"), W, [-3.5, -5.0]),
        ((0.0, 0.5, 0.0, "squared"), W, [-6.25, -12.5]),
        ((0.0, 1.0, 0.0, "squared"), V, [-13.0, -(61 + 17) / 2]),
        # the paper's equation 5: 3 - (4 + 3) / 2 - (5 + 6) / 2 and 0 - 5 - 5
        ((1.0, 1.0, 1.0, "l2"), W, [-6.0, -10.0]),
        ((1.0, 1.0, 1.0, "squared"), W, [9 - 12.5 - 30.5, -25.0 - 25.0]),
        # prototypes are apart from the attracting ones, in units of separation
        ((0.0, 0.1, 2.0, "squared"), V, [-0.1 * (13 + 2 * 30.5), -0.1 * (39 + 2 * 25)]),
    ],
)
def test_two_points_and_three_prototypes_by_hand(
    settings: tuple[float, float, float, str], repelling: Tensor, expected: list[float]
) -> None:
    assert conformity(F, Y, W, repelling, Weights(*settings)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("is_shared", [True, False])
def test_gradients_agree_with_finite_differences(distance: str, is_shared: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    f, w, v = (torch.randn(n, 5, dtype=torch.float64, generator=generator).requires_grad_() for n in (6, 4, 4))
    y, weights = torch.arange(6) % 4, Weights(0.7, 0.3, 0.4, distance)

    def loss(features: Tensor, attracting: Tensor, repelling: Tensor) -> Tensor:
        return conformity(features, y, attracting, attracting if is_shared else repelling, weights)

    assert torch.autograd.gradcheck(loss, (f, w, v))


@pytest.mark.parametrize("distance", DISTANCES)
def test_at_the_prototype_itself_the_gradient_is_zero(distance: str) -> None:
    features = W.clone().requires_grad_()
    value = conformity(features, torch.arange(3), W, W, Weights(1.0, 0.0, 0.0, distance)).sum()
    assert torch.autograd.grad(value, features)[0].tolist() == [[0.0, 0.0]] * 3


def test_distances_are_exact_where_points_are_far_from_zero_and_close() -> None:
    """a^2 + b^2 - 2ab would lose all digits."""
    far = torch.tensor([[1e4, 1e4]])
    assert distances(far, far + torch.tensor([[0.25, 0.0]]), "squared").item() == 0.0625


def prototypes(branch: int = 0, is_shared: bool = False, scale: float = 1.0, seed: int = 0) -> Prototypes:
    return Prototypes([2, 3], 3, branch, scale, is_shared, Draws(seed, torch.arange(1)))


def test_stages_add_up_and_maps_count_by_their_mean() -> None:
    made, weights = prototypes(), Weights(1.0, 0.5, 0.0, "squared")
    maps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    assert made.repelling is not None
    expected = conformity(F, Y, made.attracting[0], made.repelling[0], weights)
    expected = expected + conformity(maps.mean((2, 3)), Y, made.attracting[1], made.repelling[1], weights)
    torch.testing.assert_close(made([F, maps], Y, weights), expected)


def test_a_branch_maps_features_linearly_before_they_are_compared() -> None:
    made, weights = prototypes(branch=5, is_shared=True), Weights(1.0, 0.5, 1.0, "l2")
    maps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    assert [tuple(each.shape) for each in made.attracting] == [(3, 5), (3, 5)]
    expected = torch.zeros(2)
    for branch, features, each in zip(made.branches, (F, maps.mean((2, 3))), made.attracting, strict=True):
        mapped = features @ branch.weight.T + branch.bias
        expected = expected + conformity(mapped, Y, each, each, weights)
    torch.testing.assert_close(made([F, maps], Y, weights), expected)


def test_prototypes_are_standard_normal_times_their_scale_and_drawn_from_the_draws_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = Prototypes([800], 50, 0, 1.0, False, Draws(0, torch.arange(1)))
    assert torch.equal(torch.get_rng_state(), before)
    drawn = first.attracting[0].detach()
    assert abs(float(drawn.mean())) < 0.02
    assert abs(float(drawn.std()) - 1) < 0.02
    assert first.repelling is not None
    assert not torch.equal(first.attracting[0], first.repelling[0])
    torch.testing.assert_close(prototypes(scale=0.1).attracting[1], 0.1 * prototypes().attracting[1])
    assert not torch.equal(prototypes(seed=1).attracting[0], prototypes().attracting[0])
    assert torch.equal(prototypes(branch=2).branches[0].weight, prototypes(branch=2).branches[0].weight)


def test_shared_prototypes_attract_and_repel() -> None:
    assert prototypes(is_shared=True).repelling is None
    assert len(list(prototypes(is_shared=True).parameters())) == 2
    assert len(list(prototypes().parameters())) == 4
