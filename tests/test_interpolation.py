"""Claims about WNLL's interpolation: the equation solved, its gradient, its graph."""

from __future__ import annotations

import itertools

import pytest
import torch
from test_defenses_contract import pictures
from torch import Tensor
from toy_graph import points, solved, templates

from attacks.draws import Draws
from defenses.data import Data
from defenses.interpolation import graph
from defenses.interpolation.classifier import MODES, Mode
from defenses.interpolation.inductive import inductive
from defenses.interpolation.smooth import smooth_scores
from defenses.interpolation.solve import harmonic
from defenses.interpolation.templates import Neighbourhood, Templates, template_rows
from defenses.interpolation.transductive import transductive

NEARS = [
    Neighbourhood(k, rank, weighting)
    for (k, rank), weighting in itertools.product([(1, 1), (4, 1), (5, 3), (9, 9)], graph.WEIGHTINGS)
]
NEAR = pytest.mark.parametrize("near", NEARS, ids=lambda near: f"{near.k}-{near.rank}-{near.weighting}")
MODE = pytest.mark.parametrize("mode", list(MODES.values()), ids=MODES)


@NEAR
def test_inductive_scores_are_those_of_a_dense_solve_for_each_image_alone(near: Neighbourhood) -> None:
    given, unknown = templates(25, near.k), points(12, 1)
    expected = torch.cat([solved(each[None], given, near) for each in unknown])
    torch.testing.assert_close(inductive(unknown, given, near, None), expected, rtol=1e-9, atol=1e-9)


@NEAR
@pytest.mark.parametrize("count", [1, 12, 40])
def test_transductive_scores_are_those_of_a_dense_solve_of_the_batch(near: Neighbourhood, count: int) -> None:
    given, unknown = templates(25, near.k), points(count, 1)
    if near.k == 1:  # an island of mutual neighbours without a template has no solution: said elsewhere
        count, unknown = 1, unknown[:1]
    expected = solved(unknown, given, near)
    torch.testing.assert_close(transductive(unknown, given, near, None), expected, rtol=1e-7, atol=1e-7)
    if count == 1:
        torch.testing.assert_close(inductive(unknown, given, near, None), expected, rtol=1e-7, atol=1e-7)


@NEAR
@MODE
def test_scores_are_shares_of_one(near: Neighbourhood, mode: Mode) -> None:
    scores = mode(points(30, 2), templates(25, near.k), near, None)
    assert scores.min() >= -1e-9
    torch.testing.assert_close(scores.sum(1), torch.ones(30, dtype=torch.float64))


@pytest.mark.parametrize("near", NEARS[4:], ids=lambda near: f"{near.k}-{near.rank}-{near.weighting}")
@MODE
def test_the_gradient_is_that_of_finite_differences(near: Neighbourhood, mode: Mode) -> None:
    given, unknown = templates(25, near.k), points(6, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mode(x, given, near, None), unknown, eps=1e-6, atol=1e-5)
    (gradient,) = torch.autograd.grad(mode(unknown, given, near, None)[:, 0].sum(), unknown)
    assert gradient.abs().amax() > 1e-3


def test_inductive_scores_do_not_depend_on_the_batch_and_transductive_ones_do() -> None:
    given, unknown, near = templates(25, 5), points(20, 1), NEARS[4]
    together, order = (
        inductive(unknown, given, near, None),
        torch.randperm(20, generator=torch.Generator().manual_seed(0)),
    )
    torch.testing.assert_close(inductive(unknown[order], given, near, None), together[order], rtol=1e-12, atol=1e-12)
    for part in (unknown[:1], unknown[:7]):
        torch.testing.assert_close(inductive(part, given, near, None), together[: len(part)], rtol=1e-12, atol=1e-12)
    moved = (transductive(unknown, given, near, None)[:7] - transductive(unknown[:7], given, near, None)).abs()
    assert moved.max() > 1e-3


@MODE
def test_the_graph_is_the_same_found_in_parts(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    given, unknown, near = templates(25, 5), points(20, 1), NEARS[4]
    whole = mode(unknown, given, near, None)
    monkeypatch.setattr(graph, "_MOST_AT_ONCE", 60)
    torch.testing.assert_close(mode(unknown, templates(25, 5), near, None), whole, rtol=1e-12, atol=1e-12)


def test_neighbours_are_exact_where_features_lie_far_from_zero() -> None:
    """Cancellation in the matrix product would lose float32 features at 1e4 apart by 1e-2."""
    a = (points(60, 0) * 1e-2 + 1e4).float()
    ids = torch.arange(60)
    lengths, found = graph.nearest(a, a, 5, ids, ids)
    direct = (a.double()[:, None] - a.double()).square().sum(2).fill_diagonal_(torch.inf)
    torch.testing.assert_close(lengths, direct.topk(5, largest=False).values)
    torch.testing.assert_close(direct.gather(1, found), lengths)


@MODE
@pytest.mark.parametrize("weighting", list(graph.WEIGHTINGS))
def test_points_that_coincide_have_scores_and_a_finite_gradient(mode: Mode, weighting: str) -> None:
    features = torch.zeros(8, 2)
    given, near = Templates.of(features, torch.arange(8) % 2, 2, 3), Neighbourhood(3, 2, weighting)
    for x in (torch.zeros(2, 2), torch.ones(2, 2)):
        x.requires_grad_()
        scores = mode(x, given, near, None)
        (gradient,) = torch.autograd.grad(scores[:, 0].sum(), x)
        assert torch.isfinite(scores).all()
        assert torch.isfinite(gradient).all()


@MODE
def test_an_image_among_the_templates_does_not_learn_its_own_label(mode: Mode) -> None:
    """A label that no neighbour has: 1 where an image finds itself, 0 where its id bars it."""
    features, near = points(30, 0), Neighbourhood(4, 2, "gaussian")
    labels = torch.zeros(30, dtype=torch.int64)
    labels[7] = 1
    ids = torch.arange(30) + 100
    given = Templates.of(features, labels, 2, 4, ids)
    alone = mode(features[7:8], given, near, ids[7:8])
    assert alone[0, 1] < 1e-7
    assert mode(features[7:8], given, near, None)[0, 1] > 0.2


def ring(count: int, anchors: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unknowns in a ring and by random chords, the first few joined to templates."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.cat([torch.arange(count), torch.randint(count, (count,), generator=generator)])
    columns = torch.cat([torch.arange(1, count + 1) % count, torch.randint(count, (count,), generator=generator)])
    weights = torch.rand(2 * count, generator=generator, dtype=torch.float64)
    anchored = torch.zeros(count, 3, dtype=torch.float64)
    anchored[:anchors] = torch.rand(anchors, 3, generator=generator, dtype=torch.float64)
    return weights, rows, columns, anchored


@pytest.mark.parametrize("count", [10, 60])
def test_conjugate_gradients_give_what_a_dense_solve_gives_and_its_gradient(count: int) -> None:
    weights, rows, columns, anchored = ring(count, 3)
    weights.requires_grad_()
    anchored.requires_grad_()
    found = []
    for dense in (count, 0):
        u = harmonic(weights, rows, columns, anchored, dense)
        found.append((u, *torch.autograd.grad((u * points(count, 5)).sum(), (weights, anchored))))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8)
    assert count > 10 or torch.autograd.gradcheck(
        lambda w, a: harmonic(w, rows, columns, a, 0), (weights, anchored), eps=1e-6, atol=1e-5
    )


@pytest.mark.parametrize("dense", [0, 100])
def test_unknowns_without_a_path_to_a_template_are_undecided(dense: int) -> None:
    weights, rows, columns, anchored = ring(12, 3)
    shifted = torch.cat([anchored, torch.zeros(12, 3, dtype=torch.float64)])
    both = torch.cat([weights, weights]), torch.cat([rows, rows + 12]), torch.cat([columns, columns + 12])
    u = harmonic(*both, shifted, dense)
    torch.testing.assert_close(u[12:], torch.full((12, 3), 1 / 3, dtype=torch.float64), rtol=0, atol=1e-4)
    torch.testing.assert_close(u[:12], harmonic(weights, rows, columns, anchored, dense), rtol=1e-6, atol=1e-6)


def test_the_smooth_stand_in_pulls_where_the_interpolation_is_flat() -> None:
    """Two clusters far apart: all neighbours of each image are of its class, and the true gradient is 0."""
    features = torch.cat([points(10, 0) * 0.1, points(10, 1) * 0.1 + 50])
    given, near = Templates.of(features, torch.arange(20) // 10, 2, 4), Neighbourhood(4, 2, "gaussian")
    x = (points(3, 2) * 0.1).requires_grad_()
    scores = inductive(x, given, near, None)
    torch.testing.assert_close(scores[:, 0], torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-15)
    assert torch.autograd.grad(scores[:, 1].sum(), x)[0].abs().max() < 1e-14
    smooth = smooth_scores(x, given, near)
    assert smooth.argmax(1).tolist() == [0, 0, 0]
    gradient = torch.autograd.grad((smooth[:, 1] - smooth[:, 0]).sum(), x)[0]
    assert (gradient.sum(1) > 0).all()  # towards the other cluster


def test_a_class_without_a_template_has_the_least_smooth_score_and_no_nan() -> None:
    given = Templates.of(points(20, 0), torch.arange(20) % 2, 3, 4)
    x = points(5, 1).requires_grad_()
    scores = smooth_scores(x, given, Neighbourhood(4, 2, "gaussian"))
    assert (scores.argmin(1) == 2).all()
    assert torch.isfinite(torch.autograd.grad(scores.sum(), x)[0]).all()


def uneven(counts: list[int]) -> Data:
    labels = torch.cat([torch.full((count,), each) for each, count in enumerate(counts)])
    return Data(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels, len(counts))


@pytest.mark.parametrize(("size", "expected"), [(9, [3, 3, 3]), (10, [3, 3, 4]), (30, [3, 13, 14]), (103, [3, 50, 50])])
def test_balanced_templates_have_as_many_of_each_class_as_there_are(size: int, expected: list[int]) -> None:
    data = uneven([50, 3, 50])
    rows = template_rows(data, size, "balanced", Draws(0, torch.arange(103)), 0)
    assert len(rows.unique()) == size
    assert sorted(data.labels[rows].bincount().tolist()) == expected


def test_templates_are_drawn_by_their_number_and_by_nothing_else() -> None:
    data, draws = pictures(), Draws(0, torch.arange(41))
    first, again, second = (template_rows(data, 20, "random", draws, number) for number in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, template_rows(data, 20, "random", Draws(1, torch.arange(41)), 0))
    assert torch.equal(template_rows(data, 41, "all", draws, 0), torch.arange(41))


def test_a_template_of_one_class_is_refused() -> None:
    one = Data(torch.zeros(30, 1, 2, 2, dtype=torch.uint8), torch.full((30,), 2), 4)
    message = r"^template: must hold two classes or more, got 20 images of class 2 alone$"
    with pytest.raises(ValueError, match=message):
        template_rows(one, 20, "random", Draws(0, torch.arange(30)), 0)
