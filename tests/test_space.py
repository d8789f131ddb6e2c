"""Claims about holes and spaces: what is asked, when, and what comes of it."""

from __future__ import annotations

import math
import random
import warnings
from typing import Any

import pytest
from small_specs import draw
from small_tables import DEFENSES, NETWORKS, TABLES, Training

from orchestrator.build import normalised
from orchestrator.errors import SpecError
from orchestrator.holes import Hole, Normal, Range
from orchestrator.initial import read_initial
from orchestrator.reading import Reader, Spot
from orchestrator.space import Configuration, Space, united_columns
from orchestrator.template import Fields

FACTS = {"threat": {"norm": "linf", "eps": 0.1}, "dataset": {"name": "toy", "classes": 10}, "seed": 3}


def space(network: Any = "lenet", defense: Any = "plain", training: Any = None) -> Space:
    reader = Reader()
    blocks = {
        "network": reader.block(NETWORKS, network, Spot(("network",), "network")),
        "defense": reader.block(DEFENSES, defense, Spot(("defense",), "defense")),
        "training": reader.block(Training, training or {}, Spot(("training",), "training")),
    }
    assert not reader.problems, reader.problems
    return Space(Fields((), blocks), FACTS)


def refused(hole: Any, key: str = "lr", part: str = "training") -> str:
    """What is said of one hole that cannot be."""
    reader = Reader()
    kinds: Any = {"training": Training, "network": NETWORKS, "defense": DEFENSES}[part]
    name = {} if part == "training" else {"name": {"network": "mlp", "defense": "noisy"}[part]}
    reader.block(kinds, {**name, key: hole}, Spot((part,), part))
    (problem,) = reader.problems
    return f"{'.'.join(map(str, problem.at))}: {problem.text}"


def only(found: Space) -> Hole:
    (hole,) = found.holes().values()
    return hole


def numeric(hole: Any) -> Any:
    """A hole in a float field."""
    return only(space(training={"lr": hole}))


HOLES: list[tuple[dict[str, Any], float, float]] = [
    ({"uniform": [0.1, 0.5]}, 0.1, 0.5),
    ({"uniform": [0, 1], "step": 0.1}, 0, 1),
    ({"uniform": ["2/255", "8/255"], "step": "2/255"}, 2 / 255, 8 / 255),
    ({"log_uniform": [1e-3, 10]}, 1e-3, 10),
    ({"log_uniform": [0.5, 2], "step": 0.5}, 0.5, 2),
    ({"int": [1, 3]}, 1, 3),
    ({"int": [8, 20], "step": 6}, 8, 20),
    ({"log_int": [8, 32]}, 8, 32),
    ({"log_int": [16, 64], "step": 16}, 16, 64),
    ({"normal": [0.1, 0.05, 0, 0.2]}, 0, 0.2),
    ({"normal": [0, 1, -1, 1], "step": 0.25}, -1, 1),
    ({"log_normal": [0, 1, 0.1, 10]}, 0.1, 10),
]


@pytest.mark.parametrize(("written", "low", "high"), HOLES)
def test_values_stay_within_inclusive_bounds_and_both_are_reached(written: Any, low: float, high: float) -> None:
    hole, generator = numeric(written), random.Random(0)
    values = [draw(generator)("training.lr", hole) for _ in range(200)]
    assert all(low <= value <= high and type(value) is float for value in values)
    kind = hole.distribution()
    assert (hole.value(kind.low), hole.value(kind.high)) == (low, high)


@pytest.mark.parametrize(("written", "low", "high"), HOLES)
def test_a_value_finds_its_coordinate_and_comes_back(written: Any, low: float, high: float) -> None:
    hole = numeric(written)
    for value in hole.probes():
        assert hole.value(hole.internal(value)) == value
        assert hole.checked(value) == value
        assert hole.distribution()._contains(hole.internal(value))


@pytest.mark.parametrize(("written", "low", "high"), HOLES)
def test_a_value_outside_is_refused(written: Any, low: float, high: float) -> None:
    for value in (low - 1, high + 1, "x", None, True):
        with pytest.raises(ValueError, match="must be in"):
            numeric(written).internal(value)


@pytest.mark.parametrize(("written", "low", "high"), HOLES)
def test_optuna_takes_the_distribution_without_a_warning(written: Any, low: float, high: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numeric(written).distribution()


def test_stepped_values_are_the_decimals_a_user_would_write() -> None:
    assert numeric({"uniform": [0, 1], "step": 0.1}).probes() == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
    with pytest.raises(ValueError, match=r"must be 0\.0 plus a multiple of 0\.1, got 0\.25"):
        numeric({"uniform": [0, 1], "step": 0.1}).internal(0.25)


def test_a_log_range_with_a_step_gives_each_value_its_share_of_the_log_scale() -> None:
    hole, generator = numeric({"log_int": [16, 64], "step": 16}), random.Random(1)
    values = [draw(generator)("training.lr", hole) for _ in range(20_000)]
    ends = [8, 24, 40, 56, 72]  # half a step to both sides
    for value, low, high in zip((16, 32, 48, 64), ends, ends[1:], strict=False):
        assert values.count(value) / 20_000 == pytest.approx(math.log(high / low) / math.log(9), abs=0.02)


def test_a_normal_has_the_quantiles_of_the_truncated_normal() -> None:
    hole = numeric({"normal": [1, 2, -1, 5]})  # one standard deviation below, two above
    below, above = 0.15865525393145707, 0.9772498680518208  # Phi(-1), Phi(2)
    assert hole.value((0.5 - below) / (above - below)) == pytest.approx(1.0)
    assert hole.value((0.8413447460685429 - below) / (above - below)) == pytest.approx(3.0)


def test_a_log_normal_has_its_median_at_the_exponential_of_the_mean() -> None:
    hole = numeric({"log_normal": [math.log(0.01), 1, 1e-4, 1]})  # bounds as far below as above, on the log scale
    assert hole.value(0.5) == pytest.approx(0.01)


def test_a_given_value_of_a_normal_comes_back_as_written() -> None:
    hole, generator = numeric({"log_normal": [-2.3, 2.5, 1e-4, 5]}), random.Random(2)
    for value in [round(generator.uniform(1e-4, 5), 6) for _ in range(500)]:
        assert hole.value(hole.internal(value)) == value


@pytest.mark.parametrize(
    ("hole", "part", "key", "column"),
    [
        ({"int": [1, 3]}, "training", "epochs", "int"),
        ({"int": [1, 3]}, "training", "lr", "float"),
        ({"uniform": [1, 3], "step": 1}, "training", "epochs", "int"),
        ({"normal": [5, 2, 1, 9], "step": 1}, "training", "epochs", "int"),
        ({"uniform": [0, 1]}, "training", "lr", "float"),
        ({"choice": [1, 3]}, "training", "epochs", "int"),
        ({"choice": [1, "1/2"]}, "training", "lr", "float"),
        ({"grid": [1, 3]}, "training", "lr", "float"),
        ({"choice": [True, False]}, "training", "nesterov", "bool"),
        ({"choice": ["sgd", "adam"]}, "training", "optimizer", "string"),
        ({"choice": [None, 0.1]}, "defense", "start", "float"),
        ({"choice": [None, {"uniform": [0, 1]}]}, "defense", "start", "string"),
    ],
)
def test_a_column_has_the_type_of_its_field(hole: Any, part: str, key: str, column: str) -> None:
    found = space(**{part: {"name": "noisy", key: hole} if part == "defense" else {key: hole}})
    assert found.columns()[f"{part}.{key}"] == column
    types: dict[str, Any] = {"int": int, "float": float, "bool": bool, "string": str}
    for seed in range(10):
        value = found.configure(draw(random.Random(seed))).params[f"{part}.{key}"]
        assert value is None or type(value) is types[column]


def test_columns_of_several_spaces_are_united() -> None:
    def columns(*lrs: Any) -> dict[str, str]:
        return united_columns([space("mlp", training={"lr": lr}) for lr in lrs])

    assert columns({"uniform": [0, 1]}, {"choice": [0.5, 1]}, 0.3) == {"training.lr": "float"}
    whole, text = (
        space(training={"epochs": {"int": [1, 3]}}),
        space(training={"optimizer": {"choice": ["sgd", "adam"]}}),
    )
    assert united_columns([whole, text]) == {"training.epochs": "int", "training.optimizer": "string"}
    mixed = space(defense={"name": "noisy", "start": {"choice": [0, {"uniform": [0, 1]}]}})
    number = space(defense={"name": "noisy", "start": {"uniform": [0, 1]}})
    assert united_columns([mixed, number]) == {"defense.start": "string", "defense.start.uniform": "float"}


CONDITIONAL = {
    "choice": [
        {"name": "lenet"},
        {"name": "resnet", "depth": {"choice": [8, 14, 20]}, "width": {"log_int": [8, 32]}},
        {"name": "mlp", "hidden": [16, {"int": [8, 64]}]},
    ]
}


def test_only_holes_of_the_chosen_block_are_asked_for() -> None:
    found = space(CONDITIONAL, training={"lr": {"log_uniform": [0.01, 0.3]}})
    inner = {
        "lenet": set(),
        "resnet": {"network.resnet.depth", "network.resnet.width"},
        "mlp": {"network.mlp.hidden.1"},
    }
    for name, paths in inner.items():
        asked = []

        def suggest(path: str, hole: Hole, name: str = name, asked: list[str] = asked) -> Any:
            asked.append(path)
            return name if path == "network" else hole.probes()[0]

        configuration = found.configure(suggest)
        assert set(asked) == set(configuration.params) == {"network", "training.lr"} | paths
        assert configuration.network["name"] == name


def test_a_configuration_is_made_of_normalised_blocks() -> None:
    found = space(CONDITIONAL, {"name": "noisy", "scale": {"choice": [1, "1/2"]}}, {"lr": {"int": [1, 2]}})
    for seed in range(30):
        made = found.configure(draw(random.Random(seed)))
        assert repr(normalised(NETWORKS, made.network)) == repr(made.network)
        assert repr(normalised(DEFENSES, made.defense)) == repr(made.defense)
        assert repr(normalised(Training, made.training)) == repr(made.training)


def test_a_configuration_is_found_again_from_its_parameters() -> None:
    found = space(
        CONDITIONAL, training={"lr": {"log_uniform": [0.01, 0.3]}, "epochs": {"normal": [5, 2, 1, 9], "step": 1}}
    )
    for seed in range(30):
        made = found.configure(draw(random.Random(seed)))
        assert found.configure(lambda path, hole, made=made: made.params[path]) == made


def test_a_value_outside_its_hole_is_refused_with_its_path() -> None:
    with pytest.raises(ValueError, match=r"^training\.lr: must be in \[0\.1, 0\.5\], got 0\.7$"):
        space(training={"lr": {"uniform": [0.1, 0.5]}}).configure(lambda path, hole: 0.7)


def test_true_is_not_the_number_one() -> None:
    hole = only(space(training={"epochs": {"choice": [1, 2]}}))
    with pytest.raises(ValueError, match="must be one of 1, 2, got true"):
        hole.checked(True)


def test_a_hole_below_two_choices_has_two_conditions() -> None:
    found = space({"choice": ["lenet", {"choice": ["lenet", {"name": "resnet", "width": {"int": [1, 9]}}]}]})
    path = "network.choice.resnet.width"
    assert found.holes()[path].conditions == (("network", "choice"), ("network.choice", "resnet"))
    assert initial({path: 3}, found) == {"network": "choice", "network.choice": "resnet", path: 3}


def test_two_blocks_of_one_name_are_told_apart() -> None:
    choice = {"choice": [{"name": "resnet", "depth": 8}, {"name": "resnet", "depth": {"choice": [14, 20]}}]}
    found = space(choice)
    assert list(found.holes()) == ["network", "network.resnet.2.depth"]
    chosen = found.configure(lambda path, hole: {"network": "resnet.2"}.get(path, 20))
    assert (chosen.network["name"], chosen.network["depth"]) == ("resnet", 20)


def test_a_choice_may_be_of_a_value_or_a_range() -> None:
    found = space(defense={"name": "noisy", "scale": {"choice": [0, {"log_uniform": [1e-3, 1]}]}})
    assert list(found.holes()) == ["defense.scale", "defense.scale.log_uniform"]
    assert found.configure(lambda path, hole: "0").defense["scale"] == 0.0
    on = found.configure(lambda path, hole: "log_uniform" if path == "defense.scale" else 0.1)
    assert on.defense["scale"] == 0.1


def test_lists_are_chosen_by_their_text() -> None:
    found = space({"name": "mlp", "hidden": {"choice": [[8], [16, 16]]}})
    assert only(found).distribution().choices == ("[8]", "[16, 16]")
    made = found.configure(lambda path, hole: "[16, 16]")
    assert made.network["hidden"] == [16, 16]
    assert made.params == {"network.hidden": "[16, 16]"}


def test_a_hole_inside_a_block_inside_a_block() -> None:
    attack = {"choice": [{"name": "pgd", "steps": {"int": [1, 3]}}]}
    found = space(defense={"name": "noisy", "attack": attack})
    assert list(found.holes()) == ["defense.attack", "defense.attack.pgd.steps"]
    made = found.configure(draw(random.Random(0)))
    assert normalised(DEFENSES, made.defense) == made.defense


def test_each_gives_a_value_per_layer() -> None:
    layers = {"each": {"stem": {"uniform": [0, 1]}, "head": 0.5}}
    found = space(defense={"name": "noisy", "per_layer": layers})
    assert list(found.holes()) == ["defense.per_layer.stem"]
    assert found.configure(lambda path, hole: 0.25).defense["per_layer"] == {"stem": 0.25, "head": 0.5}


def test_a_ref_takes_a_value_from_the_cell_from_a_hole_or_from_a_default() -> None:
    found = space(
        {"name": "mlp", "dropout": {"ref": "training.lr"}},
        {
            "name": "noisy",
            "scale": {"ref": "threat.eps", "times": 1.25},
            "start": {"ref": "defense.scale", "times": "1/2"},
        },
        {"lr": {"uniform": [0, 1]}, "epochs": {"ref": "dataset.classes", "times": 2}},
    )
    made = found.configure(lambda path, hole: 0.75)
    assert made.network["dropout"] == 0.75
    assert (made.defense["scale"], made.defense["start"]) == (0.125, 0.0625)
    assert made.training["epochs"] == 20
    assert made.params == {"training.lr": 0.75}


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ({"ref": "threat.epz"}, r"there is no threat\.epz in this configuration \(at 'epz'; there: norm, eps\)"),
        ({"ref": "training"}, "training is no single value"),
        ({"ref": "training.lr"}, "refers to itself: training.lr"),
        ({"ref": "threat.norm"}, "must be a number, got 'linf'"),
        ({"ref": "threat.norm", "times": 2}, r"must be a number, got 'linf' \(threat\.norm = 'linf', times 2\.0\)"),
    ],
)
def test_a_ref_that_leads_nowhere_is_said(ref: Any, message: str) -> None:
    with pytest.raises(SpecError, match=rf"^training\.lr: .*{message}"):
        space(training={"lr": ref}).configure(lambda path, hole: 1)


def test_a_ref_that_an_option_lacks_is_found_when_loading() -> None:
    found = space(CONDITIONAL, {"name": "noisy", "scale": {"ref": "network.depth"}})
    (problem,) = found.problems(TABLES.blocks())
    assert problem.at == ("defense", "scale")
    assert "there is no network.depth in this configuration (at 'depth'; there: name)" in problem.text


def test_the_size_of_a_finite_space_is_counted() -> None:
    assert space().size() == 1
    assert space(CONDITIONAL).size() == 1 + 3 * 25 + 57
    assert space(CONDITIONAL, training={"lr": {"uniform": [0, 1], "step": 0.25}}).size() == 5 * 133
    assert space(CONDITIONAL, training={"lr": {"uniform": [0, 1]}}).size() is None


def test_dimensions_are_told_in_words() -> None:
    rows = space(CONDITIONAL, training={"lr": {"uniform": [0, 1], "step": 0.5}}).dimensions()
    assert [(row.path, row.kind, row.range, row.condition) for row in rows] == [
        ("network", "choice", "[lenet, resnet, mlp]", ""),
        ("network.resnet.depth", "choice", "[8, 14, 20]", "network = resnet"),
        ("network.resnet.width", "log_int", "[8, 32]", "network = resnet"),
        ("network.mlp.hidden.1", "int", "[8, 64]", "network = mlp"),
        ("training.lr", "uniform", "[0.0, 1.0], step 0.5", ""),
    ]


@pytest.mark.parametrize(
    ("hole", "message"),
    [
        ({"uniform": [1, 0]}, "training.lr.uniform: low must be below high, got [1, 0]"),
        ({"uniform": [1]}, "training.lr.uniform: must be [low, high], got [1]"),
        ({"uniform": 1}, "training.lr.uniform: must be [low, high], got 1"),
        ({"uniform": [0, "x"]}, "training.lr.uniform.1: must be a number, got 'x'"),
        ({"log_uniform": [0, 1]}, "training.lr.log_uniform: bounds must be > 0 on a log scale, got [0, 1]"),
        ({"int": [0.5, 2]}, "training.lr.int: bounds and step must be whole numbers, got [0.5, 2]"),
        (
            {"uniform": [0, 1], "step": 0.3},
            "training.lr.uniform: high must be low plus a multiple of step, got [0, 1], step 0.3",
        ),
        ({"uniform": [0, 1], "step": 0}, "training.lr.uniform: step must be > 0, got 0"),
        ({"uniform": [0, 1], "step": -1}, "training.lr.uniform: step must be > 0, got -1"),
        (
            {"uniform": [0, 1], "setp": 1},
            "training.lr.setp: unknown key; a hole of kind uniform takes only uniform and step",
        ),
        ({"normal": [0, 1]}, "training.lr.normal: must be [mean, std, low, high], got [0, 1]"),
        ({"normal": [0, -1, 0, 1]}, "training.lr.normal: std must be > 0, got -1"),
        (
            {"normal": [0, 1, 9, 10]},
            "training.lr.normal: less than a millionth of this distribution is in [0, 1, 9, 10]",
        ),
        ({"log_normal": [0, 1, -1, 1]}, "training.lr.log_normal: bounds must be > 0 on a log scale, got [0, 1, -1, 1]"),
        ({"choice": []}, "training.lr.choice: must be a list of values or blocks, with at least one, got []"),
        ({"choice": [1, 1.0]}, "training.lr.choice.1: 1.0 is listed twice"),
        ({"choice": [0.1, "fast"]}, "training.lr.choice.1: must be a number, got 'fast'"),
        (
            {"grid": [0.1, {"uniform": [0, 1]}]},
            "training.lr.grid: takes plain values, got {uniform: [0, 1]}; use choice",
        ),
        ({"ref": 3}, "training.lr.ref: must be the path of a value, such as threat.eps, got 3"),
        ({"ref": "seed", "times": "x"}, "training.lr.times: must be a number, got 'x'"),
        ({"each": {"stem": 1}}, "training.lr: must be a number, not a value for each layer, got {each: {stem: 1}}"),
        ({"log_unifrom": [0, 1]}, "training.lr: must be a number, got {log_unifrom: [0, 1]}; a hole is written with"),
    ],
)
def test_a_hole_that_cannot_be_is_named(hole: Any, message: str) -> None:
    assert refused(hole).startswith(message)


@pytest.mark.parametrize(
    ("hole", "key", "message"),
    [
        (
            {"uniform": [0, 1]},
            "epochs",
            "must be a whole number, got a hole of numbers, {uniform: [0, 1]}; a hole of whole",
        ),
        ({"uniform": [0, 1]}, "optimizer", "must be text, got a hole of numbers"),
        ({"int": [0, 1]}, "nesterov", "must be true or false, got a hole of numbers"),
    ],
)
def test_a_hole_of_numbers_stands_where_numbers_go(hole: Any, key: str, message: str) -> None:
    assert refused(hole, key).startswith(f"training.{key}: {message}")


def test_every_value_of_a_small_range_is_tried() -> None:
    (problem,) = space({"name": "resnet", "depth": {"int": [8, 20]}}).problems(TABLES.blocks())
    assert problem.at == ("network", "depth")
    assert problem.text == "the hole {int: [8, 20]} allows 9, but it must be 6n + 2, got 9"
    assert space({"name": "resnet", "depth": {"int": [8, 20], "step": 6}}).problems(TABLES.blocks()) == []


def test_every_option_is_tried_also_inside_a_block_that_is_not_the_first() -> None:
    choice = {"choice": [{"name": "lenet"}, {"name": "resnet", "depth": {"choice": [8, 14, 21]}}]}
    (problem,) = space(choice).problems(TABLES.blocks())
    assert problem.at == ("network", "choice", 1, "depth", "choice", 2)
    assert problem.text == "must be 6n + 2, got 21"


def test_what_only_the_upper_ends_do_together_is_found() -> None:
    (problem,) = space({"name": "mlp", "hidden": [{"int": [1, 600]}, {"int": [1, 600]}]}).problems(TABLES.blocks())
    assert problem.at == ("network", "hidden")
    assert problem.text.startswith("must have at most 1000 units together, got 1200 (tried with network.hidden.0 = 600")


def test_options_are_tried_together() -> None:
    network = {"choice": ["resnet", "lenet"]}
    defense = {"choice": ["plain", {"name": "noisy", "scale": {"ref": "network.depth"}}]}
    (problem,) = space(network, defense).problems(TABLES.blocks())
    assert problem.at == ("defense", "choice", 1, "scale")
    assert "(tried with network = 'lenet', defense = 'noisy')" in problem.text


def test_bounds_that_a_class_refuses_are_found_on_a_continuous_range() -> None:
    (problem,) = space(defense={"name": "noisy", "scale": {"uniform": [-0.1, 1]}}).problems(TABLES.blocks())
    assert problem.at == ("defense", "scale")
    assert problem.text == "the hole {uniform: [-0.1, 1.0]} allows -0.1, but it must be >= 0, got -0.1"


def test_what_holes_only_do_together_is_said_with_their_values() -> None:
    defense = {"name": "noisy", "scale": {"uniform": [0.2, 1]}, "start": {"choice": [0.1, 0.3]}}
    (problem,) = space(defense=defense).problems(TABLES.blocks())
    assert problem.at == ("defense",)
    assert problem.text.endswith("is above the scale, 0.2 (tried with defense.scale = 0.2, defense.start = 0.3)")


def initial(entry: Any, found: Space) -> Any:
    read = read_initial(found.holes(), entry)
    assert not read.missing, read.missing
    assert not read.problems, read.problems
    return read.internal


@pytest.mark.parametrize(
    "entry",
    [
        {"network": "resnet", "network.resnet.depth": 14, "training.lr": 0.1},
        {"network.resnet.depth": 14, "training.lr": 0.1},
        {"network": {"resnet": {"depth": 14}}, "training": {"lr": 0.1}},
        {"network": {"name": "resnet", "depth": 14}, "training": {"lr": "1/10"}},
        {"network.depth": 14, "training.lr": 0.1},
    ],
)
def test_initial_settings_may_be_written_like_the_spec_or_like_the_columns(entry: Any) -> None:
    found = space(CONDITIONAL, training={"lr": {"log_uniform": [0.01, 0.3]}})
    assert initial(entry, found) == {"network": "resnet", "network.resnet.depth": 14, "training.lr": 0.1}


def test_initial_settings_are_in_the_coordinates_of_the_sampler() -> None:
    found = space(
        {"name": "mlp", "hidden": {"choice": [[8], [16, 16]]}},
        {"name": "noisy", "scale": {"choice": [0, {"log_uniform": [1e-3, 1]}]}},
        {"lr": {"uniform": [0, 1], "step": 0.1}},
    )
    values = {"network": {"hidden": [16, 16]}, "defense": {"scale": 0.01}, "training": {"lr": 0.3}}
    internal = initial(values, found)
    assert internal == {
        "network.hidden": "[16, 16]",
        "defense.scale": "log_uniform",
        "defense.scale.log_uniform": 0.01,
        "training.lr": 3,
    }
    assert initial({"defense.scale": 0}, found) == {"defense.scale": "0"}
    made: Configuration = found.configure(lambda path, hole: hole.value(internal[path]))
    assert (made.network["hidden"], made.defense["scale"], made.training["lr"]) == ([16, 16], 0.01, 0.3)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"training.lr": 1}, "training.lr must be in [0.01, 0.3], got 1"),
        ({"network": "vgg"}, "network must be one of 'lenet', 'resnet', 'mlp', got 'vgg'"),
        ({"network": "lenet", "network.resnet.depth": 8}, "network cannot be both 'lenet' and 'resnet'"),
        ({"network.resnet.depth": 9}, "network.resnet.depth must be one of 8, 14, 20, got 9"),
    ],
)
def test_initial_settings_outside_the_holes_are_refused(entry: Any, message: str) -> None:
    found = space(CONDITIONAL, training={"lr": {"log_uniform": [0.01, 0.3]}})
    assert [problem.text for problem in read_initial(found.holes(), entry).problems] == [message]


def test_initial_settings_of_no_hole_are_missing_and_the_nearest_is_offered() -> None:
    found = space(training={"lr": {"log_uniform": [0.01, 0.3]}})
    (problem,) = read_initial(found.holes(), {"training": {"rl": 0.1}}).missing
    assert problem.at == ("training", "rl")
    assert problem.text == "training.rl is no hole; the holes are training.lr; did you mean 'training.lr'?"


def test_a_hole_is_written_again_as_it_was() -> None:
    for written, _, _ in HOLES:
        hole = numeric(written)
        assert isinstance(hole, (Range, Normal))
        assert numeric(hole.form()) == hole
