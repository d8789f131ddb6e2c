"""PGD on real images: against a plain loop written for this test, and against itself in other batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from linear import linear_problem
from plain_pgd import plain_loop
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import FGSM, PGD, Draws, Noise, Threat
from attacks.losses import margin
from attacks.threat import NORMS
from attacks.worst import Worst

MNIST = Path(__file__).parents[2] / "shared" / "data" / "MNIST" / "raw"
NORM = pytest.mark.parametrize("norm", NORMS)
EPS = {"linf": 0.1, "l2": 1.0, "l1": 8.0}
EXAMPLES = 500


class Case:
    """A small CNN, half fooled at EPS, and 500 test images it is right about or not."""

    def __init__(self) -> None:
        (images, labels), (self.x, self.y) = mnist() if MNIST.exists() else digits()
        self.ids = torch.arange(1000, 1000 + EXAMPLES)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = train(images, labels)

    def fooled(self, attack: PGD | FGSM | Noise, threat: Threat, batch: int = EXAMPLES) -> Tensor:
        return self.in_order(attack, threat, torch.arange(EXAMPLES), batch)

    def in_order(self, attack: PGD | FGSM | Noise, threat: Threat, order: Tensor, batch: int) -> Tensor:
        """Which examples are fooled, asked in this order in such batches; told in the order of the data set."""
        verdicts = torch.zeros(EXAMPLES, dtype=torch.bool)
        for rows in order.split(batch):
            x, y, draws = self.x[rows], self.y[rows], Draws(0, self.ids[rows])
            adversarial = attack(self.model, x, y, threat, draws)
            assert threat.allows(x, adversarial).all()
            verdicts[rows] = self.judge(adversarial, rows)
        return verdicts

    def judge(self, adversarial: Tensor, rows: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model(adversarial).argmax(1) != self.y[rows]


def mnist() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def read(name: str, skip: int, count: int) -> Tensor:
        data = (MNIST / name).read_bytes()[skip : skip + count]
        return torch.frombuffer(bytearray(data), dtype=torch.uint8)

    def split(name: str, count: int) -> tuple[Tensor, Tensor]:
        images = read(f"{name}-images-idx3-ubyte", 16, count * 784).view(count, 1, 28, 28)
        return images / 255, read(f"{name}-labels-idx1-ubyte", 8, count).long()

    return split("train", 3000), split("t10k", EXAMPLES)


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The same shapes from 8x8 images, where MNIST is not at hand."""
    found = load_digits()
    images = F.interpolate(torch.tensor(found.images).float()[:, None] / 16, size=28, mode="nearest")
    labels = torch.tensor(found.target).long()
    return (images[EXAMPLES:], labels[EXAMPLES:]), (images[:EXAMPLES], labels[:EXAMPLES])


def train(images: Tensor, labels: Tensor) -> nn.Module:
    first, second = nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.Conv2d(8, 16, 5, stride=2, padding=2)
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(16 * 49, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(2):
        for rows in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


@NORM
def test_verdicts_are_those_of_a_plain_loop(case: Case, norm: str) -> None:
    threat = Threat(norm, EPS[norm])
    steps = 5 if norm == "l1" else 10  # l1 is slow by hand
    expected = case.judge(plain_loop(case.model, case.x, case.y, threat, steps), torch.arange(EXAMPLES))
    found = case.fooled(PGD(steps=steps, random_start=False, keep="last"), threat)
    assert torch.equal(found, expected)
    assert 0.2 < found.float().mean() < 0.95, "a verdict that is always the same shows nothing"


@NORM
def test_verdicts_do_not_depend_on_batch_and_order(case: Case, norm: str) -> None:
    """With a random start and a second run for those left over."""
    attack, threat = PGD(steps=10 if norm == "linf" else 4, restarts=2), Threat(norm, EPS[norm])
    whole = case.fooled(attack, threat)
    order = torch.randperm(EXAMPLES, generator=torch.Generator().manual_seed(0))
    assert torch.equal(case.fooled(attack, threat, batch=7), whole)
    assert torch.equal(case.fooled(attack, threat, batch=64), whole)
    assert torch.equal(case.in_order(attack, threat, order, 64), whole)
    assert 0.2 < whole.float().mean() < 0.95, "a verdict that is always the same shows nothing"


@NORM
@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
def test_keep_best_contains_last(case: Case, norm: str, loss: str) -> None:
    rows, threat, attack = slice(0, 100), Threat(norm, EPS[norm]), PGD(steps=5, loss=loss, step_size=EPS[norm])
    x, y, draws = case.x[rows], case.y[rows], Draws(0, case.ids[rows])
    best, last = (replace(attack, keep=keep)(case.model, x, y, threat, draws) for keep in ("best", "last"))
    with torch.no_grad():
        from_best, from_last = margin(case.model(best), y), margin(case.model(last), y)
    withstands = from_best <= 0
    assert 0 < withstands.sum() < 100
    assert (from_last <= 1e-5)[withstands].all()  # what a model rounds differently from call to call
    assert (from_best >= from_last - 1e-5)[withstands].all()


class Ridge(nn.Module):
    """Wrong only where the mean pixel is within 0.02 of 0.55: easily overstepped."""

    def forward(self, x: Tensor) -> Tensor:
        height = 0.02 - (x.flatten(1).mean(1) - 0.55).abs()
        return torch.stack([torch.zeros_like(height), height], 1)


@pytest.mark.parametrize(("start", "steps"), [(0.5, 2), (0.54, 1)])
def test_best_remembers_the_point_that_a_later_step_leaves(start: float, steps: int) -> None:
    """In steps of 0.04 from 0.5: 0.54 is wrong, 0.58 is right again. From 0.54 it is the start that was wrong."""
    x, y = torch.full((1, 1, 2, 2), start), torch.zeros(1, dtype=torch.long)
    attack = PGD(steps=steps, step_size=0.04, random_start=False)
    best, last = (
        replace(attack, keep=keep)(Ridge(), x, y, Threat("linf", 0.1), Draws(0, torch.arange(1)))
        for keep in ("best", "last")
    )
    torch.testing.assert_close(best, torch.full_like(x, 0.54))
    torch.testing.assert_close(last, torch.full_like(x, 0.58))


@NORM
def test_attacks_in_the_order_of_their_strength(case: Case, norm: str) -> None:
    """Noise, one step, ten steps, ten steps from two starts: fooled examples of 500."""
    threat = Threat(norm, EPS[norm])
    ladder = [Noise(queries=2), FGSM(), PGD(), PGD(restarts=2)]
    counts = [int(case.fooled(attack, threat).sum()) for attack in ladder]
    assert counts == sorted(counts)
    assert counts[0] + 50 < counts[1] < counts[2]


@NORM
def test_one_step_of_eps_from_the_image_is_fgsm(case: Case, norm: str) -> None:
    threat, x, y, draws = Threat(norm, EPS[norm]), case.x[:50], case.y[:50], Draws(0, case.ids[:50])
    single = PGD(steps=1, step_size=EPS[norm], random_start=False, keep="last")
    assert torch.equal(single(case.model, x, y, threat, draws), FGSM()(case.model, x, y, threat, draws))


@NORM
def test_the_last_step_is_scored(norm: str) -> None:
    """The only step fools: an attack that scores only the points it steps from would hand back the image."""
    problem = linear_problem()
    threat = Threat(norm, 1.05 * problem.distance[norm])
    attack = PGD(steps=1, random_start=False)
    adversarial = attack(problem.model, problem.x, problem.y, threat, problem.draws)
    assert (problem.model(adversarial).argmax(1) != problem.y).all()


@NORM
@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
def test_every_loss_reaches_the_known_distance(norm: str, loss: str) -> None:
    """With a third class that is never in the running, since dlr needs one."""
    problem = linear_problem()
    third = nn.Sequential(problem.model, nn.ConstantPad1d((0, 1), -9.0))
    for factor, are_fooled in ((1.05, True), (0.95, False)):
        threat = Threat(norm, factor * problem.distance[norm])
        adversarial = PGD(loss=loss)(third, problem.x, problem.y, threat, problem.draws)
        assert ((third(adversarial).argmax(1) != problem.y) == are_fooled).all()


class Counter:
    """Rows that a model was asked about, forward and backward, from outside."""

    def __init__(self, model: nn.Module) -> None:
        self.forward, self.backward = [], []
        model.register_forward_pre_hook(lambda _, given: self.forward.append(given[0]))
        model.register_full_backward_hook(lambda _, __, gradients: self.backward.append(len(gradients[0])))

    @property
    def rows(self) -> tuple[int, int]:
        return sum(len(x) for x in self.forward), sum(self.backward)


@pytest.mark.parametrize(("keep", "forward"), [("last", 8), ("best", 9)])
def test_costs_one_pass_each_way_per_step_and_one_to_score_the_last(keep: str, forward: int) -> None:
    problem = linear_problem()
    counter = Counter(problem.model)
    PGD(steps=8, keep=keep)(problem.model, problem.x, problem.y, Threat("l2", 1e-3), problem.draws)
    assert counter.rows == (forward * 12, 8 * 12)


def test_a_fooled_example_is_not_attacked_in_the_next_restart(case: Case) -> None:
    model = nn.Sequential(case.model)
    counter, threat, draws = Counter(model), Threat("linf", EPS["linf"] / 2), Draws(0, case.ids[:100])
    once = PGD(steps=3)(model, case.x[:100], case.y[:100], threat, draws)
    left = int((~case.judge(once, torch.arange(100))).sum())
    assert 10 < left < 90
    counter.forward.clear()
    twice = PGD(steps=3, restarts=2)(model, case.x[:100], case.y[:100], threat, draws)
    assert counter.rows[0] <= 4 * 100 + 4 * left
    assert torch.equal(*(a[case.judge(once, torch.arange(100))] for a in (once, twice)))


def test_restarts_start_elsewhere_and_the_worst_of_them_counts(case: Case) -> None:
    model = nn.Sequential(case.model)
    counter, threat = Counter(model), Threat("linf", 0.01)  # too small to fool anyone it is right about
    right = (~case.judge(case.x, torch.arange(EXAMPLES))).nonzero().flatten()[:20]
    x, y, draws = case.x[right], case.y[right], Draws(0, case.ids[right])
    adversarial = PGD(steps=2, restarts=3)(model, x, y, threat, draws)
    tried = torch.stack(counter.forward)  # [3 runs of start, first and last step, B, C, H, W]
    starts = tried[::3]
    assert not any(torch.equal(starts[i], starts[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    with torch.no_grad():
        scores = torch.stack([margin(case.model(point), y) for point in tried])
        torch.testing.assert_close(margin(case.model(adversarial), y), scores.amax(0))
    assert len(scores.argmax(0).div(3, rounding_mode="floor").unique()) > 1, "one run is the worst for all"


def test_noise_gives_the_worst_of_its_queries(case: Case) -> None:
    model, x, y = nn.Sequential(case.model), case.x[:40], case.y[:40]
    counter = Counter(model)
    adversarial = Noise(queries=4)(model, x, y, Threat("linf", 0.3), Draws(0, case.ids[:40]))
    with torch.no_grad():
        scores = torch.stack([margin(case.model(point), y) for point in counter.forward])
        torch.testing.assert_close(margin(case.model(adversarial), y), scores.amax(0))
    assert len(scores.argmax(0).unique()) == 4, "a query is the worst for none"


@pytest.mark.parametrize("attack", [FGSM, PGD])
def test_the_loss_given_is_the_loss_raised(case: Case, attack: type[FGSM] | type[PGD]) -> None:
    """Each loss leads somewhere else, in l2, where the direction of its gradient shows."""
    answers = [
        attack(loss=loss)(case.model, case.x[:20], case.y[:20], Threat("l2", 1.0), Draws(0, case.ids[:20]))
        for loss in ("cross_entropy", "margin", "dlr")
    ]
    assert not any(torch.allclose(answers[i], answers[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_the_step_is_two_and_a_half_eps_over_the_steps_unless_given(case: Case) -> None:
    threat, x, y, draws = Threat("l2", 1.0), case.x[:20], case.y[:20], Draws(0, case.ids[:20])
    default, given, longer = (
        PGD(steps=5, step_size=size)(case.model, x, y, threat, draws) for size in (None, 0.5, 0.6)
    )
    assert torch.equal(default, given)
    assert not torch.equal(default, longer)


def test_the_worst_point_goes_by_verdict_first_then_by_margin() -> None:
    """Rows: a tie that argmax gives to class 0 fools y = 1 and not y = 0, though both margins are 0."""
    y = torch.tensor([1, 0, 0, 0])
    worst = Worst(torch.zeros(4, 1), y)
    worst.see(torch.ones(4, 1), torch.tensor([[1.0, 1.0], [1.0, 1.0], [5.0, 1.0], [1.0, 5.0]]))
    assert worst.is_fooled.tolist() == [True, False, False, True]
    worst.see(torch.full((4, 1), 2.0), torch.tensor([[1.0, 1.5], [1.0, 2.0], [5.0, 2.0], [1.0, 4.0]]))
    assert worst.is_fooled.tolist() == [True, True, False, True]
    assert worst.adversarial.flatten().tolist() == [1, 2, 2, 1]
    worst.see(torch.full((4, 1), 3.0), torch.full((4, 2), torch.nan))
    assert worst.adversarial.flatten().tolist() == [1, 2, 2, 1]


def test_of_two_ties_the_one_that_argmax_gives_away_is_worse() -> None:
    """Both margins are 0, but argmax takes the first: class 1 against 2 stays right, class 0 against 1 is wrong."""
    worst = Worst(torch.zeros(1, 1), torch.tensor([1]))
    worst.see(torch.ones(1, 1), torch.tensor([[0.0, 1.0, 1.0]]))
    worst.see(torch.full((1, 1), 2.0), torch.tensor([[1.0, 1.0, 0.0]]))
    assert (worst.adversarial.item(), worst.is_fooled.item()) == (2.0, True)
    worst.see(torch.full((1, 1), 3.0), torch.tensor([[0.0, 1.0, 1.0]]))
    assert worst.adversarial.item() == 2.0


def test_a_fooled_example_costs_nothing_more_and_a_path_that_goes_round_is_left(case: Case) -> None:
    """With the same verdicts, and the same answers for those who withstand, as the loop that goes on to the end."""
    model, threat, rows = nn.Sequential(case.model), Threat("linf", 0.03), torch.arange(60)
    x, y, draws = case.x[rows], case.y[rows], Draws(0, case.ids[rows])
    attack = PGD(steps=30, step_size=0.015)
    counter = Counter(model)
    quick = attack(model, x, y, threat, draws)
    cost = counter.rows[0]
    slow = Worst(x, y)
    point = attack._start(x, threat, draws.fork("pgd", 0))
    for _ in range(30):
        given = point.detach().requires_grad_()
        logits = case.model(given)
        slow.see(given.detach(), logits.detach())
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), given)
        point = attack._next(x, point, gradient, threat)
    slow.see(point, case.model(point).detach())
    assert cost < 0.7 * 31 * 60
    assert torch.equal(case.judge(quick, rows), slow.is_fooled)
    torch.testing.assert_close(quick[~slow.is_fooled], slow.adversarial[~slow.is_fooled])
