"""What a model says of images: in fp32, over fresh draws where it is stochastic."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.losses import margin
from attacks.sources import drawing, is_stochastic
from orchestrator.batching import Batching
from orchestrator.judged_inputs import check_finite, check_logits

STOCHASTIC_PASSES = 10  # fresh draws behind each robust_probability


@dataclass
class Scores:
    """What the model says of some images; for a stochastic model over several passes."""

    prediction: Tensor  # int64 [n]
    margin: Tensor  # [n], true logit minus best other
    probability: Tensor  # [n], share of passes that were right

    def select(self, index: Tensor) -> Scores:
        return Scores(self.prediction[index], self.margin[index], self.probability[index])

    def put(self, index: Tensor, scores: Scores) -> None:
        self.prediction[index], self.margin[index], self.probability[index] = (
            scores.prediction, scores.margin, scores.probability,
        )  # fmt: skip


class Scorer:
    """A model in eval mode and the `labels` [n] of the examples it is asked about; `draws` are theirs.

    `passes` over the same images are averaged: one, unless the model is stochastic: as its layers say, or as its first
    two answers show.
    """

    def __init__(self, model: nn.Module, labels: Tensor, draws: Draws, batch_size: int) -> None:
        self.model, self.labels, self.draws = model, labels, draws
        self.device = next((tensor.device for tensor in model.parameters()), labels.device)
        self.batching = Batching(batch_size, self.device)
        self.passes = STOCHASTIC_PASSES if is_stochastic(model) else 1

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The logits [m, K] of a first batch of all the images, and those of a second look at it.

        Raises ValueError where they are no logits for the labels. For a model known to be stochastic, one look twice.
        """

        def twice(rows: Tensor) -> tuple[Tensor, Tensor]:
            x = images[rows].to(self.device)
            with drawing(self.model, self.draws.select(rows).fork("look").to(self.device)):
                logits = self.model(x)
                check_logits(logits, self.labels, len(x))
                return logits, self.model(x) if self.passes == 1 else logits

        logits, again = self.batching.each(torch.arange(min(len(images), self.batching.size)), twice)[0]
        if not torch.equal(logits, again):
            self.passes = STOCHASTIC_PASSES
        return logits, again

    @torch.no_grad()
    def scores(self, images: Tensor, rows: Tensor, purpose: str) -> Scores:
        """Judge images [m, C, H, W] of the examples `rows` [m], on draws that belong to `purpose`."""

        def scored(here: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x, y = images[here].to(self.device).float(), self.labels[rows[here]].to(self.device)
            return self._batch(x, y, self.draws.select(rows[here]).fork(purpose).to(self.device))

        parts = self.batching.each(torch.arange(len(rows)), scored)
        prediction, gap, probability = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
        return Scores(prediction, gap, probability)

    def _batch(self, x: Tensor, y: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        total, right = torch.zeros(()), torch.zeros(len(x), device=x.device)
        for turn in range(self.passes):
            with drawing(self.model, draws.fork(turn)):
                logits = self.model(x).float()
            check_finite(logits)
            right += (logits.argmax(1) == y).float()
            total = total.to(x.device) + (logits if self.passes == 1 else logits.log_softmax(1).exp())
        return total.argmax(1), -margin(total / self.passes, y), right / self.passes
