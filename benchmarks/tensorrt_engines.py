"""What the demonstration's four engines cost on this machine: build, load, run, enqueue, graph, memory, accuracy.

    python -m benchmarks.tensorrt_engines [--runtime R]

A table, and the same as a page and as JSON in `benchmarks/results`, named after the board. Durations are medians and
99th percentiles of runs in changing order, so that a board that grows warm slows all alike; the gain of a graph is the
median over neighbouring runs. Most of the time goes into two builds of each engine.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import re
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import msgspec

from benchmarks.demo_inputs import DemoInputs
from benchmarks.engine_costs import EngineCosts, Spread, Subject, measure_engine
from messages import C7Error
from runtimes import C7InferenceConfig, HostTuple, build_inference_runtime, detect_host
from runtimes.config import RuntimeName
from runtimes.inference_runtime import Precision
from runtimes.measurements import PowerMode
from runtimes.power_mode import detect_power_mode
from runtimes.tensorrt.library import import_tensorrt

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")
DOUBLES = ROOT / "tests" / "doubles"
PRECISIONS: dict[RuntimeName, tuple[Precision, ...]] = {
    "tensorrt": ("fp16", "mixed", "int8"),
    "onnx_trt_ep": ("fp32",),
}
INPUTS = 32
PACKAGES = ("c7-inference", "tensorrt", "cuda-bindings", "polygraphy", "numpy", "onnxruntime", "onnxruntime-gpu")
OF_A_DOUBLE = "MEASURED OVER THE DOUBLES OF TENSORRT AND CUDA: the figures are those of ONNX Runtime on a CPU"
MIB = 1 << 20


class Result(msgspec.Struct, frozen=True, kw_only=True):
    command: str
    double: bool
    host: HostTuple
    power: PowerMode | None
    versions: dict[str, str]
    subject: Subject
    engines: tuple[EngineCosts, ...]


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    subject = Subject(
        runtime=options.runtime,
        provider="cpu" if options.runtime == "onnx_trt_ep" else None,
        builder=options.builder,
        rounds=options.rounds,
        loads=options.loads,
        accuracy_samples=options.samples,
    )
    try:
        double, host = _host(subject)
        if double and options.out is None:
            raise SystemExit(
                f"expected NVIDIA's TensorRT, found its double: its figures do not go to {RESULTS}; name another folder"
                " with --out"
            )
        result = _measured(options, subject, double, host)
    except C7Error as error:
        print(f"tensorrt_engines: {error}", file=sys.stderr)
        return 1
    page = rendered(result)
    print(page)
    folder = options.out if options.out is not None else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{subject.runtime}-{slug(result)}"
    (folder / f"{stem}.md").write_text(page, encoding="utf-8")
    (folder / f"{stem}.json").write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    print(f"written to {folder / stem}.md and .json")
    return 1 if all(engine.refused for engine in result.engines) else 0


def slug(result: Result) -> str:
    """`orin-jp6.2-trt10.3.0-maxn_super`: the board, what drives it, and the power mode that the figures hold for."""
    host = result.host
    parts = [host.device_name, f"jp{host.jetpack}", f"trt{host.tensorrt}", result.power.name if result.power else ""]
    return re.sub(r"[^a-z0-9._]+", "-", "-".join(part for part in parts if part).lower()).strip("-")


def rendered(result: Result) -> str:
    """The page: what was measured where, then a table of what is built and one of what is run."""
    power = result.power
    mode = f"{power.name}, CPU {power.cpu_max_mhz} MHz, GPU {power.gpu_max_mhz} MHz" if power else "no Jetson"
    lines = [f"# The demonstration's engines on {result.host.device_name}", ""]
    if result.double:
        lines += [f"**{OF_A_DOUBLE}.**", ""]
    lines += [
        f"`{result.command}`",
        "",
        f"- Host: {_named(msgspec.structs.asdict(result.host))}",
        f"- Power mode: {mode}",
        f"- Versions: {_named(result.versions)}",
        f"- {result.subject.rounds} runs of each kind in changing order, {result.subject.loads} loads; p50 / p99",
        "",
        "| model | precision | build s | again s | file MiB | activations MiB | layers | error | load ms |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_row(engine, _built(engine)) for engine in result.engines if not engine.refused),
        "",
        "| model | precision | NumPy ms | on the device ms | by a graph ms | gain | enqueue µs | launch µs |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_row(engine, _ran(engine)) for engine in result.engines if not engine.refused),
        "",
        *(f"- {each.model} {each.precision}: {note}" for each in result.engines for note in each.notes),
        *(f"- {each.model} {each.precision} is refused: {each.refused}" for each in result.engines if each.refused),
        "",
    ]
    return "\n".join(lines)


def _measured(options: argparse.Namespace, subject: Subject, double: bool, host: HostTuple) -> Result:
    with tempfile.TemporaryDirectory(prefix="c7-engines-") as folder:
        demo = DemoInputs(Path(folder), max(INPUTS, subject.accuracy_samples))
        engines = []
        for model in options.models or demo.models:
            for precision in options.precisions or PRECISIONS[subject.runtime]:
                print(f"{model} {precision}", file=sys.stderr, flush=True)
                place = Path(folder) / "engines" / f"{model}-{precision}"
                place.mkdir(parents=True)
                engines.append(measure_engine(subject, demo, model, precision, place))
        return Result(
            command=" ".join(["python -m benchmarks.tensorrt_engines", *(options.arguments or [])]),
            double=double,
            host=host,
            power=detect_power_mode(),
            versions=_versions(),
            subject=subject,
            engines=tuple(engines),
        )


def _host(subject: Subject) -> tuple[bool, HostTuple]:
    """Whether it is the double that runs here, and the machine. Raises where the runtime cannot run."""
    build_inference_runtime(C7InferenceConfig(runtime=subject.runtime, provider=subject.provider))
    if subject.runtime != "tensorrt":
        return False, detect_host(_version("onnxruntime-gpu") or _version("onnxruntime"))
    trt = import_tensorrt()
    version = str(trt.__version__)
    return DOUBLES in Path(str(trt.__file__)).parents, detect_host(version, tensorrt=version)


def _versions() -> dict[str, str]:
    found = {name: version for name in PACKAGES if (version := _version(name))}
    if "tensorrt" not in found and "tensorrt" in sys.modules:  # JetPack's package tells no installer of itself
        found["tensorrt"] = str(importlib.import_module("tensorrt").__version__)
    return {"python": platform.python_version(), **found}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _row(engine: EngineCosts, cells: list[str]) -> str:
    return f"| {' | '.join([engine.model, engine.precision, *cells])} |"


def _built(engine: EngineCosts) -> list[str]:
    return [
        _number(engine.build_s, ".1f"),
        _number(engine.again_s, ".1f"),
        f"{engine.engine_bytes / MIB:.1f}",
        _number(None if engine.activation_bytes is None else engine.activation_bytes / MIB, ".1f"),
        ", ".join(f"{count} {name}" for name, count in engine.layers.items()) or "-",
        _number(engine.error, ".2g"),
        _number(engine.load_ms, ".1f"),
    ]


def _ran(engine: EngineCosts) -> list[str]:
    return [
        _spread(engine.host_ms, ".2f"),
        _spread(engine.device_ms, ".2f"),
        _spread(engine.graph_ms, ".2f"),
        _number(engine.graph_gain, ".2f"),
        _spread(engine.enqueue_us, ".0f"),
        _spread(engine.launch_us, ".0f"),
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _spread(value: Spread | None, form: str) -> str:
    return "-" if value is None else f"{value.p50:{form}} / {value.p99:{form}}"


def _named(values: dict[str, object] | dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", choices=[*PRECISIONS], default="tensorrt", help="onnx_trt_ep runs on the CPU")
    parser.add_argument("--builder", choices=["polygraphy", "trtexec", "api"], default="polygraphy")
    parser.add_argument("--models", nargs="+", choices=["backbone", "extractor", "matcher", "refiner"])
    parser.add_argument("--precisions", nargs="+", choices=["fp16", "mixed", "int8", "fp32"])
    parser.add_argument("--rounds", type=int, default=200, help="runs of each kind")
    parser.add_argument("--loads", type=int, default=5)
    parser.add_argument("--samples", type=int, default=16, help="inputs on which the accuracy is taken")
    parser.add_argument("--out", type=Path, help=f"a folder for page and JSON, in place of {RESULTS.name}")
    options = parser.parse_args(arguments)
    options.arguments = sys.argv[1:] if arguments is None else arguments
    return options


if __name__ == "__main__":
    raise SystemExit(main())
