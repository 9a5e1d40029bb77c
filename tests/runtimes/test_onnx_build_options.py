"""What the provisioner gives an ONNX Runtime build beside the model: a place for timings, and a storage budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from messages import EngineBuildError, EngineStoreError
from runtimes.config import C7InferenceConfig
from runtimes.inference_runtime import BuildConfig
from runtimes.onnx_trt_ep_runtime import (
    TIMING_MAX_BYTES,
    OnnxTrtEpRuntime,
    tensorrt_options,
    timing_cache_sha256,
)
from runtimes.store.sha256_sidecar import sha256_of

MIXED = BuildConfig(precision="mixed")


def test_timings_are_kept_where_the_provisioner_says_and_never_forced_on_another_gpu() -> None:
    options = tensorrt_options(MIXED, Path("engine.onnx"), Path("/scratch/timing"))
    assert (options["trt_timing_cache_enable"], options["trt_timing_cache_path"]) == ("1", "/scratch/timing")
    assert "trt_force_timing_cache" not in options


def test_a_build_without_a_place_for_timings_keeps_none() -> None:
    options = tensorrt_options(MIXED, Path("engine.onnx"))
    assert options["trt_timing_cache_enable"] == "0"
    assert "trt_timing_cache_path" not in options


def test_the_timings_of_this_gpu_go_into_the_record_and_a_build_without_any_has_none(tmp_path: Path) -> None:
    assert timing_cache_sha256(None, 87) is None
    assert timing_cache_sha256(tmp_path, 87) is None
    (tmp_path / "TensorrtExecutionProvider_cache_sm87.timing").write_bytes(b"timings")
    (tmp_path / "TensorrtExecutionProvider_cache_sm90.timing").write_bytes(b"of another GPU")
    assert timing_cache_sha256(tmp_path, 87) == sha256_of(b"timings")


def test_timings_that_are_no_file_or_without_bounds_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "TensorrtExecutionProvider_cache_sm87.timing"
    path.mkdir()
    with pytest.raises(EngineBuildError, match=path.name):
        timing_cache_sha256(tmp_path, 87)
    path.rmdir()
    with path.open("wb") as file:
        file.truncate(TIMING_MAX_BYTES + 1)
    with pytest.raises(EngineBuildError, match=path.name):
        timing_cache_sha256(tmp_path, 87)


def test_an_engine_over_the_storage_budget_is_refused_before_it_is_written(descriptor_onnx: Path) -> None:
    pytest.importorskip("onnxruntime")
    config = C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu", storage_room_bytes=100)
    with pytest.raises(EngineStoreError, match=r"budget is too small: \d+ bytes are needed, 100 bytes are left"):
        OnnxTrtEpRuntime(config).compile_engine(descriptor_onnx, BuildConfig(precision="fp32"))
    assert not (descriptor_onnx.parent / "engines").exists()


@pytest.mark.torch
def test_an_exported_program_over_the_storage_budget_is_refused_before_it_is_written(
    descriptor_pt2: Path, tmp_path: Path
) -> None:
    from runtimes.pytorch_fp16_runtime import PytorchFp16Runtime

    config = C7InferenceConfig(engine_dir=tmp_path / "engines", storage_room_bytes=100)
    with pytest.raises(EngineStoreError, match="storage budget is too small"):
        PytorchFp16Runtime(config).compile_engine(descriptor_pt2, BuildConfig())
    assert not (tmp_path / "engines").exists()
