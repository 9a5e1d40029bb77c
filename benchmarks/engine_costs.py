"""What one engine costs: its build, its file and memory, a run over the interface, and what enqueuing it takes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.demo_inputs import Arrays, DemoInputs
from benchmarks.enqueue_time import NotEnqueuedAloneError, time_enqueuing, to_device
from messages import C7Error, EngineDeserializeError
from runtimes import C7InferenceConfig, EngineCacheEntry, InferenceRuntime, TensorrtSection, build_inference_runtime
from runtimes.build_report import BuilderName
from runtimes.config import Provider, RuntimeName
from runtimes.cuda.cuda_bindings import open_cuda
from runtimes.cuda.port import Cuda
from runtimes.cuda.release import release_all
from runtimes.inference_runtime import Precision
from runtimes.sign_off.accuracy import IncomparableOutputsError, compare

MS_NS, US_NS = 1e6, 1e3


class Spread(msgspec.Struct, frozen=True):
    """By nearest rank."""

    p50: float
    p99: float


class EngineCosts(msgspec.Struct, frozen=True, kw_only=True):
    """What was not measured is None, and `notes` say why. `refused` is why there is no engine at all.

    `again_s` is a build with the timings of the one before. `host_ms` is a run with NumPy in and out, `device_ms` one
    with tensors that stay on the device. `graph_gain` is how many times faster a run is by its graph, the median of
    neighbouring runs. `enqueue_us` and `launch_us` are the host's time for a run and for a graph of it. `error` is the
    largest relative error of any output.
    """

    model: str
    precision: str
    refused: str = ""
    build_s: float | None = None
    again_s: float | None = None
    engine_bytes: int = 0
    activation_bytes: int | None = None
    layers: dict[str, int] = {}
    error: float | None = None
    load_ms: float | None = None
    host_ms: Spread | None = None
    device_ms: Spread | None = None
    graph_ms: Spread | None = None
    graph_gain: float | None = None
    enqueue_us: Spread | None = None
    launch_us: Spread | None = None
    notes: tuple[str, ...] = ()


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """Which runtime is measured, and how."""

    runtime: RuntimeName
    provider: Provider | None = None
    builder: BuilderName = "polygraphy"
    rounds: int = 200
    loads: int = 5
    accuracy_samples: int = 16


def measure_engine(subject: Subject, demo: DemoInputs, model: str, precision: Precision, folder: Path) -> EngineCosts:
    """Build the model twice and measure it. A typed refusal is a result."""
    try:
        return _measured(subject, demo, model, precision, folder)
    except C7Error as error:
        return EngineCosts(model=model, precision=precision, refused=str(error))


def spread(durations_ns: list[int], unit_ns: float) -> Spread:
    ordered = sorted(durations_ns)
    return Spread(*(ordered[math.ceil(share * len(ordered)) - 1] / unit_ns for share in (0.5, 0.99)))


def _measured(subject: Subject, demo: DemoInputs, model: str, precision: Precision, folder: Path) -> EngineCosts:
    runtime = _runtime(subject, folder)
    config = demo.build_config(model, precision)
    built_ns = []
    for _ in range(2):
        for calibration in folder.glob("*.calibration"):  # so that both builds calibrate
            calibration.unlink()
        began_ns = time.perf_counter_ns()
        entry = runtime.compile_engine(demo.models[model], config)
        built_ns.append(time.perf_counter_ns() - began_ns)
    costs = EngineCosts(
        model=model,
        precision=precision,
        build_s=built_ns[0] / 1e9,
        again_s=built_ns[1] / 1e9,
        engine_bytes=entry.engine_size_bytes,
        activation_bytes=None if entry.build is None else max(entry.build.activation_bytes, default=0),
        layers={} if entry.build is None else entry.build.layer_precisions,
        load_ms=_load_ms(runtime, entry, subject.loads),
    )
    costs = _with_accuracy(costs, runtime, entry, demo, subject.accuracy_samples)
    inputs = demo.inputs(model)[0]
    if subject.runtime != "tensorrt":
        return _with_runs(costs, runtime, entry, inputs, None, "only TensorRT is asked for these", subject.rounds)
    graphs = {name: best for name, _, best, _ in config.optimization_profiles}
    cuda = open_cuda(0)
    captured = _runtime(subject, folder, {model: (graphs,)})
    try:
        costs = _with_runs(costs, runtime, entry, inputs, captured, "", subject.rounds, cuda)
        return _with_enqueuing(costs, entry, inputs, cuda, subject.rounds)
    finally:
        cuda.close()


def _runtime(
    subject: Subject, folder: Path, graphs: Mapping[str, tuple[dict[str, tuple[int, ...]], ...]] | None = None
) -> InferenceRuntime:
    of_tensorrt = TensorrtSection(builder=subject.builder, cuda_graphs=dict(graphs or {}))
    return build_inference_runtime(
        C7InferenceConfig(
            runtime=subject.runtime,
            provider=subject.provider,
            engine_dir=folder,
            timing_cache_dir=folder / "timings",
            tensorrt=of_tensorrt if subject.runtime == "tensorrt" else TensorrtSection(),
        )
    )


def _load_ms(runtime: InferenceRuntime, entry: EngineCacheEntry, loads: int) -> float:
    took_ns = []
    for _ in range(loads):
        began_ns = time.perf_counter_ns()
        handle = runtime.deserialize_engine(entry)
        took_ns.append(time.perf_counter_ns() - began_ns)
        runtime.release_engine(handle)
    return statistics.median(took_ns) / MS_NS


def _with_accuracy(
    costs: EngineCosts, runtime: InferenceRuntime, entry: EngineCacheEntry, demo: DemoInputs, samples: int
) -> EngineCosts:
    handle = runtime.deserialize_engine(entry)
    try:
        pairs = (
            ({name: np.asarray(array) for name, array in runtime.infer(handle, inputs).items()}, expected)
            for inputs, expected in demo.answers(entry.model, samples)
        )
        errors = {name: error.relative_rms for name, error in compare(pairs).items()}
    except IncomparableOutputsError as error:
        return _noted(costs, f"accuracy: {error}")
    finally:
        runtime.release_engine(handle)
    worst = max(errors, key=lambda name: errors[name])
    return _noted(msgspec.structs.replace(costs, error=errors[worst]), f"largest error: output {worst}")


def _with_runs(
    costs: EngineCosts,
    runtime: InferenceRuntime,
    entry: EngineCacheEntry,
    inputs: Arrays,
    captured: InferenceRuntime | None,
    why_alone: str,
    rounds: int,
    cuda: Cuda | None = None,
) -> EngineCosts:
    """Each kind of run once a round, in changing order, so that a board that grows warm slows all alike."""
    handle = runtime.deserialize_engine(entry)
    contenders: dict[str, Callable[[], object]] = {"host": lambda: runtime.infer(handle, inputs)}
    releases: list[Callable[[], None]] = [lambda: runtime.release_engine(handle)]
    if cuda is not None:
        on_device = to_device(cuda, inputs)
        contenders["device"] = lambda: runtime.infer(handle, on_device)
    if captured is not None:
        try:
            by_graph = captured.deserialize_engine(entry)
            contenders["graph"] = lambda: captured.infer(by_graph, inputs)
            releases.append(lambda: captured.release_engine(by_graph))
        except EngineDeserializeError as error:
            why_alone = str(error)
    took_ns: dict[str, list[int]] = {name: [] for name in contenders}
    order = list(contenders)
    try:
        for _ in range(rounds):
            order.append(order.pop(0))
            for name in order:
                began_ns = time.perf_counter_ns()
                contenders[name]()
                took_ns[name].append(time.perf_counter_ns() - began_ns)
    finally:
        release_all(releases)
    found = {name: spread(durations, MS_NS) for name, durations in took_ns.items()}
    gains = [plain / graph for plain, graph in zip(took_ns["host"], took_ns.get("graph", ()), strict=False)]
    costs = msgspec.structs.replace(
        costs,
        host_ms=found["host"],
        device_ms=found.get("device"),
        graph_ms=found.get("graph"),
        graph_gain=statistics.median(gains) if gains else None,
    )
    return _noted(costs, f"no graph: {why_alone}") if why_alone else costs


def _with_enqueuing(
    costs: EngineCosts, entry: EngineCacheEntry, inputs: Arrays, cuda: Cuda, rounds: int
) -> EngineCosts:
    try:
        enqueue_ns, launch_ns = time_enqueuing(entry, inputs, cuda, rounds)
    except NotEnqueuedAloneError as error:
        return _noted(costs, f"enqueuing is not measured: {error}")
    return msgspec.structs.replace(costs, enqueue_us=spread(enqueue_ns, US_NS), launch_us=spread(launch_ns, US_NS))


def _noted(costs: EngineCosts, note: str) -> EngineCosts:
    return msgspec.structs.replace(costs, notes=(*costs.notes, note))
