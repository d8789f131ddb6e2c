"""WNLL: scores are interpolated between the labels of templates instead of computed by a linear layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks.checks import at_least, one_of, positive
from attacks.draws import Draws
from attacks.surface import Surface
from defenses.data import Data
from defenses.fit import Batch, Loss, TrainingDiverged, descend, fit
from defenses.interpolation.buffered import Buffered, buffered
from defenses.interpolation.classifier import MODES, Drawing, Interpolating, Smooth
from defenses.interpolation.graph import WEIGHTINGS
from defenses.interpolation.stage import InterpolatedStage, frozen, in_parts
from defenses.interpolation.templates import SAMPLINGS, Neighbourhood, template_rows
from defenses.learner import Learner, new_learner, new_optimizer
from defenses.nearest_prototype import put_beside
from defenses.networks.registry import Network, build
from defenses.state import Epoch, State, tensors
from defenses.training import Training

USES = ("averaged", "drawn")
EOT_DRAWS = 20  # as many as AutoAttack takes of a randomised model
_USUAL_TEMPLATE = 1000


@dataclass(frozen=True)
class WNLL:
    """Class scores by weighted nonlocal interpolation over a graph of nearest neighbours in feature space.

    Wang, Lin, Yin, Zhu, Bertozzi, Osher 2018, arXiv 1809.08516. An image x is joined to the `k` images nearest to its
    features, with weights exp(-(d / sigma)^2) (`weighting: gaussian`; quartic, with a fourth power, is what the
    released code computes), sigma being x's distance to its neighbour of `sigma_rank`. Scores are harmonic on that
    graph and equal the labels at the templates: `templates` sets of `template` training images each (None: 1,000, or
    half of all where those are fewer), drawn at random, class by class (`sampling: balanced`), or all of them. What
    several templates say is averaged; `use: drawn` takes one per image and pass, as the authors draw anew between
    attack and test. `mode: inductive` solves for each image alone; in the paper's `transductive` the images of a batch
    are neighbours of each other, so that scores depend on the batch.

    Training is in `loops` of equal length. First everything learns by cross-entropy of a linear head; in the last
    `interpolation_epochs` of a loop (never its first) only the `buffer` linear layers before that head, by
    cross-entropy of the interpolated scores on a template of that epoch, with the linear head's gradient in place of
    theirs, at a rate of `interpolation_lr` times the training's over the number of the loop. The paper's: 2 loops,
    5 epochs, 0.5.

    Deployed is `features -> interpolation`: no linear layer. Raises ValueError for a field out of range.
    """

    name: ClassVar[str] = "wnll"
    uses_threat: ClassVar[bool] = False
    neutral: ClassVar[dict[str, Any] | None] = None
    ready_epoch: ClassVar[int] = 0

    k: int = 15
    sigma_rank: int = 8
    weighting: str = "gaussian"
    template: int | None = None
    templates: int = 1
    sampling: str = "random"
    use: str = "averaged"
    mode: str = "inductive"
    buffer: int = 1
    loops: int = 1
    interpolation_epochs: int = 1
    interpolation_lr: float = 0.5

    def __post_init__(self) -> None:
        for field, low in (("k", 1), ("templates", 1), ("buffer", 0), ("loops", 1), ("interpolation_epochs", 0)):
            at_least(field, getattr(self, field), low)
        at_least("sigma_rank", self.sigma_rank, 1)
        if self.sigma_rank > self.k:
            raise ValueError(f"sigma_rank: must be at most k, {self.k}, got {self.sigma_rank}")
        if self.template is not None:
            at_least("template", self.template, 2)
            self._refuse_many_neighbours(self.template)
        for field, known in (
            ("weighting", WEIGHTINGS), ("sampling", SAMPLINGS), ("use", USES), ("mode", MODES),
        ):  # fmt: skip
            one_of(field, getattr(self, field), known)
        positive("interpolation_lr", self.interpolation_lr)
        if self.sampling == "all" and (self.template is not None or self.templates > 1):
            raise ValueError("sampling: all is one template of all images; give neither template nor templates")
        if self.interpolation_epochs and not self.buffer:
            raise ValueError(
                f"interpolation_epochs: must be 0 where there is no buffer to train, got {self.interpolation_epochs}"
            )

    def fit(
        self, network: Network, data: Data, training: Training, draws: Draws, state: State | None = None
    ) -> Iterator[Epoch]:
        """Raises ValueError where the template is larger than the data, or not larger than `k`, or of one class; where
        there are more loops than epochs; for a network without layers."""
        if self.loops > training.epochs:
            raise ValueError(f"loops: must be at most training.epochs, {training.epochs}, got {self.loops}")
        size = self._template_size(len(data))
        deployed_rows = [template_rows(data, size, self.sampling, draws, number) for number in range(self.templates)]
        learner = new_learner(network, data, training, draws)
        model = buffered(learner.model, data.channels, data.size, self.buffer, draws)
        learner = Learner(learner.network, {"model": model}, {"model": new_optimizer(training, model.parameters())})
        stage = InterpolatedStage(
            model, data, draws.to(data.device), size, self.sampling, self.mode, self._neighbourhood
        )

        def loss(_model: nn.Module, batch: Batch) -> Tensor:
            if self._stage(batch.epoch, training.epochs)[1]:
                return stage.loss(batch)
            return F.cross_entropy(model(batch.x).float(), batch.y)

        epochs = fit(learner, loss, data, training, draws, state, self._step)
        return (self._with_templates(epoch, data, deployed_rows, training, draws) for epoch in epochs)

    def deployed(self, state: State) -> nn.Module:
        """Interpolation between the templates of the state. Beside it, for attackers (`feature_pgd`), a smooth one."""
        features, labels = state["templates.features"], state["templates.labels"]
        assert isinstance(features, Tensor)
        assert isinstance(labels, Tensor)
        kind = Drawing if self.use == "drawn" else Interpolating
        model = kind(
            self._network(state), features, labels, _number(state, "classes"), self._neighbourhood, self.mode
        ).to(features.device)
        model.eval().requires_grad_(False)
        return put_beside(model, Smooth(model))

    def surface(self) -> Surface:
        """The true gradient, losses that do not flatten where scores lie in [0, 1], and as many draws of a template as
        AutoAttack takes, where it is drawn."""
        return Surface(
            draws=EOT_DRAWS if self.use == "drawn" else 1,
            losses=("margin", "scaled_cross_entropy", "cross_entropy"),
        )

    @property
    def _neighbourhood(self) -> Neighbourhood:
        return Neighbourhood(self.k, self.sigma_rank, self.weighting)

    def _template_size(self, count: int) -> int:
        if self.sampling == "all":
            size = count
        else:
            size = min(_USUAL_TEMPLATE, count // 2) if self.template is None else self.template
        if size > count:
            raise ValueError(f"template: must be at most the number of training images, {count}, got {size}")
        self._refuse_many_neighbours(size)
        return size

    def _refuse_many_neighbours(self, size: int) -> None:
        if self.k >= size:
            raise ValueError(f"k: must be below the number of images in a template, {size}, got {self.k}")

    def _stage(self, epoch: int, epochs: int) -> tuple[int, bool]:
        """The loop that epoch number `epoch`, from 0, belongs to, from 0, and whether the buffer alone is trained."""
        starts = [loop * epochs // self.loops for loop in range(self.loops + 1)]
        loop = max(number for number, start in enumerate(starts[:-1]) if start <= epoch)
        begins = max(starts[loop] + 1, starts[loop + 1] - self.interpolation_epochs)
        return loop, epoch >= begins

    def _step(self, learner: Learner, loss: Loss, batch: Batch, training: Training) -> Tensor:
        loop, is_interpolated = self._stage(batch.epoch, training.epochs)
        if not is_interpolated:
            return descend(learner, loss, batch, training)
        for group in learner.optimizers["model"].param_groups:
            group["lr"] = self.interpolation_lr * training.lr / (loop + 1)
        assert isinstance(learner.model, Buffered)
        with frozen(learner.model.network):
            return descend(learner, loss, batch, training)

    def _with_templates(self, epoch: Epoch, data: Data, rows: list[Tensor], training: Training, draws: Draws) -> Epoch:
        """The epoch with the templates, as the deployed network sees them, in its state."""
        model = self._network(epoch.state)
        most = -(-min(training.batch_size, len(data)) // epoch.microbatches)
        source = draws.to(data.device).fork("deployed templates")
        features = torch.stack(
            [in_parts(model, model.features, data.images[each], source.select(each), most) for each in rows]
        )
        if not bool(torch.isfinite(features).all()):
            done = epoch.state["epoch"]
            raise TrainingDiverged(f"features of the templates are not finite: epoch {done}, after its last batch")
        labels = torch.stack([data.labels[each] for each in rows])
        return replace(epoch, state=epoch.state | {"templates.features": features, "templates.labels": labels})

    def _network(self, state: State) -> Buffered:
        """The network of a state as it is used, with its buffer."""
        description, weights = state["network"], tensors(state, "ema") or tensors(state, "model")
        assert isinstance(description, dict)
        made = build(description)
        model = buffered(made, _number(state, "channels"), _number(state, "size"), self.buffer)
        model.load_state_dict(weights)
        model.to(next(iter(weights.values())).device)
        return model.eval().requires_grad_(False)


def _number(state: State, key: str) -> int:
    description = state["network"]
    assert isinstance(description, dict)
    value = description[key]
    assert isinstance(value, int)
    return value
