"""Pickles of plain values and arrays of bytes, read without running anything that is in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_ARRAY_MAKERS = {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}
_BYTE = "u1"  # numpy's name for uint8


def unpickled(path: Path) -> Any:
    """What a pickle says, where it is made of numbers, text, bytes, lists, dicts and arrays of uint8 alone.

    A pickle is a program: it names functions and calls them. Here the four names that such arrays need stand for
    stand-ins of our own, which only note what they are given, so that not even numpy sees it before it is known to be
    bytes; every other name is refused. Raises pickle.UnpicklingError, and what `pickle` raises for a broken file.
    """
    with path.open("rb") as file:
        return _plain(_Reader(file, encoding="latin1").load())


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ARRAY_MAKERS:
            return _Maker()
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")):
            return _Named(name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no dataset needs")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside the file")


class _Sealed:
    """Made anew for each use, so that a pickle which sets attributes changes nothing that lasts."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"it sets attributes of a {type(self).__name__.strip('_').lower()}")


class _Named(_Sealed):
    """What stands for `numpy.ndarray`, `numpy.dtype` or `_codecs.encode`."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *given: Any) -> Any:
        if self.name == "dtype":
            return _Kind(given[0] if given else None)
        if self.name == "encode" and len(given) == 2 and isinstance(given[0], str) and given[1] == "latin1":
            return given[0].encode("latin1")
        raise pickle.UnpicklingError(f"it calls {self.name} in a way no dataset needs")


class _Kind(_Sealed):
    """What stands for a dtype. Its state, the order of bytes, says nothing of single bytes."""

    __slots__ = ("text",)

    def __init__(self, text: Any) -> None:
        self.text = text.decode("latin1") if isinstance(text, bytes) else text

    def __setstate__(self, state: Any) -> None:
        pass


class _Maker(_Sealed):
    """What stands for numpy's function that makes an empty array."""

    __slots__ = ()

    def __call__(self, *given: Any) -> _Array:
        return _Array()


class _Array(_Sealed):
    """What stands for an array: shape, kind and bytes, as its state says."""

    __slots__ = ("values",)

    values: npt.NDArray[np.uint8] | None

    def __init__(self) -> None:
        self.values = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Kind):
            raise pickle.UnpicklingError("it holds something that is no array")
        _, shape, kind, is_fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else data  # Python 2 wrote its bytes as text
        if kind.text != _BYTE or not isinstance(data, bytes):
            raise pickle.UnpicklingError(f"it holds an array of {kind.text}, not of {_BYTE}")
        if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
            raise pickle.UnpicklingError(f"it holds an array of shape {shape!r}")
        self.values = np.frombuffer(data, np.uint8).reshape(shape, order="F" if is_fortran else "C")


def _plain(value: Any) -> Any:
    """Stand-ins for arrays become arrays; any other one that is left is refused."""
    if isinstance(value, _Array) and value.values is not None:
        return value.values
    if isinstance(value, _Sealed):
        raise pickle.UnpicklingError(f"it holds a {type(value).__name__.strip('_').lower()} without content")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
