"""How robust a model is, measured from outside: an attack only hands in images, the judge decides about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor, nn

from attacks import Draws, Surface, Threat
from attacks.surface import surface_of
from orchestrator.attack_norms import refuse_norm
from orchestrator.audit import Audit
from orchestrator.cascade import AttackChoice, stages
from orchestrator.doubts import Doubt
from orchestrator.eval_mode import in_eval_mode
from orchestrator.judge import Judge
from orchestrator.judged_inputs import check_images, check_model
from orchestrator.metrics import AREA_FRACTIONS
from orchestrator.plausible_eps import refuse_eps
from orchestrator.scoring import Scorer


@dataclass(frozen=True)
class Robustness:
    """What `evaluate_robustness` found. Every robust accuracy is an upper bound: a stronger attack may find less.

    `curve` maps each eps to the robust accuracy there; `robust_area` is the mean at eps/4, eps/2 and eps where
    the three were asked for, else None. `per_attack` and `per_example` are the grain (columns as in the tables
    `attacks` and `examples`). `adversarials` is shaped like the images: row i is misclassified exactly where
    example i is not robust, and a clean error gives the image itself. `audit`, where attacks looked at a sample of the
    survivors only: how many fell, and what the same attacks might still take of the rest.
    """

    threat: Threat
    clean_accuracy: float
    robust_accuracy: float
    confidence_interval: tuple[float, float]
    curve: dict[float, float]
    robust_area: float | None
    per_attack: pd.DataFrame
    per_example: pd.DataFrame
    adversarials: Tensor
    doubts: list[Doubt] = field(default_factory=list)
    audit: Audit | None = None


def evaluate_robustness(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    threat: Threat,
    attacks: AttackChoice | Sequence[AttackChoice] = "strong_pgd",
    eps: Sequence[float] = (),
    seed: int = 0,
    surface: Surface | None = None,
    doubts: str = "cheap",
    example_ids: Tensor | None = None,
    batch_size: int = 256,
) -> Robustness:
    """Attack a classifier and say how much of its accuracy is left.

    `images` are float [n, C, H, W] in [0, 1], `labels` int64 [n]; `model` gives logits [n, K]. The attacks run in
    order, each on the examples that survived the ones before; `eps` adds radii to the threat's own, smallest
    first, and an example fooled at a smaller one is not attacked again. Randomness is keyed by (seed,
    example id, attack, eps), so the answer does not depend on batch size or order; `example_ids` default to
    the row numbers. The robust accuracy of a stochastic model is its expected single-pass accuracy over draws
    that no attack saw and that chose no restart. Attacks know the `surface`, by default the `model.surface` there is.
    The mode of each of the model's modules is left as found.
    Of the `doubts`, "cheap" looks at a few gradients and at what the attacks did, "full" runs small attacks as well.
    `batch_size` images go through the model at once, half as many from when that runs out of memory.

    Raises ValueError where images, labels, threat, attacks or logits are not what they must be, EvaluationOutOfMemory
    where not one image fits.
    """
    if doubts not in ("off", "cheap", "full"):
        raise ValueError(f"doubts: must be one of off, cheap, full, got {doubts!r}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size: must be a whole number >= 1, got {batch_size!r}")
    check_model(model)
    check_images(images, labels)
    for level in (*eps, threat.eps):
        refuse_eps(threat.norm, level, images[0].numel())
    ids = torch.arange(len(images)) if example_ids is None else example_ids.cpu().long()
    if ids.shape != labels.shape:
        raise ValueError(f"example_ids: must be one per image, [{len(images)}], got {list(ids.shape)}")
    refuse_norm(stages(attacks), threat.norm)  # what is wrong with them is said before a model is asked anything
    with in_eval_mode(model):
        scorer = Scorer(model, labels.cpu().long(), Draws(seed, ids), batch_size)
        judge = Judge(scorer, images.cpu().float(), surface or surface_of(model), is_doubting=doubts != "off")
        cascade = stages(attacks, surface, judge.classes)
        for level in sorted({*map(float, eps), threat.eps}):
            for position, stage in enumerate(cascade):
                judge.run(stage, position, Threat(threat.norm, level))
        if doubts == "full":
            judge.doubt_in_full(threat)
    return _told(judge, threat, images)


def _told(judge: Judge, threat: Threat, like: Tensor) -> Robustness:
    last = {row["eps"]: row for row in judge.attack_rows}  # by eps, the row after the whole cascade
    curve = {level: row["robust_accuracy"] for level, row in last.items()}
    area_levels = [threat.eps * fraction for fraction in AREA_FRACTIONS]
    has_area = all(level in curve for level in area_levels)
    at_eps = last[threat.eps]
    return Robustness(
        threat=threat,
        clean_accuracy=at_eps["clean_accuracy"],
        robust_accuracy=at_eps["robust_accuracy"],
        confidence_interval=(at_eps["ci_low"], at_eps["ci_high"]),
        curve=curve,
        robust_area=sum(curve[level] for level in area_levels) / len(area_levels) if has_area else None,
        per_attack=pd.DataFrame(judge.attack_rows),
        per_example=pd.concat(judge.example_frames, ignore_index=True),
        adversarials=judge.adversarials.to(like),
        doubts=judge.doubts,
        audit=judge.audits.get(threat.eps),
    )
