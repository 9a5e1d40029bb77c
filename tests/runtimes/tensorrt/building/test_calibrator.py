"""Each batch to TensorRT once, on the device, and nothing that went wrong is lost in its callbacks."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import pytest

from messages import CalibrationCacheError, EngineBuildError, InferenceError, OutOfMemoryError, TensorSpec
from runtimes.calibration.batch_feed import BatchFeed
from runtimes.calibration.dataset import CalibrationDataset
from runtimes.cuda.port import Cuda
from runtimes.tensorrt.building.calibrator import Calibrator, entropy_calibrator

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device

INPUTS = {"image": TensorSpec((2, 3), "float32"), "bias": TensorSpec((4,), "float32")}
TABLE = b"TRT-100300-EntropyCalibration2\nimage: 3c010a14\nbias: 3c010a14\n"
BATCHES = 3


class Callbacks(Calibrator, Protocol):
    """What TensorRT calls."""

    def get_batch_size(self) -> int: ...
    def get_batch(self, names: list[str]) -> list[int] | None: ...
    def read_calibration_cache(self) -> bytes | None: ...
    def write_calibration_cache(self, cache: object) -> None: ...


class IInt8EntropyCalibrator2:
    """As pybind11's: a subclass that does not call this is refused."""

    def __init__(self) -> None:
        self.is_made = True


def batch(number: int) -> dict[str, np.ndarray]:
    return {name: np.full(spec.shape, number + 0.5, np.float32) for name, spec in INPUTS.items()}


@pytest.fixture
def dataset(tmp_path: Path) -> CalibrationDataset:
    folder = tmp_path / "batches"
    folder.mkdir()
    for number in range(BATCHES):
        np.savez(folder / f"{number}.npz", **batch(number))  # type: ignore[arg-type]
    return CalibrationDataset.open(folder, INPUTS)


Make = Callable[..., Callbacks]


@pytest.fixture
def make(cuda: Cuda, dataset: CalibrationDataset) -> Iterator[Make]:
    trt = ModuleType("tensorrt")
    trt.__dict__["IInt8EntropyCalibrator2"] = IInt8EntropyCalibrator2
    made: list[Calibrator] = []

    def calibrator(trusted: bytes | None = None) -> Callbacks:
        made.append(entropy_calibrator(trt, cuda, BatchFeed(dataset), trusted))
        return cast("Callbacks", made[-1])

    yield calibrator
    for each in made:
        each.close()


def at(address: int, count: int) -> list[float]:
    return list((ctypes.c_float * count).from_address(address))


def calibrate(calibrator: Callbacks) -> list[list[float]]:
    """As TensorRT does; returns the first value of each input, by batch."""
    seen = []
    while addresses := calibrator.get_batch(["bias", "image"]):
        seen.append([at(addresses[0], 4)[-1], at(addresses[1], 6)[-1]])
    return seen


def test_every_batch_is_on_the_device_once_in_the_order_of_the_names(make: Make) -> None:
    calibrator = make()

    assert calibrator.read_calibration_cache() is None
    assert calibrate(calibrator) == [[number + 0.5] * 2 for number in range(BATCHES)]
    calibrator.write_calibration_cache(memoryview(TABLE))
    assert calibrator.finish() == TABLE
    assert calibrator.get_batch_size() == 1


def test_the_table_is_copied_out_of_tensorrts_memory(make: Make) -> None:
    calibrator = make()
    calibrate(calibrator)
    its_memory = bytearray(TABLE)

    calibrator.write_calibration_cache(memoryview(its_memory))
    its_memory[:] = bytes(len(its_memory))
    assert calibrator.finish() == TABLE


def test_a_dataset_that_breaks_in_the_middle_ends_the_data_and_is_raised_after_the_build(
    make: Make, dataset: CalibrationDataset
) -> None:
    calibrator = make()
    assert calibrator.get_batch(["image", "bias"])
    (dataset.path / "1.npz").write_bytes(b"rotten")

    assert calibrator.get_batch(["image", "bias"]) is None
    calibrator.write_calibration_cache(memoryview(TABLE))
    with pytest.raises(EngineBuildError, match=r"1\.npz"):
        calibrator.finish()


def test_a_device_without_memory_ends_the_data_and_is_raised_after_the_build(make: Make, device: Device) -> None:
    device.fail("cudaHostAlloc", 2)
    calibrator = make()

    assert calibrator.get_batch(["image", "bias"]) is None
    assert isinstance(calibrator.failure, OutOfMemoryError)
    assert calibrator.get_batch(["image", "bias"]) is None, "nothing goes on after it"
    with pytest.raises(OutOfMemoryError):
        calibrator.finish()


def test_a_last_batch_that_does_not_reach_the_device_is_not_the_end_of_the_data(make: Make, device: Device) -> None:
    """Every batch was taken, and TensorRT writes a table that looks whole."""
    calibrator = make()
    for _ in range(BATCHES - 1):
        assert calibrator.get_batch(["image", "bias"])
    device.fail("cudaMemcpyAsync", 1)

    assert calibrator.get_batch(["image", "bias"]) is None
    calibrator.write_calibration_cache(memoryview(TABLE))
    with pytest.raises(InferenceError, match="cudaMemcpyAsync: invalid argument"):
        calibrator.finish()


def test_an_input_that_no_batch_has_is_named(make: Make) -> None:
    calibrator = make()

    assert calibrator.get_batch(["image", "mask"]) is None
    with pytest.raises(EngineBuildError, match="calibrates inputs image, mask, and the dataset has none named mask"):
        calibrator.finish()


def test_a_calibration_that_takes_too_few_batches_is_refused(make: Make) -> None:
    calibrator = make()
    calibrator.get_batch(["image"])
    calibrator.write_calibration_cache(memoryview(TABLE))

    with pytest.raises(EngineBuildError, match="expected the calibrator to take 3 batches, found that it took 1"):
        calibrator.finish()


def test_a_calibration_without_a_table_is_refused(make: Make) -> None:
    calibrator = make()
    calibrate(calibrator)

    with pytest.raises(EngineBuildError, match="expected TensorRT to write its calibration table"):
        calibrator.finish()


def test_a_table_that_is_none_is_refused(make: Make) -> None:
    calibrator = make()
    calibrate(calibrator)
    calibrator.write_calibration_cache(None)

    with pytest.raises(TypeError):
        calibrator.finish()


def test_a_trusted_table_is_given_and_no_batch(make: Make, device: Device) -> None:
    calibrator = make(TABLE)

    assert calibrator.read_calibration_cache() == TABLE
    assert calibrator.finish() == TABLE


def test_a_trusted_table_that_tensorrt_does_not_take_is_no_reason_to_calibrate_anew(make: Make) -> None:
    calibrator = make(TABLE)
    calibrator.read_calibration_cache()

    assert calibrator.get_batch(["image", "bias"]) is None
    with pytest.raises(CalibrationCacheError, match="did not take the calibration table"):
        calibrator.finish()


def test_a_trusted_table_that_tensorrt_never_asked_for_was_not_used(make: Make) -> None:
    with pytest.raises(CalibrationCacheError, match="never asked"):
        make(TABLE).finish()


def test_a_batch_after_the_last_one_takes_no_more_memory(make: Make, device: Device) -> None:
    calibrator = make()
    calibrator.get_batch(["image", "bias"])
    live = device.live()

    calibrate(calibrator)
    assert device.live() == live
    calibrator.close()
    calibrator.close()


@pytest.mark.parametrize("call", ["cudaFree", "cudaFreeHost"])
def test_one_block_that_cannot_be_freed_keeps_no_other_from_it(make: Make, device: Device, call: str) -> None:
    before = [block.address for block in device.memory.live()]
    opened = len(device.live())
    calibrator = make()
    calibrator.get_batch(["image", "bias"])
    device.fail(call, 1)

    with pytest.raises(InferenceError, match=f"{call}: invalid argument"):
        calibrator.close()
    (left,) = [block for block in device.memory.live() if block.address not in before]
    assert len(device.live()) == opened + 1, "the stream is closed too"
    device.memory.free(left.address, left.kind)
