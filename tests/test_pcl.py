"""What pcl promises beyond the contract: its loss, its prototypes' steps, its two stages."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from test_defenses_contract import COUNT, digits, equal, pictures, train
from test_out_of_memory import Narrow, plugin
from torch import Tensor
from torch.nn import functional as F

from attacks.draws import Draws
from attacks.feature_pgd import FeaturePGD
from attacks.fgsm import FGSM
from attacks.losses import LOSSES
from attacks.pgd import PGD
from attacks.threat import Threat
from defenses import PCL, Standard, Training
from defenses.adversarial import Adversarial
from defenses.networks import ConvNet, LeNet, Mlp, Network, ResNet
from defenses.state import tensors
from orchestrator.passes import counted

STILL = Training(epochs=1, batch_size=COUNT, lr=1e-30, weight_decay=0.0)
ATTACKED = Adversarial(PGD(3, keep="last"), share=0.5, eps=(0.02, 0.05))
CODE: dict[str, Any] = {"distance": "squared", "prototypes": "separate", "apart": 0.0, "separation": 1e-4, "branch": 0}
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {"branch": 5, "stages": 3},
    "code": {**CODE, "proximity": 0.01},
    "warm-up": {"branch": 0, "proximity": 0.1, "cross_entropy_epochs": 2},
    "attacked": {**CODE, "proximity": 0.01},
    "all at once": {**CODE, "proximity": 0.01, "branch": 3, "apart": 0.5},
    "proximity alone": {**CODE, "proximity": 0.01, "separation": 0.0},
    "separation alone": {"proximity": 0.0, "separation": 1e-3, "branch": 0},
}
VARIANT = pytest.mark.parametrize("name", VARIANTS)


def variant(name: str) -> tuple[PCL, Adversarial | None]:
    return PCL(**VARIANTS[name]), ATTACKED if name == "attacked" else None


def hidden(weights: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The layers of an `Mlp((7, 5))`, written out: what enters its second and third layer, and the logits."""
    x = ((x - weights["0.mean"]) / weights["0.std"]).flatten(1)
    first = (x @ weights["2.weight"].T + weights["2.bias"]).relu()
    second = (first @ weights["4.weight"].T + weights["4.bias"]).relu()
    return [first, second, second @ weights["6.weight"].T + weights["6.bias"]]


WRITTEN = [CODE, {}, {"apart": 0.7, "separation": 0.2, "prototypes": "separate"}, {"stages": 1}]


@pytest.mark.parametrize("settings", WRITTEN)
def test_the_loss_is_cross_entropy_plus_the_papers_sum_written_out(settings: dict[str, Any]) -> None:
    """Over one batch at rates of ~0, example by example and class by class."""
    defense = PCL(**settings | {"branch": 0}, prototype_lr=1e-30, repelling_lr=1e-30)
    data = pictures()
    (epoch,) = train(defense, data, STILL, network=Mlp((7, 5)))
    *features, logits = hidden(tensors(epoch.state, "model"), data.images / 255)
    found = tensors(epoch.state, "prototypes")
    total = F.cross_entropy(logits, data.labels, reduction="sum")
    for stage, each in enumerate(features[-defense.stages :]):
        w = found[f"attracting.{stage}"]
        v = found.get(f"repelling.{stage}", w)
        power = 1 if defense.distance == "l2" else 2
        for f, y in zip(each, data.labels, strict=True):
            total += defense.proximity * (f - w[y]).norm() ** power
            for j in {0, 1, 2} - {int(y)}:
                far = (f - v[j]).norm() ** power + defense.apart * (w[y] - w[j]).norm() ** power
                total -= defense.separation * far / 2
    assert epoch.loss == pytest.approx(float(total) / COUNT, rel=1e-5)


@pytest.mark.parametrize("proximity", [0.01, 1.0, 7.0])
@pytest.mark.parametrize("separation", [1e-4, 0.3])
def test_prototypes_step_by_their_own_rates_whatever_the_weights(proximity: float, separation: float) -> None:
    """By hand: the mean of d^2 over a batch pulls w_c to its class by 2 lr / B for each member, and pushes v_c from
    the members of each other class by 2 lr / (B (K - 1)).
    """
    settings = CODE | {"proximity": proximity, "separation": separation, "stages": 1}
    start = PCL(**settings, prototype_lr=1e-30, repelling_lr=1e-30)
    defense = PCL(**settings, prototype_lr=0.3, repelling_lr=0.2)
    data, network = pictures(), Mlp((7, 5))
    before, after = (train(each, data, STILL, network=network)[0].state for each in (start, defense))
    features = hidden(tensors(before, "model"), data.images / 255)[1]
    for c in range(3):
        mine = data.labels == c
        w, v = (tensors(before, "prototypes")[f"{kind}.0"][c] for kind in ("attracting", "repelling"))
        pulled = w + 0.3 * 2 / COUNT * (features[mine] - w).sum(0)
        pushed = v + 0.2 * 2 / (COUNT * 2) * (v - features[~mine]).sum(0)
        torch.testing.assert_close(tensors(after, "prototypes")["attracting.0"][c], pulled)
        torch.testing.assert_close(tensors(after, "prototypes")["repelling.0"][c], pushed)


def test_shared_prototypes_step_by_the_larger_weight() -> None:
    """Both weights times ten: ten times the loss on features, the same step of the prototypes."""
    found = []
    for times in (1.0, 10.0):
        defense = PCL(proximity=0.2 * times, separation=0.1 * times)
        state = train(defense, pictures(), STILL, network=Mlp((7, 5)))[0].state
        found.append(tensors(state, "prototypes")["attracting.1"])
    torch.testing.assert_close(*found)


def test_gathers_each_class_round_its_own_prototype() -> None:
    """The spread within a class over the distance between classes: seeds 0 to 3 gave 0.007 and 0.07 to 0.11."""
    data, network = pictures(), Mlp((16, 8))
    spread = {}
    for name, defense in {"pcl": PCL(**CODE | {"proximity": 0.5}), "standard": Standard()}.items():
        training = Training(epochs=30, batch_size=20, lr=0.05)
        state = train(defense, data, training, network=network)[-1].state
        weights = tensors(state, "model")
        features = hidden(weights, data.images / 255)[1]
        centres = torch.stack([features[data.labels == c].mean(0) for c in range(3)])
        within = (features - centres[data.labels]).norm(dim=1).mean()
        spread[name] = float(within / torch.pdist(centres).mean())
    assert spread["pcl"] < 0.3 * spread["standard"]


def test_until_the_cross_entropy_epochs_are_over_it_is_standard_training() -> None:
    defense, data, training = PCL(cross_entropy_epochs=2), pictures(), Training(epochs=4, batch_size=20)
    ours, theirs = (train(each, data, training, network=Mlp((7, 5))) for each in (defense, Standard()))
    assert defense.ready_epoch == 2
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        assert mine.loss == other.loss
        assert all(torch.equal(mine.state[key], value) for key, value in other.state.items() if key[:5] == "model")
    assert abs(ours[2].loss - theirs[2].loss) > 0.1
    still, moved = (tensors(ours[epoch].state, "prototypes") for epoch in (1, 2))
    first = tensors(ours[0].state, "prototypes")
    assert all(torch.equal(first[key], still[key]) for key in first)
    assert not any(torch.equal(first[key], moved[key]) for key in first)


def test_without_prototypes_a_rung_says_something_from_the_start() -> None:
    assert PCL(proximity=0.0, separation=0.0, cross_entropy_epochs=5).ready_epoch == 0
    assert PCL(proximity=0.0, separation=1e-3, cross_entropy_epochs=5).ready_epoch == 5


@VARIANT
def test_every_variant_resumes_to_the_bit(name: str) -> None:
    """Also in the epoch at which the prototypes begin."""
    (defense, adversarial), data = variant(name), pictures()
    training = Training(
        epochs=4, batch_size=20, lr=0.01, optimizer="adam" if defense.branch else "sgd", clip=5.0, ema=0.5,
        augment="crop", adversarial=adversarial,
    )  # fmt: skip
    straight = train(defense, data, training)
    for done in (1, 2, 3):
        resumed = train(defense, data, training, straight[done - 1].state)
        assert all(equal(a.state, b.state) for a, b in zip(straight[done:], resumed, strict=True))


@VARIANT
def test_every_variant_trains_in_parts_as_on_whole_batches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    defense, adversarial = variant(name)
    training, data = Training(epochs=3, batch_size=20, lr=0.02, adversarial=adversarial), pictures()
    network, found = plugin(monkeypatch, Narrow), []
    for most in (10**9, 10):
        monkeypatch.setattr(Narrow, "most", most)
        found.append(train(defense, data, training, network=network)[-1])
    assert [epoch.microbatches for epoch in found] == [1, 2]
    assert found[1].loss == pytest.approx(found[0].loss, rel=1e-4)
    for prefix in ("model", "prototypes"):
        for key, value in tensors(found[0].state, prefix).items():
            torch.testing.assert_close(tensors(found[1].state, prefix)[key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("network", [Mlp((7, 5)), Mlp((7,)), LeNet(), ConvNet(), ResNet(8, 2)], ids=lambda n: n.name)
def test_only_the_network_is_deployed(network: Network) -> None:
    """Neither prototypes nor branches nor hooks; the same keys as a standard network's."""
    training = Training(epochs=1, batch_size=20, lr=0.01)
    defense = PCL(branch=6, stages=3)
    states = [train(each, pictures(), training, network=network)[0].state for each in (defense, Standard())]
    assert any(key.startswith("prototypes.branches.") for key in states[0])
    ours, theirs = (defense.deployed(state) for state in states)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in ours.modules())


def test_named_layers_are_supervised_instead_of_stages() -> None:
    training, network = Training(epochs=1, batch_size=20, lr=0.01), ResNet(8, 2)
    state = train(PCL(layers=["stage1", "stage2"], branch=0), pictures(), training, network=network)[0].state
    assert [len(tensors(state, "prototypes")[f"attracting.{stage}"][0]) for stage in (0, 1)] == [2, 4]


def test_prototypes_learn_from_attacked_images_as_the_weights_do() -> None:
    """All of a batch attacked, by hand: what gathers round the prototypes are the features of attacked images."""
    data, threat = pictures(), Threat("linf", 0.2)
    training = dataclasses.replace(STILL, threat=threat, adversarial=Adversarial(FGSM()))
    settings = CODE | {"stages": 1, "prototype_lr": 0.3}
    (epoch,) = train(PCL(**settings), data, training, network=Mlp((7, 5)))
    weights = tensors(epoch.state, "model")
    model = PCL(**settings).deployed(epoch.state)
    attacked = FGSM()(model, data.images / 255, data.labels, threat, Draws(0, torch.arange(COUNT)))
    features = hidden(weights, attacked)[1]
    start = train(PCL(**settings | {"prototype_lr": 1e-30}), data, training, network=Mlp((7, 5)))[0].state
    for c in range(3):
        w = tensors(start, "prototypes")["attracting.0"][c]
        pulled = w + 0.3 * 2 / COUNT * (features[data.labels == c] - w).sum(0)
        torch.testing.assert_close(tensors(epoch.state, "prototypes")["attracting.0"][c], pulled)


@pytest.mark.parametrize("settings", [CODE, {"branch": 4}], ids=["code", "branches"])
def test_the_guide_beside_the_model_gives_minus_the_distances_to_its_prototypes(settings: dict[str, Any]) -> None:
    defense, data = PCL(**settings), pictures()
    state = train(defense, data, Training(epochs=1, batch_size=20, lr=0.01), network=Mlp((7, 5)))[0].state
    model, x, found = defense.deployed(state), data.images / 255, tensors(state, "prototypes")
    expected = torch.zeros(COUNT, 3)
    for stage, features in enumerate(hidden(tensors(state, "model"), x)[:2]):
        if defense.branch:
            features = features @ found[f"branches.{stage}.weight"].T + found[f"branches.{stage}.bias"]
        each = (features[:, None] - found[f"attracting.{stage}"]).norm(dim=2)
        expected -= each if defense.distance == "l2" else each.square()
    torch.testing.assert_close(model.feature_guide(x), expected)
    assert not hasattr(Standard().deployed(state), "feature_guide")
    assert not any("guide" in name or "attracting" in name for name, _ in model.named_modules())


def test_the_feature_space_attack_brings_features_to_another_prototype() -> None:
    defense, data = PCL(**CODE | {"proximity": 0.5}), pictures()
    state = train(defense, data, Training(epochs=30, batch_size=20, lr=0.05), network=Mlp((16, 8)))[-1].state
    model, x, y, draws = defense.deployed(state), data.images / 255, data.labels, Draws(0, torch.arange(COUNT))
    with counted(model) as passes:
        attacked = FeaturePGD(steps=20)(model, x, y, Threat("linf", 0.3), draws)
    assert COUNT < passes.backward <= 20 * COUNT  # although the gradient comes from the features
    assert (model(x).argmax(1) == y).float().mean() > 0.9
    assert (model(attacked).argmax(1) == y).float().mean() < 0.1
    assert (model.feature_guide(x).argmax(1) == y).float().mean() > 0.9
    assert (model.feature_guide(attacked).argmax(1) == y).float().mean() < 0.4  # an image leaves once the model errs


def test_its_surface_has_losses_that_do_not_flatten_where_its_logits_are_large() -> None:
    """At logits of thousands cross-entropy has no gradient at all; each of the first three has."""
    losses = PCL().surface().losses
    assert set(losses) == {"margin", "dlr", "scaled_cross_entropy", "cross_entropy"}
    logits, y = torch.tensor([[9000.0, 4000.0, 1000.0, 0.0]]).requires_grad_(), torch.tensor([0])
    has_gradient = [
        bool(torch.autograd.grad(LOSSES[name](logits, y).sum(), logits)[0].abs().sum() > 0) for name in losses
    ]
    assert has_gradient == [True, True, True, False]


def test_hides_its_gradient_from_cross_entropy_but_not_from_its_surface() -> None:
    """Digits, 300 images, seeds 0 and 1: 0.72 to 0.83 under PGD with cross-entropy, 0.26 to 0.28 with the surface's
    first loss, 0.24 to 0.30 along the features.
    """
    data, x, y = digits()
    defense, training = PCL(branch=0), Training(epochs=40, batch_size=64, lr=0.1)
    model = defense.deployed(train(defense, data, training, network=Mlp((128, 128)))[-1].state)
    threat, draws, left = Threat("linf", 0.15), Draws(0, torch.arange(len(x))), {}
    attacks = {"plain": PGD(20), "scaled": PGD(20, loss=defense.surface().losses[0]), "features": FeaturePGD(20)}
    for name, attack in attacks.items():
        left[name] = float((model(attack(model, x, y, threat, draws)).argmax(1) == y).float().mean())
    assert left["plain"] > 0.6
    assert max(left["scaled"], left["features"]) < 0.4


def test_prototypes_that_would_never_be_trained_are_refused() -> None:
    message = r"^cross_entropy_epochs: must be below training\.epochs 3, or nothing but .* is trained, got 3$"
    with pytest.raises(ValueError, match=message):
        train(PCL(cross_entropy_epochs=3), pictures())


def test_a_layer_the_network_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^layers: must be modules of the network: .*; got 'stage7'"):
        train(PCL(layers=["stage7"]), pictures())


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("proximity", -1.0, "finite and >= 0"),
        ("separation", float("nan"), "finite and >= 0"),
        ("apart", float("inf"), "finite and >= 0"),
        ("distance", "cosine", "one of squared, l2"),
        ("prototypes", "none", "one of separate, shared"),
        ("prototype_lr", 0.0, "finite and > 0"),
        ("repelling_lr", -0.1, "finite and > 0"),
        ("prototype_scale", 0, "finite and > 0"),
        ("stages", 0, "an integer >= 1"),
        ("branch", -1, "an integer >= 0"),
        ("branch", 2.5, "an integer >= 0"),
        ("cross_entropy_epochs", -1, "an integer >= 0"),
    ],
)
def test_refuses_a_setting_out_of_range(field: str, value: Any, allowed: str) -> None:
    seen = repr(value).replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(ValueError, match=rf"^{field}: must be {allowed}, got {seen}$"):
        PCL(**{field: value})


def test_its_settings_pass_through_a_spec() -> None:
    from orchestrator.build import make, normalised
    from orchestrator.tables import all_tables

    block = {"name": "pcl", "layers": ["2"], "proximity": "1/2"}
    values = normalised(all_tables().defenses, block)
    assert json.loads(json.dumps(values)) == values
    made = make(all_tables().defenses, values)
    assert made == PCL(layers=("2",), proximity=0.5)
