"""Every claim of the contracts is planted against, and what check --plugin makes of a user's classes."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from plugin_modules import plugins_forgotten
from torch import Tensor, nn

import orchestrator.contracts.attack as attack
import orchestrator.contracts.dataset as dataset
import orchestrator.contracts.defense as defense
import orchestrator.contracts.network as network
from attacks import FGSM, PGD
from attacks.queries import querying
from defenses import NETWORKS, PgdAT, Standard, TrainingDiverged
from defenses.networks import Normalise
from orchestrator.cli import main
from orchestrator.contracts.claim import Broken, Claim
from orchestrator.contracts.verdicts import BROKEN, HOLDS, NOTE, Verdict, of_plugins

Call = Callable[..., Any]


def draws_from_torch(model: nn.Module, x: Tensor, y: Tensor, threat: Any, draws: Any) -> Tensor:
    return (x + 1e-3 * torch.rand_like(x)).clamp(0, 1)


def looks_at_the_batch(model: nn.Module, x: Tensor, y: Tensor, threat: Any, draws: Any) -> Tensor:
    return (x + 1e-3 * x.mean()).clamp(0, 1) if len(x) else x.clone()


def looks_at_the_row(model: nn.Module, x: Tensor, y: Tensor, threat: Any, draws: Any) -> Tensor:
    return x - 1e-3 * torch.arange(len(x))[:, None, None, None]


def asks_the_bare_model(model: nn.Module, x: Tensor, y: Tensor, threat: Any, draws: Any) -> Tensor:
    with torch.no_grad():
        return x + 1e-4 * model(x)[:, :1, None, None].sigmoid()


def leaves_it_in_eval(model: nn.Module, x: Tensor, y: Tensor, threat: Any, draws: Any) -> Tensor:
    model.eval()
    with torch.no_grad():
        model(x)
    return x.clone()


def needs_gradients(model: nn.Module, x: Tensor, y: Tensor, threat: Any, draws: Any) -> Tensor:
    x = x.clone().requires_grad_()
    model.eval()(x).sum().backward()
    return x.detach()


def keeps_nan(model: nn.Module, x: Tensor, y: Tensor, threat: Any, draws: Any) -> Tensor:
    asked = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(asked)[:, 1].sum(), asked)
    return x + 1e-3 * gradient.clamp(-1, 1)


def looks_twice_with_the_same_noise(model: nn.Module, x: Tensor, y: Tensor, threat: Any, draws: Any) -> Tensor:
    with querying(model) as queries:
        return x + 0 * (queries.logits(x, draws) + queries.logits(x, draws))[:, :1, None, None]


def gives_it_back(model: nn.Module, x: Tensor, y: Tensor, threat: Any, draws: Any) -> Tensor:
    return x


def gives_a_copy(model: nn.Module, x: Tensor, y: Tensor, threat: Any, draws: Any) -> Tensor:
    return x.clone()


def gives_doubles(model: nn.Module, x: Tensor, y: Tensor, threat: Any, draws: Any) -> Tensor:
    return x.double()


def goes_twice_as_far(model: nn.Module, x: Tensor, y: Tensor, threat: Any, draws: Any) -> Tensor:
    return FGSM()(model, x, y, threat.scaled(2.0), draws)


def takes_the_first_row(model: nn.Module, x: Tensor, y: Tensor, threat: Any, draws: Any) -> Tensor:
    return x - 0 * x[0]


ATTACKS: list[tuple[Call, Call]] = [
    (attack.stays_in_ball_and_box, goes_twice_as_far),
    (attack.nothing_changes_at_eps_zero, gives_it_back),
    (attack.nothing_changes_at_eps_zero, looks_at_the_batch),
    (attack.answers_with_plain_tensors_and_leaves_its_arguments_alone, gives_doubles),
    (attack.leaves_the_model_as_found, needs_gradients),
    (attack.leaves_the_model_as_found, leaves_it_in_eval),
    (attack.leaves_the_model_as_found_when_it_breaks, leaves_it_in_eval),
    (attack.leaves_the_model_as_found_when_it_breaks, gives_a_copy),
    (attack.attacks_the_model_in_eval_mode, asks_the_bare_model),
    (attack.the_same_draws_give_the_same_answer_whatever_the_global_seed, draws_from_torch),
    (attack.the_answer_does_not_depend_on_the_batch, looks_at_the_batch),
    (attack.the_answer_does_not_depend_on_the_order, looks_at_the_row),
    (attack.works_under_no_grad_with_the_same_answer, needs_gradients),
    (attack.an_empty_batch_gives_an_empty_answer, takes_the_first_row),
    (attack.a_model_without_gradient_gets_an_allowed_answer, keeps_nan),
    (attack.a_stochastic_model_draws_anew_at_each_look_and_by_example, looks_twice_with_the_same_noise),
    (attack.a_stochastic_model_draws_anew_at_each_look_and_by_example, asks_the_bare_model),
    (attack.a_stochastic_model_draws_anew_at_each_look_and_by_example, gives_a_copy),
    (attack.fools_nobody_below_the_known_distance, goes_twice_as_far),
    (attack.fools_a_linear_model_just_beyond_its_known_distance, gives_a_copy),
    (attack.moves_every_image, gives_a_copy),
]


@dataclass(frozen=True)
class Wrapped(Standard):
    """Standard training; what comes out goes through `through`."""

    through: ClassVar[Any] = staticmethod(lambda epoch: epoch)

    def fit(self, network: Any, data: Any, training: Any, draws: Any, state: Any = None) -> Iterator[Any]:
        for epoch in super().fit(network, data, training, draws, state):
            yield type(self).through(epoch)


class Pickles(Wrapped):
    through = staticmethod(lambda epoch: replace(epoch, state={**epoch.state, "more": object()}))


class CountsFromZero(Wrapped):
    through = staticmethod(lambda epoch: replace(epoch, state={**epoch.state, "epoch": epoch.state["epoch"] - 1}))


class BeginsAnew(Standard):
    def fit(self, network: Any, data: Any, training: Any, draws: Any, state: Any = None) -> Iterator[Any]:
        return super().fit(network, data, training, draws, None)


class StaysTrainable(Standard):
    def deployed(self, state: Any) -> nn.Module:
        return super().deployed(state).requires_grad_(True)


class Rounds(Standard):
    def deployed(self, state: Any) -> nn.Module:
        return nn.Sequential(Rounding(), super().deployed(state))


class Rounding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (8 * x).round() / 8


class Dices(Wrapped):
    through = staticmethod(lambda epoch: replace(epoch, state={**epoch.state, "dice": torch.rand(1)}))


class OneSeed(Standard):
    def fit(self, network: Any, data: Any, training: Any, draws: Any, state: Any = None) -> Iterator[Any]:
        return super().fit(network, data, training, replace(draws, seed=0), state)


class NoSurface(Standard):
    def surface(self) -> Any:
        return None


class Silent(PgdAT):
    uses_threat = False


class Vain(Standard):
    uses_threat = True


class NeverNeutral(PgdAT):
    neutral: ClassVar[dict[str, Any] | None] = {}


class Patient(Standard):
    def fit(self, network: Any, data: Any, training: Any, draws: Any, state: Any = None) -> Iterator[Any]:
        try:
            yield from super().fit(network, data, training, draws, state)
        except TrainingDiverged:
            return


class Asleep(Standard):
    def fit(self, network: Any, data: Any, training: Any, draws: Any, state: Any = None) -> Iterator[Any]:
        return super().fit(network, data, replace(training, lr=1e-30), draws, state)


DEFENSES: list[tuple[Call, Any]] = [
    (defense.its_surface_and_facts_are_sane, NoSurface()),
    (defense.gives_finite_epochs_whose_state_is_tensors_and_json, Pickles()),
    (defense.gives_finite_epochs_whose_state_is_tensors_and_json, CountsFromZero()),
    (defense.goes_on_from_any_state_as_if_it_had_never_stopped, BeginsAnew()),
    (defense.deployed_gives_logits_and_has_nothing_to_train, StaysTrainable()),
    (defense.deployed_gives_logits_and_has_nothing_to_train, Rounds()),
    (defense.draws_alone_decide, Dices()),
    (defense.draws_alone_decide, OneSeed()),
    (defense.a_threat_that_it_does_not_use_changes_nothing, Silent(steps=1)),
    (defense.a_threat_that_it_uses_changes_something, Vain()),
    (defense.at_its_neutral_settings_is_standard_training, NeverNeutral()),
    (defense.diverging_is_said, Patient()),
    (defense.learns_in_every_precision_and_with_averaging, Asleep()),
]


class Line(nn.Module):
    """A linear network, with one thing wrong."""

    def __init__(self, wrong: str, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.wrong, self.normalise = wrong, Normalise(channels)
        self.line = nn.Linear(channels * size * size, classes)
        if wrong == "idle":
            self.idle = nn.Parameter(torch.ones(1))
        if wrong == "counts":
            nn.init.constant_(self.line.bias, next(COUNTER))
        if wrong == "on the CPU":
            self.line.bias = nn.Parameter(torch.zeros(classes, device="cpu"))

    def forward(self, x: Tensor) -> Tensor:
        if self.wrong == "scales first":
            x = 2 * x - 1
        if self.wrong == "in place":
            x = x.add_(0.1)
        if self.wrong == "near-sighted":
            x = x * (torch.arange(x.shape[-1]) < 2)
        if self.wrong == "layout" and not x.is_contiguous():
            x = x + 1
        out: Tensor = self.line(self.normalise(x).flatten(1))
        return 99 * out if self.wrong == "loud" else out


COUNTER = itertools.count()


@dataclass(frozen=True)
class Net:
    name: ClassVar[str] = "net"
    wrong: str = ""

    def __call__(self, channels: int, size: int, classes: int) -> nn.Module:
        if self.wrong == "raw":
            return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))
        return Line(self.wrong, channels, size, classes)


NETWORK_CLAIMS: list[tuple[Call, str]] = [
    (network.takes_every_size_and_every_pixel_counts, "near-sighted"),
    (network.every_parameter_gets_a_gradient_and_the_image_is_left_alone, "idle"),
    (network.every_parameter_gets_a_gradient_and_the_image_is_left_alone, "in place"),
    (network.the_layout_in_memory_changes_no_logit, "layout"),
    (network.description_survives_json_and_rebuilds, "counts"),
    (network.normalises_first, "raw"),
    (network.normalises_first, "scales first"),
    (network.starts_at_a_loss_near_that_of_a_guess, "loud"),
    (network.shapes_are_known_without_numbers, "on the CPU"),
]


@dataclass(frozen=True)
class Pixels:
    """Eight examples of two classes, with one thing wrong."""

    name: ClassVar[str] = "pixels"
    default_root: ClassVar[str | None] = None
    wrong: str = ""

    def __call__(self, root: Any, split: str) -> tuple[Any, Any]:
        seed = {"train": 0, "test": 0 if self.wrong == "leaks" else 1}[split]
        rng = np.random.default_rng(None if self.wrong == "changes" else seed)
        images = rng.integers(0, 256, (8, 1, 4, 5 if self.wrong == "wide" else 4), dtype=np.uint8)
        labels = np.arange(8) % 2 * (2 if self.wrong == "gap" else 1)
        return images, labels.astype(np.int32 if self.wrong == "narrow labels" else np.int64)

    def count(self, root: Any, split: str) -> int:
        return 9 if self.wrong == "miscounts" else 8

    def opened(self, root: Any, split: str) -> tuple[Any, Any]:
        images, labels = self(root, split)
        return (lambda rows: images[np.sort(rows)] if self.wrong == "sorts" else images[rows]), labels


@dataclass(frozen=True)
class Rooted(Pixels):
    root: str = ""


DATASET_CLAIMS: list[tuple[Call, Any]] = [
    (dataset.its_fields_are_no_common_keys, Rooted()),
    (dataset.gives_whole_splits_that_never_change, Pixels("changes")),
    (dataset.gives_whole_splits_that_never_change, Pixels("narrow labels")),
    (dataset.what_it_offers_beside_agrees, Pixels("miscounts")),
    (dataset.what_it_offers_beside_agrees, Pixels("sorts")),
    (dataset.its_classes_are_whole, Pixels("gap")),
    (dataset.its_images_are_square, Pixels("wide")),
    (dataset.no_image_is_in_both_splits, Pixels("leaks")),
]


RAISES = {  # a class that breaks these may end in an error of torch's, which says as much
    attack.works_under_no_grad_with_the_same_answer,
    attack.an_empty_batch_gives_an_empty_answer,
    attack.a_model_without_gradient_gets_an_allowed_answer,
    attack.a_stochastic_model_draws_anew_at_each_look_and_by_example,
    network.shapes_are_known_without_numbers,
}


def claim_of(claims: tuple[Claim, ...], check: Call) -> Claim:
    return next(claim for claim in claims if claim.check is check)


def is_broken(claim: Claim, instance: Any) -> bool:
    for case in claim.cases:
        try:
            claim.check(instance, **case)
        except Broken:
            return True
        except (RuntimeError, IndexError):
            if claim.check in RAISES:
                return True
            raise
    return False


@pytest.mark.parametrize(("check", "broken"), ATTACKS)
def test_an_attack_that_breaks_a_claim_is_told_so(check: Call, broken: Call) -> None:
    assert is_broken(claim_of(attack.CLAIMS, check), broken)


@pytest.mark.parametrize(("check", "broken"), DEFENSES)
def test_a_defense_that_breaks_a_claim_is_told_so(check: Call, broken: Any) -> None:
    assert is_broken(claim_of(defense.CLAIMS, check), broken)


@pytest.mark.parametrize(("check", "wrong"), NETWORK_CLAIMS)
def test_a_network_that_breaks_a_claim_is_told_so(check: Call, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "net", Net)
    assert is_broken(claim_of(network.CLAIMS, check), Net(wrong))


@pytest.mark.parametrize(("check", "broken"), DATASET_CLAIMS)
def test_a_dataset_that_breaks_a_claim_is_told_so(check: Call, broken: Any) -> None:
    assert is_broken(claim_of(dataset.CLAIMS, check), broken)


def test_what_breaks_nothing_is_told_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "net", Net)
    whole = [(attack.CLAIMS, PGD()), (defense.CLAIMS, Standard()), (network.CLAIMS, Net()), (dataset.CLAIMS, Pixels())]
    assert not [claim.text for claims, instance in whole for claim in claims if is_broken(claim, instance)]


def test_every_claim_is_planted_against() -> None:
    planted = {check for check, _ in (*ATTACKS, *DEFENSES, *NETWORK_CLAIMS, *DATASET_CLAIMS)}
    claims = (*attack.CLAIMS, *defense.CLAIMS, *network.CLAIMS, *dataset.CLAIMS)
    assert {claim.check for claim in claims} == planted


USERS = """
from dataclasses import dataclass
from pathlib import Path
import numpy as np
from torch import nn
from attacks.fgsm import FGSM
from defenses.networks.normalise import Normalise
from orchestrator.errors import UserError

@dataclass(frozen=True)
class OnlyFar:
    def __call__(self, model, x, y, threat, draws):
        if threat.norm != "l2":
            raise ValueError(f"norm: takes l2 only, got {threat.norm}")
        return FGSM()(model, x, y, threat, draws)

@dataclass(frozen=True)
class Even:
    def __call__(self, channels, size, classes):
        if size % 32:
            raise ValueError(f"takes 32 pixels, got {size}")
        return nn.Sequential(Normalise(channels), nn.Flatten(), nn.Linear(channels * size * size, classes))

@dataclass(frozen=True)
class Needy:
    width: int
    def __call__(self, channels, size, classes): ...

@dataclass(frozen=True)
class Unreadable:
    data: bytes = b""
    def __call__(self, channels, size, classes):
        return Even()(channels, 32, classes)

@dataclass(frozen=True)
class Away:
    def __call__(self, root, split):
        raise UserError("dataset.root: needs the folder that holds it")

@dataclass(frozen=True)
class Record:
    size: int = 3

class Half:
    def fit(self, network, data, training, draws, state=None): ...
"""


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users.py").write_text(USERS)
    (tmp_path / "empty.py").write_text("X = 1\n")
    with plugins_forgotten():
        yield tmp_path


def test_a_users_classes_are_told_what_holds_what_does_not_and_what_was_not_tried(users: Path) -> None:
    found = of_plugins(["users"])

    def of(name: str, claim: str) -> Verdict:
        return next(verdict for verdict in found if verdict.subject == f"users:{name}" and verdict.claim == claim)

    assert of("OnlyFar", "takes norm linf").evidence == "refuses it: norm: takes l2 only, got linf"
    assert of("OnlyFar", "stays in ball and box") == Verdict(
        "users:OnlyFar", "attack", "stays in ball and box", HOLDS, "3 cases"
    )
    assert of("Even", "takes size 8").outcome == NOTE
    assert of("Even", "takes every size and every pixel counts").evidence == "4 cases"
    needy = of("Needy", "has a default for every setting")
    assert (needy.outcome, needy.evidence) == (BROKEN, "none for width: so it cannot be tried")
    assert of("Unreadable", "can be written in a spec").outcome == BROKEN
    away = of("Away", "its images are square")
    assert (away.outcome, away.evidence) == (NOTE, "not tried: dataset.root: needs the folder that holds it")
    assert of("Record", "is of a kind").outcome == NOTE
    half = of("Half", "offers what a defense must")
    assert half.evidence.startswith("it must be a frozen dataclass")
    assert "it has no deployed(state); it has no surface()" in half.evidence
    assert {verdict.subject for verdict in found if verdict.is_broken} == {
        f"users:{n}" for n in ("Needy", "Unreadable", "Half")
    }


@pytest.mark.parametrize(("module", "code"), [("users", 2), ("empty", 2), ("far.py", 0)])
def test_check_ends_with_2_where_a_claim_is_broken(
    users: Path, module: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (users / "far.py").write_text(USERS.split("@dataclass(frozen=True)\nclass Even")[0])
    monkeypatch.setattr(sys, "argv", ["robustsweep", "check", "--plugin", module])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert int(ended.value.code or 0) == code, said
    assert ("0 broken" in said.out) == (code == 0)
    assert "takes norm linf" in said.out or module == "empty"
