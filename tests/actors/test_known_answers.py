"""Known answers of real engines: they hold in every new process, and no swapped engine gives them.

The demo's networks take minutes with all their loads: `make chaos` runs that, and prints accuracy, memory and what a
self-test costs. C7_CHAOS_RELOADS says in how many new processes the answers must hold.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from actors import supervise
from actors.demo.model_files import write_models
from actors.demo.networks import DemoRuntime
from actors.demo.plan import write_flight_plan
from messages import TakeoffRefusedError
from runtimes import BuildConfig, C7InferenceConfig, build_inference_runtime, provision, read_flight_plan
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.provisioning.build_child import build_engine
from runtimes.provisioning.build_request import BuildEngine
from runtimes.source_model import SourceModel, read_source
from runtimes.store.engine_artifact import read_entry, read_self_test, verify_artifact
from runtimes.store.engine_writer import BuiltEngine, sign_off, write_engine

RELOADS = int(os.environ.get("C7_CHAOS_RELOADS", "20"))
ONNX_CPU = C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu")
FP32 = BuildConfig(precision="fp32")

RELOAD = """
import json, sys, time
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[1])
import msgspec, numpy as np
from runtimes.sign_off.accuracy import compare
from runtimes.config import C7InferenceConfig
from runtimes.inference_factory import build_inference_runtime
from runtimes.sign_off.self_test import _decode, check_known_answers
from runtimes.store.engine_artifact import read_entry, read_self_test
from runtimes.takeoff_load import deserialize_cached_engine
runtime = build_inference_runtime(msgspec.json.decode(sys.argv[2], type=C7InferenceConfig))
report = {}
for name in sys.argv[3:]:
    entry = read_entry(Path(name))
    handle = deserialize_cached_engine(runtime, entry)
    answers = read_self_test(entry)
    began = time.monotonic_ns()
    check_known_answers(runtime, handle, answers, 1e-3)
    took_ns = time.monotonic_ns() - began
    inputs, expected = _decode(entry.path, answers)
    again = compare([({k: np.asarray(v) for k, v in runtime.infer(handle, inputs).items()}, expected)])
    report[entry.model] = [took_ns, max(error.relative_rms for error in again.values())]
print(json.dumps(report))
"""


def reload_in_a_new_process(config: C7InferenceConfig, entries: list[EngineCacheEntry]) -> dict[str, tuple[int, float]]:
    """For each model: nanoseconds of its self-test, the first run after the load, and the error of a second run."""
    arguments = [json.dumps(list(filter(None, sys.path))), msgspec.json.encode(config).decode()]
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", RELOAD, *arguments, *(str(entry.path) for entry in entries)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {model: (int(took_ns), float(error)) for model, (took_ns, error) in json.loads(done.stdout).items()}


def provisioned(source: Path, folder: Path) -> EngineCacheEntry:
    (folder / "generation").mkdir(parents=True)
    (folder / "scratch").mkdir()
    request = BuildEngine(
        config=ONNX_CPU,
        model="ultravpr",
        source=source,
        source_sha256=read_source(source, suffix=".onnx").sha256,
        build_config=FP32,
        directory=folder / "generation",
        scratch=folder / "scratch",
        accuracy_tolerance=1e-4,
    )
    return read_entry(request.directory / build_engine(request).engine)


def retrained(source: Path, folder: Path) -> Path:
    """The same network under the same name, with weights that moved by a hundredth of their spread."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        weights = onnx.numpy_helper.to_array(tensor)
        step = np.random.default_rng(1).normal(size=weights.shape) * 0.01 * weights.std()
        tensor.CopyFrom(onnx.numpy_helper.from_array((weights + step).astype(weights.dtype), tensor.name))
    folder.mkdir()
    onnx.save(model, folder / source.name)
    return folder / source.name


def test_an_engine_swapped_for_a_retrained_one_with_every_hash_redone_does_not_take_off(
    ultravpr_onnx: Path, tmp_path: Path
) -> None:
    entry = provisioned(ultravpr_onnx, tmp_path / "store")
    runtime = build_inference_runtime(ONNX_CPU)
    other = runtime.compile_engine(retrained(ultravpr_onnx, tmp_path / "retrained"), FP32)
    source = SourceModel(ultravpr_onnx, b"", entry.source_sha256)
    swapped = BuiltEngine(
        data=other.path.read_bytes(), inputs=entry.inputs, outputs=entry.outputs, build_tool=entry.build_tool
    )
    answers = read_self_test(entry)
    assert entry.memory is not None
    forged = sign_off(
        write_engine(entry.path.parent, "ultravpr", source, swapped, FP32, entry.runtime_label, entry.host, 1),
        self_test=answers,
        power=entry.power,
        memory=entry.memory,
        accuracy=entry.accuracy,
    )
    verify_artifact(forged)  # not one hash differs
    with pytest.raises(TakeoffRefusedError, match=r"ultravpr: self-test failed: output descriptor: .* at most 0\.001"):
        supervise(runtime, {"ultravpr": forged})


def test_known_answers_hold_in_new_processes(ultravpr_onnx: Path, tmp_path: Path) -> None:
    entry = provisioned(ultravpr_onnx, tmp_path / "store")
    for _ in range(2):
        assert reload_in_a_new_process(ONNX_CPU, [entry])["ultravpr"][1] == 0.0
    with supervise(build_inference_runtime(ONNX_CPU), {"ultravpr": entry}) as c7:
        assert c7.is_alive()


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("runtime", ["onnx_trt_ep", pytest.param("pytorch_fp16", marks=pytest.mark.torch)])
def test_known_answers_of_the_demos_networks_hold_in_every_new_process(runtime: DemoRuntime, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("torch" if runtime == "pytorch_fp16" else "onnxruntime")
    models = write_models(tmp_path / "models", runtime)
    plan = read_flight_plan(write_flight_plan(tmp_path, runtime=runtime, models=models, flight_s=60.0))
    generation = provision(plan, progress=lambda _: None)
    for model, entry in generation.entries.items():
        assert entry.accuracy is not None
        assert entry.memory is not None
        print(
            f"\n{model}@{entry.build_config.precision}: engine {entry.engine_size_bytes / 1e6:.2f} MB, load"
            f" {entry.memory.load_bytes / 1e6:.2f} MB, run {entry.memory.run_bytes / 1e6:.2f} MB; against"
            f" {entry.accuracy.reference}:"
        )
        for name, found in entry.accuracy.outputs.items():
            print(f"    {name}: relative {found.relative_rms:.3g}, largest difference {found.max_abs:.3g}")
    costs_ms: dict[str, list[float]] = {model: [] for model in generation.entries}
    worst = 0.0
    for _ in range(RELOADS):
        for model, (took_ns, error) in reload_in_a_new_process(plan.runtime, [*generation.entries.values()]).items():
            costs_ms[model].append(took_ns / 1e6)
            worst = max(worst, error)
    print(f"\n{RELOADS} new processes, worst relative error of a known answer {worst:.3g}; self-test, median:")
    for model, each in costs_ms.items():
        print(f"    {model}: {sorted(each)[len(each) // 2]:.1f} ms")
    assert worst <= 1e-3
