"""What every network promises: logits of the right shape for images of its sizes, rebuilt from its description."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from defenses.networks.normalise import Normalise
from defenses.networks.registry import Network, build, describe
from defenses.seeding import seeded
from orchestrator.contracts.claim import Claim, must, over

SIZES = (8, 28, 32, 64)
CHANNELS = (1, 3)
_CPU = torch.device("cpu")


def refusal(network: Network, channels: int, size: int) -> str | None:
    """What the network says against images of this size; None where it takes them."""
    try:
        with seeded(0, _CPU), torch.no_grad():
            network(channels, size, 7).eval()(torch.zeros(2, channels, size, size))
    except (RuntimeError, ValueError) as error:
        return str(error).splitlines()[0]
    return None


def takes_every_size_and_every_pixel_counts(network: Network, channels: int, size: int) -> None:
    """At a random start some logit depends on each pixel of the middle, through every layer."""
    model = build(describe(network, channels, size, 7)).eval()
    x = images(2, channels, size, 0).requires_grad_()
    logits = model(x)
    must(logits.shape == (2, 7), f"2 images of 7 classes give {list(logits.shape)}")
    must(torch.isfinite(logits).all(), "a logit is not finite")
    (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    middle = gradient[:, :, size // 4 : -size // 4, size // 4 : -size // 4]
    share = float((middle != 0).float().mean())
    must(share > 0.5, f"{1 - share:.0%} of the pixels in the middle change no logit")


def every_parameter_gets_a_gradient_and_the_image_is_left_alone(network: Network, size: int = 32) -> None:
    model = build(describe(network, 3, size, 5), 1).train()
    x = images(8, 3, size, 2)
    before = x.clone()
    with seeded(3, _CPU):
        nn.functional.cross_entropy(model(x), torch.arange(8) % 5).backward()  # type: ignore[no-untyped-call]
    must(torch.equal(x, before), "the image was changed: an operation in place on the input")
    without = [key for key, each in model.named_parameters() if each.grad is None or not each.grad.any()]
    must(not without, f"no gradient reaches {', '.join(without)}")


def the_layout_in_memory_changes_no_logit(network: Network, size: int = 32) -> None:
    model = build(describe(network, 3, size, 5), 1).eval()
    x = images(3, 3, size, 2)
    with seeded(0, _CPU):
        plain = network(3, size, 5).eval()
    plain.load_state_dict(model.state_dict())
    apart = float((plain(x) - model(x.to(memory_format=torch.channels_last))).detach().abs().max())
    must(apart < 1e-4, f"with channels last, in which training stores images, a logit differs by {apart:.2g}")


def shapes_are_known_without_numbers(network: Network, channels: int, size: int) -> None:
    with torch.device("meta"):
        made = network(channels, size, 6)
    seen = made(torch.empty(2, channels, size, size, device="meta")).shape
    must(seen == (2, 6), f"on the device meta 2 images of 6 classes give {list(seen)}")
    devices = {parameter.device.type for parameter in made.parameters()}
    must(devices == {"meta"}, f"parameters lie on {', '.join(sorted(devices))}, though the device meta was asked for")


def starts_at_a_loss_near_that_of_a_guess(network: Network, size: int = 32) -> None:
    """A start at which logits are huge, or all the same, trains badly or not at all."""
    model = build(describe(network, 3, size, 10), 4).train()
    x = images(64, 3, size, 5)
    logits = model((x - 0.5) / 0.29)
    loss = float(nn.functional.cross_entropy(logits, torch.arange(64) % 10).detach())
    must(2.0 < loss < 4.0, f"the loss of a random start is {loss:.2f}; that of a guess is 2.30")
    spread = float(logits.std(0).mean().detach())
    must(spread > 1e-3, f"the logits of different images differ by {spread:.1e} only")


def normalises_first(network: Network, size: int = 8) -> None:
    """Logits of x after setting (mean, std) are those of (x - mean) / std before."""
    model = build(describe(network, 3, size, 4)).eval()
    x = images(5, 3, size, 1)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.1])
    before = model((x - mean[:, None, None]) / std[:, None, None])
    first = next((module for module in model.modules() if not list(module.children())), None)
    said = type(first).__name__
    must(isinstance(first, Normalise), f"its first layer is {said}, not defenses.networks.normalise.Normalise")
    assert isinstance(first, Normalise)
    first.set(mean, std)
    after = model(x)
    apart = float((after - before).detach().abs().max())
    is_close = torch.allclose(after, before, atol=1e-5)
    must(is_close, f"something is done to images before they are normalised: a logit differs by {apart:.2g}")


def description_survives_json_and_rebuilds(network: Network, size: int = 16) -> None:
    description = describe(network, 3, size, 11)
    again = json.loads(json.dumps(description))
    must(again == description, f"{description} is {again} after JSON")
    one, other = build(description, 5), build(again, 5)
    must(one.state_dict().keys() == other.state_dict().keys(), "built twice it has other parts")
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    must(all(torch.equal(a, b) for a, b in pairs), "built twice from one seed it has other weights")


def images(count: int, channels: int, size: int, seed: int) -> Tensor:
    """In [0, 1], [count, channels, size, size]."""
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


CLAIMS = (
    Claim(takes_every_size_and_every_pixel_counts, over(channels=CHANNELS, size=SIZES)),
    Claim(every_parameter_gets_a_gradient_and_the_image_is_left_alone, over(size=SIZES)),
    Claim(the_layout_in_memory_changes_no_logit, over(size=SIZES)),
    Claim(description_survives_json_and_rebuilds, over(size=SIZES)),
    Claim(normalises_first, over(size=SIZES), is_law=False),
    Claim(starts_at_a_loss_near_that_of_a_guess, over(size=SIZES), is_law=False),
    Claim(shapes_are_known_without_numbers, over(channels=CHANNELS, size=SIZES), is_law=False),
)
