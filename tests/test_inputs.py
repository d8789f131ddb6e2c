"""Claims about transforms in front of a network: every one in the table, and every defense behind them."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest
import torch
from test_defenses_contract import COUNT, THREAT, equal, pictures, train
from test_out_of_memory import Narrow, plugin
from torch import Tensor, nn

from attacks.draws import Draws
from attacks.fgsm import FGSM
from attacks.queries import querying
from attacks.sources import drawing, is_stochastic, stochastic_layers
from attacks.surface import Surface
from defenses import DEFENSES, INPUTS, PCL, Learn2Perturb, Standard, Training
from defenses.adversarial import Adversarial
from defenses.inputs import Gaussian, PixelDrop, Quantise, RandomResizePad
from defenses.inputs.front import Front, Fronted, known, standing_in
from defenses.inputs.registry import described, rebuilt
from defenses.networks import Mlp, ResNet
from defenses.state import network_of, tensors

NAME = pytest.mark.parametrize("name", list(INPUTS))
DEFENSE = pytest.mark.parametrize("name", list(DEFENSES))
IDS = torch.arange(6)
ALL = tuple(INPUTS[name]() for name in INPUTS)
SHORT = Training(epochs=1, batch_size=20, lr=0.05, threat=THREAT)


def images(channels: int = 3, size: int = 8) -> Tensor:
    return torch.rand(6, channels, size, size, generator=torch.Generator().manual_seed(0))


def look(transform: nn.Module, x: Tensor, draws: Draws) -> Tensor:
    with drawing(transform, draws):
        found: Tensor = transform(x)
    return found


@NAME
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 12)])
def test_gives_images_of_the_same_shape_in_the_box(name: str, channels: int, size: int) -> None:
    x = images(channels, size)
    before, kept = torch.get_rng_state(), x.clone()
    transformed = look(INPUTS[name]()(channels, size), x, Draws(0, IDS))
    assert transformed.shape == x.shape
    assert transformed.dtype == x.dtype
    assert 0 <= transformed.min() <= transformed.max() <= 1
    assert not torch.equal(transformed, x)
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), before)


@NAME
def test_what_an_image_becomes_depends_on_it_and_its_draws_alone(name: str) -> None:
    transform, x, draws = INPUTS[name]()(3, 8), images(), Draws(0, IDS)
    whole, rows = look(transform, x, draws), torch.tensor([4, 1])
    assert torch.equal(look(transform, x[rows], draws.select(rows)), whole[rows])
    assert torch.equal(look(transform, x, draws), whole)


@NAME
def test_its_surface_says_how_to_attack_it(name: str) -> None:
    """Stochastic where several draws are asked for; a gradient of its own, or a stand-in that has one."""
    made = INPUTS[name]()
    transform, surface, x = made(3, 8), made.surface(), images().requires_grad_()
    assert is_stochastic(transform) == (surface.draws > 1)
    again = [look(transform, x, Draws(seed, IDS)) for seed in (0, 1)]
    assert torch.equal(*again) != (surface.draws > 1)
    followed = transform if surface.backward is None else surface.backward
    (gradient,) = torch.autograd.grad(followed(x).sum(), x)
    assert gradient.abs().sum() > 0


@NAME
def test_is_rebuilt_from_its_description_and_has_no_parameters(name: str) -> None:
    made = INPUTS[name]()
    assert INPUTS[name].name == name
    assert rebuilt(json.loads(json.dumps(described((made,))))) == (made,)
    assert not list(made(3, 8).parameters())
    assert not made(3, 8).state_dict()


def test_a_name_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^input: must be one of gaussian, .*, got 'tvm2'$"):
        rebuilt([{"name": "tvm2", "settings": {}}])


def test_gaussian_noise_has_its_deviation() -> None:
    x = torch.full((400, 1, 16, 16), 0.5)
    moved = look(Gaussian(0.05)(1, 16), x, Draws(0, torch.arange(400))) - x
    assert float(moved.std()) == pytest.approx(0.05, rel=0.02)
    assert abs(float(moved.mean())) < 0.001


def test_quantised_values_are_the_nearest_levels() -> None:
    """3 bits: sevenths. 0.5 is 3.5 sevenths, which goes to the even one."""
    x = torch.tensor([0.0, 0.05, 0.1, 0.5, 0.93, 1.0]).reshape(1, 1, 2, 3)
    expected = torch.tensor([0, 0, 1, 4, 7, 7]).reshape(1, 1, 2, 3) / 7
    assert torch.equal(Quantise(3)(1, 2)(x), expected)
    grey = torch.arange(256) / 255
    assert torch.allclose(Quantise(8)(1, 16)(grey.reshape(1, 1, 16, 16)).flatten(), grey)


def test_dropped_pixels_are_black_in_all_channels_and_the_others_stay() -> None:
    x = images(3, 8) + 0.1
    dropped = look(PixelDrop(0.3)(3, 8), x, Draws(0, IDS))
    is_black = dropped == 0
    assert torch.equal(is_black.any(1), is_black.all(1))
    assert torch.equal(dropped[~is_black], x[~is_black])
    many = look(PixelDrop(0.3)(1, 32), torch.ones(100, 1, 32, 32), Draws(0, torch.arange(100)))
    assert float((many == 0).float().mean()) == pytest.approx(0.3, abs=0.01)


def test_a_white_image_becomes_a_white_square_of_every_size_and_place() -> None:
    count, size = 600, 10
    found = look(RandomResizePad(0.7)(1, size), torch.ones(count, 1, size, size), Draws(0, torch.arange(count)))[:, 0]
    is_inside = found > 0.25
    sides, corners = set(), set()
    for rows in is_inside:
        down, across = rows.any(1).nonzero().flatten(), rows.any(0).nonzero().flatten()
        assert len(down) == len(across) == down[-1] - down[0] + 1
        assert rows.sum() == len(down) ** 2
        sides.add(len(down))
        corners |= {(int(down[0]), int(across[0]))} if len(down) == 7 else set()
    assert sides == {7, 8, 9, 10}
    assert corners == {(top, left) for top in range(4) for left in range(4)}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Gaussian, {"std": 0.0}, "std: must be finite and > 0, got 0.0"),
        (Quantise, {"bits": 9}, "bits: must be a whole number in 1..8, got 9"),
        (PixelDrop, {"share": 1.0}, r"share: must be in \(0, 1\), got 1.0"),
        (RandomResizePad, {"least": 1.2}, r"least: must be in \(0, 1\), got 1.2"),
    ],
)
def test_refuses_a_setting_out_of_range(kind: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        kind(**settings)


# Composition


@DEFENSE
def test_every_defense_trains_and_is_deployed_behind_all_of_them(name: str) -> None:
    """Its surface draws as often as the most of both, and its stand-in gives the model's logits with a gradient."""
    defense = DEFENSES[name]()
    (epoch,) = train(defense, pictures(), dataclasses.replace(SHORT, inputs=ALL), network=Mlp((9,)))
    assert json.loads(json.dumps(epoch.state["network"])) == epoch.state["network"]
    model = defense.deployed(epoch.state)
    surface, x, draws = known(defense.surface(), model), images(1), Draws(0, IDS)
    assert surface.draws == 20
    assert surface.losses == defense.surface().losses
    assert surface.backward is not None
    x.requires_grad_()
    with drawing(model, draws):
        logits, instead = model(x), surface.backward(x)
    assert torch.equal(logits, instead)
    (gradient,) = torch.autograd.grad(instead[:, 0].sum(), x)
    assert gradient.abs().sum() > 0
    assert torch.autograd.grad(logits[:, 0].sum(), x)[0].abs().sum() == 0  # behind quantise there is none


@DEFENSE
def test_every_defense_goes_on_from_the_middle_to_the_bit_behind_all_of_them(name: str) -> None:
    training = dataclasses.replace(SHORT, epochs=2, inputs=ALL)
    straight = train(DEFENSES[name](), pictures(), training, network=Mlp((9,)))
    torch.manual_seed(3)
    resumed = train(DEFENSES[name](), pictures(), training, straight[0].state, network=Mlp((9,)))
    assert equal(straight[1].state, resumed[0].state)
    assert not equal(
        straight[0].state, train(DEFENSES[name](), pictures(), training, network=Mlp((9,)), seed=1)[0].state
    )


def test_the_network_trains_on_the_transformed_images_of_its_draws() -> None:
    """By hand, in one batch at a rate of ~0."""
    training = dataclasses.replace(SHORT, batch_size=COUNT, lr=1e-30, inputs=(Gaussian(0.3),))
    data = pictures()
    (epoch,) = train(Standard(), data, training, network=Mlp((9,)))
    model = Standard().deployed(epoch.state)
    assert isinstance(model, Fronted)
    with drawing(model.front, Draws(0, torch.arange(COUNT)).fork("epoch", 0).fork("input")):
        logits = model(data.images.float() / 255)
    assert epoch.loss == pytest.approx(float(nn.functional.cross_entropy(logits, data.labels)), rel=1e-5)


def test_parts_of_a_batch_are_transformed_as_the_whole_is(monkeypatch: pytest.MonkeyPatch) -> None:
    adversarial = Adversarial(FGSM(), share=0.5)
    training = dataclasses.replace(SHORT, epochs=2, inputs=ALL, adversarial=adversarial)
    network, found = plugin(monkeypatch, Narrow), []
    for most in (10**9, 7):
        monkeypatch.setattr(Narrow, "most", most)
        found.append(train(Standard(), pictures(), training, network=network)[-1])
    assert [epoch.microbatches for epoch in found] == [1, 4]
    assert found[1].loss == pytest.approx(found[0].loss, rel=1e-5)
    for key, value in tensors(found[0].state, "model").items():
        torch.testing.assert_close(tensors(found[1].state, "model")[key], value)


def test_attacks_in_training_see_through_a_transform_without_gradient() -> None:
    """Quantised to the levels there are it is the identity, so that what is learned is the same, attacks and all."""
    data = pictures()
    adversarial = Adversarial(FGSM(), eps=1 / 255)  # of grey levels: stays on them
    plain = dataclasses.replace(SHORT, adversarial=adversarial)
    behind = dataclasses.replace(plain, inputs=(Quantise(8),))
    ours, theirs = (train(Standard(), data, training, network=Mlp((9,)))[0] for training in (behind, plain))
    for key, value in network_of(theirs.state).items():
        torch.testing.assert_close(network_of(ours.state)[key], value)
    (clean,) = train(Standard(), data, SHORT, network=Mlp((9,)))
    assert abs(clean.loss - theirs.loss) > 100 * abs(ours.loss - theirs.loss)


def test_the_stand_in_is_the_transforms_then_the_true_gradient_of_the_rest() -> None:
    """By hand: at the quantised image, the gradient of the network itself."""
    training = dataclasses.replace(SHORT, inputs=(Quantise(2),))
    model = Standard().deployed(train(Standard(), pictures(), training, network=Mlp((9,)))[0].state)
    assert isinstance(model, Fronted)
    surface, x = known(Surface(), model), images(1).requires_grad_()
    assert surface.backward is not None
    (ours,) = torch.autograd.grad(surface.backward(x)[:, 0].sum(), x)
    quantised = model.front(x.detach()).requires_grad_()
    (theirs,) = torch.autograd.grad(model.network(quantised)[:, 0].sum(), quantised)
    assert torch.equal(ours, theirs)
    with standing_in(model), querying(model) as queries:
        gradient, _ = queries.gradient(x, torch.zeros(6).long(), lambda logits, _: logits[:, 0], Draws(0, IDS))
    assert torch.equal(gradient, theirs)
    assert not model.front.stands_in


def test_a_stand_in_of_the_defenses_own_comes_behind_that_of_the_transform() -> None:
    front = Front((Quantise(1),), 1, 8)
    model = Fronted(front, nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    own = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    surface, x = known(Surface(draws=3, backward=own), model), images(1).requires_grad_()
    assert surface.draws == 3
    assert surface.backward is not None
    assert torch.equal(surface.backward(x), own(front(x)))
    (gradient,) = torch.autograd.grad(surface.backward(x)[:, 0].sum(), x)
    assert torch.equal(gradient.flatten(1), own[1].weight[0].expand(6, 64))


def test_without_transforms_the_surface_is_the_defenses_own() -> None:
    surface = Surface(draws=7)
    assert known(surface, Mlp((5,))(1, 8, 3)) is surface


def test_transforms_with_a_gradient_need_no_stand_in() -> None:
    model = Fronted(Front((Gaussian(), PixelDrop()), 1, 8), Mlp((5,))(1, 8, 3))
    assert known(Surface(), model) == Surface(draws=20)


def test_without_a_source_each_pass_draws_anew() -> None:
    model, x = Fronted(Front((Gaussian(),), 1, 8), Mlp((5,))(1, 8, 3)), images(1)
    first, second = model(x), model(x)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], model(x[:1].expand(2, -1, -1, -1))[1])
    assert len(stochastic_layers(copy.deepcopy(model))) == 1


def test_defenses_find_the_layers_of_the_network_behind_transforms() -> None:
    network = ResNet(8, 2)
    behind, plain = dataclasses.replace(SHORT, inputs=(Quantise(8),)), SHORT
    pcl = PCL(layers=["stage1", "stage2"], branch=0)
    found = [train(pcl, pictures(), training, network=network)[0].state for training in (behind, plain)]
    for key, value in tensors(found[1], "prototypes").items():
        torch.testing.assert_close(tensors(found[0], "prototypes")[key], value, rtol=1e-4, atol=1e-6)
    noisy = Learn2Perturb(steps=1)
    found = [train(noisy, pictures(), training, network=network)[0].state for training in (behind, plain)]
    names = [{key.removeprefix("network/") for key in tensors(state, "noise")} for state in found]
    assert names[0] == names[1]
