"""Augmentation: windows and mirror images of the original, keyed by example."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.draws import Draws
from defenses.augment import AUGMENTATIONS, augment


def pictures(count: int, channels: int, size: int) -> Tensor:
    """No pixel is black, so that the border shows."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


def draws(count: int, seed: int = 0) -> Draws:
    return Draws(seed, torch.arange(count))


@pytest.mark.parametrize(("channels", "size", "border"), [(1, 8, 1), (3, 32, 4)])
def test_crop_is_one_of_all_windows_and_takes_each(channels: int, size: int, border: int) -> None:
    images = pictures(1500, channels, size)
    padded = F.pad(images, (border,) * 4)
    places = range(2 * border + 1)
    cropped = augment(images, "crop", draws(1500))
    matches = torch.stack(
        [(padded[:, :, i : i + size, j : j + size] == cropped).flatten(1).all(1) for i in places for j in places]
    )
    assert (matches.sum(0) == 1).all()
    assert matches.any(1).all()


def test_flip_mirrors_about_half() -> None:
    images = pictures(1000, 3, 8)
    flipped = augment(images, "flip", draws(1000))
    is_flipped = (flipped == images.flip(3)).flatten(1).all(1)
    is_same = (flipped == images).flatten(1).all(1)
    assert (is_flipped ^ is_same).all()
    assert 440 < int(is_flipped.sum()) < 560  # 3.8 standard deviations


def test_crop_and_flip_are_both_done_and_independent() -> None:
    images = pictures(1000, 1, 8)
    both = augment(images, "crop_flip", draws(1000))
    cropped, flipped = augment(images, "crop", draws(1000)), augment(images, "flip", draws(1000))
    is_flipped = (flipped == images.flip(3)).flatten(1).all(1)
    assert torch.equal(both, torch.where(is_flipped[:, None, None, None], cropped.flip(3), cropped))
    shifted_up = (cropped[:, :, 0] == 0).flatten(1).all(1)
    assert 0.25 < float(shifted_up[is_flipped].float().mean()) < 0.42  # a third of the windows start in the border


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_keyed_by_example_and_seed_whatever_the_batch(name: str) -> None:
    images, order = pictures(50, 3, 16), torch.randperm(50, generator=torch.Generator().manual_seed(1))
    original = images.clone()
    whole = augment(images, name, draws(50))
    part = augment(images[order[:7]], name, draws(50).select(order[:7]))
    assert torch.equal(whole[order[:7]], part)
    assert torch.equal(whole, augment(images, name, draws(50, seed=1))) == (name == "none")
    assert torch.equal(images, original)
    assert whole.dtype == torch.uint8
