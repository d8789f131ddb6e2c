"""What holds for every attack in the table, in every norm: an attack added there is tested by this file."""

from __future__ import annotations

import inspect
import sys

import pytest
from linear import linear_problem
from torch import nn

import attacks
import orchestrator.contracts.attack as contract
from attacks import ATTACKS, CASCADES, FGSM, LOSSES, Attack, Threat
from attacks.threat import NORMS
from orchestrator.contracts.attack import BLINDNESS, CLAIMS, EPS, FACTORS
from orchestrator.contracts.settings import can_be_written_in_a_spec, is_a_frozen_dataclass_under_its_own_name

UNGUIDED = {"noise", "square", "rfgsm"}  # no gradient, or not with all of eps: nobody expects them to reach a distance
PAIRS = [(name, norm) for name, attack in ATTACKS.items() for norm in getattr(attack, "norms", NORMS)]

ATTACK = pytest.mark.parametrize("name", ATTACKS)
EVERY = pytest.mark.parametrize(("name", "norm"), PAIRS)
EVERY_GUIDED = pytest.mark.parametrize(("name", "norm"), [pair for pair in PAIRS if pair[0] not in UNGUIDED])

SHORT: dict[str, dict[str, object]] = {
    "carlini_wagner": {"steps": 12, "searches": 2, "initial_c": 10.0, "learning_rate": 0.2},
    "ddn": {"steps": 10},
    "deepfool": {"classes": 3},
    "eot": {"draws": 2, "attack": FGSM()},
    "fab": {"steps": 10},
    "fmn": {"steps": 10},
    "square": {"queries": 60},
}
CLOSE: dict[str, dict[str, object]] = {  # the known distances are far less than what Adam goes by in a step of 0.01
    "square": {"queries": 500},
    "carlini_wagner": {"learning_rate": 0.001, "steps": 100, "searches": 6, "initial_c": 0.01}
}


def short(name: str) -> Attack:
    """The attack, in little time where its defaults take long."""
    return ATTACKS[name](**SHORT.get(name, {}))


def close(name: str) -> Attack:
    """The attack, with steps that suit images of 48 pixels."""
    return ATTACKS[name](**CLOSE.get(name, {}))


@EVERY_GUIDED
def test_fools_a_linear_model_just_beyond_its_known_distance(name: str, norm: str) -> None:
    contract.fools_a_linear_model_just_beyond_its_known_distance(close(name), norm)


@EVERY
def test_fools_nobody_below_the_known_distance(name: str, norm: str) -> None:
    contract.fools_nobody_below_the_known_distance(close(name), norm)


@EVERY
@pytest.mark.parametrize("factor", FACTORS)
def test_stays_in_ball_and_box(name: str, norm: str, factor: float) -> None:
    contract.stays_in_ball_and_box(short(name), norm, factor)
    contract.moves_every_image(short(name), norm, factor)


@pytest.mark.parametrize(("name", "norm"), [(n, norm) for n in ATTACKS for norm in NORMS if (n, norm) not in PAIRS])
def test_a_norm_it_is_not_made_for_is_refused(name: str, norm: str) -> None:
    x, y, draws = contract.pictures()
    with pytest.raises(ValueError, match=rf"^{name} under a threat's norm: must be one of .*, got '{norm}'"):
        short(name)(contract.conv_model(), x, y, Threat(norm, 0.1), draws)


@EVERY
def test_nothing_changes_at_eps_zero(name: str, norm: str) -> None:
    contract.nothing_changes_at_eps_zero(short(name), norm)


@EVERY
def test_answers_with_plain_tensors_and_leaves_its_arguments_alone(name: str, norm: str) -> None:
    contract.answers_with_plain_tensors_and_leaves_its_arguments_alone(short(name), norm)


@EVERY
@pytest.mark.parametrize("is_training", [True, False])
def test_leaves_the_model_as_found(name: str, norm: str, is_training: bool) -> None:
    contract.leaves_the_model_as_found(short(name), norm, is_training)


@ATTACK
def test_leaves_the_model_as_found_when_it_breaks(name: str) -> None:
    for norm in getattr(ATTACKS[name], "norms", NORMS):
        contract.leaves_the_model_as_found_when_it_breaks(short(name), norm)


@EVERY
def test_attacks_the_model_in_eval_mode(name: str, norm: str) -> None:
    contract.attacks_the_model_in_eval_mode(short(name), norm)


@EVERY
def test_the_same_draws_give_the_same_answer_whatever_the_global_seed(name: str, norm: str) -> None:
    contract.the_same_draws_give_the_same_answer_whatever_the_global_seed(short(name), norm)


@EVERY
@pytest.mark.parametrize("size", [1, 4])
def test_the_answer_does_not_depend_on_the_batch(name: str, norm: str, size: int) -> None:
    contract.the_answer_does_not_depend_on_the_batch(short(name), norm, size)


@EVERY
def test_the_answer_does_not_depend_on_the_order(name: str, norm: str) -> None:
    contract.the_answer_does_not_depend_on_the_order(short(name), norm)


@ATTACK
def test_works_under_no_grad_with_the_same_answer(name: str) -> None:
    for norm in getattr(ATTACKS[name], "norms", NORMS):
        contract.works_under_no_grad_with_the_same_answer(short(name), norm)


@EVERY
def test_an_empty_batch_gives_an_empty_answer(name: str, norm: str) -> None:
    contract.an_empty_batch_gives_an_empty_answer(short(name), norm)


@EVERY
@pytest.mark.parametrize("how", BLINDNESS)
def test_a_model_without_gradient_gets_an_allowed_answer(name: str, norm: str, how: str) -> None:
    contract.a_model_without_gradient_gets_an_allowed_answer(short(name), norm, how)


@EVERY
@pytest.mark.parametrize("logits", [1, 2])
def test_one_class_or_logits_that_are_nan_get_an_allowed_answer(name: str, norm: str, logits: int) -> None:
    """With one class nobody is ever wrong; what is NaN fools nobody."""
    (x, y, draws), threat = contract.pictures(), Threat(norm, EPS[norm])
    model = contract.conv_model(classes=logits)
    if logits == 2:
        model = nn.Sequential(model, nn.Threshold(1e9, float("nan")))
    assert threat.allows(x, short(name)(model, x, y % logits, threat, draws)).all()


@EVERY
def test_a_stochastic_model_draws_anew_at_each_look_and_by_example(name: str, norm: str) -> None:
    contract.a_stochastic_model_draws_anew_at_each_look_and_by_example(short(name), norm)


@ATTACK
def test_is_a_frozen_dataclass_under_its_own_name(name: str) -> None:
    is_a_frozen_dataclass_under_its_own_name(short(name), name)
    can_be_written_in_a_spec(short(name), ATTACKS)


def test_every_claim_of_the_contract_is_held_here_and_in_every_norm() -> None:
    source = inspect.getsource(sys.modules[__name__])
    assert not [claim.check.__name__ for claim in CLAIMS if f"contract.{claim.check.__name__}(" not in source]
    assert all({case["norm"] for case in claim.cases} == set(NORMS) == set(EPS) for claim in CLAIMS)


@pytest.mark.parametrize("preset", CASCADES)
def test_cascades_are_made_of_attacks_of_the_table(preset: str) -> None:
    assert CASCADES[preset]
    assert all(type(attack) is ATTACKS[attack.name] for attack in CASCADES[preset])


def test_strong_pgd_is_what_figures_are_quoted_with() -> None:
    found = [(attack.steps, attack.restarts, attack.loss) for attack in CASCADES["strong_pgd"]]
    assert found == [(40, 5, "cross_entropy"), (40, 5, "margin")]


def test_the_public_surface() -> None:
    table = {attack.__name__ for attack in ATTACKS.values()} | {"BPDA"}
    assert set(attacks.__all__) == table | {"ATTACKS", "CASCADES", "LOSSES", "Attack", "Draws", "Surface", "Threat"}
    assert all(getattr(attacks, name) is not None for name in attacks.__all__)


KNOWN = ", ".join(LOSSES)
WRONG: list[tuple[str, dict[str, object], str]] = [
    ("pgd", {"steps": 0}, r"steps: must be a whole number >= 1, got 0"),
    ("pgd", {"steps": 2.5}, r"steps: must be a whole number >= 1, got 2.5"),
    ("pgd", {"restarts": True}, r"restarts: must be a whole number >= 1, got True"),
    ("pgd", {"restarts": 2, "random_start": False}, r"restarts: 2 without random_start would all be equal"),
    ("pgd", {"step_size": 0.0}, r"step_size: must be finite and > 0, got 0.0"),
    ("pgd", {"step_size": float("nan")}, r"step_size: must be finite and > 0, got nan"),
    ("pgd", {"loss": "margins"}, rf"loss: must be one of {KNOWN}, got 'margins' .*mean margin"),
    ("pgd", {"keep": "first"}, r"keep: must be one of best, last, got 'first'"),
    ("fgsm", {"loss": "ce"}, rf"loss: must be one of {KNOWN}, got 'ce'"),
    ("rfgsm", {"random_share": 1.0}, r"random_share: must be > 0 and < 1, got 1.0"),
    ("bim", {"step_size": -1.0}, r"step_size: must be finite and > 0, got -1.0"),
    ("mim", {"decay": -0.1}, r"decay: must be finite and >= 0, got -0.1"),
    ("deepfool", {"overshoot": float("inf")}, r"overshoot: must be finite and >= 0, got inf"),
    ("deepfool", {"classes": 0}, r"classes: must be a whole number >= 1, got 0"),
    ("carlini_wagner", {"initial_c": 0.0}, r"initial_c: must be finite and > 0, got 0.0"),
    ("carlini_wagner", {"confidence": -1.0}, r"confidence: must be finite and >= 0, got -1.0"),
    ("ddn", {"shrink": 1.0}, r"shrink: must be > 0 and < 1, got 1.0"),
    ("fmn", {"shrink": 0.0}, r"shrink: must be > 0 and < 1, got 0.0"),
    ("eot", {"draws": 0}, r"draws: must be a whole number >= 1, got 0"),
    ("noise", {"queries": 0}, r"queries: must be a whole number >= 1, got 0"),
]


@pytest.mark.parametrize(("name", "settings", "message"), WRONG)
def test_wrong_settings_are_refused_with_what_is_allowed(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ATTACKS[name](**settings)


def test_dlr_on_two_classes_says_what_to_use_instead() -> None:
    problem = linear_problem()
    attack: Attack = ATTACKS["pgd"](loss="dlr")
    with pytest.raises(ValueError, match="at least 3 classes, got 2; use margin or cross_entropy"):
        attack(problem.model, problem.x, problem.y, Threat("linf", 0.1), problem.draws)
