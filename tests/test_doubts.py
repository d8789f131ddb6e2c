"""Each doubt: on a model that deserves it, and not on one that does not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from test_pgd import Case
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import Draws, Surface, Threat
from orchestrator import evaluate_robustness
from orchestrator.doubts import black_box_wins, noise_wins, weaker_wins

LINF = Threat("linf", 0.1)


@pytest.fixture(scope="module")
def trained() -> Case:
    return Case()


def kinds(model: nn.Module, x: Tensor, y: Tensor, doubts: str = "cheap", **settings: Any) -> dict[str, str]:
    """Doubts by kind, with their severities."""
    settings = {"threat": LINF, "attacks": ["fgsm"], **settings}
    return {doubt.kind: doubt.severity for doubt in evaluate_robustness(model, x, y, doubts=doubts, **settings).doubts}


class After(nn.Module):
    """A model with something done to its images before, or to its logits after."""

    def __init__(self, model: nn.Module, before: Any = lambda x: x, after: Any = lambda logits: logits) -> None:
        super().__init__()
        self.model, self.before, self.after = model, before, after

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.after(self.model(self.before(x)))
        return logits


def test_an_honest_network_raises_no_doubt_in_full(trained: Case) -> None:
    attacks = [{"name": "pgd", "steps": 10}, "noise"]
    assert kinds(trained.model, trained.x[:200], trained.y[:200], "full", attacks=attacks) == {}


def one_hot(logits: Tensor) -> Tensor:
    return F.one_hot(logits.argmax(1), 10).float()


@pytest.mark.parametrize(
    ("hidden", "kind"),
    [
        ({"before": lambda x: (16 * x).round() / 16}, "zero_gradients"),  # round has a slope, which is 0
        ({"before": lambda x: (16 * x).detach().round() / 16}, "interrupted_gradient"),
        ({"after": one_hot}, "interrupted_gradient"),
        ({"after": lambda logits: 1e4 * logits}, "zero_gradients"),
    ],
)
def test_a_hidden_gradient_is_seen_at_once(trained: Case, hidden: dict[str, Any], kind: str) -> None:
    found = kinds(After(trained.model, **hidden), trained.x[:100], trained.y[:100])
    assert found.get(kind) == "severe"
    assert not {"zero_gradients", "interrupted_gradient"} - {kind} & found.keys()


def test_who_knows_the_surface_sees_the_gradient(trained: Case) -> None:
    """A stand-in for the rounding, a loss that is blind to the scale: nothing is hidden from either."""
    x, y = trained.x[:100], trained.y[:100]
    rounded = After(trained.model, before=lambda x: (16 * x).round() / 16)
    assert kinds(rounded, x, y, surface=Surface(backward=trained.model)) == {}
    large = After(trained.model, after=lambda logits: 1e4 * logits)
    assert kinds(large, x, y, surface=Surface(losses=("scaled_cross_entropy",))) == {}


def test_a_few_zero_gradients_are_a_note() -> None:
    """One of fifty images is so bright that its logits saturate."""
    x, y = torch.full((50, 1, 2, 2), 0.6), torch.arange(50) % 2
    x[y == 0] -= 0.2
    x[1] = 0.99

    class Saturating(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            level = x.flatten(1).mean(1) - 0.5
            score = torch.where(level > 0.4, 1000 * level, 10 * level)
            return torch.stack([-score, score], 1)

    assert kinds(Saturating(), x, y) == {"zero_gradients": "note"}


class Hills(nn.Module):
    """Wrong where the mean pixel is above 0.58; on the way there is a hill at 0.52 that small steps do not leave."""

    def forward(self, x: Tensor) -> Tensor:
        level = x.flatten(1).mean(1) - 0.5
        height = 0.3 - 40 * (level - 0.02).abs()
        beyond = 100 * (level - 0.078)
        return torch.stack([torch.ones_like(level), torch.maximum(height, beyond)], 1)


def test_one_step_that_beats_many_is_seen_in_full() -> None:
    x, y = torch.full((40, 1, 2, 2), 0.505), torch.zeros(40, dtype=torch.long)
    x[20:], y[20:] = 0.9, 1
    cheap, full = (kinds(Hills(), x, y, how, attacks=["pgd"]) for how in ("cheap", "full"))
    assert "one_step_beats_many" not in cheap
    assert full["one_step_beats_many"] == "severe"


def test_a_verdict_that_the_scale_of_logits_changes_is_seen_in_full(trained: Case) -> None:
    x, y = trained.x[:60], trained.y[:60]
    large = After(trained.model, after=lambda logits: 1e4 * logits)
    assert kinds(large, x, y, "full").get("logit_scale") == "severe"
    assert "logit_scale" not in kinds(After(trained.model, after=lambda logits: 3 * logits), x, y, "full")


class Brittle(nn.Module):
    """Class 0 while the first pixel, in eighths, is 0.5: half of all random points are not, and nothing has a slope."""

    def forward(self, x: Tensor) -> Tensor:
        score = ((8 * x[:, 0, 0, 0]).round() - 4).abs() - 0.5
        return torch.stack([-score, score], 1)


@dataclass(frozen=True)
class Jump:
    """Moves every pixel by eps; asks for no gradient."""

    name: ClassVar[str] = "jump"

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, draws: Draws) -> Tensor:
        model(x.detach())
        return (x + threat.eps).clamp(0, 1)


BRITTLE, ZEROS = torch.full((40, 1, 2, 2), 0.5), torch.zeros(40, dtype=torch.long)


@pytest.mark.parametrize(
    ("attacks", "kind"),
    [
        (["fgsm", "noise"], "noise_beats_attack"),
        (["fgsm", Jump()], "black_box_beats_white_box"),
        (["pgd"], None),
        (["noise", "fgsm"], None),  # nothing with a gradient had its turn
    ],
)
def test_an_attack_without_gradients_that_finds_more_is_seen_when_both_ran(
    attacks: list[Any], kind: str | None
) -> None:
    found = kinds(Brittle(), BRITTLE, ZEROS, attacks=attacks)
    expected = {"zero_gradients": "severe"} | ({kind: "severe"} if kind else {})
    assert found == expected


def test_noise_that_fools_what_every_attack_left_is_seen_in_full() -> None:
    cheap, full = (kinds(Brittle(), BRITTLE, ZEROS, how, attacks=["fgsm"]) for how in ("cheap", "full"))
    assert "noise_beats_attack" not in cheap
    assert full["noise_beats_attack"] == "severe"


def test_little_surprises_are_notes_and_none_at_all_is_no_doubt() -> None:
    assert black_box_wins("square", 2, 1000) is None
    for fooled, severity in ((3, "note"), (9, "note"), (10, "severe")):
        found = black_box_wins("square", fooled, 1000)
        assert found is not None
        assert (found.kind, found.severity) == ("black_box_beats_white_box", severity)
    assert noise_wins(0, 100, 0) is None
    left = noise_wins(1, 100, 1000)
    assert left is not None
    assert left.severity == "note"


def test_the_weaker_must_win_by_more_than_chance_would_have_it() -> None:
    weak, strong = torch.zeros(100, dtype=torch.bool), torch.zeros(100, dtype=torch.bool)
    weak[:10], strong[6:20] = True, True
    assert weaker_wins("kind", "weak", "strong", weak, strong) is None  # 6 to it alone, 10 to the other
    strong[10:] = False
    found = weaker_wins("kind", "weak", "strong", weak, strong)
    assert found is not None
    assert found.evidence == "of 100 examples weak fools 10, strong 4"


def test_what_doubts_cost_is_counted_in_no_attack_and_off_means_off(trained: Case) -> None:
    x, y, calls = trained.x[:30], trained.y[:30], []
    handle = trained.model.register_forward_hook(lambda _module, given, _: calls.append(len(given[0])))
    rows = {}
    for how in ("off", "cheap", "full"):
        calls.clear()
        found = evaluate_robustness(trained.model, x, y, threat=LINF, attacks=["fgsm"], doubts=how)
        rows[how] = (found.per_attack["forward_passes"].tolist(), found.robust_accuracy, len(calls))
    handle.remove()
    assert rows["off"][:2] == rows["cheap"][:2] == rows["full"][:2]
    assert rows["off"][2] + 1 == rows["cheap"][2]
    assert rows["full"][2] > rows["cheap"][2] + 40
    assert not math.isnan(rows["off"][1])
