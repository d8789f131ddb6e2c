"""The figures of models that were attacked again, beside those they had before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from orchestrator.records import Record
from orchestrator.storage.store import Store
from orchestrator.trials_view import figures, rows_of
from orchestrator.wanted import Wanted


def before_and_now(store: Store, records: Sequence[Record], what: Wanted, failed: Mapping[str, str]) -> pd.DataFrame:
    """A row per trial and eps. `before` names the evaluation in the trial's own row, `final` or `test`.

    `failed` says what went wrong, by trial.
    """
    rows = store.read("trials").set_index("trial_id")
    found = []
    for record in records:
        plan = record.plan
        own = rows.loc[plan.trial_id] if plan.trial_id in rows.index else None
        attacks, examples = (store.read_trial(table, plan.trial_id) for table in ("attacks", "examples"))
        levels = what.protocol["eps"] or [plan.threat["eps"]]
        doubts = _doubts(store, plan.trial_id, what.name)
        for eps in levels:
            now = figures(attacks, examples, what.name, eps)
            found.append(
                {
                    "trial_id": plan.trial_id, "cell": plan.cell, "stage": plan.stage,
                    "evaluation": what.name, "split": what.split(plan.stage), "eps": eps,
                    "before": None if own is None else own["evaluation"],
                    "before_robust_accuracy": None if own is None else own["robust_accuracy"],
                    **{name: now[name] for name in ("n", "clean_accuracy", "robust_accuracy")},
                    "ci_low": now["robust_ci_low"], "ci_high": now["robust_ci_high"],
                    "doubts": len(doubts), "error": failed.get(plan.trial_id),
                }
            )  # fmt: skip
    return pd.DataFrame(found)


def _doubts(store: Store, trial_id: str, name: str) -> list[dict[str, Any]]:
    events = store.read_trial("events", trial_id)
    return rows_of(events[events["kind"].str.startswith("doubt:") & events["evidence"].str.startswith(f"{name}: ")])
