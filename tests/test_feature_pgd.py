"""PGD along the gradient of a guide: where it leads, what it goes by, what it costs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attacks import PGD, Draws, FeaturePGD, Threat
from orchestrator.passes import counted


class Masked(nn.Module):
    """Two classes by the sum of the pixels, over a staircase that has no slope anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        score = self.scale * (20 * total(x)).floor() / 20
        return torch.stack([score, 2 - score], 1)  # class 0 from a sum of 1


class Guide(nn.Module):
    def __init__(self, model: nn.Module, sign: float = 1.0) -> None:
        super().__init__()
        self.model, self.sign = model, sign

    def forward(self, x: Tensor) -> Tensor:
        score = self.sign * 1000 * total(x)
        return torch.stack([score, -score], 1) + 0 * self.model(x)


def total(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)


def guided(sign: float = 1.0) -> Masked:
    model = Masked().eval()
    object.__setattr__(model, "feature_guide", Guide(model, sign))
    return model


X = torch.full((3, 1, 2, 2), 0.3)  # a sum of 1.2: 0.2 above the boundary, 0.05 a pixel
Y = torch.zeros(3, dtype=torch.long)
DRAWS = Draws(0, torch.arange(3))


def test_follows_the_guide_where_the_model_has_no_slope() -> None:
    threat = Threat("linf", 0.06)
    plain = PGD(steps=20, random_start=False, loss="margin")(Masked(), X, Y, threat, DRAWS)
    assert torch.equal(plain, X)
    adversarial = FeaturePGD(steps=20, random_start=False)(guided(), X, Y, threat, DRAWS)
    assert (X - adversarial).min() > 0.05  # on the lowest stair, of which the first point is kept
    assert Masked()(adversarial).argmax(1).tolist() == [1, 1, 1]


def test_what_is_worst_goes_by_the_model_not_by_the_guide() -> None:
    """A guide that leads the wrong way: the image itself is the worst point that was seen."""
    adversarial = FeaturePGD(steps=20, random_start=False)(guided(-1.0), X, Y, Threat("linf", 0.06), DRAWS)
    assert torch.equal(adversarial, X)


def test_without_a_guide_it_is_pgd_on_the_model() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(3, 4, generator=generator))
    ours = FeaturePGD(steps=5, restarts=2)(model, X, Y, Threat("l2", 0.1), DRAWS)
    theirs = PGD(steps=5, restarts=2, loss="margin")(model, X, Y, Threat("l2", 0.1), DRAWS.fork("feature_pgd"))
    assert torch.equal(ours, theirs)


def test_the_model_and_its_guide_are_left_as_found_and_every_pass_is_counted() -> None:
    model = guided().train()
    with counted(model) as passes:
        FeaturePGD(steps=4, random_start=False)(model, X, Y, Threat("linf", 0.01), DRAWS)
    assert passes.forward == 3 * (2 * 4 + 1)  # model and guide at each step, then a last look
    assert passes.backward == 3 * 4
    assert all(module.training for module in (model, model.feature_guide))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert [name for name, _ in model.named_modules()] == [""]
