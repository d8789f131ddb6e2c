"""What apgd, fab, square and their cascades promise beyond the contract of all attacks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from digit_classifier import digit_case
from linear import linear_problem
from torch import Tensor, nn

from attacks import APGD, CASCADES, FAB, Attack, Draws, Square, Threat
from attacks.adaptive_ascent import checkpoints
from attacks.hyperplanes import onto_plane
from attacks.losses import margin
from attacks.sampling import sampled
from attacks.survivors import Survivors, filled
from attacks.targets import likeliest_targets, targeted_dlr
from attacks.threat import NORMS
from orchestrator import evaluate_robustness
from orchestrator.passes import counted

NORM = pytest.mark.parametrize("norm", NORMS)
EPS = {"linf": 0.1, "l2": 0.5, "l1": 4.0}
QUICK = {"apgd": APGD(steps=20), "apgd_t": APGD(steps=10, loss="dlr", targets=3), "fab_t": FAB(steps=8, targets=3),
         "square": Square(queries=80)}  # fmt: skip


def fooled(attack: Attack, threat: Threat, rows: Tensor, seed: int = 0) -> Tensor:
    case = digit_case()
    x, y = case.x[rows], case.y[rows]
    adversarial = attack(case.model, x, y, threat, Draws(seed, case.ids[rows]))
    assert threat.allows(x, adversarial).all()
    return case.model(adversarial).argmax(1) != y


@NORM
@pytest.mark.parametrize("name", QUICK)
def test_answers_are_the_same_to_the_bit_in_any_batch_order_and_shard(name: str, norm: str) -> None:
    """fp32: the batch of 3 and the few that are left at the end of a run are filled up to what rounds alike."""
    case, threat, attack = digit_case(), Threat(norm, EPS[norm]), QUICK[name]
    rows = torch.arange(60)

    def answers(order: Tensor, batch: int) -> Tensor:
        out = torch.empty_like(case.x[rows])
        for part in order.split(batch):
            out[part] = attack(case.model, case.x[part], case.y[part], threat, Draws(0, case.ids[part]))
        return out

    whole = answers(rows, 60)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(answers(order, 25), whole)
    assert torch.equal(answers(torch.arange(6), 3)[:6], whole[:6])


@pytest.mark.parametrize("loss", ["cross_entropy", "dlr", "margin"])
@pytest.mark.parametrize("targets", [0, 2])
@NORM
def test_every_form_of_apgd_reaches_the_known_distance(norm: str, targets: int, loss: str) -> None:
    """With a third class that is never in the running, since dlr needs one."""
    if targets and loss == "cross_entropy":
        return
    problem = linear_problem()
    third = nn.Sequential(problem.model, nn.ConstantPad1d((0, 1), -9.0))
    for factor, are_fooled in ((1.05, True), (0.95, False)):
        threat = Threat(norm, factor * problem.distance[norm])
        attack = APGD(loss=loss, targets=targets)
        adversarial = attack(third, problem.x, problem.y, threat, problem.draws)
        assert ((third(adversarial).argmax(1) != problem.y) == are_fooled).all()


@NORM
@pytest.mark.parametrize("targets", [0, 1])
def test_one_step_of_fab_is_exact_on_a_linear_model(norm: str, targets: int) -> None:
    """It oversteps the boundary by a twentieth."""
    problem = linear_problem()
    threat = Threat(norm, 1.06 * problem.distance[norm])
    adversarial = FAB(steps=1, targets=targets)(problem.model, problem.x, problem.y, threat, problem.draws)
    assert (problem.model(adversarial).argmax(1) != problem.y).all()
    moved = threat.distance(problem.x, adversarial)
    torch.testing.assert_close(moved, torch.full_like(moved, 1.05 * problem.distance[norm]), rtol=1e-3, atol=0)


def test_square_finds_the_corner_of_the_ball_that_fools_a_linear_model() -> None:
    problem = linear_problem()
    for factor, are_fooled in ((1.02, True), (0.98, False)):
        threat = Threat("linf", factor * problem.distance["linf"])
        adversarial = Square(queries=1500)(problem.model, problem.x, problem.y, threat, problem.draws)
        assert ((problem.model(adversarial).argmax(1) != problem.y) == are_fooled).all()


def test_checkpoints_are_those_of_the_paper() -> None:
    """At 100 steps: windows of 22, 19, 16, 13, 10, 7, then 6."""
    assert checkpoints(100) == {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    assert checkpoints(3) == {1: 1, 2: 1, 3: 1}


@NORM
def test_the_move_to_a_plane_is_the_shortest_in_the_box(norm: str) -> None:
    """No other feasible move is shorter: against random ones brought to the plane, and by its own length at no wall."""
    draws = Draws(5, torch.arange(20))
    point, slope = draws.uniform(12), draws.fork("slope").normal(12)
    most = torch.where(slope > 0, slope * (1 - point), -slope * point).sum(1)
    rise = 0.5 * most
    move = onto_plane(point, slope, rise, norm)
    torch.testing.assert_close((slope * move).sum(1), rise, rtol=1e-5, atol=1e-6)
    assert (point + move >= -1e-6).all()
    assert (point + move <= 1 + 1e-6).all()
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    size = torch.linalg.vector_norm(move, order, dim=1)
    for trial in range(300):
        other = (point + draws.fork(trial).normal(12) * 0.3 + move).clamp(0, 1) - point
        gain = (slope * other).sum(1)
        is_enough = gain >= rise
        assert (torch.linalg.vector_norm(other, order, dim=1)[is_enough] >= size[is_enough] - 1e-5).all()
    dual = {"linf": 1, "l2": 2, "l1": torch.inf}[norm]
    near = onto_plane(torch.full_like(point, 0.5), slope, 0.01 * most, norm)
    torch.testing.assert_close(
        torch.linalg.vector_norm(near, order, dim=1), 0.01 * most / torch.linalg.vector_norm(slope, dual, dim=1)
    )


@NORM
def test_a_plane_out_of_reach_is_approached_as_far_as_the_box_allows(norm: str) -> None:
    point, slope = torch.full((1, 4), 0.25), torch.tensor([[1.0, -1.0, 0.0, 2.0]])
    move = onto_plane(point, slope, torch.tensor([9.0]), norm)
    torch.testing.assert_close(move, torch.tensor([[0.75, -0.25, 0.0, 0.75]]))


def test_who_is_fooled_costs_no_further_pass() -> None:
    case, threat = digit_case(), Threat("linf", 0.5)  # fools everybody at once
    for attack, most in ((APGD(), 5), (APGD(loss="dlr", targets=9), 6), (FAB(targets=9), 60), (Square(), 300)):
        with counted(case.model) as passes:
            assert fooled(attack, threat, torch.arange(60)).all()
        assert passes.forward / 60 < most, attack


def test_a_point_that_fools_by_rounding_only_is_not_the_last() -> None:
    x, y = torch.zeros(20, 1, 1, 1), torch.zeros(20, dtype=torch.long)
    with torch.no_grad():
        queries = type("Asked", (), {"model": nn.Identity(), "looks": 1})()
    survivors = Survivors(queries, x, y, Draws(0, torch.arange(20)))
    assert survivors.see(x + 1, torch.tensor([[1.0, 1.0 + 1e-7]]).expand(20, 2)) is None
    logits = torch.tensor([[1.0, 1.0 + 1e-7]] * 19 + [[1.0, 1.1]])
    assert survivors.see(x + 2, logits).tolist() == list(range(19))
    found = survivors.worst()
    assert found.is_fooled.all()
    assert found.adversarial.flatten().tolist() == [1.0] * 19 + [2.0]


def test_few_rows_are_repeated_up_to_sixteen() -> None:
    assert filled(torch.tensor([4, 7, 9])).tolist() == ([4, 7, 9] * 6)[:16]
    assert filled(torch.arange(16)).tolist() == list(range(16))
    assert len(filled(torch.arange(0))) == 0


def test_targets_are_the_likeliest_wrong_classes() -> None:
    logits = torch.tensor([[1.0, 5.0, 3.0, 4.0], [9.0, 5.0, 3.0, 4.0]])
    assert likeliest_targets(logits, torch.tensor([3, 0]), 2).tolist() == [[1, 2], [1, 3]]
    assert likeliest_targets(logits, torch.tensor([3, 0]), 9).shape == (2, 3)


def test_targeted_dlr_is_what_the_paper_says() -> None:
    """(z_t - z_y) / (z_1 - (z_3 + z_4) / 2): of logits 7 5 3 1 4, class 1, target 2: (3 - 5) / (7 - 3.5)."""
    logits = torch.tensor([[7.0, 5.0, 3.0, 1.0, 4.0]])
    assert targeted_dlr(logits, torch.tensor([[1, 2]])).item() == pytest.approx(-2 / 3.5)
    assert targeted_dlr(100 * logits, torch.tensor([[1, 2]])).item() == pytest.approx(-2 / 3.5)
    assert targeted_dlr(logits[:, :2], torch.tensor([[1, 0]])).item() == 2.0


def test_a_sample_depends_on_ids_alone_and_grows_with_its_share() -> None:
    ids = torch.arange(10_000)
    small, large = (sampled(Draws(seed, ids), share) for seed, share in ((0, 0.1), (3, 0.3)))
    assert 900 < small.sum() < 1100
    assert (large | ~small).all()
    assert torch.equal(sampled(Draws(1, ids[5:9]), 0.1), small[5:9])
    assert sampled(Draws(0, ids), 1.0).all()


@pytest.mark.parametrize("attack", [Square(queries=100, share=0.3), FAB(steps=5, targets=2, share=0.3)])
def test_who_is_not_in_the_sample_is_given_back_as_it_is(attack: Square | FAB) -> None:
    case, threat = digit_case(), Threat("linf", 0.1)
    x, y, draws = case.x[:60], case.y[:60], Draws(0, case.ids[:60])
    chosen = sampled(draws, 0.3)
    adversarial = attack(case.model, x, y, threat, draws)
    assert torch.equal(adversarial[~chosen], x[~chosen])
    alone = replace(attack, share=1.0)(case.model, x[chosen], y[chosen], threat, draws.select(chosen))
    assert torch.equal(adversarial[chosen], alone)
    result = evaluate_robustness(case.model, x, y, threat=threat, attacks=attack, example_ids=case.ids[:60])
    assert result.per_attack.n_attacked.tolist() == [int(chosen.sum())]


class Masked(nn.Module):
    """The same verdicts, behind steps that leave no slope."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return (self.model(x) * 4).round() / 4


def test_square_fools_a_masked_model_that_no_gradient_attack_does() -> None:
    case, threat = digit_case(), Threat("linf", 0.18)
    model = Masked(case.model)
    x, y, draws = case.x[:40], case.y[:40], Draws(0, case.ids[:40])

    def accuracy(attack: Attack) -> float:
        return (model(attack(model, x, y, threat, draws)).argmax(1) == y).float().mean().item()

    blind = min(accuracy(attack) for attack in (APGD(steps=30), FAB(steps=10, targets=3)))
    assert accuracy(Square(queries=300)) < blind - 0.1


def test_square_asks_nothing_twice_and_answers_as_if_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    case, threat = digit_case(), Threat("linf", 0.1)
    x, y, draws = case.x[:40], case.y[:40], Draws(0, case.ids[:40])
    answers, costs = [], []
    for fits in (True, False):
        monkeypatch.setattr("attacks.square.Rejected.fits", lambda x, fits=fits: fits)
        with counted(case.model) as passes:
            answers.append(Square(queries=300)(case.model, x, y, threat, draws))
        costs.append(passes.forward)
    assert torch.equal(*answers)
    assert costs[0] < 0.7 * costs[1]


def test_the_answer_is_the_worst_point_by_margin_of_those_who_withstand() -> None:
    case, threat = digit_case(), Threat("linf", 0.02)
    x, y, draws = case.x[:30], case.y[:30], Draws(0, case.ids[:30])
    few, many = (Square(queries=n)(case.model, x, y, threat, draws) for n in (20, 200))
    withstand = case.model(many).argmax(1) == y
    assert withstand.any()
    assert (margin(case.model(many), y) >= margin(case.model(few), y))[withstand].all()


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (APGD, {"loss": "hinge"}, "loss: must be one of cross_entropy, .* got 'hinge'"),
        (APGD, {"targets": 3}, "loss: must be one of dlr, margin, got 'cross_entropy'"),
        (APGD, {"targets": -1}, "targets: must be a whole number >= 0, got -1"),
        (APGD, {"restarts": 0}, "restarts: must be a whole number >= 1, got 0"),
        (FAB, {"steps": 0}, "steps: must be a whole number >= 1, got 0"),
        (FAB, {"share": 0.0}, "share: must be above 0 and at most 1, got 0.0"),
        (Square, {"window": 1.5}, "window: must be above 0 and at most 1, got 1.5"),
        (Square, {"queries": 0}, "queries: must be a whole number >= 1, got 0"),
    ],
)
def test_wrong_settings_are_refused(kind: type, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_dlr_needs_three_classes_and_targets_do_without() -> None:
    problem = linear_problem()
    threat = Threat("linf", 1.05 * problem.distance["linf"])
    with pytest.raises(ValueError, match="at least 3 classes, got 2; use margin or cross_entropy"):
        APGD(loss="dlr")(problem.model, problem.x, problem.y, threat, problem.draws)
    for attack in CASCADES["fast"][:2]:
        adversarial = attack(problem.model, problem.x, problem.y, threat, problem.draws)
        assert (problem.model(adversarial).argmax(1) != problem.y).all()


def test_autoattack_is_the_standard_one() -> None:
    ce, targeted, fab, square = CASCADES["autoattack"]
    assert (ce, targeted) == (APGD(steps=100), APGD(steps=100, loss="dlr", targets=9))
    assert (fab, square) == (FAB(steps=100, targets=9), Square(queries=5000))
    assert [attack.name for attack in CASCADES["autoattack_plus"]] == ["apgd", "apgd", "fab", "square", "apgd", "fab"]
    assert [(eot.draws, eot.attack.loss) for eot in CASCADES["autoattack_rand"]] == [(20, "cross_entropy"), (20, "dlr")]
    assert [getattr(attack, "share", 1.0) for attack in CASCADES["audited"]] == [1.0, 1.0, 0.1, 0.1]
