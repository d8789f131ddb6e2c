"""Under which name a run records an evaluation: one name, one protocol, so that figures of two never meet.

A sweep whose spec changes `final` measures it again under the name `final.2`; what was measured before stays, under
its own name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import UserError
from orchestrator.storage.files import Files
from orchestrator.storage.store import Store
from orchestrator.wording import shown

FILE = "evaluations.json"
SELECTING = ("test", "final")  # evaluations whose figures may stand in a trial's row, the best first
RUNG = "rung"
FIRST = {"search": "final", "finalist": "test"}  # by stage; by these models are chosen and told
MEANING = "stands_for"  # of a preset in a protocol: its attacks

Protocol = dict[str, Any]  # JSON values


@dataclass(frozen=True)
class Protocols:
    """`known` are all protocols on record by name, `current` the names of the spec's evaluations."""

    known: Mapping[str, Protocol] = field(default_factory=dict)
    current: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Files) -> Protocols:
        """Those of a run; one without the file has each evaluation under its own name. Raises UserError."""
        try:
            said = json.loads(files.read(FILE))
            return cls(dict(said["known"]), dict(said["current"]))
        except FileNotFoundError:
            return cls()
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{files.root}/{FILE}: is damaged ({error!r}); `robustsweep doctor RUN --repair` sets it aside"
            ) from None

    def name(self, evaluation: str) -> str:
        """What an evaluation of the spec is called in the tables."""
        return self.current.get(evaluation, evaluation)

    def headline(self, stage: str) -> str:
        """The evaluation that a trial of this stage is told and ranked by."""
        return self.name(FIRST[stage])

    @property
    def headlines(self) -> tuple[str, ...]:
        """The evaluations whose figures may stand in a trial's row, the best first: a changed one when it is measured,
        until then the one that was there."""
        current = tuple(map(self.name, SELECTING))
        older = (name for base in SELECTING for name in self.known if base_of(name) == base)
        return (*current, *(name for name in older if name not in current))

    def with_spec(self, evaluation: Mapping[str, Any]) -> Protocols:
        """The same with the evaluations of a spec as the current ones: a changed one gets a name of its own."""
        known, current = dict(self.known), {}
        for base, protocol in spec_protocols(evaluation).items():
            mine = [base, *(name for name in known if name.startswith(f"{base}."))]
            same = [name for name in mine if known.get(name) == protocol]
            free = base if base not in known else f"{base}.{len([name for name in mine if name in known]) + 1}"
            current[base] = same[0] if same else free
            known[current[base]] = protocol
        return Protocols(known, current)

    def with_one(self, name: str, protocol: Protocol) -> Protocols:
        """The same with one more. Raises UserError, with the difference, where the name has another protocol."""
        there = self.known.get(name, protocol)
        changed = [
            f"  {key}: was {shown(there.get(key))}, now {shown(value)}"
            for key, value in protocol.items()
            if there.get(key) != value
        ]
        if changed:
            raise UserError(
                f"--name {name}: an evaluation of this name is on record and measured something else; give another "
                "name, or none. What differs:\n" + "\n".join(changed)
            )
        return Protocols({**self.known, name: protocol}, self.current)

    def write(self, store: Store) -> None:
        """Keep them in the run, unless they are there."""
        if Protocols.of(store.files) != self:
            store.write_json(FILE, {"known": self.known, "current": self.current})


def spec_protocols(evaluation: Mapping[str, Any]) -> dict[str, Protocol]:
    """What the evaluations of a spec in normal form measure, but for the rungs; who is measured is not part of it."""
    found = {}
    for name in dict.fromkeys([*SELECTING, *evaluation]):
        block = evaluation.get(name) or {}
        if name == RUNG or not block:
            continue
        split = {"final": "validation", "test": "test"}.get(name) or _split(block)
        found[name] = protocol(split, block.get("examples"), block["attacks"], block.get("surface", "known"))
    return found


def protocol(split: str | None, examples: int | None, attacks: Any, surface: str = "known", **more: Any) -> Protocol:
    """What an evaluation measures; `split` None: that of the trial's stage, `examples` None: as many as there are."""
    return {
        "split": split,
        "examples": examples,
        "attacks": [_whole(attack) for attack in attacks],
        "surface": surface,
    } | more


def blocks_of(measured: Protocol) -> tuple[dict[str, Any], ...]:
    """Its attacks, as a measurement takes them."""
    return tuple({key: value for key, value in attack.items() if key != MEANING} for attack in measured["attacks"])


def default_name(measured: Protocol) -> str:
    """A name made from what is measured."""
    digest = hashlib.sha256(json.dumps(measured, sort_keys=True).encode()).hexdigest()
    return f"evaluate-{digest[:8]}"


def is_default_name(name: str) -> bool:
    """Whether a name, or the beginning of a column's, is one that `default_name` makes."""
    return re.match(r"evaluate-[0-9a-f]{8}(_|$)", name) is not None


def base_of(name: str) -> str:
    """What the spec calls an evaluation of this name."""
    return name.partition(".")[0]


def _whole(attack: Mapping[str, Any]) -> dict[str, Any]:
    """The block; of a preset with what it stands for, which a later version may change."""
    from attacks import CASCADES
    from orchestrator.cascade import cascade_of

    return {**attack, MEANING: cascade_of(attack["name"])} if attack["name"] in CASCADES else dict(attack)


def _split(block: Mapping[str, Any]) -> str:
    return block.get("split") or ("test" if block.get("of") == "finalists" else "validation")
