"""Claims about the best of many: whatever the order, they are those that the definition names."""

from __future__ import annotations

import random

import pytest

from orchestrator.standing import Standing

Figures = tuple[float, tuple[float, ...]]


def is_better(one: Figures, other: Figures, one_number: int, other_number: int) -> bool:
    if one[0] != other[0]:
        return one[0] < other[0]
    if one[1] == other[1]:
        return one_number < other_number
    return all(a <= b for a, b in zip(one[1], other[1], strict=True))


def beaten_by(everyone: list[Figures]) -> list[int]:
    """How many are better than each: the definition, told once more."""
    return [
        sum(is_better(other, one, place, number) for place, other in enumerate(everyone) if place != number)
        for number, one in enumerate(everyone)
    ]


@pytest.mark.parametrize("objectives", [1, 2, 3])
@pytest.mark.parametrize("values", [5, 1000])  # many ties, and few
def test_the_best_are_those_to_whom_the_fewest_are_better(objectives: int, values: int) -> None:
    generator = random.Random(objectives * values)
    everyone = [
        (generator.choice([0.0, 0.0, 1.3, 2.5]), tuple(float(generator.randrange(values)) for _ in range(objectives)))
        for _ in range(200)
    ]
    expected = beaten_by(everyone)
    results = []
    for _ in range(2):
        standing = Standing(12, objectives)
        for number in generator.sample(range(200), 200):
            standing.add(number, *everyone[number])
        results.append(standing.best())
    assert results[0] == results[1]
    assert len(set(results[0])) == 12
    assert sorted(expected[number] for number in results[0]) == sorted(expected)[:12]


def test_of_too_many_that_are_equally_good_the_ends_are_kept() -> None:
    standing = Standing(3, 2)
    for number in range(9):
        standing.add(number, 0.0, (float(number), -float(number)))
    assert standing.best() == [0, 4, 8]
