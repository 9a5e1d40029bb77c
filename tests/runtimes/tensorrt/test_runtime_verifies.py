"""What the runtime tensorrt compares by itself before TensorRT is asked: bytes, metadata, tensors and shapes."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper

from messages import CorruptEngineError, EngineBuildError, InvalidInputError
from runtimes.config import C7InferenceConfig, TensorrtSection
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.store.engine_artifact import read_verified
from runtimes.tensorrt_runtime import TensorrtRuntime
from tests.runtimes.tensorrt.models import FLOAT
from tests.runtimes.tensorrt.runtimes import FP16, MakeRuntime, arrays

if TYPE_CHECKING:
    from tests.doubles.tensorrt.core import Core


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_flipped_bit_is_found_before_tensorrt_sees_any(
    make_runtime: MakeRuntime, entry: EngineCacheEntry, core: Core
) -> None:
    runtime = make_runtime()
    flip_last_bit(entry.path)
    core.calls.clear()
    with pytest.raises(CorruptEngineError, match=r"descriptor__.*\.engine: .*expected"):
        runtime.deserialize_engine(entry)
    assert core.calls == []


def test_the_bytes_that_were_hashed_are_loaded_whatever_lies_on_the_disk_by_then(
    make_runtime: MakeRuntime, entry: EngineCacheEntry
) -> None:
    plain = make_runtime()
    handle = plain.deserialize_engine(entry)
    expected = plain.infer(handle, arrays())
    plain.release_engine(handle)

    def read_and_lose(asked: EngineCacheEntry) -> bytes:
        data = read_verified(asked)
        asked.path.write_bytes(b"another engine by now")
        return data

    config = C7InferenceConfig(runtime="tensorrt", tensorrt=TensorrtSection(builder="api"))
    runtime = TensorrtRuntime(config, read=read_and_lose)
    handle = runtime.deserialize_engine(entry)
    for name, array in runtime.infer(handle, arrays()).items():
        np.testing.assert_array_equal(np.asarray(array), np.asarray(expected[name]))
    runtime.release_engine(handle)
    runtime._cuda.close()


def test_an_engine_of_another_model_than_the_one_that_was_audited_is_refused(
    make_runtime: MakeRuntime, trt: ModuleType, descriptor_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = onnx.load(descriptor_onnx)
    other.graph.node.append(helper.make_node("Identity", ["mask"], ["shown"]))
    other.graph.input.append(helper.make_tensor_value_info("mask", FLOAT, [2]))
    other.graph.output.append(helper.make_tensor_value_info("shown", FLOAT, [2]))
    onnx.save(other, tmp_path / "other.onnx")
    parse = trt.OnnxParser.parse_from_file
    runtime = make_runtime()
    monkeypatch.setattr(
        trt.OnnxParser, "parse_from_file", lambda parser, _path: parse(parser, str(tmp_path / "other.onnx"))
    )
    with pytest.raises(EngineBuildError, match=r"another engine: mask: expected none, found float32\[2\]$"):
        runtime.compile_engine(descriptor_onnx, FP16)
    assert not (descriptor_onnx.parent / "engines").exists()


def test_a_shape_outside_the_profile_is_refused_before_tensorrt_sees_it(
    make_runtime: MakeRuntime, entry: EngineCacheEntry, core: Core
) -> None:
    runtime = make_runtime()
    handle = runtime.deserialize_engine(entry)
    expected = runtime.infer(handle, arrays())
    core.calls.clear()
    with pytest.raises(InvalidInputError, match=r"descriptor: input image: expected .*1\.\.4.*found .*5, 3, 8, 8"):
        runtime.infer(handle, arrays(5))
    assert core.calls == []
    for name, array in runtime.infer(handle, arrays()).items():
        np.testing.assert_array_equal(np.asarray(array), np.asarray(expected[name]))
    runtime.release_engine(handle)
