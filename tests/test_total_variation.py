"""Claims about total variation: the minimum is one, image by image, and the transform draws, remembers and mixes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from test_defenses_contract import COUNT, equal, pictures, train
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.sources import drawing
from defenses import WNLL, Standard, Training
from defenses.inputs import TVM
from defenses.total_variation import minimise_total_variation, total_variation


def drawn(count: int, channels: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A bright square on a slope, with noise; half of the pixels are kept."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.linspace(0, 0.4, size).expand(count, channels, size, size).clone()
    x[:, :, size // 4 : size // 2, size // 4 : -1] += 0.5
    x += 0.05 * torch.rand(x.shape, generator=generator)
    return x, torch.rand(count, 1, size, size, generator=generator) >= 0.5


def objective(z: Tensor, x: Tensor, is_kept: Tensor, weight: float) -> Tensor:
    """By the definition, pixel by pixel. [C, H, W] -> []"""
    total = (is_kept * (z - x)).square().sum()
    for channel in z:
        for i in range(z.shape[1]):
            for j in range(z.shape[2]):
                down = channel[i + 1, j] - channel[i, j] if i + 1 < z.shape[1] else torch.zeros(()).to(z)
                right = channel[i, j + 1] - channel[i, j] if j + 1 < z.shape[2] else torch.zeros(()).to(z)
                total = total + weight * (down**2 + right**2).sqrt()
    return total


def smooth_objective(flat: np.ndarray, x: Tensor, is_kept: Tensor, weight: float) -> tuple[float, np.ndarray]:
    """For a generic solver: each length a little rounded at 0, by 1e-10, with its gradient."""
    z = torch.from_numpy(flat).view_as(x).requires_grad_()
    down = torch.cat([z[:, 1:] - z[:, :-1], torch.zeros_like(z[:, :1])], 1)
    right = torch.cat([z[:, :, 1:] - z[:, :, :-1], torch.zeros_like(z[:, :, :1])], 2)
    total = (is_kept * (z - x)).square().sum() + weight * (down**2 + right**2 + 1e-10).sqrt().sum()
    (gradient,) = torch.autograd.grad(total, z)
    return float(total.detach()), gradient.flatten().numpy()


@pytest.mark.parametrize("weight", [0.01, 0.03, 0.2])
def test_the_minimum_is_that_of_a_generic_convex_solver(weight: float) -> None:
    """Value within 0.2 % after 400 iterations, 2 % after 50, and never below the solver's by more than its rounding."""
    images, kept = drawn(1, 1, 8)
    x, is_kept = images[0].double(), kept[0].double()
    options = {"maxiter": 20_000, "maxfun": 40_000, "maxcor": 50, "ftol": 1e-15, "gtol": 1e-9}
    start = np.full(x.numel(), 0.4)
    found = minimize(smooth_objective, start, (x, is_kept, weight), jac=True, method="L-BFGS-B", options=options)
    least = float(objective(torch.from_numpy(found.x).view_as(x), x, is_kept, weight))
    ours = {
        iterations: float(
            objective(minimise_total_variation(images.double(), kept, weight, iterations)[0], x, is_kept, weight)
        )
        for iterations in (50, 400)
    }
    assert least * 0.999 < ours[400] < least * 1.002
    assert ours[50] < least * 1.02


def test_where_all_pixels_are_kept_the_picture_is_the_generic_solvers() -> None:
    """Then there is one minimum only: pictures agree, not just values."""
    images, _ = drawn(1, 2, 7)
    x, everything = images[0].double(), torch.ones(2, 7, 7, dtype=torch.float64)
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-9}
    found = minimize(
        smooth_objective, x.flatten().numpy(), (x, everything, 0.05), jac=True, method="L-BFGS-B", options=options
    )
    ours = minimise_total_variation(images.double(), everything[None].bool(), 0.05, 400)[0]
    torch.testing.assert_close(ours, torch.from_numpy(found.x).view_as(x), rtol=0, atol=2e-3)


def test_an_even_picture_is_left_and_a_dropped_pixel_is_filled_in() -> None:
    x = torch.full((1, 3, 6, 6), 0.7)
    is_kept = torch.ones(1, 1, 6, 6, dtype=torch.bool)
    is_kept[0, 0, 2:4, 3] = False
    holed = x.clone()
    holed[:, :, 2:4, 3] = 0.0
    torch.testing.assert_close(minimise_total_variation(holed, is_kept, 0.03, 50), x, rtol=0, atol=1e-4)


def test_what_was_dropped_is_not_looked_at() -> None:
    x, is_kept = drawn(2, 3, 8)
    other = torch.where(is_kept, x, 1 - x)
    assert torch.equal(*(minimise_total_variation(each, is_kept, 0.03, 20) for each in (x, other)))


def test_a_larger_weight_leaves_less_total_variation_and_it_is_the_sum_of_the_definition() -> None:
    x, is_kept = drawn(3, 2, 8)
    found = [total_variation(minimise_total_variation(x, is_kept, weight, 200)) for weight in (0.003, 0.03, 0.3)]
    assert (found[0] > found[1]).all()
    assert (found[1] > found[2]).all()
    by_definition = torch.stack([objective(each, each, is_kept[:1, 0] > 2, 1.0) for each in x])
    torch.testing.assert_close(total_variation(x), by_definition)


def test_no_image_depends_on_another_and_large_batches_go_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x, is_kept = drawn(9, 3, 8)
    whole = minimise_total_variation(x, is_kept, 0.03, 20)
    assert torch.equal(minimise_total_variation(x[4:6], is_kept[4:6], 0.03, 20), whole[4:6])
    monkeypatch.setattr("defenses.total_variation._AT_ONCE", 400)
    assert torch.equal(minimise_total_variation(x, is_kept, 0.03, 20), whole)


def seen(transform: nn.Module, x: Tensor, seed: int, rows: Tensor) -> Tensor:
    with drawing(transform, Draws(seed, rows)):
        found: Tensor = transform(x[rows])
    return found


def test_in_training_a_share_of_the_images_stays_as_it_is_and_in_use_none_does() -> None:
    transform, rows = TVM(train_share=0.5, iterations=5)(1, 8), torch.arange(400)
    x = drawn(400, 1, 8)[0]
    for transform_, low, high in ((transform, 0.4, 0.6), (TVM(train_share=0.5, iterations=5)(1, 8).eval(), 0, 0)):
        is_left = (seen(transform_, x, 0, rows) == x).flatten(1).all(1).float().mean()
        assert low <= is_left <= high
    first, again = (seen(transform, x, seed, rows) for seed in (0, 1))
    assert not torch.equal((first == x).flatten(1).all(1), (again == x).flatten(1).all(1))


def test_a_remembered_image_is_rebuilt_once_and_an_attacked_one_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def watched(x: Tensor, is_kept: Tensor, weight: float, iterations: int) -> Tensor:
        asked.append(len(x))
        return minimise_total_variation(x, is_kept, weight, iterations)

    monkeypatch.setattr("defenses.inputs.tvm.minimise_total_variation", watched)
    transform, x = TVM(cached=True, iterations=5)(1, 8), drawn(10, 1, 8)[0]
    first = seen(transform, x, 0, torch.arange(6))
    again = seen(transform, x, 1, torch.tensor([8, 3, 0]))  # another epoch, another batch
    assert torch.equal(again[1:], first[[3, 0]])
    moved = x.clone()
    moved[3] += 1e-6
    attacked = seen(transform, moved, 2, torch.tensor([3, 0]))
    assert torch.equal(attacked[1], first[0])
    assert asked == [6, 1, 1]
    fresh = TVM(iterations=5)(1, 8)
    assert not torch.equal(seen(fresh, x, 0, torch.arange(6)), seen(fresh, x, 1, torch.arange(6)))


@pytest.mark.parametrize("settings", [{"cached": True, "train_share": 0.5}, {}])
@pytest.mark.parametrize("defense", [Standard(), WNLL(k=4, sigma_rank=2)], ids=lambda defense: defense.name)
def test_training_behind_it_resumes_to_the_bit(defense: Any, settings: dict[str, Any]) -> None:
    training = Training(epochs=3, batch_size=20, lr=0.02, inputs=(TVM(iterations=5, **settings),))
    straight = train(defense, pictures(), training)
    resumed = train(defense, pictures(), training, straight[0].state)
    assert all(equal(a.state, b.state) for a, b in zip(straight[1:], resumed, strict=True))
    x = (pictures().images / 255).requires_grad_()
    model = defense.deployed(straight[-1].state)
    assert model(x).shape == (COUNT, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drop": 1.0}, r"drop: must be in \[0, 1\), got 1.0"),
        ({"drop": -0.1}, r"drop: must be in \[0, 1\), got -0.1"),
        ({"weight": 0.0}, "weight: must be finite and > 0, got 0.0"),
        ({"iterations": 0}, "iterations: must be a whole number >= 1, got 0"),
        ({"train_share": 0.0}, r"train_share: must be in \(0, 1\], got 0.0"),
    ],
)
def test_refuses_a_setting_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{message}$"):
        TVM(**settings)
