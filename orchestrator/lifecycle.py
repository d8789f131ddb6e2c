"""Rows of the `events` table: what happened to a trial, when and where."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime
from typing import Any

TRAINING_STARTED = "training started"
TRAINING_ENDED = "training ended"
EVALUATION_STARTED = "evaluation started"
EVALUATION_ENDED = "evaluation ended"
ENDED = "ended"  # its evidence says how the training of a trial ended
REPEAT = "repeat"  # a configuration was suggested again; its evidence holds the suggestion
DEGENERATE_AT_RUNG = "rung:degenerate"
RETRY = "retry"
NODE_LOST = "node lost"
BASE_TRAINED = "base trained"  # the network that trials start from; the row has its own id, its evidence the seconds
OUT_OF_MEMORY = "out of memory"  # batches are trained in parts from then on; its evidence says in how many
SILENT = "no report in"  # how the evidence of a `retry` begins when a worker was ended for its silence


def event(
    trial_id: str, kind: str, evidence: Any = "", severity: str = "note", at: datetime | None = None
) -> dict[str, Any]:
    """One row; `evidence` is a sentence, or anything JSON can say. `at` is now unless given (UTC)."""
    text = evidence if isinstance(evidence, str) else json.dumps(evidence, sort_keys=True)
    moment = at or datetime.now(UTC)
    return {
        "at": moment, "trial_id": trial_id, "kind": kind, "severity": severity,
        "evidence": text, "host": socket.gethostname(),
    }  # fmt: skip


def key_of(trial_id: str, kind: str, at: datetime) -> str:
    """A part name no other event has: things that happen twice are two events."""
    return f"{trial_id}.{kind.replace(' ', '_').replace(':', '_')}.{at:%Y%m%dT%H%M%S%f}"
