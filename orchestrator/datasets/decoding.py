"""Encoded images to pixels: one image, and many at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from orchestrator.datasets.dataset import Images
from orchestrator.errors import UserError

GREY, COLOUR = ("1", "L", "LA"), ("P", "RGB", "RGBA", "CMYK", "YCbCr")
MOST_THREADS = 16
BATCH = 1024  # images that wait for the threads at a time: the first broken one is told before all are read

Given = TypeVar("Given")


def decode(
    source: IO[bytes] | Path, channels: int | None, where: str, size: int | None = None, resize: int | None = None
) -> Images:
    """-> uint8 [C, H, W]; grey images give one channel and coloured ones three where `channels` is None.

    With `size`, the shorter side is brought to `resize` (default `size`) and a square of `size` cut from the middle:
    pixel for pixel what torchvision's `Resize` and `CenterCrop` give. Raises UserError, beginning with `where`.
    """
    try:
        with Image.open(source) as image:
            converted = image.convert(_mode(image.mode, channels, where))
            if size is not None:
                converted = _cropped(converted, size, resize or size)
    except UnidentifiedImageError:
        raise UserError(f"{where}: not an image Pillow knows, got {_beginning(source)!r}") from None
    except (Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise UserError(f"{where}: not an image Pillow can read: {error}") from error
    pixels = np.asarray(converted)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def each(work: Callable[[Given], None], items: Sequence[Given]) -> None:
    """Call `work` with each item, several at a time. Raises what the first failing one in their order raises."""
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(items), BATCH):
            for _ in pool.map(work, items[start : start + BATCH]):
                pass


def _mode(mode: str, channels: int | None, where: str) -> str:
    if mode not in GREY + COLOUR:
        raise UserError(f"{where}: only images of 8 bits per channel are read, got mode {mode}")
    if channels is None:
        return "L" if mode in GREY else "RGB"
    return "L" if channels == 1 else "RGB"


def _cropped(image: Image.Image, size: int, shorter: int) -> Image.Image:
    width, height = image.size
    longer = int(shorter * max(width, height) / min(width, height))
    wanted = (shorter, longer) if width <= height else (longer, shorter)
    if wanted != image.size:
        image = image.resize(wanted, Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in wanted)
    return image.crop((left, top, left + size, top + size))


def _beginning(source: IO[bytes] | Path) -> bytes:
    if isinstance(source, Path):
        with source.open("rb") as file:
            return file.read(12)
    source.seek(0)
    return source.read(12)
