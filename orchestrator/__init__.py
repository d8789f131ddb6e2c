"""robustsweep: sweeps over adversarial defenses, from one spec to Parquet and a leaderboard."""

from orchestrator.api import run
from orchestrator.errors import SpecError, UserError

__all__ = [
    "Robustness",
    "Run",
    "SpecError",
    "UserError",
    "evaluate_checkpoint",
    "evaluate_robustness",
    "load",
    "run",
]


def __getattr__(name: str) -> object:
    """Import the rest when it is asked for: torch and pandas take seconds, and many uses need neither."""
    if name in ("evaluate_robustness", "Robustness"):
        from orchestrator import evaluation

        return getattr(evaluation, name)
    if name == "evaluate_checkpoint":
        from orchestrator.any_checkpoint import evaluate_checkpoint

        return evaluate_checkpoint
    if name in ("load", "Run"):
        from orchestrator import analysis

        return getattr(analysis, name)
    raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
