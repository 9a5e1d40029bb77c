"""A device that somebody named is the one that runs, in a plan and on the command line, or a refusal."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from messages import ConfigError
from runtimes.cli_infer import infer
from runtimes.config import C7InferenceConfig, Device, Provider, RuntimeName
from runtimes.flight_plan_file import read_flight_plan
from runtimes.inference_factory import check_named_device

AGREE: list[tuple[RuntimeName, Provider | None, Device]] = [
    ("tensorrt", None, "cuda"),
    ("onnx_trt_ep", "cpu", "cpu"),
    ("onnx_trt_ep", "cuda", "cuda"),
    ("onnx_trt_ep", "tensorrt", "cuda"),
    ("pytorch_fp16", None, "cpu"),
    ("pytorch_fp16", None, "cuda"),
]
CONTRADICT: list[tuple[RuntimeName, Provider | None, Device, str]] = [
    ("tensorrt", None, "cpu", "expected cuda or none, because tensorrt runs nowhere else, got cpu"),
    ("onnx_trt_ep", "cuda", "cpu", "expected cuda or none, because onnx_trt_ep with provider cuda runs nowhere else"),
    ("onnx_trt_ep", "tensorrt", "cpu", "expected cuda or none, because onnx_trt_ep with provider tensorrt runs"),
    ("onnx_trt_ep", "cpu", "cuda", "expected cpu or none, because onnx_trt_ep with provider cpu runs nowhere else"),
]
MODEL = '[flight]\nname = "survey"\n[models.vpr]\nsource = "vpr.onnx"\nprecision = "fp16"\ndeadline_ms = 200\n'


def plan(folder: Path, runtime: RuntimeName, provider: Provider | None, device: Device | None) -> Path:
    keys = {"runtime": runtime, "provider": provider, "device": device}
    path = folder / "flight.toml"
    lines = [f'{key} = "{value}"\n' for key, value in keys.items() if value is not None]
    path.write_text(f"{MODEL}[runtime]\n{''.join(lines)}")
    return path


@pytest.mark.parametrize(("runtime", "provider", "device"), AGREE)
def test_a_device_on_which_the_runtime_runs_may_be_named(
    runtime: RuntimeName, provider: Provider | None, device: Device
) -> None:
    check_named_device(C7InferenceConfig(runtime=runtime, provider=provider, device=device))


@pytest.mark.parametrize(("runtime", "provider", "device", "text"), CONTRADICT)
def test_a_plan_that_names_another_device_is_refused(
    tmp_path: Path, runtime: RuntimeName, provider: Provider | None, device: Device, text: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        read_flight_plan(plan(tmp_path, runtime, provider, device))
    assert f"flight.toml: [runtime] device: {text}" in str(refused.value)


@pytest.mark.parametrize(("runtime", "provider"), sorted({each[:2] for each in CONTRADICT}, key=str))
def test_a_plan_that_names_none_is_taken(tmp_path: Path, runtime: RuntimeName, provider: Provider | None) -> None:
    found = read_flight_plan(plan(tmp_path, runtime, provider, None)).runtime
    assert (found.runtime, found.provider) == (runtime, provider)


@pytest.mark.parametrize(("runtime", "provider", "device", "text"), CONTRADICT)
def test_a_command_that_names_another_device_is_refused_before_anything_is_read(
    tmp_path: Path, runtime: RuntimeName, provider: Provider | None, device: Device, text: str
) -> None:
    options = ["--runtime", runtime, "--device", device, *(["--provider", provider] if provider else [])]
    nowhere = str(tmp_path / "nowhere.onnx")
    result = CliRunner().invoke(infer, [nowhere, "--inputs", nowhere, "--outputs", nowhere, *options])
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(f"device: {text}")
