"""INT8 scales from real batches: what is calibrated on, what stops it, and which table is trusted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import helper

from messages import CalibrationCacheError, DeviceFaultError, EngineBuildError, OutOfMemoryError
from runtimes.build_report import BuilderName
from runtimes.calibration.cache import decode_calibration
from runtimes.cuda.port import Cuda
from runtimes.tensorrt.log import TensorrtLog
from tests.runtimes.tensorrt.building.builds import BATCHES, Bench, descriptor, put_trtexec_first
from tests.runtimes.tensorrt.models import FLOAT, model

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device
    from tests.doubles.tensorrt.core import Core


@pytest.fixture
def bench(trt: ModuleType, log: TensorrtLog, cuda: Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    put_trtexec_first(monkeypatch)
    return Bench(trt, log, cuda, tmp_path)


def when(told: list[str], phase: str, reason: str) -> tuple[Callable[[], str], Callable[[str], None]]:
    """A wish to end that comes with the first word of a phase."""
    return lambda: reason if any(phase in each for each in told) else "", told.append


def test_the_scales_are_the_largest_magnitudes_of_all_batches(bench: Bench) -> None:
    folder = bench.dataset()
    built = bench.build(descriptor(), "int8", dataset=folder)

    assert built.calibration_cache is not None
    cache = decode_calibration(built.calibration_cache)
    images = [np.abs(np.load(path)["image"]).max() for path in folder.iterdir()]
    assert cache.table.scales["image"] * 127 == pytest.approx(max(images), rel=1e-6)
    assert {*cache.table.scales} == {"image", "bias", "features", "active", "pooled", "descriptor"}
    assert (cache.binding.batches, cache.binding.library) == (BATCHES, "tensorrt 10.3.0")
    assert built.dataset_sha256 == cache.binding.dataset_sha256


@pytest.mark.parametrize("builder", ["api", "trtexec"])
def test_a_trusted_table_is_used_again_without_a_batch(
    bench: Bench, builder: BuilderName, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, kept = bench.dataset(), bench.folder / "kept.calibration"
    first = bench.build(descriptor(), "int8", dataset=folder)
    assert first.calibration_cache is not None
    kept.write_bytes(first.calibration_cache)

    monkeypatch.setattr("runtimes.calibration.batch_feed.BatchFeed.next_batch", lambda self: pytest.fail("a batch"))
    again = bench.build(descriptor(), "int8", builder, dataset=folder, calibration_path=kept)
    assert again.data == first.data
    assert again.calibration_cache == first.calibration_cache


def test_a_table_of_another_dataset_is_not_trusted(bench: Bench) -> None:
    folder, kept = bench.dataset(), bench.folder / "kept.calibration"
    first = bench.build(descriptor(), "int8", dataset=folder)
    assert first.calibration_cache is not None
    kept.write_bytes(first.calibration_cache)
    bench.dataset(BATCHES + 1)

    with pytest.raises(CalibrationCacheError, match=r"made from something else: dataset_sha256.*batches: expected 11"):
        bench.build(descriptor(), "int8", dataset=folder, calibration_path=kept)


def test_a_trusted_table_that_tensorrt_does_not_take_is_an_error_and_no_new_calibration(
    bench: Bench, trt: ModuleType, core: Core
) -> None:
    folder, kept = bench.dataset(), bench.folder / "kept.calibration"
    first = bench.build(descriptor(), "int8", dataset=folder)
    assert first.calibration_cache is not None
    kept.write_bytes(first.calibration_cache)

    core.version = (10, 3, 1, 0)  # as `__version__` of the bindings does not tell
    with pytest.raises(CalibrationCacheError, match="TensorRT did not take the calibration table of a former build"):
        bench.build(descriptor(), "int8", dataset=folder, calibration_path=kept)


@pytest.mark.parametrize("builder", ["api", "trtexec"])
def test_a_batch_that_rots_in_the_middle_ends_the_build_with_its_name(bench: Bench, builder: BuilderName) -> None:
    folder = bench.dataset()
    told: list[str] = []

    def rot(progress: str) -> str:
        (folder / "004.npz").write_bytes(b"rotten")
        return ""

    with pytest.raises(EngineBuildError, match=r"004\.npz"):
        bench.build(
            descriptor(),
            "int8",
            builder,
            dataset=folder,
            cancelled=lambda: rot(""),
            tell=told.append,
        )
    assert not any("Timing" in each for each in told), "a build whose calibration failed is not worth its hours"


def test_a_dataset_that_is_too_short_or_of_another_shape_is_refused_before_the_build(bench: Bench, core: Core) -> None:
    with pytest.raises(EngineBuildError, match="expected at least 10 batches, found 9"):
        bench.build(descriptor(), "int8", dataset=bench.dataset(BATCHES - 1))
    folder = bench.dataset()
    np.savez(folder / "009.npz", image=np.zeros((1, 3, 8, 8), "f4"), bias=np.zeros(4, "f4"))

    with pytest.raises(EngineBuildError, match=r"009\.npz.*image"):
        bench.build(descriptor(), "int8", dataset=folder)
    assert "build_serialized_network" not in core.calls


def test_an_input_that_is_zero_in_every_batch_has_no_scale_and_is_named(bench: Bench) -> None:
    with pytest.raises(
        EngineBuildError, match="expected a scale for every tensor of an int8 engine, found none for bias"
    ):
        bench.build(descriptor(), "int8", dataset=bench.dataset(zero=["bias"]))


@pytest.mark.parametrize("builder", ["api", "trtexec"])
def test_a_tensor_without_a_scale_is_fatal_in_int8_and_counted_in_mixed(
    bench: Bench, core: Core, builder: BuilderName, monkeypatch: pytest.MonkeyPatch
) -> None:
    core.unscaled = {"features"}
    dataset = bench.dataset()

    with pytest.raises(
        EngineBuildError, match="found none for features, whose layers TensorRT runs in another precision"
    ):
        bench.build(descriptor(), "int8", builder, dataset=dataset)
    report = bench.build(descriptor(), "mixed", builder, dataset=dataset).report
    assert (report.missing_scales, report.layer_precisions["fp16"]) == (1, 1)
    assert "Missing scale and zero-point for tensor features" in report.warnings[0]


@pytest.mark.parametrize("builder", ["api", "trtexec"])
def test_a_constant_that_calibration_gives_no_scale_is_counted_and_no_reason_to_refuse(
    bench: Bench, builder: BuilderName
) -> None:
    """TensorRT 10 warns of each constant after a whole calibration (NVIDIA/TensorRT#4058)."""
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["features"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["features", "half"], ["scaled"], name="mul"),
        helper.make_node("Add", ["scaled", "bias"], ["shifted"], name="add"),
    ]
    inputs: list[Any] = [("image", FLOAT, ["n", 3, 8, 8]), ("bias", FLOAT, [1])]
    weight = np.random.default_rng(7).normal(size=(4, 3, 3, 3)).astype(np.float32)
    data = model(nodes, inputs, [("shifted", FLOAT, ["n", 4, 8, 8])], weight=weight, half=np.array([0.5], np.float32))
    folder = bench.dataset()
    for path in folder.iterdir():
        arrays = dict(np.load(path))
        np.savez(path, image=arrays["image"], bias=arrays["bias"][:1])

    report = bench.build(data, "int8", builder, dataset=folder).report
    assert report.missing_scales == 1
    assert "tensor half_output, expect fall back" in report.warnings[0]
    assert (report.layer_precisions["int8"], report.layer_precisions["fp16"]) == (2, 1)


def test_a_build_is_cancelled_before_in_the_middle_of_and_after_its_calibration(bench: Bench) -> None:
    dataset = bench.dataset()
    for phase in ("Building Engine", "Calibrating", "Timing graph nodes"):
        cancelled, tell = when([], phase, f"the landing, {phase}")
        with pytest.raises(EngineBuildError, match=rf"model\.onnx: the build was ended: the landing, {phase}"):
            bench.build(descriptor(), "int8", dataset=dataset, cancelled=cancelled, tell=tell)


def test_trtexecs_calibration_here_is_cancelled_too(bench: Bench) -> None:
    with pytest.raises(EngineBuildError, match=r"model\.onnx: the build was ended: the landing"):
        bench.build(descriptor(), "int8", "trtexec", dataset=bench.dataset(), cancelled=lambda: "the landing")


def test_a_device_without_memory_for_a_batch_is_out_of_memory_and_leaves_nothing(bench: Bench, device: Device) -> None:
    device.fail("cudaMalloc", 2)

    with pytest.raises(OutOfMemoryError):
        bench.build(descriptor(), "int8", dataset=bench.dataset())


def test_a_device_that_is_lost_while_it_calibrates_is_the_devices_fault(bench: Bench, device: Device) -> None:
    device.fail("cudaMemcpyAsync", 700, after=3)

    with pytest.raises(DeviceFaultError, match="illegal memory access"):
        bench.build(descriptor(), "int8", dataset=bench.dataset())


def test_a_callback_that_raises_ends_the_build_and_is_raised_itself(bench: Bench) -> None:
    def broken(*_: str) -> str:
        raise RuntimeError("the console is gone")

    with pytest.raises(RuntimeError, match="the console is gone"):
        bench.build(descriptor(), tell=broken)
    with pytest.raises(RuntimeError, match="the console is gone"):
        bench.build(descriptor(), cancelled=broken)


def test_progress_is_told_from_the_builder_down_to_each_batch(bench: Bench) -> None:
    told: list[str] = []
    bench.build(descriptor(), "int8", dataset=bench.dataset(), tell=told.append)

    assert [each for each in told if "Calibrating" in each][-1].startswith("Building Engine 0/4 > Calibrating 10/")
    assert any("Timing graph nodes" in each for each in told)
    assert told[-1] == "Building Engine 4/4"


def test_a_calibration_for_trtexec_is_told_and_ends_once_its_table_is_there(bench: Bench) -> None:
    told: list[str] = []
    bench.build(descriptor(), "int8", "trtexec", dataset=bench.dataset(), tell=told.append)

    assert [each for each in told if "Calibrating" in each][-1].startswith("Building Engine 0/4 > Calibrating 10/")
    assert not any("Timing" in each for each in told)
