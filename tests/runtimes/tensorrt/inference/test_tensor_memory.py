"""Where one tensor lies: room for any shape, the bytes of any layout, and what a failed allocation leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest

from messages import InferenceError, OutOfMemoryError, TensorSpec
from messages.tensor import DType
from runtimes.cuda.port import Cuda
from runtimes.cuda.release import release_all
from runtimes.tensorrt.inference.io_tensors import _DTYPES
from runtimes.tensorrt.inference.tensor_memory import TensorMemory

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device

Make = Callable[..., TensorMemory]


@pytest.fixture
def memory(cuda: Cuda) -> Iterator[Make]:
    """`memory(dtype, on_host=False)`: of the tensor `image`; all of it is given back at the end."""
    made: list[TensorMemory] = []

    def make(dtype: str = "float32", *, on_host: bool = False) -> TensorMemory:
        assert dtype in get_args(DType)
        made.append(TensorMemory(cuda, "image", TensorSpec((-1, 3), dtype), on_host=on_host))  # type: ignore[arg-type]
        return made[-1]

    yield make
    release_all(each.free for each in made)


def blocks(device: Device) -> list[str]:
    """The memory of tensors: sixteen bytes are the device's own."""
    return sorted(line for line in device.live() if "memory" in line and not line.endswith(" 16 bytes"))


def test_a_tensor_has_a_block_on_each_side_and_its_device_address_is_told(device: Device, memory: Make) -> None:
    image = memory()
    image.reserve((2, 3))
    assert blocks(device) == ["device memory, 24 bytes", "pinned memory, 24 bytes"]
    assert image.address != image.host_address
    image.free()
    image.free()
    assert blocks(device) == []


def test_a_tensor_that_is_kept_on_the_host_has_its_pinned_block_alone(device: Device, memory: Make) -> None:
    image = memory(on_host=True)
    image.reserve((2, 3))
    assert blocks(device) == ["pinned memory, 24 bytes"]
    assert image.address == image.host_address


def test_room_is_made_once_for_the_largest_shape(device: Device, memory: Make) -> None:
    image = memory()
    image.reserve((4, 3))
    where, allocated = image.address, device.calls.count("cudaMalloc")
    for shape in [(1, 3), (4, 3), (0, 3), (12,)]:
        image.reserve(shape)
    assert (image.address, device.calls.count("cudaMalloc")) == (where, allocated)


def test_a_larger_shape_takes_the_place_of_the_smaller_ones_memory(device: Device, memory: Make) -> None:
    image = memory()
    image.reserve((1, 3))
    image.reserve((2, 3))
    assert blocks(device) == ["device memory, 24 bytes", "pinned memory, 24 bytes"]


def test_what_only_passes_through_needs_no_device_memory_until_it_does(device: Device, memory: Make) -> None:
    image = memory()
    image.reserve((2, 3), staging_only=True)
    assert blocks(device) == ["pinned memory, 24 bytes"]
    with pytest.raises(InferenceError, match="image: expected memory for this tensor, found none"):
        _ = image.address
    image.reserve((2, 3))
    assert image.address


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaHostAlloc"])
def test_a_device_that_was_short_of_memory_once_is_asked_again(device: Device, memory: Make, call: str) -> None:
    image = memory()
    image.reserve((1, 3))
    device.fail(call, 2)
    with pytest.raises(OutOfMemoryError, match=call):
        image.reserve((2, 3))
    image.reserve((2, 3))
    assert image.address != image.host_address


def test_memory_that_was_given_back_is_not_handed_out(memory: Make) -> None:
    image = memory()
    image.reserve((2, 3))
    image.free()
    expected = "image: expected memory for this tensor, found none: it was given back, or never asked for"
    for use in (lambda: image.address, lambda: image.host_address, lambda: image.view((2, 3))):
        with pytest.raises(InferenceError, match=expected):
            use()


@pytest.mark.parametrize("dtype", sorted(set(_DTYPES.values())))
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 3), (1, 1, 4)])
def test_an_array_of_any_type_and_shape_arrives_on_the_device_when_the_stream_is_synchronised(
    cuda: Cuda, device: Device, memory: Make, dtype: str, shape: tuple[int, ...]
) -> None:
    stream, image = cuda.open_stream(), memory(dtype)
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    image.reserve(shape)
    image.stage(array, stream)
    stream.synchronize()
    if array.size:
        assert bytes(device.bytes_at(image.address, array.nbytes)) == array.tobytes()
    np.testing.assert_array_equal(image.view(shape), array)
    assert image.view(shape).dtype == array.dtype
    stream.close()


@pytest.mark.parametrize(
    "view",
    [
        lambda whole: whole.T,
        lambda whole: whole[:, ::-1],
        lambda whole: whole[::2, 1:3],
        lambda whole: np.broadcast_to(whole[0], (5, 4)),
        lambda whole: whole.astype(">f4"),
    ],
    ids=["transposed", "backwards", "strided", "broadcast", "foreign byte order"],
)
def test_an_array_that_lies_otherwise_arrives_as_its_values(
    cuda: Cuda, device: Device, memory: Make, view: Callable[[np.ndarray], np.ndarray]
) -> None:
    stream, image = cuda.open_stream(), memory()
    array = view(np.arange(24, dtype=np.float32).reshape(6, 4))
    image.reserve(array.shape)
    image.stage(array, stream)
    stream.synchronize()
    found = device.bytes_at(image.address, array.nbytes).view(np.float32).reshape(array.shape)
    np.testing.assert_array_equal(found, array)
    stream.close()


def test_an_array_is_read_before_staging_returns(cuda: Cuda, device: Device, memory: Make) -> None:
    stream, image = cuda.open_stream(), memory()
    array = np.ones((2, 3), np.float32)
    image.reserve(array.shape)
    image.stage(array, stream)
    array[:] = 9
    stream.synchronize()
    assert (device.bytes_at(image.address, 24).view(np.float32) == 1).all()
    stream.close()


def test_what_is_kept_on_the_host_puts_nothing_on_the_stream(cuda: Cuda, device: Device, memory: Make) -> None:
    stream, sizes = cuda.open_stream(), memory("int64", on_host=True)
    sizes.reserve((2,))
    sizes.stage(np.array([4, 8]), stream)
    assert device.queued() == 0
    assert sizes.view((2,)).tolist() == [4, 8]
    stream.close()


def test_an_array_of_another_type_is_not_converted(cuda: Cuda, memory: Make) -> None:
    stream, image = cuda.open_stream(), memory("float16")
    image.reserve((2, 3))
    with pytest.raises(TypeError, match="Cannot cast"):
        image.stage(np.ones((2, 3), np.float32), stream)
    stream.close()
