"""What holds for every attack in the table, in every norm: an attack added there is tested by this file."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from linear import SHAPE, LinearProblem, linear_problem
from torch import Tensor, nn

import attacks
from attacks import ATTACKS, CASCADES, FGSM, LOSSES, Attack, Draws, Threat
from attacks.threat import NORMS

UNGUIDED = {"noise", "rfgsm"}  # follow no gradient, or not with all of eps: nobody expects them to reach a distance

NEAREST = {name for name, attack in ATTACKS.items() if hasattr(attack, "nearest")}
PAIRS = [(name, norm) for name, attack in ATTACKS.items() for norm in getattr(attack, "norms", NORMS)]

ATTACK = pytest.mark.parametrize("name", ATTACKS)
EVERY = pytest.mark.parametrize(("name", "norm"), PAIRS)
EVERY_GUIDED = pytest.mark.parametrize(("name", "norm"), [pair for pair in PAIRS if pair[0] not in UNGUIDED])
EPS = {"linf": 0.1, "l2": 0.8, "l1": 3.0}  # for pictures of 3x4x4


SHORT: dict[str, dict[str, object]] = {
    "carlini_wagner": {"steps": 12, "searches": 2, "initial_c": 10.0, "learning_rate": 0.2},
    "ddn": {"steps": 10},
    "deepfool": {"classes": 3},
    "eot": {"draws": 2, "attack": FGSM()},
    "fmn": {"steps": 10},
}
CLOSE: dict[str, dict[str, object]] = {  # the known distances are far less than what Adam goes by in a step of 0.01
    "carlini_wagner": {"learning_rate": 0.001, "steps": 100, "searches": 6, "initial_c": 0.01}
}


def short(name: str) -> Attack:
    """The attack, in little time where its defaults take long."""
    return ATTACKS[name](**SHORT.get(name, {}))


def a_norm(name: str) -> str:
    return next(norm for of, norm in PAIRS if of == name)


def conv_model(classes: int = 5) -> nn.Module:
    """Every habit of a real model: batch norm, dropout, a frozen parameter, weights drawn without the global seed."""
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(128, classes))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    model[0].bias.requires_grad_(False)
    return model.eval()


def pictures(examples: int = 9) -> tuple[Tensor, Tensor, Draws]:
    """Images with walls: a fifth of the pixels are 0 or 1."""
    draws = Draws(21, torch.arange(100, 100 + examples))
    return draws.uniform(*SHAPE, low=-0.125, high=1.125).clamp(0, 1), torch.arange(examples) % 5, draws


def fooled(problem: LinearProblem, adversarial: Tensor) -> Tensor:
    with torch.no_grad():
        return problem.model(adversarial).argmax(1) != problem.y


@EVERY_GUIDED
def test_fools_a_linear_model_just_beyond_its_known_distance(name: str, norm: str) -> None:
    problem = linear_problem()
    threat = Threat(norm, 1.05 * problem.distance[norm])
    adversarial = ATTACKS[name](**CLOSE.get(name, {}))(problem.model, problem.x, problem.y, threat, problem.draws)
    assert fooled(problem, adversarial).all()


@EVERY
def test_fools_nobody_below_the_known_distance(name: str, norm: str) -> None:
    problem = linear_problem()
    threat = Threat(norm, 0.95 * problem.distance[norm])
    adversarial = ATTACKS[name](**CLOSE.get(name, {}))(problem.model, problem.x, problem.y, threat, problem.draws)
    assert not fooled(problem, adversarial).any()


@EVERY
@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
def test_stays_in_ball_and_box(name: str, norm: str, factor: float) -> None:
    (x, y, draws), threat = pictures(), Threat(norm, factor * EPS[norm])
    adversarial = short(name)(conv_model(), x, y, threat, draws)
    assert threat.allows(x, adversarial).all()
    is_done = (conv_model()(x).argmax(1) != y) & (name in NEAREST)  # nothing is nearer than the image itself
    assert ((threat.distance(x, adversarial) > 0) | is_done).all()


@pytest.mark.parametrize(("name", "norm"), [(n, norm) for n in ATTACKS for norm in NORMS if (n, norm) not in PAIRS])
def test_a_norm_it_is_not_made_for_is_refused(name: str, norm: str) -> None:
    x, y, draws = pictures()
    with pytest.raises(ValueError, match=rf"^{name} under a threat's norm: must be one of .*, got '{norm}'"):
        ATTACKS[name]()(conv_model(), x, y, Threat(norm, 0.1), draws)


@EVERY
def test_nothing_changes_at_eps_zero(name: str, norm: str) -> None:
    x, y, draws = pictures()
    adversarial = short(name)(conv_model(), x, y, Threat(norm, 0.0), draws)
    assert torch.equal(adversarial, pictures()[0])
    assert adversarial.data_ptr() != x.data_ptr()


@EVERY
def test_answers_with_plain_tensors_and_leaves_its_arguments_alone(name: str, norm: str) -> None:
    x, y, draws = pictures()
    given = x.clone(), y.clone(), draws.example_ids.clone()
    adversarial = short(name)(conv_model(), x, y, Threat(norm, EPS[norm]), draws)
    assert (adversarial.shape, adversarial.dtype, adversarial.requires_grad) == (x.shape, x.dtype, False)
    assert adversarial.data_ptr() != x.data_ptr()
    assert all(torch.equal(a, b) for a, b in zip(given, (x, y, draws.example_ids), strict=True))


@EVERY
@pytest.mark.parametrize("is_training", [True, False])
def test_leaves_the_model_as_found(name: str, norm: str, is_training: bool) -> None:
    model = conv_model().train(is_training)
    model[1].train(not is_training)  # modes may be mixed
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    before = copy.deepcopy(model)
    x, y, draws = pictures()
    short(name)(model, x, y, Threat(norm, EPS[norm]), draws)
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    for found, left in zip(before.parameters(), model.parameters(), strict=True):
        assert torch.equal(found, left)
        assert left.grad is not None
        assert (left.grad == 7).all()
        assert found.requires_grad == left.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(before.buffers(), model.buffers(), strict=True))


@ATTACK
def test_leaves_the_model_as_found_when_it_breaks(name: str) -> None:
    model = nn.Sequential(conv_model().train(), nn.Linear(4, 2))  # 5 features meet 4
    x, y, draws = pictures()
    with pytest.raises(RuntimeError):
        short(name)(model, x, y, Threat(a_norm(name), 0.1), draws)
    assert all(module.training for module in model.modules() if module is not model)
    assert [p.requires_grad for p in model.parameters()] == [True, False] + [True] * 6


@EVERY
def test_attacks_the_model_in_eval_mode(name: str, norm: str) -> None:
    (x, y, draws), threat = pictures(), Threat(norm, EPS[norm])
    in_eval, in_training = conv_model().eval(), conv_model().train()
    assert torch.equal(short(name)(in_eval, x, y, threat, draws), short(name)(in_training, x, y, threat, draws))


@EVERY
def test_the_same_draws_give_the_same_answer_whatever_the_global_seed(name: str, norm: str) -> None:
    (x, y, draws), model, answers = pictures(), conv_model(), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        answers.append(short(name)(model, x, y, Threat(norm, EPS[norm]), draws))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*answers)


@EVERY
@pytest.mark.parametrize("size", [1, 4])
def test_the_answer_does_not_depend_on_the_batch(name: str, norm: str, size: int) -> None:
    """In float64: what a model rounds differently in another batch must not blur a dependence."""
    (x, y, draws), threat, model = pictures(), Threat(norm, EPS[norm]), conv_model().double()
    x = x.double()
    whole = short(name)(model, x, y, threat, draws)
    parts = [short(name)(model, x[i], y[i], threat, draws.select(i)) for i in torch.arange(9).split(size)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-9)


@EVERY
def test_the_answer_does_not_depend_on_the_order(name: str, norm: str) -> None:
    (x, y, draws), threat, model = pictures(), Threat(norm, EPS[norm]), conv_model().double()
    x, order = x.double(), torch.tensor([3, 8, 0, 5, 1, 7, 2, 6, 4])
    whole = short(name)(model, x, y, threat, draws)
    shuffled = short(name)(model, x[order], y[order], threat, draws.select(order))
    torch.testing.assert_close(shuffled, whole[order], rtol=0, atol=1e-9)


@ATTACK
def test_works_under_no_grad_with_the_same_answer(name: str) -> None:
    x, y, draws = pictures()
    threat = Threat(a_norm(name), 0.1)
    free = short(name)(conv_model(), x, y, threat, draws)
    with torch.no_grad():
        assert torch.equal(short(name)(conv_model(), x, y, threat, draws), free)


@EVERY
def test_an_empty_batch_gives_an_empty_answer(name: str, norm: str) -> None:
    x, y, draws = pictures()
    none = slice(0, 0)
    empty = Draws(0, draws.example_ids[none])
    assert short(name)(conv_model(), x[none], y[none], Threat(norm, 0.1), empty).shape == (0, *SHAPE)


class Blind(nn.Module):
    """Gives no gradient: 'argmax' cuts the graph, 'constant' ignores the image, 'nan' has a slope without value."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.bias = how, nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1).sum(1)
        if self.how == "argmax":
            return torch.stack([score < 24, score >= 24], 1).float()
        if self.how == "constant":
            return self.bias.expand(len(x), 2)
        return torch.stack([score, score + (score - score).sqrt()], 1)


@EVERY
@pytest.mark.parametrize("how", ["argmax", "constant", "nan"])
def test_a_model_without_gradient_gets_an_allowed_answer(name: str, norm: str, how: str) -> None:
    (x, y, draws), threat = pictures(), Threat(norm, EPS[norm])
    assert threat.allows(x, short(name)(Blind(how), x, y % 2, threat, draws)).all()


@EVERY
@pytest.mark.parametrize("logits", [1, 2])
def test_one_class_or_logits_that_are_nan_get_an_allowed_answer(name: str, norm: str, logits: int) -> None:
    """With one class nobody is ever wrong; what is NaN fools nobody."""
    (x, y, draws), threat = pictures(), Threat(norm, EPS[norm])
    model = conv_model(classes=logits)
    if logits == 2:
        model = nn.Sequential(model, nn.Threshold(1e9, float("nan")))
    assert threat.allows(x, short(name)(model, x, y % logits, threat, draws)).all()


class Jitter(nn.Module):
    draws: Draws | None = None

    def forward(self, x: Tensor) -> Tensor:
        assert self.draws is not None, "asked without a source"
        assert len(self.draws.example_ids) == len(x)
        SEEN.append(self.draws.uniform(1)[0].item())
        return x + 0.1 * self.draws.fork("jitter").uniform(*x.shape[1:]).to(x.dtype)


SEEN: list[float] = []


@EVERY
def test_a_stochastic_model_draws_anew_at_each_look_and_by_example(name: str, norm: str) -> None:
    model = nn.Sequential(Jitter(), conv_model()).double()
    (x, y, draws), threat = pictures(), Threat(norm, EPS[norm])
    SEEN.clear()
    whole = short(name)(model, x.double(), y, threat, draws)
    assert len(set(SEEN)) == len(SEEN) > 0
    part = short(name)(model, x[4:].double(), y[4:], threat, draws.select(torch.arange(4, 9)))
    torch.testing.assert_close(part, whole[4:], rtol=0, atol=1e-9)
    assert model[0].draws is None


@ATTACK
def test_is_a_frozen_dataclass_under_its_own_name(name: str) -> None:
    attack = ATTACKS[name]()
    assert attack.name == name
    assert dataclasses.is_dataclass(attack)
    assert "name" not in {field.name for field in dataclasses.fields(attack)}
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.name = "other"  # type: ignore[misc]


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
