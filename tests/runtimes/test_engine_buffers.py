"""What a load leaves behind on the Python side: nothing of the engine file."""

from __future__ import annotations

import gc
import os
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from runtimes import BuildConfig, C7InferenceConfig, build_inference_runtime
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.store.read_ahead import ReadAhead

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

MIB = 1024**2
SIDE = 2304
"""Its square in float32 is 20 MiB."""
CONFIG = C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu")


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> EngineCacheEntry:
    """y = x @ weights, compiled."""
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    weights = np.random.default_rng(3).standard_normal((SIDE, SIDE), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        "large",
        [helper.make_tensor_value_info("x", float32, [1, SIDE])],
        [helper.make_tensor_value_info("y", float32, [1, SIDE])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    path = tmp_path_factory.mktemp("large") / "large.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    compiled = build_inference_runtime(CONFIG).compile_engine(path, BuildConfig(precision="fp32"))
    assert compiled.engine_size_bytes > 20 * MIB
    return compiled


@pytest.mark.parametrize("reads_ahead", [True, False])
def test_no_byte_of_the_engine_file_stays_once_it_is_loaded(entry: EngineCacheEntry, reads_ahead: bool) -> None:
    with ReadAhead([entry] if reads_ahead else []) as ahead:
        runtime = build_inference_runtime(CONFIG, read=ahead.read)
        runtime.release_engine(runtime.deserialize_engine(entry))  # what is loaded once is out of the way
    gc.collect()
    tracemalloc.start()
    try:
        with ReadAhead([entry] if reads_ahead else []) as ahead:
            runtime = build_inference_runtime(CONFIG, read=ahead.read)
            handle = runtime.deserialize_engine(entry)
            stayed_bytes, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert entry.engine_size_bytes < peak_bytes < 2 * entry.engine_size_bytes, "one buffer, and no copy of it"
    assert stayed_bytes < MIB
    assert runtime.infer(handle, {"x": np.zeros((1, SIDE), np.float32)})["y"].shape == (1, SIDE)


_OPENED: Counter[str] | None = None


def _count_opens(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _OPENED is not None:
        _OPENED[Path(os.fsdecode(str(arguments[0]))).name] += 1


sys.addaudithook(_count_opens)


def test_each_load_opens_the_engine_file_once(entry: EngineCacheEntry) -> None:
    global _OPENED
    _OPENED = Counter()
    try:
        with ReadAhead([entry]) as ahead:
            runtime = build_inference_runtime(CONFIG, read=ahead.read)
            for load in (1, 2):  # the second is a restart, which nothing was read ahead for
                runtime.deserialize_engine(entry)
                assert _OPENED[entry.path.name] == load
    finally:
        _OPENED = None
