"""The training loop that every defense shares: it gives the loss of a batch, the loop does the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from attacks.draws import Draws
from defenses.attacked import on_attacked
from defenses.augment import augment
from defenses.average import Average
from defenses.data import Data
from defenses.fronted import through
from defenses.inputs.front import front_of
from defenses.learner import Learner
from defenses.microbatches import Microbatches
from defenses.out_of_memory import TrainingOutOfMemory, is_out_of_memory, release
from defenses.seeding import seeded
from defenses.state import Epoch, State, is_finite, tensors, under
from defenses.training import Training

_BATCHES_PER_CHECK = 50  # looking at a loss makes the host wait for the device


class TrainingDiverged(ValueError):
    """The loss or the weights are no longer finite. Names epoch and batch, counted from 1."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Images `x` in [0, 1] [B, C, H, W], labels `y` [B], draws of these examples in this epoch.

    `epoch` and `number` (of the batch) count from 0. `is_attacked` [B] says which images `training.adversarial`
    attacks, None: all. A defense sees them attacked.
    """

    x: Tensor
    y: Tensor
    draws: Draws
    epoch: int
    number: int
    is_attacked: Tensor | None = None

    def select(self, rows: Tensor) -> Batch:
        """Some of its examples, with their own draws."""
        is_attacked = None if self.is_attacked is None else self.is_attacked[rows]
        return replace(self, x=self.x[rows], y=self.y[rows], draws=self.draws.select(rows), is_attacked=is_attacked)


Loss = Callable[[nn.Module, Batch], Tensor]
Step = Callable[[Learner, Loss, Batch, Training], Tensor]


def descend(learner: Learner, loss: Loss, batch: Batch, training: Training) -> Tensor:
    """One step of every optimizer down the gradient of `loss`. -> the loss before it, detached"""
    for optimizer in learner.optimizers.values():
        optimizer.zero_grad()
    with torch.autocast(batch.x.device.type, torch.bfloat16, training.precision == "bf16"):
        value = loss(learner.model, batch)
    torch.autograd.backward(value)
    if training.clip:
        torch.nn.utils.clip_grad_norm_(learner.parameters(), training.clip)
    for optimizer in learner.optimizers.values():
        optimizer.step()
    return value.detach()


def fit(
    learner: Learner,
    loss: Loss,
    data: Data,
    training: Training,
    draws: Draws,
    state: State | None = None,
    step: Step = descend,
) -> Iterator[Epoch]:
    """Trains `learner` for the epochs that `state` leaves of `training.epochs`, one Epoch each.

    Order, augmentation and the draws of a batch depend on (draws, epoch) alone, and layers that draw from
    torch's global generator are seeded the same way: training goes on from a state bit for bit as if it had
    never stopped. A defense whose step is more than a loss gives `step`.

    An epoch that runs out of memory is begun again, with batches in twice as many parts whose gradients are added up
    (`Microbatches` says where that is not the same; `Epoch.remarks` when it happened). The parts are in the state: they
    stay. For this `loss` is a mean over examples, and a `step` gets all its gradients of a batch from `loss`.

    Where `training.adversarial` is given, `loss` gets batches with attacked images, whatever the defense; where
    `training.inputs` are, the learner's network stands behind them (`new_learner`).

    Raises TrainingDiverged, TrainingOutOfMemory; ValueError when draws or state do not belong to data or network.
    """
    if len(draws.example_ids) != len(data):
        raise ValueError(f"draws: must have one example id per image, {len(data)}, got {len(draws.example_ids)}")
    if training.adversarial:
        training.adversarial.refuse_no_threat(training.threat)
        loss = on_attacked(loss, training.adversarial, training.threat)
    if front := front_of(learner.model):
        loss = through(loss, front)
    loop = _Loop(learner, loss, step, data, training, draws.to(data.device), Average(learner.model, training.ema))
    return loop.epochs(None if state is None else loop.restore(state))


@dataclass(frozen=True, eq=False)
class _Loop:
    learner: Learner
    loss: Loss
    step: Step
    data: Data
    training: Training
    draws: Draws
    average: Average

    def epochs(self, state: State | None) -> Iterator[Epoch]:
        reached = self._state(0, 1) if state is None else state
        for epoch in range(_whole(reached, "epoch"), self.training.epochs):
            mean_loss, parts = self._fitted(epoch, reached)
            reached = self._state(epoch + 1, parts.count)
            if not is_finite(reached):
                raise TrainingDiverged(f"weights are not finite: epoch {epoch + 1}, after its last batch")
            yield Epoch(mean_loss, self.learner.learning_rate, reached, parts.count, parts.remarks())

    def restore(self, state: State) -> State:
        """Go back, or on, to where `state` was yielded. -> the state"""
        self.learner.restore(state)
        self.average.restore(tensors(state, "ema"))
        return state

    def _fitted(self, epoch: int, before: State) -> tuple[float, Microbatches]:
        """One epoch from the state before it, begun again in smaller parts as often as it does not fit.

        Begun again as a whole: what a failed step left behind (half a gradient, moved statistics, draws taken from
        torch's generator) is nowhere, and an epoch is a function of the state and the number of parts.
        """
        whole = min(self.training.batch_size, len(self.data))
        parts = Microbatches.of(self.learner.modules.values(), whole, _whole(before, "microbatches", 1))
        while True:
            try:
                with seeded(self.draws.fork("layers", epoch).seed, self.data.device):
                    return self._train(epoch, parts), parts
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                said = str(error).splitlines()[0]
            parts = self._finer(
                parts, epoch, said
            )  # outside `except`, whose error holds on to the graph that did not fit
            self.restore(before)

    def _finer(self, parts: Microbatches, epoch: int, said: str) -> Microbatches:
        for optimizer in self.learner.optimizers.values():
            optimizer.zero_grad()
        release(self.data.device)
        if finer := parts.halved():
            return finer
        raise TrainingOutOfMemory(
            f"out of memory on {self.data.device} in epoch {epoch + 1}, with batches of {parts.whole} images in "
            f"{parts.count} parts of at most {parts.most}, which cannot be smaller: {said}"
        )

    def _train(self, epoch: int, parts: Microbatches) -> float:
        """-> the mean loss over the examples of one epoch."""
        batches = self._order(epoch)
        loss = parts.accumulated(self.loss, self.learner.parameters())
        draws = self.draws.fork("epoch", epoch)
        losses: list[Tensor] = []
        for number, index in enumerate(batches):
            self.learner.scale_rates(self.training.rate_factor(epoch, number, len(batches)))
            losses.append(self.step(self.learner, loss, self._batch(index, draws, epoch, number), self.training))
            self.average.follow(epoch * len(batches) + number)
            if len(losses) % _BATCHES_PER_CHECK == 0:
                _refuse_non_finite(losses, epoch)
        _refuse_non_finite(losses, epoch)
        sizes = torch.tensor([len(index) for index in batches], dtype=torch.float64)
        return float(torch.stack(losses).cpu().double() @ sizes / sizes.sum())

    def _order(self, epoch: int) -> tuple[Tensor, ...]:
        """Every row once, in batches; a last one of one row, on which batch norm fails, joins the one before."""
        order = torch.randperm(len(self.data), generator=self.draws.generator("order", epoch)).to(self.data.device)
        batches = torch.split(order, self.training.batch_size)
        if len(batches[-1]) > 1:
            return batches
        return *batches[:-2], order[-1 - self.training.batch_size :]

    def _batch(self, index: Tensor, draws: Draws, epoch: int, number: int) -> Batch:
        draws = draws.select(index)
        images = augment(self.data.images[index], self.training.augment, draws.fork("augment"))
        x = images.to(torch.float32, memory_format=torch.channels_last).div_(255)
        adversarial = self.training.adversarial
        is_attacked = adversarial.chosen(draws) if adversarial else None
        return Batch(x, self.data.labels[index], draws, epoch, number, is_attacked)

    def _state(self, done: int, microbatches: int) -> State:
        counts: State = {"epoch": done, "microbatches": microbatches}
        return self.learner.state() | under("ema", self.average.tensors.items()) | counts


def _whole(state: State, key: str, default: int | None = None) -> int:
    """A number of a state; `default` where the state is of a time before it was kept."""
    value = state.get(key, default)
    assert isinstance(value, int)
    return value


def _refuse_non_finite(losses: list[Tensor], epoch: int) -> None:
    """Looks at the last losses at once: the host waits for the device here and nowhere else."""
    start = (len(losses) - 1) // _BATCHES_PER_CHECK * _BATCHES_PER_CHECK
    is_bad = ~torch.isfinite(torch.stack(losses[start:])).cpu()
    if is_bad.any():
        batch = start + int(is_bad.int().argmax()) + 1
        raise TrainingDiverged(f"loss is not finite: epoch {epoch + 1}, batch {batch}")
