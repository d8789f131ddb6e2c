"""The parts of a spec that hold no holes, as pydantic models whose messages are written for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainValidator, ValidationError, model_validator

from orchestrator.build import unknown_key
from orchestrator.coercion import coerce, number
from orchestrator.errors import Problem
from orchestrator.provenance import masked
from orchestrator.storage.store_place import is_uri, what_is_wrong
from orchestrator.wording import nearest, one_of, shown

SAMPLERS = ("tpe", "random", "qmc", "grid", "nsga2", "nsga3", "gp", "cmaes")
SCHEDULERS = ("asha", "none")
METRICS = ("clean_accuracy", "robust_accuracy", "robust_area", "seconds", "parameters")
MOST_SEEDS = 1000  # of one configuration
_SHARES = ("clean_accuracy", "robust_accuracy", "robust_area")
DIRECTIONS = ("max", "min")
OF, SURFACES, SPLITS = ("finalists", "search"), ("known", "none"), ("validation", "test")
EVALUATION_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # no file can be called so on Windows
_CONSTRAINT = re.compile(r"\s*(>=|<=)\s*(\S.*?)\s*")


def _whole(least: int, most: float = float("inf"), empty: bool = False, auto: bool = False) -> PlainValidator:
    return _numeric(int, lambda value: least <= value <= most, _from_to("a whole number", least, most), empty, auto)


def _real(allowed: Callable[[float], bool], words: str, auto: bool = False) -> PlainValidator:
    return _numeric(float, allowed, words, False, auto)


def _numeric(kind: type, allowed: Callable[[Any], bool], words: str, empty: bool, auto: bool) -> PlainValidator:
    """A number of this kind; `empty` lets null through, `auto` the word auto."""
    words += " or null" if empty else " or auto" if auto else ""

    def check(value: Any) -> Any:
        if (empty and value is None) or (auto and value == "auto"):
            return value
        try:
            found = coerce(kind, value)
        except ValueError:
            raise ValueError(f"must be {words}, got {shown(value)}") from None
        if not allowed(found):
            raise ValueError(f"must be {words}, got {shown(value)}")
        return found

    return PlainValidator(check)


def _from_to(what: str, least: float, most: float) -> str:
    return f"{what} >= {least}" if most == float("inf") else f"{what} in {least}..{most}"


def _known(names: tuple[str, ...]) -> PlainValidator:
    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in names:
            raise ValueError(one_of(names, value))
        return value

    return PlainValidator(check)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, got {shown(value)}")
    return value


def _is_share_or_whole(gpus: float) -> bool:
    return 0 <= gpus <= 1 or (gpus > 1 and gpus.is_integer())


def _name(value: Any) -> str:
    rule = "must be letters, digits, '.', '_' and '-', at most 128, no '.' or '-' in front and no '.' at the end"
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        quotes = (
            f"; write {shown(str(value))}" if isinstance(value, (int, float)) and _NAME.fullmatch(str(value)) else ""
        )
        raise ValueError(f"{rule} (it names a directory of the store), got {shown(value)}{quotes}")
    if _DEVICE.fullmatch(value):
        raise ValueError(f"must be no device of Windows, where the store could not be copied to, got {shown(value)}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"must be text, got {shown(value)}")
    if not value.isprintable():
        raise ValueError(f"must be text without control characters, got {shown(value)}")
    return value


def _store(value: Any) -> str:
    """What it holds is not shown before it is known to hold no secret."""
    if is_uri(value) and (wrong := what_is_wrong(value)):
        raise ValueError(wrong)
    if not isinstance(value, str):
        raise ValueError(f"must be text, got {masked(shown(value))}")
    return _text(value)


def _runs(value: Any) -> list[str]:
    """Places of runs: paths or URIs. What they hold is looked at when the sweep begins."""
    if not isinstance(value, list):
        raise ValueError(f"must be a list of runs, <store>/<sweep name> each, got {masked(shown(value))}")
    return [_store(place) for place in value]


def _constraint(value: Any) -> str:
    found = _CONSTRAINT.fullmatch(value) if isinstance(value, str) else None
    try:
        if found is None:
            raise ValueError
        bound = found[2] if "/" in found[2] else float(found[2])
        return f"{found[1]} {float(number(bound))!r}"
    except ValueError:
        raise ValueError(f"must be a bound such as '>= 0.9' or '<= 60', got {shown(value)}") from None


def _constraints_of_shares(value: dict[str, str]) -> dict[str, str]:
    """Accuracies are shares: '>= 90' can never hold."""
    for metric, constraint in value.items():
        bound = float(constraint[3:])
        if metric in _SHARES and not 0 <= bound <= 1:
            guess = f"; did you mean '{constraint[:2]} {bound / 100:g}'?" if 1 < bound <= 100 else ""
            raise ValueError(f"{metric} must be bounded by a share in [0, 1], got {shown(constraint)}{guess}")
    return value


def _objectives(value: dict[str, str]) -> dict[str, str]:
    if not value:
        raise ValueError(f"must name at least one of {', '.join(METRICS)}")
    return value


def _split(value: Any) -> str | None:
    if value is not None and value not in SPLITS:
        raise ValueError(one_of(SPLITS, value))
    found: str | None = value
    return found


def _attacks(value: Any) -> list[Any]:
    """Their names and settings are looked at later, when the tables are at hand."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"must be a list of at least one attack, got {shown(value)}")
    return value


Name = Annotated[str, PlainValidator(_name)]
Seed = Annotated[int, _whole(0, 2**32 - 1)]
Text = Annotated[str, PlainValidator(_text)]
StorePlace = Annotated[str, PlainValidator(_store)]
Count = Annotated[int, _whole(1)]
Examples = Annotated[int | None, _whole(1, empty=True)]
Attacks = Annotated[list[Any], PlainValidator(_attacks)]
Metric = Annotated[str, _known(METRICS)]
Cpus = Annotated[float | Literal["auto"], _real(lambda cpus: cpus > 0, "a number > 0", auto=True)]
Gpus = Annotated[
    float | Literal["auto"],
    _real(_is_share_or_whole, "a share of one GPU in [0, 1], a whole number of them", auto=True),
]
Flag = Annotated[bool, PlainValidator(_flag)]
AutoCount = Annotated[int | Literal["auto"], _whole(1, auto=True)]


class Section(BaseModel):
    """A mapping of the spec: no unknown keys, nothing changed after it was made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        """A key without a value is one left out: its default holds."""
        return {key: value for key, value in given.items() if value is not None} if isinstance(given, dict) else given


class SearchSpec(Section):
    """How configurations are chosen. `initial` entries are run first; `warm_start` are other runs to learn from.

    Each configuration is trained with `seeds` seeds, and the search told the mean, worsened by `risk` spreads. With
    `reuse`, what another run of the same store has trained already is taken from there.
    """

    sampler: Annotated[str, _known(SAMPLERS)] = "tpe"
    trials: Count = 32
    objectives: Annotated[dict[Metric, Annotated[str, _known(DIRECTIONS)]], AfterValidator(_objectives)] = {
        "robust_area": "max",
        "clean_accuracy": "max",
    }
    constraints: Annotated[
        dict[Metric, Annotated[str, PlainValidator(_constraint)]], AfterValidator(_constraints_of_shares)
    ] = {}
    initial: list[dict[str, Any]] = []
    warm_start: Annotated[list[Any], PlainValidator(_runs)] = []
    seeds: Annotated[int, _whole(1, MOST_SEEDS)] = 1
    risk: Annotated[float, _real(lambda risk: 0 <= risk <= 100, "a number in 0..100")] = 0.0
    reuse: Flag = True


class SchedulerSpec(Section):
    """Which trials are stopped early, and when."""

    name: Annotated[str, _known(SCHEDULERS)] = "asha"
    grace_epochs: Count = 1
    reduction_factor: Annotated[float, _real(lambda factor: 1.01 <= factor <= 1000, "a number in 1.01..1000")] = 3.0


class RungSpec(Section):
    """What is measured at each rung; `examples` null: decided from the size of the validation split."""

    examples: Examples = None
    attacks: Attacks = [{"name": "pgd", "steps": 10}]


class FinalSpec(Section):
    """What is measured on trials that reached the top; `examples` null: decided from the size of the split."""

    examples: Examples = None
    attacks: Attacks = ["strong_pgd"]


class TestSpec(Section):
    """What is measured on finalists, on the test split; `examples` null: all, `finalists` 0: nothing."""

    __test__ = False  # not a test, whatever pytest thinks of its name

    finalists: Annotated[int, _whole(0)] = 3
    seeds: Count = 3
    examples: Examples = None
    attacks: Attacks = ["strong_pgd"]


class NamedSpec(Section):
    """What is measured beside the truth, such as a paper's own protocol; nothing is selected by it.

    `of` says whose models, after their `final` or `test`: those of search trials that reached the top, on validation
    rows that no rung used, or those of finalists, by default on the test split. `surface` none: by an attacker who does
    not know the defense. `examples` null: as many as `final`, or the whole test split.
    """

    of: Annotated[str, _known(OF)] = "finalists"
    split: Annotated[str | None, PlainValidator(_split)] = None
    examples: Examples = None
    surface: Annotated[str, _known(SURFACES)] = "known"
    attacks: Attacks

    @model_validator(mode="after")
    def _tests_finalists_only(self) -> NamedSpec:
        if self.of == "search" and self.split == "test":
            raise ValueError(
                "split: test is for finalists, or every configuration that was searched would be seen on it; after the "
                "sweep, `robustsweep evaluate RUN --split test` does that"
            )
        return self

    @property
    def where(self) -> str:
        """The split that it measures on."""
        return self.split or ("test" if self.of == "finalists" else "validation")


class EvaluationSpec(Section):
    """The three evaluations, and further ones by name. Attacks are normalised blocks once a spec is loaded."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, NamedSpec]

    rung: RungSpec = RungSpec()
    final: FinalSpec = FinalSpec()
    test: TestSpec = TestSpec()

    @property
    def named(self) -> dict[str, NamedSpec]:
        """The further ones."""
        return dict(self.__pydantic_extra__ or {})

    def block(self, name: str) -> RungSpec | FinalSpec | TestSpec | NamedSpec:
        """One of them."""
        found: RungSpec | FinalSpec | TestSpec | NamedSpec = getattr(self, name)
        return found


class TrialResources(Section):
    """What one training worker gets; silent for `time_limit` seconds (one rung), it is ended and tried once more."""

    cpus: Cpus = "auto"
    gpus: Gpus = "auto"
    time_limit: Annotated[float, _real(lambda seconds: seconds > 0, "a number of seconds > 0")] = 21600.0


class EvaluatorResources(TrialResources):
    """What one evaluator gets, and how many there are."""

    count: AutoCount = "auto"


class ResourcesSpec(Section):
    """Who gets what; `auto` is decided from the machine or cluster when the sweep starts."""

    trial: TrialResources = TrialResources()
    evaluator: EvaluatorResources = EvaluatorResources()
    max_concurrent: AutoCount = "auto"


def wrong_names(evaluation: Any) -> list[Problem]:
    """Names of evaluations that are none, or that look like one of ours misspelt."""
    known, problems = EvaluationSpec.model_fields, []
    for name in [name for name in evaluation if name not in known] if isinstance(evaluation, Mapping) else ():
        at = ("evaluation", name)
        if not isinstance(name, str) or not EVALUATION_NAME.fullmatch(name):
            rule = "a name must be at most 64 letters, digits, '_' and '-', with no '-' in front"
            problems.append(Problem(at, f"{rule}, got {shown(name)}"))
        elif nearest(known, name):
            problems.append(Problem(at, unknown_key(known, name)))
    return problems


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """What pydantic found, in our words."""
    return [_problem(dict(found), model) for found in error.errors(include_url=False)]


def _problem(found: Mapping[str, Any], model: type[BaseModel]) -> Problem:
    at = tuple(key for key in found["loc"] if key != "[key]")
    seen = found.get("input")
    if found["type"] == "extra_forbidden":
        return Problem(at, unknown_key(_fields(model, at[:-1]), str(at[-1])))
    texts = {
        "missing": "is required",
        "value_error": str(found.get("ctx", {}).get("error", "")),
        "model_type": f"must be a mapping, got {shown(seen)}",
        "model_attributes_type": f"must be a mapping, got {shown(seen)}",
        "dict_type": f"must be a mapping, got {shown(seen)}",
        "list_type": f"must be a list, got {shown(seen)}",
    }
    return Problem(at, texts.get(found["type"]) or f"cannot be {shown(seen)} ({found['msg']})")


def _fields(model: type[BaseModel], at: tuple[str | int, ...]) -> Mapping[str, Any]:
    """The keys of the model that stands at a place inside another."""
    for key in at:
        field = model.model_fields.get(str(key))
        inner = NamedSpec if field is None else field.annotation  # only evaluations may have names of their own
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    return model.model_fields
