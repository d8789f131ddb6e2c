"""Holds the classes of the user's modules to the claims of their kind."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.build import settings
from orchestrator.contracts import attack, dataset, defense, network
from orchestrator.contracts.claim import Broken, Case, Claim
from orchestrator.contracts.settings import can_be_written_in_a_spec, is_a_frozen_dataclass_under_its_own_name
from orchestrator.errors import UserError
from orchestrator.plugins.admission import Plugin, admit, canonical, loaded, offers
from orchestrator.plugins.kinds import Kind, is_frozen, recognised
from orchestrator.tables import all_tables
from orchestrator.wording import shown

HOLDS, NOTE, BROKEN = "holds", "note", "broken"


@dataclass(frozen=True)
class Verdict:
    """What was found of one claim about one class. `outcome`: holds, note (advice not followed, not tried), broken."""

    subject: str
    kind: str
    claim: str
    outcome: str
    evidence: str = ""

    @property
    def is_broken(self) -> bool:
        return self.outcome == BROKEN


def of_plugins(named: Iterable[str]) -> list[Verdict]:
    """Verdicts on every class of these modules, in their order. Raises UserError where a module cannot be imported."""
    return [verdict for plugin in admit(named) for verdict in _of_module(plugin)]


def of_class(cls: Any, kind: Kind) -> Iterator[Verdict]:
    """Verdicts on a class, with its default settings."""
    lacks = kind.lacks(cls)
    say = partial(Verdict, canonical(cls), kind.word)
    if lacks:
        yield say(f"offers what {_a(kind.word)} must", BROKEN, "; ".join(lacks))
        return
    required = [setting.name for setting in settings(cls).values() if setting.is_required]
    if required:
        yield say("has a default for every setting", BROKEN, f"none for {', '.join(required)}: so it cannot be tried")
        return
    try:
        instance = cls()
    except Exception as error:
        yield say("can be made with its defaults", BROKEN, _raised(error))
        return
    common = (
        Claim(partial_named(is_a_frozen_dataclass_under_its_own_name, name=canonical(cls))),
        Claim(partial_named(can_be_written_in_a_spec, table=getattr(all_tables(), kind.table))),
    )
    yield from _verdicts((*common, *_CLAIMS.get(kind.word, ())), instance, kind, say)


_CLAIMS: Mapping[str, tuple[Claim, ...]] = {
    "attack": attack.CLAIMS,
    "defense": defense.CLAIMS,
    "network": network.CLAIMS,
    "dataset": dataset.CLAIMS,
}


def _of_module(plugin: Plugin) -> Iterator[Verdict]:
    module = loaded(plugin.module)
    assert module is not None
    found = {cls: kind for _, cls, kind in offers(module)}
    for cls, kind in found.items():
        yield from of_class(cls, kind)
    for name, cls in vars(module).items():
        is_own = isinstance(cls, type) and cls.__module__ == module.__name__ and not name.startswith("_")
        if is_own and is_frozen(cls) and recognised(cls) is None:
            evidence = "it is none of attack, defense, network, input and dataset: left alone"
            yield Verdict(canonical(cls), "class", "is of a kind", NOTE, evidence)
    if not found:
        evidence = "it has no class with the methods of an attack, a defense, a network, an input or a dataset"
        yield Verdict(plugin.module, "module", "offers something", BROKEN, evidence)


def _verdicts(claims: Iterable[Claim], instance: Any, kind: Kind, say: Callable[..., Verdict]) -> Iterator[Verdict]:
    refuses = _REFUSALS.get(kind.word, _nothing)(instance)
    for what, said in refuses.items():
        yield say(f"takes {_case(dict(what))}", NOTE, f"refuses it: {said}")
    for claim in claims:
        cases = [case for case in claim.cases if not any(what <= case.items() for what in refuses)]
        if claim.cases and not cases:
            yield say(claim.text, BROKEN, "cannot be tried: it refuses every case")
            continue
        yield _verdict(claim, cases, instance, kind, say)


def _verdict(claim: Claim, cases: list[Case], instance: Any, kind: Kind, say: Callable[..., Verdict]) -> Verdict:
    extra = {"root": _root(instance)} if kind.word == "dataset" and "root" in _arguments(claim) else {}
    for case in cases:
        try:
            claim.check(instance, **case, **extra)
        except Broken as error:
            where = f"{_case(case)}: " if case else ""
            return say(claim.text, BROKEN if claim.is_law else NOTE, f"{where}{error}")
        except UserError as error:
            return say(claim.text, NOTE, f"not tried: {error}")
        except Exception as error:
            where = f"{_case(case)}: " if case else ""
            return say(claim.text, BROKEN if claim.is_law else NOTE, where + _raised(error))
    return say(claim.text, HOLDS, "" if len(cases) == 1 else f"{len(cases)} cases")


Refusals = dict[frozenset[tuple[str, Any]], str]  # parts of cases that an instance does not take -> what it says


def _nothing(instance: Any) -> Refusals:
    return {}


def _of_norms(instance: Any) -> Refusals:
    said = {norm: attack.refusal(instance, norm) for norm in attack.EPS}
    return {frozenset({("norm", norm)}): text for norm, text in said.items() if text is not None}


def _of_sizes(instance: Any) -> Refusals:
    """Sizes that a network refuses, whatever the channels; what it says of one of two kinds of images is no size."""
    said: Refusals = {}
    for size in network.SIZES:
        texts = {channels: network.refusal(instance, channels, size) for channels in network.CHANNELS}
        refused = {channels: text for channels, text in texts.items() if text is not None}
        if 3 in refused:
            said[frozenset({("size", size)})] = refused[3]
        elif refused:
            said |= {frozenset({("size", size), ("channels", channels)}): text for channels, text in refused.items()}
    return said


_REFUSALS: Mapping[str, Callable[[Any], Refusals]] = {"attack": _of_norms, "network": _of_sizes}


def partial_named(check: Callable[..., None], **settings: Any) -> Callable[..., None]:
    """`check` with settings of its own, under its own name."""

    def bound(instance: Any, **case: Any) -> None:
        check(instance, **settings, **case)

    bound.__name__ = check.__name__
    return bound


def _root(instance: Any) -> Path | None:
    found = type(instance).default_root
    return None if found is None else Path(found).expanduser()


def _arguments(claim: Claim) -> tuple[str, ...]:
    code = getattr(claim.check, "__code__", None)
    return () if code is None else code.co_varnames[: code.co_argcount]


def _raised(error: Exception) -> str:
    """What was raised, and the last place in the user's code or ours."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"raised {type(error).__name__}: {error}{place}"


def _case(case: Case) -> str:
    return ", ".join(f"{key} {value if isinstance(value, str) else shown(value)}" for key, value in case.items())


def _a(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
