"""The double of TensorRT's builder answers as the sources and headers of 10.3 say, where that is not what one hopes."""

from __future__ import annotations

import threading
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from runtimes.cuda.port import Cuda, DeviceMemory
from tests.runtimes.tensorrt.building.builds import PROFILE, descriptor

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device
    from tests.doubles.tensorrt.core import Core


class Made:
    """A builder with a parsed `descriptor`, a configuration with its profile, and a log that is a list."""

    def __init__(self, trt: ModuleType, folder: Path, flags: int = 0) -> None:
        said = self.said = []  # type: list[tuple[str, str]]

        class Log(trt.ILogger):  # type: ignore[misc,name-defined]
            def log(self, severity: Any, msg: str) -> None:
                said.append((severity.name, msg))

        self.trt = trt
        trt.CORE.logger = None
        self.builder = trt.Builder(Log())
        self.network = self.builder.create_network(flags)
        self.parser = trt.OnnxParser(self.network, Log())
        (folder / "m.onnx").write_bytes(descriptor())
        assert self.parser.parse_from_file(str(folder / "m.onnx"))
        self.config = self.builder.create_builder_config()
        profile = self.builder.create_optimization_profile()
        for name, *shapes in PROFILE:
            profile.set_shape(name, *shapes)
        assert self.config.add_optimization_profile(profile) == 0

    def build(self) -> Any:
        return self.builder.build_serialized_network(self.network, self.config)


@pytest.fixture
def made(trt: ModuleType, cuda: Cuda, tmp_path: Path) -> Made:
    return Made(trt, tmp_path)


@pytest.fixture
def batch(cuda: Cuda, device: Device) -> Any:
    """Addresses of an image of ones and a bias of ones."""
    blocks: list[DeviceMemory] = [cuda.allocate(2 * 3 * 8 * 8 * 4), cuda.allocate(4 * 4)]
    for block in blocks:
        device.bytes_at(block.address, block.size_bytes).view(np.float32)[:] = 1
    yield [block.address for block in blocks]
    for block in blocks:
        block.free()


def calibrator(trt: ModuleType, **overrides: Any) -> Any:
    """An entropy calibrator with these methods."""
    return type("Mine", (trt.IInt8EntropyCalibrator2,), {"get_batch_size": lambda self: 1, **overrides})()


def calibrate(made: Made, **overrides: Any) -> Any:
    made.config.set_flag(made.trt.BuilderFlag.INT8)
    made.config.int8_calibrator = calibrator(made.trt, **overrides)
    return made.build()


@pytest.mark.parametrize("name", ["IInt8EntropyCalibrator2", "IProgressMonitor"])
def test_a_callback_whose_base_was_not_initialised_cannot_be_made(trt: ModuleType, name: str) -> None:
    forgetful = type("Mine", (getattr(trt, name),), {"__init__": lambda self: None})

    with pytest.raises(TypeError, match=rf"{name}\.__init__\(\) must be called when overriding __init__"):
        forgetful()


def test_calibrators_warn_that_they_are_superseded(made: Made) -> None:
    with pytest.warns(DeprecationWarning, match=r"Use Deprecated in TensorRT 10\.1"):
        made.config.int8_calibrator = None
    with pytest.warns(DeprecationWarning, match="Superseded by explicit quantization"):
        assert made.config.get_calibration_profile() is None


def test_an_exception_in_get_batch_is_printed_and_means_the_end_of_the_data(
    made: Made, batch: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    tables: list[bytes] = []

    def get_batch(self: Any, names: list[str]) -> list[int]:
        if tables or len(asked) == 2:
            raise RuntimeError("the disk is gone")
        asked.append(names)
        return batch

    asked: list[list[str]] = []
    plan = calibrate(
        made,
        get_batch=get_batch,
        read_calibration_cache=lambda self: None,
        write_calibration_cache=lambda self, cache: tables.append(bytes(cache)),
    )

    assert plan is not None, "a table that looks whole"
    assert asked == [["image", "bias"]] * 2
    assert tables[0].startswith(b"TRT-100300-EntropyCalibration2\nimage: 3c010204\n")
    assert "[ERROR] Exception caught in get_batch(): the disk is gone" in capsys.readouterr().err


def test_an_exception_in_read_calibration_cache_means_a_new_calibration(made: Made, batch: list[int]) -> None:
    given = [batch, None]
    plan = calibrate(
        made,
        get_batch=lambda self, names: given.pop(0),
        read_calibration_cache=lambda self: 1 / 0,
        write_calibration_cache=lambda self, cache: None,
    )

    assert plan is not None
    assert given == []


def test_the_memory_of_a_table_ends_with_the_call(made: Made, batch: list[int]) -> None:
    given, kept = [batch, []], []
    calibrate(
        made,
        get_batch=lambda self, names: given.pop(0),
        read_calibration_cache=lambda self: None,
        write_calibration_cache=lambda self, cache: kept.append(cache),
    )

    assert isinstance(kept[0], memoryview)
    assert kept[0].readonly
    assert {*bytes(kept[0])} == {0xDD}


def test_a_calibration_without_a_batch_fails_the_build(made: Made) -> None:
    plan = calibrate(made, get_batch=lambda self, names: None, read_calibration_cache=lambda self: None)

    assert plan is None
    assert "Calibration failure occurred with no scaling factors detected" in made.said[-1][1]


def test_a_batch_that_was_freed_is_an_illegal_address(made: Made, device: Device, batch: list[int]) -> None:
    plan = calibrate(
        made, get_batch=lambda self, names: [batch[0] + 4096, batch[1]], read_calibration_cache=lambda s: None
    )

    assert plan is None
    assert "Cuda Runtime (an illegal memory access was encountered)" in made.said[-1][1]
    assert "are in no block of the device" in device.take_misuse()


@pytest.mark.parametrize("answer", [lambda: False, lambda: 1 / 0])
def test_a_monitor_that_says_no_or_raises_ends_the_build(made: Made, answer: Any) -> None:
    phases: list[str] = []
    methods = {
        "phase_start": lambda self, name, parent, steps: phases.append(name),
        "step_complete": lambda self, name, step: answer(),
        "phase_finish": lambda self, name: phases.remove(name),
    }
    made.config.progress_monitor = type("Mine", (made.trt.IProgressMonitor,), methods)()

    assert made.build() is None
    assert phases == [], "every phase that began is over"


def test_progress_comes_from_more_than_one_thread(made: Made) -> None:
    threads: set[int] = set()
    methods = {
        "phase_start": lambda self, name, parent, steps: threads.add(threading.get_ident()),
        "step_complete": lambda self, name, step: True,
        "phase_finish": lambda self, name: None,
    }
    made.config.progress_monitor = type("Mine", (made.trt.IProgressMonitor,), methods)()

    assert made.build() is not None
    assert threads > {threading.get_ident()}


def test_a_recorder_hears_the_errors_and_then_the_log_does_not(made: Made, core: Core) -> None:
    heard: list[str] = []

    def report_error(self: Any, code: Any, text: str) -> bool:
        heard.append(f"{code.name} {text}")
        return True

    methods = {
        "report_error": report_error,
        "get_num_errors": lambda self: len(heard),
        "num_errors": lambda self: len(heard),
    }
    made.builder.error_recorder = type("Mine", (made.trt.IErrorRecorder,), methods)()
    core.fail("build_serialized_network", "no way", "UNSUPPORTED_STATE")

    assert made.build() is None
    assert heard == ["UNSUPPORTED_STATE no way"]
    assert not [text for severity, text in made.said if severity == "ERROR"]


def test_a_profile_is_false_until_it_is_complete(made: Made) -> None:
    profile = made.builder.create_optimization_profile()
    with pytest.raises(RuntimeError, match="Shape provided for opt is inconsistent with other shapes"):
        profile.set_shape("image", (2, 3, 8, 8), (1, 3, 8, 8), (4, 3, 8, 8))

    assert not profile
    assert made.config.add_optimization_profile(profile) == -1
    profile.set_shape("image", (1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))
    assert profile


def test_a_strongly_typed_network_rejects_precisions(trt: ModuleType, cuda: Cuda, tmp_path: Path) -> None:
    made = Made(trt, tmp_path, flags=1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    made.network.get_layer(0).precision = trt.float16

    assert not made.network.get_layer(0).precision_is_set
    assert made.said[-1][0] == "ERROR"


def test_timings_combine_only_within_a_version_and_a_device(made: Made, core: Core) -> None:
    made.config.set_timing_cache(made.config.create_timing_cache(b""), ignore_mismatch=False)
    assert made.build() is not None
    written = bytes(memoryview(made.config.get_timing_cache().serialize()))
    core.device = "another"
    foreign, own = made.config.create_timing_cache(written), made.config.create_timing_cache(b"")

    assert not made.config.set_timing_cache(foreign, ignore_mismatch=False)
    assert made.config.set_timing_cache(foreign, ignore_mismatch=True)
    assert not own.combine(foreign, ignore_mismatch=False)
    assert own.combine(foreign, ignore_mismatch=True)
    core.version = (10, 4, 0, 11)
    assert not made.config.create_timing_cache(b"").combine(foreign, ignore_mismatch=True)


def test_a_miss_is_an_error_where_the_build_may_not_time(made: Made) -> None:
    made.config.set_timing_cache(made.config.create_timing_cache(b""), False)
    made.config.set_flag(made.trt.BuilderFlag.ERROR_ON_TIMING_CACHE_MISS)
    assert made.build() is None

    made.config.clear_flag(made.trt.BuilderFlag.ERROR_ON_TIMING_CACHE_MISS)
    assert made.build() is not None
    made.config.set_flag(made.trt.BuilderFlag.ERROR_ON_TIMING_CACHE_MISS)
    assert made.build() is not None


def test_a_build_on_a_thread_that_chose_no_device_is_a_misuse(made: Made, device: Device) -> None:
    thread = threading.Thread(target=made.build)
    thread.start()
    thread.join(60)

    assert device.take_misuse() == "a build on a thread that has no current device"


def test_no_builder_is_made_without_a_device(trt: ModuleType, device: Device) -> None:
    device.remove_device()

    with pytest.raises(TypeError, match="factory function returned nullptr"):
        trt.Builder(trt.Logger())
