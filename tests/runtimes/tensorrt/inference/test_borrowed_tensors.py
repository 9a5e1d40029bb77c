"""Somebody's device tensor, read by what its capsule says: the capsules are NumPy's and torch's own."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from messages import InvalidInputError, Tensor
from runtimes.tensorrt.inference.device_tensors import (
    BorrowedTensor,
    _DLDataType,
    _DLDevice,
    _DLManagedTensor,
    _DLTensor,
    _get_pointer,
)

STREAM = 0x1230
DTYPES = st.sampled_from(["float32", "float16", "int8", "int32", "int64", "uint8", "bool"])
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)

Patch = Callable[[_DLTensor], None]


class Producer:
    """A tensor whose capsule its library makes, and which hears for which stream. `patch` falsifies the capsule."""

    def __init__(self, tensor: Any, patch: Patch | None = None) -> None:
        self.tensor = tensor
        self.shape = tensor.shape
        self.dtype = tensor.dtype
        self.streams: list[object] = []
        self._patch = patch

    def __dlpack__(self, *, stream: object = None) -> object:
        self.streams.append(stream)
        capsule: object = self.tensor.__dlpack__()
        if self._patch is not None:
            self._patch(_DLManagedTensor.from_address(_get_pointer(capsule, b"dltensor")).dl_tensor)
        return capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, index = self.tensor.__dlpack_device__()
        return int(kind), int(index)


class Refusing(Producer):
    """A producer that raises, or gives something that is no capsule of a tensor."""

    def __init__(self, answer: Callable[[], object]) -> None:
        super().__init__(np.zeros(2, np.float32))
        self._answer = answer

    def __dlpack__(self, *, stream: object = None) -> object:
        return self._answer()


def borrow(tensor: Any, patch: Patch | None = None) -> BorrowedTensor:
    return BorrowedTensor("image", cast("Tensor", Producer(tensor, patch)), STREAM)


def put(field: str, value: object) -> Patch:
    return lambda tensor: setattr(tensor, field, value)


def test_the_structures_are_laid_out_as_the_header_has_them() -> None:
    fields: list[Any] = [_DLTensor.data, _DLTensor.device, _DLTensor.ndim, _DLTensor.dtype, _DLTensor.shape]
    fields += [_DLTensor.strides, _DLTensor.byte_offset]
    assert [field.offset for field in fields] == [0, 8, 16, 20, 24, 32, 40]
    assert [ctypes.sizeof(each) for each in (_DLDevice, _DLDataType, _DLTensor)] == [8, 4, 48]
    managed: list[Any] = [_DLManagedTensor.dl_tensor, _DLManagedTensor.manager_ctx, _DLManagedTensor.deleter]
    assert [field.offset for field in managed] == [0, 48, 56]


@given(dtype=DTYPES, shape=SHAPES)
def test_a_tensor_of_any_shape_and_type_is_found_where_numpy_has_it(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, dtype)
    found = borrow(array)
    assert found.size_bytes == array.nbytes
    if array.size:
        assert found.address == array.ctypes.data


@given(data=st.data(), dtype=DTYPES, shape=SHAPES)
def test_whatever_numpy_calls_contiguous_is_taken_and_nothing_else(
    data: st.DataObject, dtype: str, shape: tuple[int, ...]
) -> None:
    whole = np.zeros(shape, dtype)
    view = np.asarray(whole[data.draw(arrays.basic_indices(shape))])
    view = view.transpose(data.draw(st.permutations(range(view.ndim))))
    if view.flags.c_contiguous:
        assert borrow(view).size_bytes == view.nbytes
    else:
        with pytest.raises(InvalidInputError, match="make it contiguous"):
            borrow(view)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int32", "int64", "uint8", "bool"])
def test_a_tensor_of_torch_is_found_where_torch_has_it(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    whole = torch.zeros(4, 3, dtype=getattr(torch, dtype))
    for tensor in (whole, whole[1:], whole[2, 1], whole[:0], whole[:, None]):
        found = borrow(tensor)
        assert found.size_bytes == tensor.numel() * tensor.element_size()
        if tensor.numel():
            assert found.address == tensor.data_ptr()


@pytest.mark.torch
def test_what_torch_refuses_to_give_away_is_refused_in_its_words() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(InvalidInputError, match=r"input image: its producer does not give it away: .*require gradient"):
        borrow(torch.ones(2, requires_grad=True))


@pytest.mark.torch
def test_a_transposed_tensor_of_torch_is_refused_with_its_strides() -> None:
    torch = pytest.importorskip("torch")
    expected = r"expected a contiguous device tensor, found shape \[3, 4\] with strides \[1, 3\]; make it contiguous"
    with pytest.raises(InvalidInputError, match=expected):
        borrow(torch.zeros(4, 3).T)


def test_the_producer_is_told_the_stream_that_reads() -> None:
    producer = Producer(np.zeros(2, np.float32))
    BorrowedTensor("image", cast("Tensor", producer), STREAM)
    assert producer.streams == [STREAM]


def test_an_offset_in_bytes_counts_and_no_strides_mean_that_it_is_compact() -> None:
    array = np.zeros((2, 3), np.float32)

    def falsify(tensor: _DLTensor) -> None:
        tensor.data = array.ctypes.data - 256
        tensor.byte_offset = 256
        tensor.strides = None

    assert borrow(array, falsify).address == array.ctypes.data


def test_a_bool_may_come_as_bytes_from_a_library_older_than_its_type() -> None:
    array = np.zeros((2, 3), bool)
    assert borrow(array, put("dtype", _DLDataType(1, 8, 1))).size_bytes == 6


@pytest.mark.parametrize(
    ("patch", "found"),
    [
        (put("ndim", 1), r"found shape \[2\] of type code 2, 32 bits, 1 lanes on device \(1, 0\)"),
        (put("dtype", _DLDataType(2, 64, 1)), "type code 2, 64 bits, 1 lanes"),
        (put("dtype", _DLDataType(0, 32, 1)), "type code 0, 32 bits, 1 lanes"),
        (put("dtype", _DLDataType(2, 32, 4)), "type code 2, 32 bits, 4 lanes"),
        (put("device", _DLDevice(2, 1)), r"on device \(2, 1\)"),
    ],
)
def test_a_capsule_that_says_something_else_than_its_tensor_is_refused(patch: Patch, found: str) -> None:
    expected = r"expected a capsule of what the tensor says it is, float32\[2, 3\] on device \(1, 0\), "
    with pytest.raises(InvalidInputError, match=expected + ".*" + found):
        borrow(np.zeros((2, 3), np.float32), patch)


@pytest.mark.parametrize("error", [BufferError, RuntimeError, AssertionError, KeyError, NotImplementedError])
def test_whatever_a_producer_raises_refuses_its_tensor(error: type[Exception]) -> None:
    def refuse() -> object:
        raise error("mine")

    with pytest.raises(InvalidInputError, match=f"does not give it away: {error.__name__}: '?mine") as caught:
        BorrowedTensor("image", cast("Tensor", Refusing(refuse)), STREAM)
    assert isinstance(caught.value.__cause__, error)


def test_the_end_of_the_process_is_not_taken_for_a_refusal() -> None:
    def interrupt() -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        BorrowedTensor("image", cast("Tensor", Refusing(interrupt)), STREAM)


def used_capsule() -> object:
    capsule = np.zeros(2, np.float32).__dlpack__()
    set_name = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
    set_name(("PyCapsule_SetName", ctypes.pythonapi))(capsule, b"used_dltensor")
    return capsule


@pytest.mark.parametrize("answer", [used_capsule, object, lambda: None])
def test_what_is_no_unused_capsule_of_a_tensor_is_refused(answer: Callable[[], object]) -> None:
    with pytest.raises(InvalidInputError, match="its producer does not give it away: ValueError: PyCapsule_GetPointer"):
        BorrowedTensor("image", cast("Tensor", Refusing(answer)), STREAM)


@pytest.mark.torch
def test_a_versioned_capsule_which_nobody_asked_for_is_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(InvalidInputError, match="its producer does not give it away: ValueError: PyCapsule_GetPointer"):
        BorrowedTensor("image", cast("Tensor", Refusing(lambda: torch.zeros(2).__dlpack__(max_version=(1, 0)))), STREAM)


def test_the_producers_memory_lives_until_the_borrowed_tensor_goes() -> None:
    array = np.zeros(2, np.float32)
    alive = weakref.ref(array)
    found = borrow(array)
    del array
    assert alive() is not None
    del found
    assert alive() is None


def test_a_tensor_that_is_refused_is_given_back_to_its_producer() -> None:
    array = np.zeros((4, 4), np.float32)
    alive = weakref.ref(array)
    with pytest.raises(InvalidInputError):
        borrow(array.T)
    del array
    assert alive() is None
