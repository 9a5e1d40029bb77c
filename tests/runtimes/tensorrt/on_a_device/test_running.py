"""Engines on a device give what their models give, however they are asked, and give the device back."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from messages import InvalidInputError
from runtimes.cuda.port import Cuda
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry
from tests.runtimes.tensorrt import models
from tests.runtimes.tensorrt.on_a_device import networks
from tests.runtimes.tensorrt.on_a_device.arrays import assert_near, rows, to_device, to_host
from tests.runtimes.tensorrt.on_a_device.conftest import Built, MakeRuntime
from tests.runtimes.tensorrt.on_a_device.networks import FP16_ROWS

pytestmark = pytest.mark.tensorrt

SCALED, NONZERO = networks.scaled_rows(), networks.nonzero_rows()
COLUMNS = 1 << 18
ROUNDS = 8


@pytest.fixture
def scaled(built: Built) -> EngineCacheEntry:
    return built("scaled", SCALED, FP16_ROWS)


@pytest.fixture
def nonzero(built: Built) -> EngineCacheEntry:
    return built("nonzero", NONZERO, FP16_ROWS)


def test_every_shape_of_the_profile_gives_what_onnx_runtime_gives(
    make_runtime: MakeRuntime, scaled: EngineCacheEntry
) -> None:
    runtime = make_runtime()
    handle = runtime.deserialize_engine(scaled)
    for count in (2, 6, 1, 6, 3, 4, 5, 2):
        assert_near(runtime.infer(handle, rows(count)), models.answers(SCALED, rows(count)))
    runtime.release_engine(handle)


@pytest.mark.parametrize("count", [0, 7])
def test_a_shape_outside_the_profile_is_refused_and_the_engine_runs_on(
    make_runtime: MakeRuntime, scaled: EngineCacheEntry, count: int
) -> None:
    runtime = make_runtime()
    handle = runtime.deserialize_engine(scaled)
    with pytest.raises(InvalidInputError, match=r"x: expected float16\[1\.\.6, 3\]"):
        runtime.infer(handle, rows(count))
    assert_near(runtime.infer(handle, rows(2)), models.answers(SCALED, rows(2)))
    runtime.release_engine(handle)


def test_an_output_as_long_as_the_values_decide_comes_out_whole(
    make_runtime: MakeRuntime, nonzero: EngineCacheEntry
) -> None:
    runtime = make_runtime()
    handle = runtime.deserialize_engine(nonzero)
    for values in ([[0, 0, 0]], [[1, 0, 2], [0, 3, 0]], [[1, 1, 1]] * 6, [[0, 0, 1]], [[0, 0, 0]] * 6):
        inputs = {"x": np.array(values, np.float16)}
        assert_near(runtime.infer(handle, inputs), models.answers(NONZERO, inputs))
    runtime.release_engine(handle)


LAYOUTS: dict[str, Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]] = {
    "by columns": np.asfortranarray,
    "every second row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "backwards": lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    "one row many times": lambda x: np.broadcast_to(x[:1], x.shape),
    "not aligned": lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_input_is_read_as_it_lies_in_memory(
    make_runtime: MakeRuntime, scaled: EngineCacheEntry, layout: str
) -> None:
    runtime = make_runtime()
    handle = runtime.deserialize_engine(scaled)
    inputs = rows(4)
    inputs["x"] = LAYOUTS[layout](inputs["x"])
    assert_near(
        runtime.infer(handle, inputs), models.answers(SCALED, {name: np.array(a) for name, a in inputs.items()})
    )
    runtime.release_engine(handle)


@pytest.mark.parametrize("count", [1, 6])
def test_device_tensors_in_give_device_tensors_out(
    make_runtime: MakeRuntime, cuda: Cuda, scaled: EngineCacheEntry, nonzero: EngineCacheEntry, count: int
) -> None:
    runtime = make_runtime()
    first, second = runtime.deserialize_engine(scaled), runtime.deserialize_engine(nonzero)
    between = runtime.infer(first, to_device(cuda, rows(count)))
    expected = models.answers(SCALED, rows(count))
    assert_near(to_host(cuda, between), expected)
    runtime.release_engine(first)
    assert_near(
        to_host(cuda, runtime.infer(second, {"x": between["echo"]})), models.answers(NONZERO, {"x": expected["echo"]})
    )
    runtime.release_engine(second)


@pytest.mark.torch
def test_tensors_of_torch_go_in_and_come_out_on_the_device(make_runtime: MakeRuntime, scaled: EngineCacheEntry) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch was built without CUDA, or sees no device")
    runtime = make_runtime()
    handle = runtime.deserialize_engine(scaled)
    inputs = {name: torch.tensor(array, device="cuda") for name, array in rows(5).items()}
    found = {name: torch.from_dlpack(tensor) for name, tensor in runtime.infer(handle, inputs).items()}
    assert {tensor.device.type for tensor in found.values()} == {"cuda"}
    assert_near({name: tensor.cpu().numpy() for name, tensor in found.items()}, models.answers(SCALED, rows(5)))
    runtime.release_engine(handle)


def test_a_run_by_a_graph_gives_what_the_plain_run_gives(make_runtime: MakeRuntime, scaled: EngineCacheEntry) -> None:
    plain, captured = make_runtime(), make_runtime(cuda_graphs={"scaled": ({"x": (2, 3)}, {"x": (6, 3)})})
    one, other = plain.deserialize_engine(scaled), captured.deserialize_engine(scaled)
    for count in (2, 6, 3, 2):
        found, expected = captured.infer(other, rows(count)), plain.infer(one, rows(count))
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])
    plain.release_engine(one)
    captured.release_engine(other)


@pytest.mark.parametrize("graphs", [(), ({"x": (2, 3)},)], ids=["plain", "by a graph"])
def test_a_suspended_engine_gives_its_memory_and_comes_back_with_its_answers(
    make_runtime: MakeRuntime, scaled: EngineCacheEntry, graphs: Any
) -> None:
    runtime = make_runtime(cuda_graphs={"scaled": graphs} if graphs else {})
    handle = runtime.deserialize_engine(scaled)
    expected = runtime.infer(handle, rows(2))
    for _ in range(3):
        runtime.suspend_engine(handle)
        handle = runtime.resume_engine(handle)
    found = runtime.infer(handle, rows(2))
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    runtime.release_engine(handle)


def test_engines_that_share_their_activation_memory_answer_in_turn(
    make_runtime: MakeRuntime, scaled: EngineCacheEntry, nonzero: EngineCacheEntry
) -> None:
    runtime = make_runtime(share_activation_memory=True)
    first, second = runtime.deserialize_engine(scaled), runtime.deserialize_engine(nonzero)
    for count in (6, 1, 3):
        assert_near(runtime.infer(first, rows(count)), models.answers(SCALED, rows(count)))
        inputs = {"x": rows(count)["x"]}
        assert_near(runtime.infer(second, inputs), models.answers(NONZERO, inputs))
    runtime.release_engine(first)
    runtime.release_engine(second)


def test_two_engines_run_at_once_on_two_threads(make_runtime: MakeRuntime, scaled: EngineCacheEntry) -> None:
    runtime = make_runtime()
    handles = [runtime.deserialize_engine(scaled) for _ in range(2)]
    expected = {count: models.answers(SCALED, rows(count)) for count in range(1, 7)}

    def work(index: int) -> None:
        for turn in range(60):
            count = (turn + index) % 6 + 1
            assert_near(runtime.infer(handles[index], rows(count)), expected[count])

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, index) for index in range(2)]:
            done.result(timeout=120)
    for handle in handles:
        runtime.release_engine(handle)


def test_the_device_counts_as_much_free_memory_after_many_loads_as_after_the_first(
    make_runtime: MakeRuntime, cuda: Cuda, built: Built
) -> None:
    profile = (("x", (1, COLUMNS), (8, COLUMNS), (32, COLUMNS)),)
    wide = networks.widened_rows(COLUMNS)
    entry = built("wide", wide, BuildConfig(precision="fp16", optimization_profiles=profile))
    held_bytes = 4 * 32 * COLUMNS * 2  # input and output at their largest, on the device and page-locked beside it
    runtime = make_runtime()

    def load_and_release() -> int:
        handle = runtime.deserialize_engine(entry)
        runtime.infer(handle, {"x": np.ones((32, COLUMNS), np.float16)})
        runtime.release_engine(handle)
        return cuda.memory()[0]

    first = load_and_release()
    for _ in range(ROUNDS):
        last = load_and_release()
    # A Jetson's count is that of the whole machine, which breathes; one load that stays is more than that.
    assert first - last < held_bytes // 2, f"{first - last} bytes fewer after {ROUNDS} loads of {held_bytes}"
