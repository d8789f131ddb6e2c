"""What a sample of the survivors says about the others."""

from __future__ import annotations

import pytest
import torch
from digit_classifier import digit_case

from attacks import APGD, FAB, Draws, Square, Threat
from attacks.sampling import sampled
from orchestrator import evaluate_robustness
from orchestrator.audit import Audit


def test_none_of_59_fooled_means_at_most_five_percent_with_95_percent_confidence() -> None:
    """0.95 ** 59 is just below 0.05: the smallest sample that says so."""
    assert Audit(n=1000, survivors=600 + 59, sampled=59).may_still_fall == pytest.approx(0.6 * 0.0495, abs=1e-4)
    assert 0.95**59 < 0.05 < 0.95**58


def test_one_of_two_fooled() -> None:
    """The rate at which two tries have at most one success one time in twenty: 1 - p^2 = 0.05."""
    assert Audit(10, 4, 2).add(1).may_still_fall == pytest.approx(0.95**0.5 * 0.2)


@pytest.mark.parametrize("audit", [Audit(10, 6, 0), Audit(10, 8, 2, 2)])
def test_where_nothing_is_known_all_the_others_might_fall(audit: Audit) -> None:
    assert audit.may_still_fall == pytest.approx(0.6)


def test_an_evaluation_says_what_its_sample_says() -> None:
    """Both sampled attacks look at the same tenth; the second only at who withstood the first."""
    case, threat = digit_case(), Threat("linf", 0.1)
    attacks = [APGD(steps=5), FAB(steps=10, targets=2, share=0.3), Square(queries=100, share=0.3)]
    found = evaluate_robustness(case.model, case.x, case.y, threat=threat, attacks=attacks, example_ids=case.ids)
    rows = found.per_attack
    audit = found.audit
    assert audit is not None
    assert audit.survivors == rows.n_attacked[0] - rows.n_fooled[0]
    assert audit.sampled == rows.n_attacked[1]
    assert audit.fooled == rows.n_fooled[1] + rows.n_fooled[2] > 0
    assert rows.n_attacked[2] == rows.n_attacked[1] - rows.n_fooled[1]
    stages = found.per_example.groupby("attack", sort=False)
    survivors = torch.tensor(stages.get_group("apgd")["robust"].to_numpy())
    lost = survivors & ~torch.tensor(stages.get_group("square")["robust"].to_numpy())
    assert (~lost | sampled(Draws(0, case.ids), 0.3)).all()
    assert 0 < audit.may_still_fall < 1


def test_without_a_sample_there_is_no_audit() -> None:
    case = digit_case()
    x, y = case.x[:16], case.y[:16]
    found = evaluate_robustness(case.model, x, y, threat=Threat("linf", 0.1), attacks=APGD(steps=2))
    assert found.audit is None
