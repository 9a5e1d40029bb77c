"""Where tensors lie, by DLPack's own numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from messages import InvalidInputError
from runtimes.cuda.device_tensor import check_devices, on_cuda


class Somewhere:
    """A tensor that says where it lies."""

    shape = (1,)
    dtype = "float32"

    def __init__(self, kind: int, index: int = 0) -> None:
        self._place = (kind, index)

    def __dlpack__(self, *, stream: Any = None) -> Any:
        raise AssertionError("nobody asked for its data")

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._place


@pytest.mark.parametrize(("kind", "there"), [(1, False), (2, True), (3, False), (13, False)])
def test_only_a_tensor_in_the_devices_own_memory_is_on_cuda(kind: int, there: bool) -> None:
    assert on_cuda(Somewhere(kind)) is there


@pytest.mark.parametrize("thing", [np.zeros(1), None, 1, "text", [1.0]])
def test_an_array_and_what_is_no_tensor_are_not_on_cuda(thing: object) -> None:
    assert not on_cuda(thing)


def test_tensors_of_the_engines_device_are_taken_together() -> None:
    check_devices("vpr", {"image": Somewhere(2, 1), "mask": Somewhere(2, 1)}, "cuda:1")


@pytest.mark.parametrize("stranger", [Somewhere(2, 0), Somewhere(1, 1), np.zeros(1)])
def test_a_tensor_elsewhere_is_refused_by_its_name(stranger: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"vpr: expected all inputs on cuda:1 .* found mask elsewhere"):
        check_devices("vpr", {"image": Somewhere(2, 1), "mask": stranger}, "cuda:1")
