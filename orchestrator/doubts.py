"""Evidence that a figure is too high, or means nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DEGENERATE_SHARE = 0.5  # of images given one class
NEARLY_HALF = 0.4  # of labels of one class, from which on half of the predictions say nothing
DEGENERATE_MARGIN = 0.1  # of accuracy above chance


@dataclass(frozen=True)
class Doubt:
    """A reason not to trust a figure. `severity` is "note" or "severe"; `evidence` a sentence with numbers."""

    kind: str
    severity: str
    evidence: str


def degenerate(predictions: Tensor, labels: Tensor, classes: int) -> Doubt | None:
    """A model that gives one class to more than half the images, or is within 10 points of chance.

    Where the labels themselves give one class nearly half the images or more (two classes, an unbalanced set),
    the share must be beyond midway between theirs and all. [n], [n] -> a severe doubt or None
    """
    share, common = _largest_share(predictions, classes)
    usual = _largest_share(labels, classes)[0]
    allowed = DEGENERATE_SHARE if usual <= NEARLY_HALF else (1 + usual) / 2
    if share > allowed:
        return Doubt("degenerate", "severe", f"{share:.0%} of {len(labels)} images are given class {common}")
    accuracy = (predictions == labels).float().mean().item()
    if accuracy < 1 / classes + DEGENERATE_MARGIN:
        return Doubt(
            "degenerate", "severe", f"clean accuracy {accuracy:.1%} is within 10 points of chance, {1 / classes:.1%}"
        )
    return None


def gives_probabilities(logits: Tensor) -> Doubt | None:
    """A model whose outputs are probabilities: its gradients vanish where it is sure. [n, K] -> doubt or None"""
    sums = logits.sum(1)
    if logits.min() >= 0 and logits.max() <= 1 and torch.allclose(sums, torch.ones_like(sums), atol=1e-5):
        return Doubt(
            "probabilities", "severe", f"all {len(logits)} outputs are in [0, 1] and sum to 1: give logits instead"
        )
    return None


def random_outputs(first: Tensor, second: Tensor) -> Doubt | None:
    """A model that answers the same images differently twice, without saying that it is stochastic."""
    if torch.equal(first, second):
        return None
    gap = (first - second).abs().max().item()
    return Doubt(
        "random_outputs", "severe", f"two passes over {len(first)} images differ by up to {gap:.3g}: declare its draws"
    )


def outside_threat(attack: str, count: int, n: int) -> Doubt:
    """An attack that left the ball or the box: what it returned there was not counted."""
    return Doubt("outside_threat", "severe", f"{attack} left ball or box on {count} of {n} images, not counted")


def _largest_share(classes_given: Tensor, classes: int) -> tuple[float, int]:
    counts = torch.bincount(classes_given, minlength=classes)
    return counts.max().item() / len(classes_given), int(counts.argmax())
