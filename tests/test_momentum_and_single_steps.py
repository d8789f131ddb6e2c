"""bim, mim and rfgsm: against the formulas of their papers, by hand."""

from __future__ import annotations

import pytest
import torch
from linear import linear_problem
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import BIM, MIM, PGD, RFGSM, Draws, Threat

LINF = Threat("linf", 0.1)


class Net(nn.Module):
    """Two layers with a bend; where the first pixel is bright the gradient is a million times as large."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first = nn.Parameter(torch.randn(16, 20, generator=generator))
        self.second = nn.Parameter(torch.randn(20, 4, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        logits = ((x.flatten(1) - 0.5) @ self.first).relu() @ self.second
        steeper = 1e6 * logits * (x[:, 0, 0, 0] > 0.5)[:, None]
        return logits + (steeper - steeper.detach())


X = Draws(3, torch.arange(40)).uniform(1, 4, 4)
Y = torch.arange(40) % 4
DRAWS = Draws(0, torch.arange(40))


def by_hand(net: nn.Module, x: Tensor, y: Tensor, steps: int, size: float, decay: float) -> Tensor:
    """g <- decay g + grad / ||grad||_1; x <- clip(x + size sign(g)), one example after the other."""
    answers = []
    for image, label in zip(x, y, strict=True):
        point, momentum = image.clone(), torch.zeros_like(image)
        for _ in range(steps):
            point.requires_grad_(True)
            (gradient,) = torch.autograd.grad(F.cross_entropy(net(point[None]), label[None]), point)
            momentum = decay * momentum + gradient / gradient.abs().sum()
            moved = point.detach() + size * momentum.sign()
            point = torch.min(torch.max(moved, image - LINF.eps), image + LINF.eps).clamp(0, 1)
        answers.append(point)
    return torch.stack(answers)


@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_mim_is_the_formula_of_the_paper_example_by_example(decay: float) -> None:
    net = Net()
    ours = MIM(steps=6, decay=decay)(net, X, Y, LINF, DRAWS)
    torch.testing.assert_close(ours, by_hand(net, X, Y, 6, LINF.eps / 6, decay))


def test_momentum_goes_on_where_the_gradient_has_turned() -> None:
    """Uphill to a ridge at 0.55 in steps of 0.04: momentum 1 at 0.54, 2 at 0.58, 1 at 0.62, then 0."""

    class Ridge(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            height = -(x.flatten(1).mean(1) - 0.55).abs()
            return torch.stack([torch.zeros_like(height), height], 1)

    x, y, threat = torch.full((1, 1, 2, 2), 0.5), torch.zeros(1, dtype=torch.long), Threat("linf", 0.3)
    draws = Draws(0, torch.arange(1))

    def after(steps: int, decay: float) -> float:
        return MIM(steps=steps, decay=decay, step_size=0.04)(Ridge(), x, y, threat, draws).mean().item()

    assert [after(steps, 1.0) for steps in (1, 2, 3, 4, 5)] == pytest.approx([0.54, 0.58, 0.62, 0.62, 0.58], abs=1e-3)
    assert [after(steps, 0.0) for steps in (1, 2, 3, 4)] == pytest.approx([0.54, 0.58, 0.54, 0.58], abs=1e-6)


def test_gradients_of_any_size_count_alike() -> None:
    """Not by a mean over the batch: an example's momentum does not fade beside one with a larger gradient."""

    class Scaled(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.net, self.factor = Net(), factor

        def forward(self, x: Tensor) -> Tensor:
            logits = self.net(x)
            return logits * 1e-3 + (logits * self.factor - (logits * self.factor).detach())

    small, large = (MIM(steps=4)(Scaled(factor), X, Y, LINF, DRAWS) for factor in (1e-12, 1e12))
    assert (small != X).flatten(1).any(1).all()
    assert (small == large).float().mean() > 0.9


def test_mim_without_momentum_is_bim() -> None:
    for norm in ("linf", "l2", "l1"):
        threat = Threat(norm, 0.5)
        ours = MIM(steps=5, decay=0.0, step_size=0.1)(Net(), X, Y, threat, DRAWS)
        torch.testing.assert_close(ours, BIM(steps=5, step_size=0.1)(Net(), X, Y, threat, DRAWS))


def test_bim_is_the_end_of_pgd_from_the_image_in_the_steps_of_the_paper() -> None:
    pgd = PGD(steps=10, step_size=1 / 255, random_start=False, keep="last")
    threat = Threat("linf", 8 / 255)  # the paper: 1.25 eps = 10 steps of one pixel value
    torch.testing.assert_close(BIM()(Net(), X, Y, threat, DRAWS), pgd(Net(), X, Y, threat, DRAWS))


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_rfgsm_goes_a_share_of_eps_along_random_signs_and_the_rest_along_the_gradient(share: float) -> None:
    """On a linear model the gradient is the same everywhere: pixels move by eps, or by eps less twice the share."""
    problem = linear_problem(examples=50)
    adversarial = RFGSM(random_share=share)(problem.model, problem.x, problem.y, LINF, problem.draws)
    slope = problem.model[1].weight[1] - problem.model[1].weight[0]
    along = (1 - 2 * problem.y)[:, None] * slope.sign()
    moved = (adversarial - problem.x).flatten(1) * along / LINF.eps
    went = moved > 1 - 1e-4
    assert ((moved - (1 - 2 * share)).abs() < 1e-4)[~went].all()
    assert went.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert len(went.unique(dim=0)) == 50  # signs of its own for each example


def test_rfgsm_takes_its_gradient_after_the_random_step() -> None:
    seen = []

    class Watched(Net):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach())
            return super().forward(x)

    RFGSM(random_share=0.5)(Watched(), X, Y, LINF, DRAWS)
    (start,) = seen
    assert LINF.scaled(0.5).allows(X, start).all()
    inside = (X > 0.05) & (X < 0.95)
    torch.testing.assert_close((start - X).abs()[inside], torch.full_like(X, 0.05)[inside])
