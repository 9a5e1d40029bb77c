"""Our INT8 calibrator in NVIDIA's bindings, on a device of host memory: batches, the table, and what goes wrong."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from messages import CalibrationCacheError, EngineBuildError, TensorSpec
from runtimes.calibration.batch_feed import BatchFeed
from runtimes.calibration.dataset import CalibrationDataset
from runtimes.cuda.port import Cuda
from runtimes.tensorrt.building.calibrator import Calibrator, entropy_calibrator
from tests.bindings.callbacks import Core

INPUTS = {"image": TensorSpec((2, 3), "float32"), "bias": TensorSpec((4,), "float32")}
TABLE = b"TRT-100300-EntropyCalibration2\nimage: 3c010a14\nbias: 3c010a14\n"
BATCHES = 3

Make = Callable[..., Calibrator]


@pytest.fixture
def dataset(tmp_path: Path) -> CalibrationDataset:
    for number in range(BATCHES):
        arrays = {name: np.full(spec.shape, number + 0.5, np.float32) for name, spec in INPUTS.items()}
        np.savez(tmp_path / f"{number}.npz", **arrays)  # type: ignore[arg-type]
    return CalibrationDataset.open(tmp_path, INPUTS)


@pytest.fixture
def make(trt: ModuleType, cuda: Cuda, dataset: CalibrationDataset) -> Iterator[Make]:
    made: list[Calibrator] = []

    def calibrator(trusted: bytes | None = None) -> Calibrator:
        made.append(entropy_calibrator(trt, cuda, BatchFeed(dataset), trusted))
        return made[-1]

    yield calibrator
    for each in made:
        each.close()


def at(address: int, count: int) -> list[float]:
    return list((ctypes.c_float * count).from_address(address))


def test_it_is_the_interface_that_its_vtable_was_written_down_for(trt: ModuleType, core: Core, make: Make) -> None:
    calibrator = make()
    assert "IInt8EntropyCalibrator2" in core.class_name(calibrator)
    assert core.interface(calibrator)[1] == 1
    assert core.algorithm(calibrator) == int(trt.CalibrationAlgoType.ENTROPY_CALIBRATION_2)
    assert core.batch_size(calibrator) == 1


def test_the_core_gets_each_batch_once_in_the_order_of_the_names_it_asks_for(core: Core, make: Make) -> None:
    calibrator = make()
    assert core.read_cache(calibrator) is None
    for number in range(BATCHES):
        given = core.batch(calibrator, ["bias", "image"])
        assert given is not None
        bias, image = given
        assert at(bias, 4) == [number + 0.5] * 4
        assert at(image, 6) == [number + 0.5] * 6
    assert core.batch(calibrator, ["bias", "image"]) is None
    core.write_cache(calibrator, TABLE)
    assert calibrator.finish() == TABLE


def test_the_table_is_copied_before_the_cores_memory_ends(core: Core, make: Make) -> None:
    calibrator = make()
    core.write_cache(calibrator, TABLE)
    assert calibrator.table == TABLE


def test_a_name_that_no_batch_has_ends_the_data_and_is_told_afterwards(
    core: Core, make: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    calibrator = make()
    assert core.batch(calibrator, ["image", "strange"]) is None
    assert core.batch(calibrator, ["image", "bias"]) is None
    core.write_cache(calibrator, TABLE)
    with pytest.raises(EngineBuildError, match="has none named strange"):
        calibrator.finish()
    assert capfd.readouterr().err == "", "the bindings met an exception"


def test_data_that_the_core_does_not_take_to_its_end_is_no_calibration(core: Core, make: Make) -> None:
    calibrator = make()
    assert core.batch(calibrator, ["image", "bias"]) is not None
    core.write_cache(calibrator, TABLE)
    with pytest.raises(EngineBuildError):
        calibrator.finish()


def test_a_trusted_table_is_given_whole_and_no_batch(core: Core, make: Make) -> None:
    calibrator = make(trusted=TABLE)
    assert core.read_cache(calibrator) == TABLE
    assert calibrator.finish() == TABLE


def test_a_trusted_table_that_the_core_does_not_take_is_told_afterwards(core: Core, make: Make) -> None:
    calibrator = make(trusted=TABLE)
    assert core.batch(calibrator, ["image", "bias"]) is None
    with pytest.raises(CalibrationCacheError, match="did not take the calibration table"):
        calibrator.finish()


def test_the_bound_method_does_not_reach_ours_so_that_only_the_core_can_be_asked(
    trt: ModuleType, core: Core, make: Make
) -> None:
    calibrator = make()
    try:
        answered = trt.IInt8EntropyCalibrator2.get_batch(calibrator, ["image", "bias"])
    except (RuntimeError, TypeError):
        answered = None
    assert not answered
    assert core.batch(calibrator, ["image", "bias"]) is not None
