"""F2 of one model: loaded, or refused with the model's name and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from messages import EngineDeserializeError
from runtimes.fake_runtime import FakeRuntime
from runtimes.fake_steps import returns
from runtimes.takeoff_load import deserialize_cached_engine


def test_a_whole_engine_is_loaded() -> None:
    fake = FakeRuntime({"vpr": [returns({})]})
    handle = deserialize_cached_engine(fake, fake.entry("vpr"))
    assert handle.entry.model == "vpr"


def test_an_engine_of_another_runtime_does_not_take_off() -> None:
    fake = FakeRuntime({"vpr": [returns({})]})
    entry = FakeRuntime({"vpr": [returns({})]}, label="tensorrt").entry("vpr")
    with pytest.raises(
        EngineDeserializeError, match=r"vpr does not take off: .* compiled by tensorrt, configured is fake"
    ):
        deserialize_cached_engine(fake, entry)


def test_a_refusal_names_the_model_the_file_and_what_to_do(tmp_path: Path) -> None:
    from runtimes.config import C7InferenceConfig
    from runtimes.inference_factory import build_inference_runtime
    from runtimes.inference_runtime import BuildConfig

    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper = onnx.helper
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "graph", value[:1], value[1:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "vpr.onnx"
    )
    runtime = build_inference_runtime(C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"))
    entry = runtime.compile_engine(tmp_path / "vpr.onnx", BuildConfig(precision="fp32"))
    data = bytearray(entry.path.read_bytes())
    data[7] ^= 1
    entry.path.write_bytes(data)
    with pytest.raises(
        EngineDeserializeError, match=r"vpr does not take off: .*\.engine: content altered.*c7 provision"
    ):
        deserialize_cached_engine(runtime, entry)
