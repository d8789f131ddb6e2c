"""Decides about the images that attacks hand in: what counts, what is the worst for each example, what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.surface import Surface, knowing
from attacks.threat import Threat
from orchestrator.cascade import Stage
from orchestrator.doubts import (
    Doubt,
    black_box_wins,
    degenerate,
    gives_probabilities,
    outside_threat,
    random_outputs,
)
from orchestrator.eval_mode import in_eval_mode
from orchestrator.nearest_once import NearestOnce
from orchestrator.passes import Passes, counted
from orchestrator.probes import Probes
from orchestrator.scoring import Scorer
from orchestrator.statistics import wilson_interval


class Judge:
    """Keeps the worst image found for every example, and writes down each stage.

    `attack_rows` and `example_frames` are what it wrote, `adversarials` the worst images, `doubts` its doubts (none
    unless `is_doubting`, but for images outside the threat).
    """

    def __init__(self, scorer: Scorer, images: Tensor, surface: Surface, is_doubting: bool) -> None:
        self.scorer, self.images = scorer, images
        self.doubts: list[Doubt] = []
        self.is_doubting = is_doubting
        self._followed_gradients: set[float] = set()  # at which eps: only then is it news that one without finds more
        self._nearest: dict[str, NearestOnce] = {}  # by the id of the attack
        logits, again = scorer.look(images)
        self.surface = replace(surface, draws=1) if self._is_certain else surface  # one draw of no noise is as good
        everyone = torch.arange(len(images))
        self.clean = scorer.scores(images, everyone, "clean")
        self.worst = self.clean.select(everyone)
        # What choices go by. A stochastic model's is on draws of its own: figures that were chosen are never reported.
        choosing = self.clean if self._is_certain else scorer.scores(images, everyone, "choose")
        self.choosing = choosing.select(everyone)
        self.adversarials = images.clone()
        self.attack_rows: list[dict[str, Any]] = []
        self.example_frames: list[pd.DataFrame] = []
        if is_doubting:
            self._doubt(random_outputs(logits, again) if surface.draws == 1 else None)
            self._doubt(gives_probabilities(logits))
            self._doubt(degenerate(self.clean.prediction, scorer.labels, logits.shape[1]))
            for doubt in self._probes.cheap():
                self._doubt(doubt)

    @property
    def robust(self) -> Tensor:
        """Which examples no attack has fooled so far. bool [n]"""
        return self.worst.probability > 0.5

    def doubt_in_full(self, threat: Threat) -> None:
        """The doubts that cost attacks of their own, once every stage has run."""
        for doubt in self._probes.full(threat, self.robust):
            self._doubt(doubt)

    def run(self, stage: Stage, position: int, threat: Threat) -> None:
        """Attack the survivors, judge what comes back, write it down."""
        # a stochastic model is attacked while anything is left of an example: its expected accuracy is what counts
        alive = (self.choosing.probability > (0.5 if self._is_certain else 0.0)).nonzero().flatten()
        were_robust = int(self.robust.sum())
        started = time.perf_counter()
        with counted(self.scorer.model) as passes:
            returned = self.scorer.batching.each(
                alive, passes.kept_when_done(lambda part: self._attacked(stage, threat, part))
            )
        seconds = time.perf_counter() - started
        if returned:
            self._take(torch.cat(returned), alive, stage, threat)
        what = {"attack": stage.name, "attack_id": stage.id, "norm": threat.norm, "eps": threat.eps}
        counts = {"n_attacked": len(alive), "n_fooled": max(0, were_robust - int(self.robust.sum()))}
        self.attack_rows.append(
            what
            | {"position": position, "attack_json": stage.json, "n": len(self.images), **counts}
            | self._figures()
            | {"seconds": seconds, **_per_example(passes, len(alive))}
        )
        self.example_frames.append(pd.DataFrame(what | self._of_each_example(threat)))
        if passes.backward or hasattr(stage.attack, "nearest"):
            self._followed_gradients.add(threat.eps)
        elif self.is_doubting and threat.eps in self._followed_gradients and self.surface.backward is None:
            self._doubt(black_box_wins(stage.name, counts["n_fooled"], len(self.images)))

    @property
    def _probes(self) -> Probes:
        return Probes(self.scorer, self.images, self.clean.prediction == self.scorer.labels, self.surface)

    @property
    def _is_certain(self) -> bool:
        return self.scorer.passes == 1

    def _attacked(self, stage: Stage, threat: Threat, rows: Tensor) -> Tensor:
        def answer(model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
            return stage.attack(model, x, y, threat, draws)

        def nearest(model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Tensor:
            found: Tensor = find(model, x, y, threat.norm, draws).adversarial
            return found

        find: Any = getattr(stage.attack, "nearest", None)
        if find is None:
            return self._run(answer, (stage.id, repr(threat.eps)), rows)
        once = self._nearest.setdefault(stage.id, NearestOnce(self.images))
        return once.within(threat, rows, lambda new: self._run(nearest, (stage.id,), new))

    def _run(self, attack: Callable[..., Tensor], labels: tuple[str, ...], rows: Tensor) -> Tensor:
        """What `attack(model, x, y, draws)` gives, whatever it leaves behind; its draws belong to `labels`."""
        device, known, model = self.scorer.device, self.scorer.draws, self.scorer.model
        x, y = self.images[rows].to(device), self.scorer.labels[rows].to(device)
        draws = known.select(rows).fork(*labels).to(device)
        with torch.random.fork_rng(devices=[]), in_eval_mode(model), knowing(model, self.surface):
            torch.default_generator.manual_seed(known.seed % 2**63)  # for a stochastic layer without a source
            adversarial = attack(model, x, y, draws)
        return adversarial.detach().to(self.images)

    def _take(self, returned: Tensor, alive: Tensor, stage: Stage, threat: Threat) -> None:
        """Keep what is inside the threat and worse for the model than what was known."""
        allowed = threat.allows(self.images[alive], returned)
        if not allowed.all():
            self._doubt(outside_threat(stage.name, int((~allowed).sum()), len(alive)))
        rows, returned = alive[allowed], returned[allowed]
        if not len(rows):
            return
        choosing = self.scorer.scores(returned, rows, f"choose/{stage.id}/{threat.eps}")
        known = self.choosing.select(rows)
        is_worse = choosing.probability < known.probability
        is_worse |= (choosing.probability == known.probability) & (choosing.margin < known.margin)
        rows, returned = rows[is_worse], returned[is_worse]
        if not len(rows):
            return
        self.adversarials[rows] = returned
        chosen = choosing.select(is_worse)
        self.choosing.put(rows, chosen)
        self.worst.put(rows, chosen if self._is_certain else self.scorer.scores(returned, rows, "report"))

    def _doubt(self, doubt: Doubt | None) -> None:
        if doubt is not None:
            self.doubts.append(doubt)

    def _figures(self) -> dict[str, float]:
        n, accuracy = len(self.images), self.worst.probability.double().mean().item()
        low, high = wilson_interval(accuracy * n, n)
        clean = self.clean.probability.double().mean().item()
        return {"clean_accuracy": clean, "robust_accuracy": accuracy, "ci_low": low, "ci_high": high}

    def _of_each_example(self, threat: Threat) -> dict[str, Any]:
        distance = threat.distance(self.images.double(), self.adversarials.double())
        return {
            "example_id": self.scorer.draws.example_ids.numpy(),
            "label": self.scorer.labels.numpy(),
            "clean_prediction": self.clean.prediction.numpy(),
            "adversarial_prediction": self.worst.prediction.numpy(),
            "robust": self.robust.numpy(),
            "robust_probability": float("nan") if self._is_certain else self.worst.probability.double().numpy(),
            "distance": distance.masked_fill(self.robust, float("nan")).numpy(),
            "margin": self.worst.margin.double().numpy(),
        }


def _per_example(passes: Passes, attacked: int) -> dict[str, float]:
    return {
        "forward_passes": passes.forward / max(attacked, 1),
        "backward_passes": passes.backward / max(attacked, 1),
    }
