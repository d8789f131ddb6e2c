"""The evaluations of a sweep: what each measures, and which of them a trial is due."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.measurement import Measurement
from orchestrator.protocols import FIRST, RUNG, Protocols
from orchestrator.records import Record
from orchestrator.spec import Spec, evaluation_sizes

OF = {"search": "search", "finalists": "finalist"}  # whose models further evaluations measure, by what the spec says


@dataclass(frozen=True)
class Evaluations:
    """Those of `spec`; in the tables they are called as `protocols` says."""

    spec: Spec
    protocols: Protocols

    def name(self, evaluation: str) -> str:
        """What one is called in the tables."""
        return self.protocols.name(evaluation)

    def headline(self, stage: str) -> str:
        """The name of the one that a trial of this stage is told and ranked by."""
        return self.protocols.headline(stage)

    def of_stage(self, stage: str) -> list[str]:
        """Those of each model of a stage, in order."""
        beside = [name for name, block in self.spec.evaluation.named.items() if OF[block.of] == stage]
        return [FIRST[stage], *beside]

    def due(self, record: Record) -> list[str]:
        """Those that a trained model lacks, in order."""
        done = record.evaluations.keys() | record.given_up
        return [name for name in self.of_stage(record.plan.stage) if self.name(name) not in done]

    def needs(self, stage: str) -> set[str]:
        """The splits that the evaluations of a stage measure on."""
        named = self.spec.evaluation.named
        return {"validation" if name == "final" else "test" if name == "test" else named[name].where
                for name in self.of_stage(stage)}  # fmt: skip

    def measurement(self, evaluation: str, validation: int, test: int | None, need_curve: bool) -> Measurement:
        """What one measures, of splits of these sizes; `need_curve` says that rungs are compared by the curve."""
        blocks = self.spec.evaluation
        rung, final = evaluation_sizes(self.spec, validation)
        if evaluation == RUNG:
            return Measurement(RUNG, "validation", 0, rung, tuple(blocks.rung.attacks), need_curve)
        name, attacks = self.name(evaluation), tuple(blocks.block(evaluation).attacks)
        if evaluation == "final":
            return Measurement(name, "validation", rung, rung + final, attacks, True)
        wanted, beside = blocks.block(evaluation).examples, blocks.named.get(evaluation)
        is_informed = beside is None or beside.surface == "known"
        if beside is not None and beside.where == "validation":
            stop = min(rung + (wanted or final), validation)
            return Measurement(name, "validation", rung, stop, attacks, False, is_informed=is_informed)
        assert test is not None
        return Measurement(
            name, "test", 0, min(wanted or test, test), attacks, curve=beside is None, is_informed=is_informed
        )
