"""What an attacker who knows the prototypes follows: how near hidden features are to each class's."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from attacks.feature_pgd import GUIDE
from defenses.conformity import Prototypes
from defenses.features import Place, reading
from defenses.inputs.front import standing_in


class NearestPrototype(nn.Module):
    """Minus the distances of a model's features to the attracting prototypes, summed over the stages, as scores."""

    def __init__(self, model: nn.Module, places: Sequence[Place], prototypes: Prototypes, distance: str) -> None:
        super().__init__()
        self.model, self.prototypes = model, prototypes
        self.places, self.distance = list(places), distance

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K]"""
        with reading(self.model, self.places) as features, standing_in(self.model):
            logits: Tensor = self.model(x)
        self.prototypes.to(x.device)
        scores = self.prototypes.scores([features[place] for place in self.places], self.distance)
        return scores + 0 * logits  # the gradient passes the logits too, where backward passes are counted


def put_beside(model: nn.Module, guide: nn.Module) -> nn.Module:
    """The model with `guide` as an attribute that is no part of it: neither of its state nor of its parameters."""
    guide.eval().requires_grad_(False)
    object.__setattr__(model, GUIDE, guide)
    return model
