"""Claims about noise whose deviations start elsewhere at each site."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from defenses import DEFENSES, NETWORKS
from defenses.learn2perturb import Learn2Perturb
from defenses.noise.deviations import starting_deviations
from defenses.noise.noisy import new_noise
from defenses.noise.sites import Site, sites
from orchestrator.build import make
from orchestrator.drawing import drawing
from orchestrator.spec import load_spec

NAMES = ["relu1", "stage1/0/relu2", "stage1/1/relu2", "stage2/0/relu2"]
SITES = [Site(name.replace("/", "."), 0, False, (4, 3, 3)) for name in NAMES]


@pytest.mark.parametrize(
    ("sigma", "expected"),
    [
        (0.25, [0.25, 0.25, 0.25, 0.25]),
        ({"rest": 0.5}, [0.5, 0.5, 0.5, 0.5]),
        ({"stem": 0.1, "rest": 0.5}, [0.1, 0.5, 0.5, 0.5]),
        ({"stem": 0.1, "relu1": 0.2, "stage1": 0.3, "stage2": 0.4}, [0.2, 0.3, 0.3, 0.4]),
        ({"stage1/1": 0.1, "stage1": 0.2, "stage2/0/relu2": 0.3, "rest": 0.4}, [0.4, 0.2, 0.1, 0.3]),
    ],
)
def test_the_longest_key_that_fits_a_site_counts(sigma: float | Mapping[str, float], expected: list[float]) -> None:
    assert starting_deviations(SITES, sigma) == dict(zip(NAMES, expected, strict=True))


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        ({"stage": 0.1, "rest": 0.2}, "sites or parts of the network that hold some, got stage where there are relu1"),
        ({"stage1": 0.1}, "must say how much noise is at relu1, stage2/0/relu2, or at `rest`"),
        ({}, "must say how much noise is at relu1"),
    ],
)
def test_keys_and_sites_that_do_not_meet_are_named(sigma: Mapping[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        starting_deviations(SITES, sigma)


def test_noise_starts_at_the_deviation_of_its_site() -> None:
    noise = new_noise(SITES, "channel", starting_deviations(SITES, {"stem": 0.1, "rest": 0.5}))
    starts = [layer.sigma.flatten().tolist() for layer in noise.values()]
    assert starts == [pytest.approx([0.1] * 4), *[[0.5] * 4] * 3]


def test_a_negative_deviation_of_one_site_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sigma: must be finite and >= 0, got .*-0\.1"):
        Learn2Perturb(sigma={"stem": 0.1, "rest": -0.1})


def test_a_spec_searches_the_noise_of_each_stage() -> None:
    """The hole's path is the column; what is drawn for it is where the noise of that stage starts."""
    spec = load_spec("""\
name: stages
dataset: {name: digits, validation: 300}
threat: {norm: linf, eps: 0.15}
network: {name: resnet, depth: 8, width: 4}
defense: {name: learn2perturb, sigma: {each: {stem: {uniform: [0, 0.1]}, stage2: {choice: [0.5, 1]}, rest: 0.25}}}
""")
    (cell,) = spec.cells()
    assert spec.param_columns() == {"defense.sigma.stem": "float", "defense.sigma.stage2": "float"}
    found = cell.space.configure(drawing(random.Random(3)))
    defense, network = make(DEFENSES, found.defense), make(NETWORKS, found.network)(1, 8, 10)
    starts = starting_deviations(sites(network, 1, 8, defense.sites), defense.sigma)
    assert starts["relu1"] == found.params["defense.sigma.stem"] <= 0.1
    assert starts["stage2/0/relu2"] == found.params["defense.sigma.stage2"]
    assert starts["stage3/0/relu2"] == 0.25
