"""Classes as pybind11 makes them: a base that was not initialised is refused, and so is what has no constructor."""

from __future__ import annotations

import operator
from typing import Any

MODULE = "tensorrt.tensorrt"


class Bound(type):
    """pybind11's metaclass: it looks, after the Python `__init__`, whether each bound base was initialised.

    `TypeError: ... __init__() must be called when overriding __init__`, as the bindings of 10.3.0 answered it.
    """

    def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
        made = super().__call__(*arguments, **keywords)
        if not getattr(made, "_initialised", False):
            native = next(each for each in cls.__mro__ if each.__module__.startswith("tensorrt."))
            raise TypeError(f"{MODULE}.{native.__name__}.__init__() must be called when overriding __init__")
        return made


class Callback(metaclass=Bound):
    """A class that Python inherits from. TensorRT finds an override by its name."""

    __slots__ = ("_initialised",)

    def __init__(self) -> None:
        self._initialised = True


class Product(metaclass=Bound):
    """A class whose objects only TensorRT makes, as the bindings of 10.3.0 say of `IHostMemory()`."""

    __slots__ = ("__weakref__",)

    def __init__(self, *_arguments: Any, **_keywords: Any) -> None:
        raise TypeError(f"{MODULE}.{type(self).__name__}: No constructor defined!")


def pure_virtual(owner: str, method: str) -> RuntimeError:
    """What pybind11 raises where a callback has no override (PYBIND11_OVERLOAD_PURE_NAME)."""
    return RuntimeError(f'Tried to call pure virtual function "{owner}::{method}"')


def incompatible(method: str, *arguments: object) -> TypeError:
    found = ", ".join(repr(argument) for argument in arguments)
    return TypeError(f"{method}(): incompatible function arguments. Invoked with: {found}")


def size_t(method: str, value: object) -> int:
    """An argument of the C++ type size_t: an int that is not negative, or what has `__index__`."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise incompatible(method, value) from None
    if isinstance(value, float) or not 0 <= number < 2**64:
        raise incompatible(method, value)
    return number


def text(method: str, value: object) -> str:
    if not isinstance(value, str):
        raise incompatible(method, value)
    return value
