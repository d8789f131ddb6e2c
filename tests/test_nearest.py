"""Minimum-norm attacks: known distances, walls, and what they answer within a threat."""

from __future__ import annotations

import pytest
import torch
from linear import linear_problem
from torch import Tensor, nn

from attacks import DDN, FMN, CarliniWagner, DeepFool, Draws, Threat
from attacks.boundary_step import boundary_step
from attacks.nearest import Nearest
from attacks.projections import project, project_each
from attacks.threat import NORMS
from orchestrator.contracts.attack import conv_model, pictures

EXACT = CarliniWagner(learning_rate=0.001, steps=150, searches=7, initial_c=0.01)
CASES = [
    (FMN(), "linf", 1.001),
    (FMN(), "l2", 1.001),
    (FMN(), "l1", 1.001),
    (DDN(), "l2", 1.005),
    (DeepFool(overshoot=0.001), "l2", 1.01),
    (DeepFool(overshoot=0.001), "linf", 1.025),  # 1e-4 beyond a boundary that is 0.005 away
]


@pytest.mark.parametrize(("attack", "norm", "most"), [*CASES, (EXACT, "l2", 1.005)])
def test_finds_the_known_distance_of_a_linear_model(attack: FMN, norm: str, most: float) -> None:
    problem = linear_problem()
    found = attack.nearest(problem.model, problem.x, problem.y, norm, problem.draws)
    ratio = found.distance / problem.distance[norm]
    assert ratio.min() > 1 - 1e-4
    assert ratio.max() < most
    with torch.no_grad():
        assert (problem.model(found.adversarial).argmax(1) != problem.y).all()
    moved = Threat(norm, 1.0).distance(problem.x, found.adversarial)
    torch.testing.assert_close(found.distance, moved)


@pytest.mark.parametrize(("attack", "norm"), [*(case[:2] for case in CASES), (CarliniWagner(steps=20), "l2")])
def test_within_a_threat_it_is_that_point_or_one_on_the_way(attack: FMN, norm: str) -> None:
    problem = linear_problem()
    near = attack.nearest(problem.model, problem.x, problem.y, norm, problem.draws)
    for factor in (1.0001, 3.0):
        threat = Threat(norm, factor * near.distance.max().item())
        assert torch.equal(attack(problem.model, problem.x, problem.y, threat, problem.draws), near.adversarial)
    threat = Threat(norm, near.distance.min().item() / 2)
    answer = attack(problem.model, problem.x, problem.y, threat, problem.draws)
    assert threat.allows(problem.x, answer).all()
    torch.testing.assert_close(threat.distance(problem.x, answer), torch.full((12,), threat.eps), rtol=1e-3, atol=0)
    assert torch.equal(answer, project(problem.x, near.adversarial, threat))


class Affine(nn.Module):
    """Five classes, logits affine in the image."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.weight = nn.Parameter(torch.randn(5, 16, generator=generator))
        self.bias = nn.Parameter(torch.randn(5, generator=generator) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - 0.5) @ self.weight.T + self.bias


@pytest.mark.parametrize(("norm", "dual"), [("l2", 2.0), ("linf", 1.0)])
def test_deepfool_is_the_formula_on_an_affine_classifier(norm: str, dual: float) -> None:
    """The nearest of four hyperplanes, in one step: the distance times 1 + overshoot, and 1e-4 more."""
    model, x = Affine(), Draws(2, torch.arange(30)).uniform(1, 4, 4, low=0.45, high=0.55)
    logits = model(x).detach()
    y, draws = logits.argmax(1), Draws(0, torch.arange(30))
    slopes = model.weight[None].detach() - model.weight[y][:, None].detach()  # [30, 5, 16]
    gaps = (logits - logits.gather(1, y[:, None])).abs()
    distance = (gaps / slopes.norm(dual, dim=2)).scatter(1, y[:, None], torch.inf)
    found = DeepFool().nearest(model, x, y, norm, draws)
    torch.testing.assert_close(found.distance, 1.02 * (distance.amin(1) + 1e-4), rtol=1e-4, atol=1e-6)
    assert torch.equal(model(found.adversarial).argmax(1), distance.argmin(1))
    only = DeepFool(classes=1).nearest(model, x, y, norm, draws).distance
    assert (only >= found.distance - 1e-6).all()
    assert (only > found.distance + 1e-3).any()  # the class with the next logit is not always the nearest


def test_a_boundary_step_can_be_trained_through() -> None:
    """Its length is |gap| / |slope|: pulling a boundary away makes it longer, and gradcheck says by how much."""
    generator = torch.Generator().manual_seed(0)
    gaps = -torch.rand(3, 2, generator=generator, dtype=torch.float64) - 0.1
    slopes = torch.randn(3, 2, 1, 2, 2, generator=generator, dtype=torch.float64)
    for norm in ("l2", "linf"):
        assert torch.autograd.gradcheck(
            lambda g, s, norm=norm: boundary_step(g, s, norm), (gaps.requires_grad_(), slopes.requires_grad_())
        )
    flat = boundary_step(torch.tensor([[-1.0]]), torch.zeros(1, 1, 1, 2, 2), "l2", 1e-4)
    assert torch.equal(flat, torch.zeros(1, 1, 2, 2))


class Walled(nn.Module):
    """Class 1 from a sum of 0.6 over the first four of eight pixels; the others pull out of the box in vain."""

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(1)
        score = pixels[:, :4].sum(1) + pixels[:, 4:].sum(1) - 0.6
        return torch.stack([torch.zeros_like(score), score - 4], 1)


BLACK_AND_WHITE = torch.tensor([0.0, 0, 0, 0, 1, 1, 1, 1]).view(1, 1, 2, 4)
ZERO, ONE = torch.zeros(1, dtype=torch.long), Draws(0, torch.arange(1))


@pytest.mark.parametrize(
    ("attack", "norm", "distance"),
    [(FMN(), "l2", 0.3), (FMN(), "linf", 0.15), (FMN(), "l1", 0.6), (DDN(), "l2", 0.3), (DeepFool(), "l2", 0.3)],
)
def test_pixels_at_the_walls_do_not_keep_it_from_the_boundary(attack: FMN, norm: str, distance: float) -> None:
    """All that can move are four black pixels by 0.15 each; half of the gradient points out of the box."""
    found = attack.nearest(Walled(), BLACK_AND_WHITE, ZERO, norm, ONE).distance.item()
    assert found == pytest.approx(distance, rel=0.03)
    assert found > distance - 1e-4


def test_carlini_wagner_moves_pixels_that_are_exactly_black_and_white() -> None:
    """Every pixel is 0 or 1, and the class is what they are on average: 0.1 each, against it all the while."""

    class Contrast(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            moved = (x - BLACK_AND_WHITE).abs().flatten(1).sum(1)
            return torch.stack([torch.zeros_like(moved), 10 * (moved - 0.8)], 1)

    found = CarliniWagner(steps=500, searches=5, initial_c=0.1).nearest(Contrast(), BLACK_AND_WHITE, ZERO, "l2", ONE)
    assert found.distance.item() == pytest.approx(0.8 / 8**0.5, rel=0.01)
    moved = (found.adversarial - BLACK_AND_WHITE).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.1), rtol=0.05, atol=0)


def test_carlini_wagner_gives_up_on_each_example_by_itself() -> None:
    """The first makes no progress at all, the second does: alone or beside the first it goes on as long."""
    asked: list[int] = []

    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(len(x))
            level = x.flatten(1).mean(1)
            score = torch.where(level < 0.3, 0 * level - 9, level - 0.9)
            return torch.stack([torch.zeros_like(score), 20 * score], 1)

    x, y = torch.stack([torch.full((1, 2, 2), 0.2), torch.full((1, 2, 2), 0.7)]), torch.zeros(2, dtype=torch.long)
    attack, draws = CarliniWagner(steps=100, searches=1, initial_c=10.0), Draws(0, torch.arange(2))
    both = attack.nearest(Half(), x, y, "l2", draws)
    sizes, _ = asked.copy(), asked.clear()
    alone = attack.nearest(Half(), x[1:], y[1:], "l2", draws.select(torch.tensor([1])))
    torch.testing.assert_close(both.distance[1:], alone.distance)
    assert both.distance.isfinite().tolist() == [False, True]
    assert sizes.count(2) == 1 + 11  # the look at the images, and a tenth of the steps and one
    assert len(sizes) == len(asked) > 50


@pytest.mark.parametrize("confidence", [0.0, 0.1])
def test_confidence_asks_for_a_margin_beyond_the_boundary(confidence: float) -> None:
    """With a penalty that outweighs the distance, the run ends where the margin is what was asked for."""
    problem, margins = linear_problem(), []

    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = problem.model(x)
            margins.append((logits[:, 1] - logits[:, 0]).detach() * (1 - 2 * problem.y))
            return logits

    attack = CarliniWagner(
        steps=150, searches=1, learning_rate=0.001, initial_c=0.05, early_abort=False, confidence=confidence
    )
    attack.nearest(Watched(), problem.x, problem.y, "l2", problem.draws)
    found = torch.stack(margins[-50:]).mean(0)
    torch.testing.assert_close(found, torch.full_like(found, confidence), rtol=0, atol=0.02)


def test_every_image_is_fooled_where_some_lie_within_a_hair_of_the_boundary() -> None:
    """Images with walls; the paper's ball, which reaches to the linear boundary at most, never gets there for one."""
    x, y, draws = pictures()
    distances = [attack.nearest(conv_model(), x, y, "l2", draws).distance for attack in (FMN(), DDN(), DeepFool())]
    assert all(distance.isfinite().all() for distance in distances)
    best = torch.stack(distances).amin(0)
    assert (distances[0] <= 1.05 * best + 1e-6).all()


def test_the_nearest_of_what_was_seen_counts_and_only_what_fools() -> None:
    x, y = torch.zeros(3, 1), torch.tensor([0, 0, 1])
    nearest = Nearest(x, y, "l2")
    right, wrong = torch.tensor([[2.0, 1.0]] * 3), torch.tensor([[1.0, 2.0]] * 3)
    assert nearest.see(torch.full((3, 1), 0.5), right).tolist() == [False, False, True]
    assert nearest.see(torch.full((2, 1), 0.8), wrong[:2], torch.tensor([0, 1])).tolist() == [True, True]
    nearest.see(torch.full((1, 1), 0.3), wrong[:1], torch.tensor([1]))
    nearest.see(torch.full((3, 1), 0.9), wrong)
    nearest.see(torch.full((3, 1), 0.1), torch.full((3, 2), torch.nan))
    assert nearest.distance.tolist() == pytest.approx([0.8, 0.3, 0.5])
    assert nearest.adversarial.flatten().tolist() == pytest.approx([0.8, 0.3, 0.5])


@pytest.mark.parametrize("norm", NORMS)
def test_each_is_projected_on_a_ball_of_its_own(norm: str) -> None:
    draws = Draws(8, torch.arange(6))
    x, point = draws.uniform(3, 4, 4), draws.fork("point").uniform(3, 4, 4, low=-1.0, high=2.0)
    radius = torch.tensor([0.0, 0.01, 0.3, 2.0, 50.0, torch.inf])
    together = project_each(x, point, norm, radius)
    for row in range(6):
        eps = min(radius[row].item(), 1e4)
        alone = project(x[row : row + 1], point[row : row + 1], Threat(norm, eps))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=2e-6)
