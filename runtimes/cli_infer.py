"""`c7 infer`: one run of one model on given inputs, without a flight."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast, get_args

import click
import msgspec
import numpy as np

from messages import C7Error, ConfigError, TensorSpec, specs_of
from runtimes.config import C7InferenceConfig, Device, Provider, RuntimeName
from runtimes.inference_factory import SOURCE_SUFFIX, build_inference_runtime, check_named_device, check_runtime_config
from runtimes.inference_runtime import BuildConfig, Precision, ProfileRange
from runtimes.npz_file import read_npz, write_npz
from runtimes.onnx_model import audit_onnx
from runtimes.onnx_trt_ep_runtime import PRECISIONS
from runtimes.source_model import read_source
from runtimes.tensor_check import check_inputs

_RUNTIME_FOR: dict[str, str] = {
    ".onnx": "--runtime onnx_trt_ep --provider cpu (or cuda, or tensorrt), or --runtime tensorrt",
    ".pt2": "--runtime pytorch_fp16",
}


class InferReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one run did. Times are milliseconds; `run_ms` is a first run, with whatever a library sets up then."""

    model: str
    runtime: str
    precision: Precision
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    outputs_file: str
    compile_ms: float
    load_ms: float
    run_ms: float


@click.command("infer")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--inputs", "inputs_path", required=True, type=click.Path(path_type=Path), help=".npz, one array an input"
)
@click.option("--outputs", "outputs_path", required=True, type=click.Path(path_type=Path), help=".npz to write")
@click.option("--runtime", type=click.Choice(get_args(RuntimeName)), default="pytorch_fp16", show_default=True)
@click.option("--device", type=click.Choice(get_args(Device)), help="of pytorch_fp16, by default cpu")
@click.option("--provider", type=click.Choice(get_args(Provider)), help="of onnx_trt_ep, which has no default")
@click.option(
    "--precision",
    type=click.Choice(get_args(Precision)),
    help="default: what the runtime guarantees; fp16, for provider cpu fp32, for provider tensorrt mixed",
)
@click.option("--json", "as_json", is_flag=True, help="report as one JSON document")
def infer(
    model: Path,
    inputs_path: Path,
    outputs_path: Path,
    runtime: RuntimeName,
    device: Device | None,
    provider: Provider | None,
    precision: Precision | None,
    as_json: bool,
) -> None:
    """Run MODEL (.onnx or .pt2) once on the arrays of an .npz file and write its outputs to another."""
    config = C7InferenceConfig(runtime=runtime, device=device or "cpu", provider=provider)
    check_runtime_config(config)
    if device is not None:
        check_named_device(config)
    check_source_kind(model, runtime)
    check_outputs_path(outputs_path, (model, inputs_path))
    inputs = read_npz(inputs_path)
    report, outputs = run_once(config, model, inputs, precision or default_precision(config), outputs_path)
    try:
        write_npz(outputs_path, outputs)
    except OSError as error:
        raise C7Error(f"{outputs_path}: the outputs cannot be written: {error.strerror}; nothing was left") from error
    click.echo(json.dumps(_as_json(report), indent=2) if as_json else describe_report(report))


def run_once(
    config: C7InferenceConfig,
    model: Path,
    inputs: Mapping[str, np.ndarray],
    precision: Precision,
    outputs_path: Path,
) -> tuple[InferReport, dict[str, np.ndarray]]:
    """Compile into a folder that is gone afterwards, load, run, release. Raises what the runtime raises."""
    with tempfile.TemporaryDirectory(prefix="c7-infer-") as folder:
        runtime = build_inference_runtime(msgspec.structs.replace(config, engine_dir=Path(folder)))
        profile: tuple[ProfileRange, ...] = ()
        if "tensorrt" in (config.runtime, config.provider):  # built for given shapes: those that will be asked for
            # Nobody gave a profile, so no error should speak of one; and a build may take hours.
            taken = audit_onnx(read_source(model, suffix=model.suffix), "mixed").inputs
            check_inputs(model.stem, taken, (), inputs, host_only=True)
            profile = tuple((name, array.shape, array.shape, array.shape) for name, array in inputs.items())
        began_ns = time.monotonic_ns()
        entry = runtime.compile_engine(model, BuildConfig(precision=precision, optimization_profiles=profile))
        compiled_ns = time.monotonic_ns()
        handle = runtime.deserialize_engine(entry)
        loaded_ns = time.monotonic_ns()
        try:
            outputs = {name: np.asarray(tensor) for name, tensor in runtime.infer(handle, inputs).items()}
            ran_ns = time.monotonic_ns()
        finally:
            runtime.release_engine(handle)
    report = InferReport(
        model=str(model),
        runtime=runtime.current_runtime_label(),
        precision=precision,
        inputs=specs_of(inputs),
        outputs=specs_of(outputs),
        outputs_file=str(outputs_path),
        compile_ms=_ms(compiled_ns - began_ns),
        load_ms=_ms(loaded_ns - compiled_ns),
        run_ms=_ms(ran_ns - loaded_ns),
    )
    return report, outputs


def default_precision(config: C7InferenceConfig) -> Precision:
    """What the runtime guarantees: fp16; fp32 on ONNX Runtime's CPU provider; mixed on its TensorRT provider."""
    if config.runtime == "onnx_trt_ep" and config.provider is not None:
        return PRECISIONS[config.provider][0]
    return "fp16"


def check_source_kind(model: Path, runtime: RuntimeName) -> None:
    """Raises ConfigError that says which runtime to ask for."""
    expected = SOURCE_SUFFIX[runtime]
    if model.suffix != expected:
        remedy = _RUNTIME_FOR.get(model.suffix, "an .onnx or a .pt2 file")
        raise ConfigError(f"{model}: runtime {runtime} takes {expected} files, got '{model.suffix}'; pass {remedy}")


def check_outputs_path(outputs: Path, sources: tuple[Path, ...]) -> None:
    """Raises ConfigError where the outputs could not be written or would replace a source, before anything has run."""
    folder = outputs.parent
    if not folder.is_dir():
        raise ConfigError(f"{outputs}: the folder {folder} does not exist; make it, or name another --outputs")
    if outputs.is_dir() or any(source.exists() and outputs.exists() and outputs.samefile(source) for source in sources):
        raise ConfigError(f"{outputs}: expected a file to write, found a folder, the model or the inputs themselves")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{outputs}: the folder cannot be written: {error.strerror}") from error


def describe_report(report: InferReport) -> str:
    """A few lines for a person."""
    tensors = [("input", *item) for item in report.inputs.items()]
    tensors += [("output", *item) for item in report.outputs.items()]
    width = max(len(name) for _, name, _ in tensors)
    return "\n".join(
        [
            f"{report.model} on {report.runtime} in {report.precision}",
            f"compile {report.compile_ms:.1f} ms, load {report.load_ms:.1f} ms, first run {report.run_ms:.1f} ms",
            *(f"  {side:<6}  {name:<{width}}  {spec}" for side, name, spec in tensors),
            f"wrote {report.outputs_file}",
        ]
    )


def _as_json(report: InferReport) -> dict[str, object]:
    return cast("dict[str, object]", msgspec.to_builtins(report))


def _ms(duration_ns: int) -> float:
    return round(duration_ns / 1e6, 3)
