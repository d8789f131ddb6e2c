"""How robust a model is, measured from outside: an attack only hands in images, this file judges them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from attacks import Draws, Surface, Threat
from attacks.losses import margin
from attacks.sources import drawing, is_stochastic
from orchestrator.batching import Batching
from orchestrator.cascade import AttackChoice, Stage, stages
from orchestrator.doubts import Doubt, degenerate, gives_probabilities, outside_threat, random_outputs
from orchestrator.eval_mode import in_eval_mode
from orchestrator.judged_inputs import check_finite, check_images, check_logits, check_model
from orchestrator.metrics import AREA_FRACTIONS
from orchestrator.passes import counted
from orchestrator.plausible_eps import refuse_eps
from orchestrator.statistics import wilson_interval

STOCHASTIC_PASSES = 10  # fresh draws behind each robust_probability


@dataclass(frozen=True)
class Robustness:
    """What `evaluate_robustness` found. Every robust accuracy is an upper bound: a stronger attack may find less.

    `curve` maps each eps to the robust accuracy there; `robust_area` is the mean at eps/4, eps/2 and eps where
    the three were asked for, else None. `per_attack` and `per_example` are the grain (columns as in the tables
    `attacks` and `examples`). `adversarials` is shaped like the images: row i is misclassified exactly where
    example i is not robust, and a clean error gives the image itself.
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
    that no attack saw and that chose no restart. The mode of each of the model's modules is left as found. `batch_size` images go through the
    model at once, half as many from when that runs out of memory.

    Raises ValueError where images, labels, threat or logits are not what they must be, EvaluationOutOfMemory where not
    one image fits.
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
    cascade = stages(attacks)
    with in_eval_mode(model):
        judge = _Judge(
            model,
            images.cpu().float(),
            labels.cpu().long(),
            Draws(seed, ids),
            surface or Surface(),
            batch_size,
            doubts != "off",
        )
        for level in sorted({*map(float, eps), threat.eps}):
            for position, stage in enumerate(cascade):
                judge.run(stage, position, Threat(threat.norm, level))
    return judge.result(threat, images)


@dataclass
class _Scores:
    """What the model says of some images; for a stochastic model over several passes."""

    prediction: Tensor  # int64 [n]
    margin: Tensor  # [n], true logit minus best other
    probability: Tensor  # [n], share of passes that were right

    def select(self, index: Tensor) -> _Scores:
        return _Scores(self.prediction[index], self.margin[index], self.probability[index])

    def put(self, index: Tensor, scores: _Scores) -> None:
        self.prediction[index], self.margin[index], self.probability[index] = (
            scores.prediction, scores.margin, scores.probability,
        )  # fmt: skip


class _Judge:
    """Keeps the worst image found for every example, and writes down each stage."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        draws: Draws,
        surface: Surface,
        batch_size: int,
        doubting: bool,
    ) -> None:
        self.model, self.images, self.labels, self.draws = model, images, labels, draws
        self.device = next((tensor.device for tensor in model.parameters()), images.device)
        self.batching = Batching(batch_size, self.device)
        self.doubts: list[Doubt] = []
        self.passes = STOCHASTIC_PASSES if surface.draws > 1 or is_stochastic(model) else 1
        self._look_at_outputs(doubting)
        everyone = torch.arange(len(images))
        self.clean = self._scores(images, everyone, "clean")
        self.worst = self.clean.select(everyone)
        # What choices go by. A stochastic model's is on draws of its own: figures that were chosen are never reported.
        self.choosing = (self.clean if self.passes == 1 else self._scores(images, everyone, "choose")).select(everyone)
        self.adversarials = images.clone()
        self.attack_rows: list[dict[str, Any]] = []
        self.example_frames: list[pd.DataFrame] = []
        if doubting:
            self._doubt(degenerate(self.clean.prediction, labels, self.classes))

    @property
    def robust(self) -> Tensor:
        """Which examples no attack has fooled so far. bool [n]"""
        return self.worst.probability > 0.5

    def run(self, stage: Stage, position: int, threat: Threat) -> None:
        """Attack the survivors, judge what comes back, write it down."""
        # a stochastic model is attacked while anything is left of an example: its expected accuracy is what counts
        alive = (self.choosing.probability > (0.5 if self.passes == 1 else 0.0)).nonzero().flatten()
        were_robust = int(self.robust.sum())
        started = time.perf_counter()
        with counted(self.model) as passes:
            returned = self.batching.each(
                alive, passes.kept_when_done(lambda part: self._attacked(stage, threat, part))
            )
        seconds = time.perf_counter() - started
        if returned:
            self._take(torch.cat(returned), alive, stage, threat)
        fooled = max(0, were_robust - int(self.robust.sum()))
        self._write_down(stage, position, threat, len(alive), fooled, passes.forward, passes.backward, seconds)

    def result(self, threat: Threat, like: Tensor) -> Robustness:
        per_attack = pd.DataFrame(self.attack_rows)
        last = {row["eps"]: row for row in self.attack_rows}  # by eps, the row after the whole cascade
        curve = {level: row["robust_accuracy"] for level, row in last.items()}
        low, high = last[threat.eps]["ci_low"], last[threat.eps]["ci_high"]
        area_levels = [threat.eps * fraction for fraction in AREA_FRACTIONS]
        has_area = all(level in curve for level in area_levels)
        return Robustness(
            threat=threat,
            clean_accuracy=self.clean.probability.double().mean().item(),
            robust_accuracy=curve[threat.eps],
            confidence_interval=(low, high),
            curve=curve,
            robust_area=sum(curve[level] for level in area_levels) / len(area_levels) if has_area else None,
            per_attack=per_attack,
            per_example=pd.concat(self.example_frames, ignore_index=True),
            adversarials=self.adversarials.to(like),
            doubts=self.doubts,
        )

    def _attacked(self, stage: Stage, threat: Threat, rows: Tensor) -> Tensor:
        x, y = self.images[rows].to(self.device), self.labels[rows].to(self.device)
        draws = self.draws.select(rows).fork(stage.id, repr(threat.eps)).to(self.device)
        with torch.random.fork_rng(devices=[]):  # a stochastic layer without a source draws from torch's own
            torch.default_generator.manual_seed(self.draws.seed % 2**63)
            adversarial = stage.attack(self.model, x, y, threat, draws)
        return adversarial.detach().to(self.images)

    def _take(self, returned: Tensor, alive: Tensor, stage: Stage, threat: Threat) -> None:
        """Keep what is inside the threat and worse for the model than what was known."""
        allowed = threat.allows(self.images[alive], returned)
        if not allowed.all():
            self._doubt(outside_threat(stage.name, int((~allowed).sum()), len(alive)))
        rows, returned = alive[allowed], returned[allowed]
        if not len(rows):
            return
        choosing = self._scores(returned, rows, f"choose/{stage.id}/{threat.eps}")
        known = self.choosing.select(rows)
        is_worse = choosing.probability < known.probability
        is_worse |= (choosing.probability == known.probability) & (choosing.margin < known.margin)
        rows, returned = rows[is_worse], returned[is_worse]
        if not len(rows):
            return
        self.adversarials[rows] = returned
        self.choosing.put(rows, choosing.select(is_worse))
        self.worst.put(rows, choosing.select(is_worse) if self.passes == 1 else self._scores(returned, rows, "report"))

    @torch.no_grad()
    def _scores(self, images: Tensor, rows: Tensor, purpose: str) -> _Scores:
        """Judge images of the examples `rows` in fp32, on draws that belong to `purpose`. [m, C, H, W], [m]"""

        def scored(here: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x, y = images[here].to(self.device).float(), self.labels[rows[here]].to(self.device)
            return self._scored_batch(x, y, self.draws.select(rows[here]).fork(purpose).to(self.device))

        parts = self.batching.each(torch.arange(len(rows)), scored)
        prediction, gap, probability = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
        return _Scores(prediction, gap, probability)

    def _scored_batch(self, x: Tensor, y: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        total, right = torch.zeros(()), torch.zeros(len(x), device=x.device)
        for turn in range(self.passes):
            with drawing(self.model, draws.fork(turn)):
                logits = self.model(x).float()
            check_finite(logits)
            right += (logits.argmax(1) == y).float()
            total = total.to(x.device) + (logits if self.passes == 1 else logits.log_softmax(1).exp())
        return total.argmax(1), -margin(total / self.passes, y), right / self.passes

    @torch.no_grad()
    def _look_at_outputs(self, doubting: bool) -> None:
        """Check the shape of the first logits, count the classes, look for chance and probabilities."""
        logits, again = self.batching.each(torch.arange(min(len(self.images), self.batching.size)), self._twice)[0]
        self.classes = logits.shape[1]
        if not torch.equal(logits, again):
            self.passes = STOCHASTIC_PASSES
        if doubting:
            self._doubt(random_outputs(logits, again))
            self._doubt(gives_probabilities(logits))

    def _twice(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Two looks at the same images; for a model known to be stochastic, one look twice."""
        x = self.images[rows].to(self.device)
        with drawing(self.model, self.draws.select(rows).fork("look").to(self.device)):
            logits = self.model(x)
            check_logits(logits, self.labels, len(x))
            return logits, self.model(x) if self.passes == 1 else logits

    def _doubt(self, doubt: Doubt | None) -> None:
        if doubt is not None:
            self.doubts.append(doubt)

    def _write_down(
        self,
        stage: Stage,
        position: int,
        threat: Threat,
        attacked: int,
        fooled: int,
        forward: int,
        backward: int,
        seconds: float,
    ) -> None:
        n, robust = len(self.labels), self.robust
        accuracy = self.worst.probability.double().mean().item()
        low, high = wilson_interval(accuracy * n, n)
        kind = {"attack": stage.name, "attack_id": stage.id, "norm": threat.norm, "eps": threat.eps}
        self.attack_rows.append(
            kind
            | {"position": position, "attack_json": stage.json, "n": n, "n_attacked": attacked, "n_fooled": fooled}
            | {"clean_accuracy": self.clean.probability.double().mean().item(), "robust_accuracy": accuracy}
            | {"ci_low": low, "ci_high": high, "seconds": seconds}
            | {"forward_passes": forward / max(attacked, 1), "backward_passes": backward / max(attacked, 1)}
        )
        distance = threat.distance(self.images.double(), self.adversarials.double())
        rows = {
            "example_id": self.draws.example_ids.numpy(),
            "label": self.labels.cpu().numpy(),
            "clean_prediction": self.clean.prediction.numpy(),
            "adversarial_prediction": self.worst.prediction.numpy(),
            "robust": robust.numpy(),
            "robust_probability": self.worst.probability.double().numpy() if self.passes > 1 else float("nan"),
            "distance": distance.masked_fill(robust, float("nan")).numpy(),
            "margin": self.worst.margin.double().numpy(),
        }
        self.example_frames.append(pd.DataFrame(kind | rows))
