"""What the doubles and the decisions believe of TensorRT's builder, asked of one. Red here: the page or the double is
wrong, and where it says so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from messages import CalibrationCacheError, EngineBuildError
from runtimes.build_report import BuildReport
from runtimes.calibration.batch_feed import BatchFeed
from runtimes.calibration.dataset import CalibrationDataset
from runtimes.cuda.port import Cuda
from runtimes.inference_runtime import BuildConfig
from runtimes.onnx_types import DELICATE_OPS
from runtimes.tensorrt.building.build_findings import find_in_log
from runtimes.tensorrt.building.calibrator import CALIBRATOR, Calibrator, entropy_calibrator
from runtimes.tensorrt.building.layer_audit import UNTOLD
from runtimes.tensorrt.building.network import BuilderConfig, ParsedModel, hold_to_fp32
from runtimes.tensorrt.building.progress import PHASES_MAX, progress_monitor
from runtimes.tensorrt.building.timings import attach_timings, fitting_timings, timings_of
from runtimes.tensorrt.library import version_numbers
from runtimes.tensorrt.log import TensorrtLog
from tests.runtimes.tensorrt.on_a_device import networks
from tests.runtimes.tensorrt.on_a_device.conftest import Built, MakeRuntime, Say
from tests.runtimes.tensorrt.on_a_device.networks import FP16_ROWS

pytestmark = [pytest.mark.tensorrt, pytest.mark.filterwarnings("ignore:.*Superseded by explicit:DeprecationWarning")]

MIB = 1 << 20
STEPS_AFTER_A_NO = 32
"""What several threads of a builder may complete before each has heard that the build is to end."""


class Raw:
    """One model on TensorRT's own classes."""

    def __init__(self, trt: ModuleType, log: TensorrtLog, folder: Path, onnx: bytes, *, typed: bool) -> None:
        path = folder / "model.onnx"
        path.write_bytes(onnx)
        self.parsed = ParsedModel(trt, log, path, strongly_typed=typed)
        self.config: BuilderConfig = self.parsed.builder.create_builder_config()

    def build(self) -> bytes | None:
        plan = self.parsed.builder.build_serialized_network(self.parsed.network, self.config)
        return None if plan is None else bytes(memoryview(plan))


@pytest.fixture
def raw(trt: ModuleType, log: TensorrtLog, cuda: Cuda, tmp_path: Path) -> Callable[[bytes], Raw]:
    """`raw(onnx)`: for an fp32 model, which is to be calibrated or timed."""
    cuda.make_current()

    def make(onnx: bytes) -> Raw:
        made = Raw(trt, log, tmp_path, onnx, typed=False)
        made.config.set_flag(trt.BuilderFlag.FP16)
        made.config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 256 * MIB)
        return made

    return make


@pytest.fixture
def calibrating(trt: ModuleType, cuda: Cuda, tmp_path: Path) -> Callable[..., Any]:
    """`calibrating(trusted=None)`: the product's calibrator over a dozen pictures, closed at the end."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, picture in enumerate(networks.pictures(12)):
        np.savez(folder / f"{index:03}.npz", image=picture)
    specs = {"image": networks.CALIBRATED_SPEC}

    @contextmanager
    def calibrate(trusted: bytes | None = None) -> Iterator[Calibrator]:
        made = entropy_calibrator(trt, cuda, BatchFeed(CalibrationDataset.open(folder, specs)), trusted)
        try:
            yield made
        finally:
            made.close()

    return calibrate


def calibrate(trt: ModuleType, one: Raw, calibrator: Calibrator) -> bytes | None:
    one.config.set_flag(trt.BuilderFlag.INT8)
    one.config.int8_calibrator = calibrator
    return one.build()


@pytest.mark.belief("names, number and nesting of the phases")
def test_a_monitor_hears_of_phases_within_phases_and_no_deeper_than_is_kept(
    trt: ModuleType, raw: Callable[[bytes], Raw], say: Say
) -> None:
    phases: dict[str, tuple[str | None, int]] = {}
    threads: set[int] = set()
    under_way: list[int] = []

    class Listening(type(progress_monitor(trt))):  # type: ignore[misc]
        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases[phase_name] = parent_phase, num_steps
            threads.add(threading.get_ident())
            super().phase_start(phase_name, parent_phase, num_steps)
            under_way.append(self.progress.describe().count(" > ") + 1)

    monitor = Listening()
    one = raw(networks.calibrated())
    one.config.progress_monitor = monitor
    assert one.build() is not None
    say(f"{len(threads)} threads, {max(under_way)} phases at once, {phases}")
    assert monitor.failure is None
    assert [name for name, (parent, _) in phases.items() if parent is None]
    assert all(parent is None or parent in phases for parent, _ in phases.values())
    assert max(under_way) < PHASES_MAX
    assert monitor.progress.describe() == ""


@pytest.mark.belief("that a build ends soon after `step_complete` says no")
@pytest.mark.belief("the words of a build that a monitor ended")
def test_a_build_ends_soon_after_its_monitor_says_no(
    trt: ModuleType, log: TensorrtLog, raw: Callable[[bytes], Raw], say: Say
) -> None:
    told: list[str] = []
    one = raw(networks.calibrated())

    class Counting(type(progress_monitor(trt))):  # type: ignore[misc]
        def step_complete(self, phase_name: str, step: int) -> bool:
            told.append(phase_name)
            return bool(super().step_complete(phase_name, step))

    counting = Counting()
    counting.ended_because = "enough"
    one.config.progress_monitor = counting
    with log.listening("WARNING") as heard:
        assert one.build() is None
    say(f"{len(told)} steps after the first no, and {[line.text for line in heard.lines][:3]}")
    assert 1 <= len(told) <= STEPS_AFTER_A_NO


@pytest.mark.belief("that a table from a cancelled build is the one of a whole build")
def test_the_table_of_a_cancelled_build_is_that_of_a_whole_one(
    trt: ModuleType, raw: Callable[[bytes], Raw], calibrating: Callable[..., Any]
) -> None:
    with calibrating() as whole:
        assert calibrate(trt, raw(networks.calibrated()), whole) is not None
        expected = whole.finish()
    with calibrating() as partly:
        one = raw(networks.calibrated())
        one.config.progress_monitor = progress_monitor(trt, lambda: "enough" if partly.table is not None else "")
        assert calibrate(trt, one, partly) is None
        assert partly.finish() == expected


@pytest.mark.belief("the order of lines in a calibration table")
def test_a_table_opens_with_version_and_algorithm_and_has_a_scale_for_tensors_and_none_for_constants(
    trt: ModuleType, raw: Callable[[bytes], Raw], calibrating: Callable[..., Any], say: Say
) -> None:
    data = networks.calibrated()
    with calibrating() as calibrator:
        assert calibrate(trt, raw(data), calibrator) is not None
        header, *lines = calibrator.finish().decode().splitlines()
    say(f"{header}, then {lines[:4]}")
    major, minor, patch = version_numbers(str(trt.__version__))[:3]
    assert header == f"TRT-{major * 10000 + minor * 100 + patch}-{CALIBRATOR}"
    names = [line.rpartition(": ")[0] for line in lines]
    assert all(int(line.rpartition(": ")[2], 16) >= 0 for line in lines)
    assert names[0] == "image"
    assert set(names) & networks.initializers(data) == set()


@pytest.mark.belief("a table of another version is passed over with a warning")
def test_a_table_of_another_version_is_not_taken_and_batches_are_asked_for(
    trt: ModuleType, log: TensorrtLog, raw: Callable[[bytes], Raw], calibrating: Callable[..., Any], say: Say
) -> None:
    with calibrating() as calibrator:
        assert calibrate(trt, raw(networks.calibrated()), calibrator) is not None
        _, _, scales = calibrator.finish().partition(b"\n")
    with calibrating(b"TRT-80601-EntropyCalibration2\n" + scales) as older, log.listening("WARNING") as heard:
        calibrate(trt, raw(networks.calibrated()), older)
        say(str([line.text for line in heard.lines][:3]))
        with pytest.raises(CalibrationCacheError, match="did not take the calibration table"):
            older.finish()


@pytest.mark.belief("a tensor whose scale is 0 counts as one without a scale")
def test_an_int8_build_over_a_tensor_that_is_zero_throughout_is_refused_by_its_name(
    make_runtime: MakeRuntime, tmp_path: Path, calibrating: Callable[..., Any]
) -> None:
    source = tmp_path / "calibrated.onnx"
    source.write_bytes(networks.calibrated(dead_branch=True))
    config = BuildConfig(precision="int8", calibration_dataset=tmp_path / "pictures")
    with pytest.raises(EngineBuildError, match=r"expected a scale for every tensor of an int8 engine, found none for"):
        make_runtime().compile_engine(source, config)


@pytest.mark.belief("a timing cache that is corrupt gives None")
def test_bytes_that_are_no_timings_are_no_cache(raw: Callable[[bytes], Raw]) -> None:
    found, why = fitting_timings(raw(networks.calibrated()).config, b"no timings at all" * 64)
    assert found == b""
    assert "cannot read the timings" in why


def test_a_second_build_times_nothing_anew(trt: ModuleType, raw: Callable[[bytes], Raw]) -> None:
    """By ERROR_ON_TIMING_CACHE_MISS, which fails a build that would have to time."""

    def build(timings: bytes) -> tuple[bytes | None, bytes]:
        one = raw(networks.calibrated())
        cache = attach_timings(one.config, timings)
        if timings:
            one.config.set_flag(trt.BuilderFlag.ERROR_ON_TIMING_CACHE_MISS)
        plan = one.build()
        kept = timings_of(one.config)
        del cache
        return plan, kept

    plan, timings = build(b"")
    assert plan is not None
    again, _ = build(timings)
    assert again is not None


@pytest.mark.belief("that its inspector tells types for layers of dynamic shapes")
@pytest.mark.belief("the inspector's names of the formats of Int64, Bool and BF16 tensors")
def test_the_inspector_tells_the_type_of_every_layer_also_of_dynamic_shapes_and_integers(
    built: Built, say: Say
) -> None:
    for name, data in (("scaled", networks.scaled_rows()), ("nonzero", networks.nonzero_rows())):
        precisions = report_of(built(name, data, FP16_ROWS).build).layer_precisions
        say(f"{name}: {precisions}")
        assert UNTOLD not in precisions
        assert sum(precisions.values()) >= 1


def report_of(report: BuildReport | None) -> BuildReport:
    assert report is not None
    return report


@pytest.mark.belief("that the name or the metadata of a layer names its ONNX node")
def test_every_delicate_node_has_a_layer_that_names_it(trt: ModuleType, raw: Callable[[bytes], Raw], say: Say) -> None:
    assert {"LayerNormalization", "Softmax", "ReduceSumSquare", "Pow"} <= set(DELICATE_OPS)
    network = raw(networks.delicate()).parsed.network
    held = [hold_to_fp32(trt, network, [node]) for node in networks.DELICATE]
    say(str(held))
    assert all(held)


@pytest.mark.belief("that the square in a sum of squares says no node")
def test_the_square_in_a_sum_of_squares_is_held_with_it(trt: ModuleType, raw: Callable[[bytes], Raw]) -> None:
    network = raw(networks.delicate()).parsed.network
    assert len(hold_to_fp32(trt, network, ["squares"])) == 2


@pytest.mark.belief("a workspace of more than the device's memory is larger than the maximum possible value")
def test_a_workspace_beyond_the_device_is_not_taken(trt: ModuleType, cuda: Cuda, raw: Callable[[bytes], Raw]) -> None:
    config = raw(networks.calibrated()).config
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 2 * cuda.memory()[1])
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 256 * MIB


@pytest.mark.belief("the words and sizes of TensorRT 10.3's log lines for skipped tactics")
def test_a_tactic_that_the_workspace_is_too_small_for_is_counted_and_no_other_is(
    trt: ModuleType, log: TensorrtLog, raw: Callable[[bytes], Raw], say: Say
) -> None:
    one = raw(networks.calibrated())
    one.config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 64 << 10)
    with log.listening("WARNING") as heard:
        assert one.build() is not None
    lines = [line for line in heard.lines if "insufficient" in line.text.lower() or "skipping" in line.text.lower()]
    if not lines:
        pytest.skip("TensorRT left no tactic out for a workspace of 64 KiB")
    say(lines[0].text)
    findings = find_in_log(heard.lines, 64 << 10)
    assert findings.skipped_tactics == sum("skipping tactic" in line.text.lower() for line in lines) >= 1
    assert findings.short_of_memory == ""
