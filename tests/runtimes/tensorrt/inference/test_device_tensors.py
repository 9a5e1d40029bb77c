"""Outputs on the device: what another library reads of them, and when their memory goes."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from messages import DeviceFaultError, Tensor
from runtimes.cuda.device_tensor import on_cuda
from runtimes.cuda.port import Cuda
from runtimes.tensorrt.inference import device_tensors
from runtimes.tensorrt.inference.device_tensors import BorrowedTensor, DeviceTensor, _DLManagedTensor, _get_pointer

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device

Output = Callable[[], DeviceTensor]

ROOT = Path(__file__).parents[4]
VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)
_set_name = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", ctypes.pythonapi))


class HostBlock:
    """`DeviceMemory` of the host, for what no device is needed for."""

    def __init__(self, size_bytes: int) -> None:
        self._bytes = np.zeros(max(size_bytes, 1), np.uint8)
        self.address = int(self._bytes.ctypes.data)
        self.size_bytes = size_bytes
        self.freed = 0

    def free(self) -> None:
        self.freed += 1


def managed(capsule: object) -> _DLManagedTensor:
    return _DLManagedTensor.from_address(_get_pointer(capsule, b"dltensor"))


@pytest.fixture
def output(cuda: Cuda, device: Device) -> Output:
    """Makes VALUES in a block of its own."""

    def make() -> DeviceTensor:
        block = cuda.allocate(VALUES.nbytes)
        device.bytes_at(block.address, VALUES.nbytes)[:] = VALUES.view(np.uint8).reshape(-1)
        return DeviceTensor(block, VALUES.shape, VALUES.dtype, 0)

    return make


@pytest.fixture
def said_to_be_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's memory is the host's here: a library of the host may read it, if it is told that it lies there."""
    monkeypatch.setattr(device_tensors, "_CUDA", 1)


def test_an_output_is_a_tensor_that_says_where_it_lies() -> None:
    tensor = DeviceTensor(HostBlock(24), (2, 3), np.dtype(np.float32), 1)
    assert isinstance(tensor, Tensor)
    assert on_cuda(tensor)
    assert (tensor.shape, tensor.dtype) == ((2, 3), np.dtype(np.float32))
    assert tensor.__dlpack_device__() == (2, 1)


@given(
    name=st.sampled_from(["float32", "float16", "int8", "int32", "int64", "uint8", "bool"]),
    shape=arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)
def test_a_capsule_tells_the_shape_type_and_place_as_the_header_has_them(name: str, shape: tuple[int, ...]) -> None:
    like = np.zeros(shape, name)
    block = HostBlock(like.nbytes)
    capsule = DeviceTensor(block, shape, like.dtype, 3).__dlpack__()
    found = managed(capsule).dl_tensor
    assert (found.device.device_type, found.device.device_id) == (2, 3)
    assert found.shape[: found.ndim] == list(shape)
    codes = {"int": 0, "uint": 1, "float": 2, "bool": 6}
    assert (found.dtype.code, found.dtype.bits) == (codes[name.rstrip("0123456789")], like.itemsize * 8)
    assert (found.dtype.lanes, found.byte_offset) == (1, 0)
    if like.size:
        assert found.data == block.address
        assert found.strides[: found.ndim] == [stride // like.itemsize for stride in like.strides]
    else:
        assert found.data is None, "NULL for a tensor of size zero"
    del capsule
    assert block.freed == 1


@pytest.mark.usefixtures("said_to_be_on_the_host")
def test_numpy_reads_an_output_in_place(output: Output) -> None:
    np.testing.assert_array_equal(np.from_dlpack(output()), VALUES)


@pytest.mark.torch
@pytest.mark.usefixtures("said_to_be_on_the_host")
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 3), (1, 1)])
@pytest.mark.parametrize("name", ["float32", "float16", "int64", "uint8", "bool"])
def test_torch_reads_an_output_in_place(cuda: Cuda, device: Device, name: str, shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    values = np.ones(shape, name)
    block = cuda.allocate(values.nbytes)
    if values.size:
        device.bytes_at(block.address, values.nbytes)[:] = values.reshape(-1).view(np.uint8)
    found = torch.from_dlpack(DeviceTensor(block, shape, values.dtype, 0))
    assert found.dtype == getattr(torch, name)
    assert found.is_contiguous()
    np.testing.assert_array_equal(found.numpy(), values)


def test_an_output_is_an_input_where_it_lies(device: Device, output: Output) -> None:
    tensor = output()
    borrowed = BorrowedTensor("image", tensor, stream=0x1230)
    own = len(device.live())
    del tensor
    assert (device.bytes_at(borrowed.address, borrowed.size_bytes).view(np.float32) == VALUES.reshape(-1)).all()
    del borrowed
    assert len(device.live()) == own - 1


@pytest.mark.usefixtures("said_to_be_on_the_host")
def test_the_memory_goes_with_the_last_of_all_who_read_it(cuda: Cuda, device: Device, output: Output) -> None:
    tensor = output()
    own = len(device.live())
    first, second = np.from_dlpack(tensor), np.from_dlpack(tensor)
    del tensor, first
    gc.collect()
    np.testing.assert_array_equal(second, VALUES)
    assert len(device.live()) == own
    del second
    assert len(device.live()) == own - 1


def test_a_capsule_that_nobody_takes_keeps_the_memory_and_gives_it_back_once(device: Device, output: Output) -> None:
    tensor = output()
    own = len(device.live())
    capsules = [tensor.__dlpack__() for _ in range(3)]
    del tensor
    assert len(device.live()) == own
    capsules.clear()
    assert len(device.live()) == own - 1


def test_a_capsule_may_go_while_an_exception_is_on_its_way(device: Device, output: Output) -> None:
    tensor = output()
    own = len(device.live())

    def fail() -> object:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        _ = (tensor.__dlpack__(), fail())
    del tensor
    assert len(device.live()) == own - 1


def test_a_consumer_lets_go_on_any_thread_without_the_interpreters_lock_and_without_a_device(
    device: Device, output: Output
) -> None:
    tensor = output()
    own = len(device.live())
    capsule = tensor.__dlpack__()
    address = _get_pointer(capsule, b"dltensor")
    _set_name(capsule, b"used_dltensor")
    del tensor, capsule
    assert len(device.live()) == own, "a capsule that was taken is not its owner any more"
    deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_DLManagedTensor.from_address(address).deleter)
    binds = device.calls.count("cudaSetDevice")
    consumer = threading.Thread(target=deleter, args=(address,))
    consumer.start()
    consumer.join(60)
    assert len(device.live()) == own - 1
    assert device.calls.count("cudaSetDevice") == binds, "a consumer's thread keeps the device that is current on it"


@pytest.mark.parametrize("wish", [{"copy": True}, {"dl_device": (1, 0)}, {"dl_device": (2, 1)}])
def test_a_copy_and_another_device_are_refused(wish: dict[str, Any]) -> None:
    tensor = DeviceTensor(HostBlock(24), (2, 3), np.dtype(np.float32), 0)
    with pytest.raises(BufferError, match=r"expected device \(2, 0\) or none and no copy, found .*; import it where"):
        tensor.__dlpack__(**wish)


@pytest.mark.parametrize(
    "wish", [{}, {"copy": False}, {"dl_device": (2, 0)}, {"stream": 2}, {"stream": -1}, {"max_version": (1, 1)}]
)
def test_a_consumer_that_can_take_it_as_it_is_gets_the_capsule_that_every_version_reads(wish: dict[str, Any]) -> None:
    tensor = DeviceTensor(HostBlock(24), (2, 3), np.dtype(np.float32), 0)
    assert managed(tensor.__dlpack__(**wish)).dl_tensor.ndim == 2


def test_a_free_that_fails_is_told_where_nobody_can_catch_it(
    device: Device, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = output()
    told: list[type[BaseException] | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_type))
    device.fail("cudaFree", 719)
    del tensor
    assert told == [DeviceFaultError]


LEFT_AT_EXIT = """
import builtins, ctypes, importlib.util, sys
import numpy as np
from runtimes.cuda.cuda_bindings import open_cuda
from runtimes.tensorrt.inference import device_tensors
from runtimes.tensorrt.inference.device_tensors import DeviceTensor, _DLManagedTensor, _get_pointer

device_tensors._CUDA = 1
cuda = open_cuda(0)

def output():
    return DeviceTensor(cuda.allocate(24), (2, 3), np.dtype(np.float32), 0)

kept, capsule = np.from_dlpack(output()), output().__dlpack__()
builtins.kept_longest, builtins.capsule = np.from_dlpack(output()), output().__dlpack__()
for_ever = np.from_dlpack(output())
ctypes.pythonapi.Py_IncRef(ctypes.py_object(for_ever))
if importlib.util.find_spec("torch"):
    import torch
    builtins.of_torch = torch.from_dlpack(output())

given = output().__dlpack__()
address = _get_pointer(given, b"dltensor")
ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", ctypes.pythonapi))(
    given, b"used_dltensor"
)
register = ctypes.CDLL(None).__cxa_atexit
register.argtypes = [ctypes.c_void_p] * 3
assert register(_DLManagedTensor.from_address(address).deleter, address, None) == 0
"""
"""Tensors that outlive the interpreter; the last one is let go of as a static of C++ does it."""


def test_what_is_left_at_exit_ends_the_process_in_silence() -> None:
    ended = subprocess.run(  # noqa: S603 - our own interpreter, our own program
        [sys.executable, "-c", LEFT_AT_EXIT],
        env={"PYTHONPATH": f"{ROOT / 'tests/doubles'}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
