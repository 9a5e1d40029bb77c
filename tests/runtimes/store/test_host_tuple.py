"""An engine flies on the host that it was built on: every single and every paired difference is refused by name."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import msgspec
import pytest

from messages import EngineDeserializeError
from runtimes.config import C7InferenceConfig
from runtimes.inference_factory import build_inference_runtime
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry, HostTuple
from runtimes.source_model import SourceModel
from runtimes.store.engine_artifact import read_engine, read_entry, read_verified
from runtimes.store.engine_writer import BuiltEngine, write_engine
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.takeoff_load import deserialize_cached_engine

LABEL = "tensorrt"
BUILT_ON = HostTuple(
    sm=87,
    sm_count=8,
    device_name="Orin (nvgpu)",
    jetpack="6.2",
    l4t="36.4.3",
    tensorrt="10.3.0.30",
    cuda="12.6",
    machine="aarch64",
    runtime_version="10.3.0.30",
)
ELSEWHERE = HostTuple(
    sm=86,
    sm_count=16,
    device_name="NVIDIA RTX A6000",
    jetpack="0",
    l4t="0",
    tensorrt="10.3.0.31",
    cuda="12.8",
    machine="x86_64",
    runtime_version="10.4.0",
)
FIELDS = HostTuple.__struct_fields__
MISMATCHES = [*combinations(FIELDS, 1), *combinations(FIELDS, 2)]


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> EngineCacheEntry:
    return write_engine(
        tmp_path_factory.mktemp("engines"),
        "vpr",
        SourceModel(Path("/models/vpr.onnx"), b"source", sha256_of(b"source")),
        BuiltEngine(data=b"engine", inputs={}, outputs={}, build_tool="trtexec 10.3"),
        BuildConfig(precision="fp16"),
        LABEL,
        BUILT_ON,
        1,
    )


def with_fields(names: tuple[str, ...]) -> HostTuple:
    return msgspec.structs.replace(BUILT_ON, **{name: getattr(ELSEWHERE, name) for name in names})


def test_every_field_and_every_pair_is_in_the_table() -> None:
    assert len(FIELDS) == 9
    assert len(MISMATCHES) == 9 + 36
    assert all(getattr(BUILT_ON, name) != getattr(ELSEWHERE, name) for name in FIELDS)


def test_on_its_own_host_an_engine_is_read(entry: EngineCacheEntry) -> None:
    assert read_engine(entry, runtime_label=LABEL, host=BUILT_ON) == b"engine"


@pytest.mark.parametrize("names", MISMATCHES, ids="+".join)
def test_a_host_that_differs_is_refused_with_expected_and_found(
    entry: EngineCacheEntry, names: tuple[str, ...]
) -> None:
    asked: list[EngineCacheEntry] = []

    def read(wanted: EngineCacheEntry) -> bytes:
        asked.append(wanted)
        return read_verified(wanted)

    stored = read_entry(entry.path)  # as it comes back from disk, not as it was written
    with pytest.raises(EngineDeserializeError) as refusal:
        read_engine(stored, runtime_label=LABEL, host=with_fields(names), read=read)
    text = str(refusal.value)
    assert asked == [], "an engine of another host is not even read"
    assert str(entry.path) in text
    assert "c7 provision FLIGHT.toml" in text
    for name in FIELDS:
        difference = f"{name}: engine {getattr(BUILT_ON, name)}, host {getattr(ELSEWHERE, name)}"
        assert (difference in text) is (name in names), name


@pytest.mark.parametrize("name", FIELDS)
def test_a_runtime_refuses_an_engine_whose_metadata_names_another_host(tmp_path: Path, name: str) -> None:
    """The same through a real runtime: this machine's engine, rewritten as if it came from another one."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    value = [onnx.helper.make_tensor_value_info(each, onnx.TensorProto.FLOAT, [1]) for each in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "graph", value[:1], value[1:])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "vpr.onnx")
    runtime = build_inference_runtime(C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"))
    here = runtime.compile_engine(tmp_path / "vpr.onnx", BuildConfig(precision="fp32"))
    deserialize_cached_engine(runtime, here)
    other = msgspec.structs.replace(here.host, **{name: _other(getattr(here.host, name))})
    foreign = write_engine(
        tmp_path / "foreign",
        "vpr",
        SourceModel(tmp_path / "vpr.onnx", b"", here.source_sha256),
        BuiltEngine(data=here.path.read_bytes(), inputs=here.inputs, outputs=here.outputs, build_tool=here.build_tool),
        here.build_config,
        here.runtime_label,
        other,
        here.build_ns,
    )
    expected = f"{name}: engine {getattr(other, name)}, host {getattr(here.host, name)};"
    with pytest.raises(EngineDeserializeError, match="vpr does not take off") as refusal:
        deserialize_cached_engine(runtime, foreign)
    assert expected in str(refusal.value)


def _other(value: int | str) -> int | str:
    return value + 1 if isinstance(value, int) else f"{value}.1"
