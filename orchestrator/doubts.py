"""Evidence that a figure is too high, or means nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SURPRISE_NOTED = 0.002  # of all examples, fooled by what should find nothing that was left (as in AutoAttack's check)
SURPRISE_SEVERE = 0.01
NET_SHARE = 0.05  # of the examples probed, by which a weaker attack must win to be a doubt
ZERO_SEVERE = 0.05  # of the examples, whose gradient is zero
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


def hidden_gradients(is_interrupted: bool, is_zero: Tensor, loss: str) -> Doubt | None:
    """A gradient that is not there, or exactly zero: no attack that follows it can say how robust the model is.

    `is_zero` is of the examples that the model is right about, for the first `loss` of its surface. bool [m]
    """
    if not len(is_zero):
        return None
    if is_interrupted:
        text = f"no gradient reaches the image in {len(is_zero)} of {len(is_zero)} examples: a surface needs a backward"
        return Doubt("interrupted_gradient", "severe", text)
    count = int(is_zero.sum())
    if not count:
        return None
    severity = "severe" if count >= ZERO_SEVERE * len(is_zero) else "note"
    return Doubt(
        "zero_gradients", severity, f"the gradient of {loss} is exactly 0 in {count} of {len(is_zero)} examples"
    )


def black_box_wins(attack: str, fooled: int, n: int) -> Doubt | None:
    """An attack without gradients that fools what those with gradients before it could not: these are hidden."""
    if fooled <= SURPRISE_NOTED * n:
        return None
    severity = "severe" if fooled >= max(2, SURPRISE_SEVERE * n) else "note"
    text = f"{attack} follows no gradient and fooled {fooled} of {n} that attacks which follow it had left"
    return Doubt("noise_beats_attack" if attack == "noise" else "black_box_beats_white_box", severity, text)


def noise_wins(fooled: int, points: int, n: int) -> Doubt | None:
    """Random points of the ball that fool examples which withstood every attack."""
    if not fooled:
        return None
    severity = "severe" if fooled >= SURPRISE_SEVERE * n else "note"
    text = f"{points} random points fool {fooled} of {n} examples that withstood every attack"
    return Doubt("noise_beats_attack", severity, text)


def weaker_wins(kind: str, weak: str, strong: str, by_weak: Tensor, by_strong: Tensor) -> Doubt | None:
    """Of two attacks on the same examples, the one that should be weaker fools clearly more. bool [m], bool [m]"""
    only_weak, only_strong = int((by_weak & ~by_strong).sum()), int((by_strong & ~by_weak).sum())
    if only_weak - only_strong < max(2, NET_SHARE * len(by_weak)):
        return None
    text = f"of {len(by_weak)} examples {weak} fools {int(by_weak.sum())}, {strong} {int(by_strong.sum())}"
    return Doubt(kind, "severe", text)


def outside_threat(attack: str, count: int, n: int) -> Doubt:
    """An attack that left the ball or the box: what it returned there was not counted."""
    return Doubt("outside_threat", "severe", f"{attack} left ball or box on {count} of {n} images, not counted")


def _largest_share(classes_given: Tensor, classes: int) -> tuple[float, int]:
    counts = torch.bincount(classes_given, minlength=classes)
    return counts.max().item() / len(classes_given), int(counts.argmax())
