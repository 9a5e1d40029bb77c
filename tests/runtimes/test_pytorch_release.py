"""A program that is put away gives its memory back at once, and never under a run."""

from __future__ import annotations

import gc
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from messages import InferenceError
from runtimes.config import C7InferenceConfig
from runtimes.inference_runtime import BuildConfig
from runtimes.pytorch_fp16_runtime import PytorchFp16Runtime
from runtimes.pytorch_handle import PytorchHandle

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

ELEMENTS = 20_000_000
"""40 MB in fp16: more than an allocator keeps for later."""


class Wide(torch.nn.Module):  # type: ignore[misc,name-defined]
    """A parameter, a buffer and a constant: a `.pt2` keeps each of them in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(ELEMENTS, dtype=torch.half))
        self.register_buffer("table", torch.ones(ELEMENTS, dtype=torch.half))
        self.constant = torch.ones(ELEMENTS, dtype=torch.half)

    def forward(self, x: Any) -> Any:
        return x * self.weight[0] * self.table[0] * self.constant[0]


@pytest.fixture
def without_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def runtime(tmp_path: Path) -> PytorchFp16Runtime:
    return PytorchFp16Runtime(C7InferenceConfig(engine_dir=tmp_path / "engines"))


@pytest.fixture
def handle(runtime: PytorchFp16Runtime, save_pt2: Callable[..., Path]) -> PytorchHandle:
    path = save_pt2("wide_in_three_ways", Wide().eval(), (torch.zeros(2).half(),))
    return runtime.deserialize_engine(runtime.compile_engine(path, BuildConfig()))


INPUTS = {"x": np.ones(2, np.float16)}


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def test_a_released_engine_has_no_weights_though_no_garbage_is_collected(
    runtime: PytorchFp16Runtime, handle: PytorchHandle, without_garbage_collector: None
) -> None:
    runtime.infer(handle, INPUTS)
    before = resident_mb()
    runtime.release_engine(handle)
    assert before - resident_mb() > 110, "of 120 MB"


def test_a_suspended_engine_that_is_released_has_no_weights_either(
    runtime: PytorchFp16Runtime, handle: PytorchHandle, without_garbage_collector: None
) -> None:
    runtime.suspend_engine(handle)
    handle = runtime.resume_engine(handle)
    runtime.suspend_engine(handle)
    before = resident_mb()
    runtime.release_engine(handle)
    assert before - resident_mb() > 110


def test_a_resumed_engine_has_its_weights_though_the_suspended_handle_is_released(
    runtime: PytorchFp16Runtime, handle: PytorchHandle
) -> None:
    runtime.suspend_engine(handle)
    resumed = runtime.resume_engine(handle)
    runtime.release_engine(handle)
    np.testing.assert_array_equal(np.asarray(runtime.infer(resumed, INPUTS)["output_0"]), [1, 1])


def test_an_engine_that_is_released_under_a_run_keeps_its_weights_until_the_run_ends(
    runtime: PytorchFp16Runtime, handle: PytorchHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that hangs, and is given up by another thread."""
    begun, go_on = threading.Event(), threading.Event()
    adopt = runtime._adopt
    found: list[Any] = []

    def adopt_slowly(tensor: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return adopt(tensor)

    monkeypatch.setattr(runtime, "_adopt", adopt_slowly)
    running = threading.Thread(target=lambda: found.append(runtime.infer(handle, INPUTS)["output_0"]), daemon=True)
    running.start()
    assert begun.wait(30)
    before = resident_mb()
    runtime.release_engine(handle)
    assert before - resident_mb() < 10
    go_on.set()
    running.join(30)
    np.testing.assert_array_equal(found[0], [1, 1])
    assert before - resident_mb() > 110


def test_an_engine_that_is_put_away_between_the_check_and_the_run_does_not_run(handle: PytorchHandle) -> None:
    handle.suspend()
    with (
        pytest.raises(InferenceError, match="wide_in_three_ways: the engine was put away while it was to run"),
        handle.running(),
    ):
        pass
    resumed = handle.resumed()
    with pytest.raises(InferenceError, match="wide_in_three_ways: the engine was released while it was resumed"):
        handle.resumed()
    resumed.release()
    resumed.release()
    with pytest.raises(InferenceError, match="put away"), resumed.running():
        pass
