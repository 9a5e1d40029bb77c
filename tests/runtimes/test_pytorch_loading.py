"""What becomes of a load that fails for want of memory or for the device, and of giving memory back."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from messages import (
    DeviceFaultError,
    EngineBuildError,
    EngineDeserializeError,
    InferenceError,
    OutOfMemoryError,
)
from runtimes.config import C7InferenceConfig
from runtimes.exported_model import ExportedModelError
from runtimes.inference_runtime import BuildConfig
from runtimes.pytorch_errors import error_of_resource
from runtimes.pytorch_fp16_runtime import PytorchFp16Runtime

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

FULL = "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"


@pytest.fixture
def runtime(tmp_path: Path) -> PytorchFp16Runtime:
    return PytorchFp16Runtime(C7InferenceConfig(engine_dir=tmp_path / "engines"))


def logs_and_raises(error: RuntimeError) -> Callable[[object], Any]:
    """What `torch.export.load` does of an error."""

    def load(_file: object) -> Any:
        try:
            raise error
        except RuntimeError:
            logging.getLogger("torch.export").warning("Ran into the following error", exc_info=True)
        raise RuntimeError("We ran into an error when deserializing the saved file. Please check the warnings above")

    return load


def test_a_load_that_runs_out_of_memory_says_so(
    runtime: PytorchFp16Runtime,
    descriptor_pt2: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    entry = runtime.compile_engine(descriptor_pt2, BuildConfig())
    monkeypatch.setattr(torch.export, "load", logs_and_raises(RuntimeError(FULL)))
    with pytest.raises(OutOfMemoryError, match=rf"{entry.path.name}: .*can't allocate memory"):
        runtime.deserialize_engine(entry)
    assert capfd.readouterr().err == "", "what was raised is not logged as well"


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_memory_that_runs_out_while_a_program_is_made_ready_is_out_of_memory_too(
    runtime: PytorchFp16Runtime, descriptor_pt2: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    entry = runtime.compile_engine(descriptor_pt2, BuildConfig())

    def fail(*_: object) -> Any:
        raise error

    monkeypatch.setattr(runtime, "_runner", fail)
    with pytest.raises(OutOfMemoryError, match=entry.path.name) as failure:
        runtime.deserialize_engine(entry)
    assert failure.value.__context__ is None, "a kept error must not keep what was loaded"


def test_a_device_that_fails_in_a_load_is_a_device_fault(
    runtime: PytorchFp16Runtime, descriptor_pt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = runtime.compile_engine(descriptor_pt2, BuildConfig())
    fault = RuntimeError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr(torch.export, "load", logs_and_raises(fault))
    with pytest.raises(DeviceFaultError, match=rf"{entry.path.name}: .*cudaErrorIllegalAddress \(700\)"):
        runtime.deserialize_engine(entry)


def test_a_program_that_torch_refuses_is_refused_in_torchs_own_words(
    runtime: PytorchFp16Runtime, descriptor_pt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = runtime.compile_engine(descriptor_pt2, BuildConfig())
    monkeypatch.setattr(torch.export, "load", logs_and_raises(RuntimeError("no operator torchvision::nms")))
    with pytest.raises(EngineDeserializeError, match=r"cannot open it \(RuntimeError: no operator torchvision::nms\)"):
        runtime.deserialize_engine(entry)


def test_a_compilation_that_runs_out_of_memory_is_no_fault_of_the_model(
    runtime: PytorchFp16Runtime, descriptor_pt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.export, "load", logs_and_raises(RuntimeError(FULL)))
    with pytest.raises(OutOfMemoryError, match=r"descriptor\.pt2: "):
        runtime.compile_engine(descriptor_pt2, BuildConfig())
    monkeypatch.setattr(torch.export, "load", logs_and_raises(RuntimeError("unknown")))
    with pytest.raises(EngineBuildError, match=r"descriptor\.pt2: .*unknown"):
        runtime.compile_engine(descriptor_pt2, BuildConfig())


IN_A_SMALL_PROCESS = """
import resource, sys
from pathlib import Path
from messages import OutOfMemoryError
from runtimes.config import C7InferenceConfig
from runtimes.pytorch_fp16_runtime import PytorchFp16Runtime
from runtimes.store.engine_artifact import read_entry
runtime = PytorchFp16Runtime(C7InferenceConfig())
entry = read_entry(Path(sys.argv[1]))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]) * 1024**2, resource.RLIM_INFINITY))
try:
    runtime.deserialize_engine(entry)
except OutOfMemoryError as error:
    print("out of memory:", error)
"""


@pytest.mark.parametrize("room_mb", [8, 96])
def test_a_process_whose_memory_is_limited_gets_out_of_memory_from_torch_itself(
    runtime: PytorchFp16Runtime, save_pt2: Callable[..., Path], room_mb: int
) -> None:
    """8 MiB do not hold the file of 64 MiB, 96 not the weights beside it."""

    class Wide(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(32 * 1024**2, dtype=torch.half))

        def forward(self, x: Any) -> Any:
            return x * self.weight[0]

    entry = runtime.compile_engine(save_pt2("wide", Wide().eval(), (torch.zeros(2).half(),)), BuildConfig())
    command = [sys.executable, "-c", IN_A_SMALL_PROCESS, str(entry.path), str(room_mb)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"out of memory: {entry.path}: "), done.stdout + done.stderr


def test_the_cause_that_was_wrapped_decides() -> None:
    refused = ExportedModelError("torch cannot open it (RuntimeError: too long to quote)")
    refused.__cause__ = RuntimeError(FULL)
    assert isinstance(error_of_resource("a.engine", refused), OutOfMemoryError)
    assert error_of_resource("a.engine", ExportedModelError("no archive")) is None


def test_an_engine_is_released_even_where_the_device_answers_no_more(
    runtime: PytorchFp16Runtime, descriptor_pt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = runtime.deserialize_engine(runtime.compile_engine(descriptor_pt2, BuildConfig()))

    def fail() -> None:
        raise RuntimeError("CUDA error: misaligned address")

    monkeypatch.setattr(runtime, "_device", "cuda:0")
    monkeypatch.setattr(torch.cuda, "empty_cache", fail)
    with pytest.raises(DeviceFaultError, match=r"descriptor: .*cudaErrorMisalignedAddress"):
        runtime.release_engine(handle)
    runtime.release_engine(handle)
    with pytest.raises(InferenceError, match="released"):
        runtime.infer(handle, {})


@pytest.mark.parametrize(("disabled", "level"), [(True, 0), (False, 50), (False, 0)])
def test_what_torch_only_logs_is_found_where_its_log_is_silent_and_the_log_stays_silent(
    runtime: PytorchFp16Runtime,
    descriptor_pt2: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    disabled: bool,
    level: int,
) -> None:
    """`logging.config.dictConfig` disables every logger that it is not told of."""
    entry = runtime.compile_engine(descriptor_pt2, BuildConfig())
    log = logging.getLogger("torch.export")
    monkeypatch.setattr(log, "disabled", disabled)
    monkeypatch.setattr(log, "level", level)
    monkeypatch.setattr(torch.export, "load", logs_and_raises(RuntimeError(FULL)))
    with pytest.raises(OutOfMemoryError, match="can't allocate memory"):
        runtime.deserialize_engine(entry)
    assert (log.disabled, log.level) == (disabled, level)
    assert capfd.readouterr().err == ""
