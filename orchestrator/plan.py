"""A trial, fully said: everything a worker must know to train one configuration with one seed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orchestrator.composition import composed, without

if TYPE_CHECKING:
    from attacks import Draws, Threat
    from defenses import Training
    from orchestrator.cells import Cell
    from orchestrator.space import Configuration

BASE = "base"
Block = dict[str, Any]  # a normalised block of the spec: JSON values only


@dataclass(frozen=True)
class Plan:
    """One trial. `stage` is "search" or "finalist"; `number` counts the asks of its cell and stage.

    A base has a plan of stage "base", which is no row of any table.

    Imports torch only where something is made of it: workers begin sooner.
    """

    trial_id: str
    config_id: str
    cell: str
    number: int
    stage: str
    seed: int
    fingerprint: str
    dataset: Block
    threat: Block
    network: Block
    defense: Block
    training: Block
    params: Block
    by_threat: bool = False
    is_twin: bool = False

    @classmethod
    def of(
        cls, cell: Cell, configuration: Configuration, fingerprint: str, seed: int, number: int, by_threat: bool = False
    ) -> Plan:
        """The search trial of one configuration of one cell.

        `by_threat` says that cells differ in their threat: then it is part of the identity even of a trial whose
        training does not use it, since its rungs are measured under it.
        """
        threat = {"norm": cell.threat.norm, "eps": cell.threat.eps}
        defense, training = composed(configuration.defense, configuration.training, seed)
        plan = cls(
            "", "", cell.name, number, "search", seed, fingerprint, cell.dataset_block(), threat,
            configuration.network, defense, training, configuration.params, by_threat,
        )  # fmt: skip
        return plan._identified()

    @classmethod
    def from_json(cls, text: str) -> Plan:
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return self._json

    @cached_property
    def _json(self) -> str:
        return json.dumps({name: getattr(self, name) for name in self.__dataclass_fields__}, sort_keys=True)

    def as_finalist(self, seed: int, number: int) -> Plan:
        """The same configuration, to be trained again with a fresh seed and attacked on the test split."""
        return replace(self, stage="finalist", seed=seed, number=number)._identified()

    def as_twin(self) -> Plan:
        """The same trial as one of this cell alone, where another cell has the configuration too."""
        return replace(self, is_twin=True)._identified()

    def base(self) -> Plan | None:
        """The plan of the network that this trial starts from, None where it starts from chance."""
        block = self.defense.get("base")
        if block is None:
            return None
        own = {"defense": block["defense"], "training": block["training"], "seed": block["seed"]}
        return replace(self, **own, stage=BASE, number=0, params={}, by_threat=False, is_twin=False)._identified()

    def make_threat(self) -> Threat:
        from attacks import Threat

        return Threat(**self.threat)

    def make_defense(self) -> Any:
        from defenses import DEFENSES
        from orchestrator.build import make

        return make(DEFENSES, without(self.defense))

    def make_network(self) -> Any:
        from defenses import NETWORKS
        from orchestrator.build import make

        return make(NETWORKS, self.network)

    def make_training(self) -> Training:
        from defenses import Training

        return Training(**self.training, threat=self.make_threat(), **self._composing())

    def draws(self, example_ids: Any) -> Draws:
        """The source of everything random in this trial's training, keyed by the ids of its rows."""
        from attacks import Draws

        return Draws(self.seed, example_ids).fork("training")

    def _composing(self) -> dict[str, Any]:
        """What stands beside the defense, as fields of Training."""
        from orchestrator.build import make
        from orchestrator.composition import beside
        from orchestrator.tables import all_tables

        found: dict[str, Any] = {}
        if "adversarial" in self.defense:
            attacks = beside(all_tables())["adversarial"].kinds
            assert attacks is not None
            found["adversarial"] = make(attacks, self.defense["adversarial"])
        if "input" in self.defense:
            found["inputs"] = tuple(make(all_tables().inputs, block) for block in self.defense["input"])
        return found

    def _identified(self) -> Plan:
        from orchestrator.identity import config_id, method_source, trial_id

        defense, network, composing = self.make_defense(), self.make_network(), self._composing()
        uses_threat = defense.uses_threat or "adversarial" in composing or self.by_threat
        trained_against = self.make_threat() if uses_threat else None
        beside = [composing["adversarial"].attack] if "adversarial" in composing else []
        beside += composing.get("inputs", ())
        base = self.base()
        source = method_source(*_kinds(defense, network, *beside)) + (f"/{self.cell}" if self.is_twin else "")
        source += (f"/{BASE}" if self.stage == BASE else "") + (f"/{base.trial_id}" if base else "")
        facts = (self.fingerprint, self.network, self.defense, self.training, trained_against)
        return replace(
            self, trial_id=trial_id(*facts, seed=self.seed, source=source), config_id=config_id(*facts, source=source)
        )


def _kinds(*instances: Any) -> list[Any]:
    return [type(instance) for instance in instances]
