"""What an engine gives for what it is given: the same as ONNX Runtime called directly, however the inputs lie."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messages import InvalidInputError
from runtimes.cuda.port import Cuda
from runtimes.tensorrt.inference.activation_memory import ActivationMemory
from runtimes.tensorrt.inference.execution import Execution
from tests.runtimes.tensorrt import models
from tests.runtimes.tensorrt.engines import ROWS, SCALE, Profile, Ready, assert_same, rows, to_device, to_host

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device

TARGET: Profile = (("x", (1, 4), (2, 4), (4, 4)),)
ON_HOST: dict[str, Any] = {"on_host": ("target", "size"), "values": ((("target", (1, 4), (2, 4), (4, 4)),),)}
"""`x` and the values of `target` grow together, so that the profile's points are shapes that fit."""


def test_a_static_engine_gives_what_the_model_gives(ready: Ready) -> None:
    image = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    data = models.static()
    assert_same(ready(data).run({"image": image}), models.answers(data, {"image": image}))


@pytest.mark.parametrize(("kind", "dtype"), [(models.FLOAT, np.float32), (models.HALF, np.float16)])
def test_an_engine_of_dynamic_shapes_gives_all_its_outputs_at_each_of_them(ready: Ready, kind: int, dtype: Any) -> None:
    data = models.dynamic(kind)
    engine = ready(data, ROWS)
    for count in (2, 6, 1, 6, 0, 3):
        inputs = {"x": rows(count, dtype), "scale": SCALE.astype(dtype)}
        assert_same(engine.run(inputs), models.answers(data, inputs))


def test_an_output_whose_shape_depends_on_values_comes_out_as_long_as_it_is(ready: Ready) -> None:
    data = models.where_nonzero()
    engine = ready(data, ROWS)
    for values in ([[0, 0, 0]], [[1, 0, 2], [0, 3, 0]], [[1, 1, 1]] * 6, [[0, 0, 1]]):
        inputs = {"x": np.array(values, np.float32)}
        assert_same(engine.run(inputs), models.answers(data, inputs))


def test_an_input_whose_values_are_a_shape_decides_the_outputs_shape(ready: Ready) -> None:
    data = models.reshaped()
    engine = ready(data, TARGET, **ON_HOST)
    for count in (1, 3, 4, 1):
        inputs = {"x": np.arange(count * 4, dtype=np.float32).reshape(count, 4), "target": np.array([count, 4])}
        assert_same(engine.run(inputs), models.answers(data, inputs))


def test_other_values_of_the_same_input_are_another_shape(ready: Ready) -> None:
    data = models.reshaped()
    values = ((("target", (1, 4), (2, 4), (2, 8)),),)
    engine = ready(data, TARGET, on_host=("target", "size"), values=values)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    for target in ([2, 4], [1, 8], [2, 4]):
        inputs = {"x": x, "target": np.array(target)}
        assert_same(engine.run(inputs), models.answers(data, inputs))


def test_memory_is_had_once_for_the_greatest_shapes(ready: Ready, device: Device) -> None:
    device.calls.clear()
    engine = ready(models.dynamic(), ROWS)
    assert device.calls.count("cudaHostAlloc") == len(("x", "scale", "scaled", "total", "echo"))
    device.calls.clear()
    engine.run({"x": rows(6), "scale": SCALE})
    assert {"cudaHostAlloc", "cudaMalloc"}.isdisjoint(device.calls)


def test_an_output_that_is_longest_in_between_grows_when_it_has_to(ready: Ready) -> None:
    data = models.bulging()
    engine = ready(data, (("x", (1, 3), (2, 3), (6, 3)),))
    for count in (2, 3, 6, 4):
        assert_same(engine.run({"x": rows(count)}), models.answers(data, {"x": rows(count)}))


@pytest.mark.parametrize("values", [[0, 4], [5, 4], [2, 8]])
def test_values_outside_the_profile_never_reach_the_engine(ready: Ready, values: list[int]) -> None:
    data = models.reshaped()
    engine = ready(data, TARGET, **ON_HOST)
    x = np.ones((2, 4), np.float32)
    with pytest.raises(InvalidInputError, match=r"^m: input target: expected values from \[1, 4\] to \[4, 4\], found"):
        engine.run({"x": x, "target": np.array(values)})
    assert_same(
        engine.run({"x": x, "target": np.array([2, 4])}), models.answers(data, {"x": x, "target": np.array([2, 4])})
    )


@pytest.mark.parametrize("flag", [True, False])
def test_a_tensor_without_dimensions_is_one_value(ready: Ready, flag: bool) -> None:
    assert_same(ready(models.scalar()).run({"flag": np.array(flag)}), {"inverse": np.array(not flag)})


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "in order": np.ascontiguousarray,
    "by columns": np.asfortranarray,
    "every second row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "backwards": lambda x: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "one row many times": lambda x: np.broadcast_to(x[:1], x.shape),
    "not aligned": lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
    "without rows": lambda x: x[:0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_input_is_read_as_it_lies_in_memory(ready: Ready, layout: str) -> None:
    data = models.dynamic()
    x = LAYOUTS[layout](rows(4))
    found = ready(data, ROWS).run({"x": x, "scale": SCALE})
    assert_same(found, models.answers(data, {"x": np.array(x), "scale": SCALE}))


@pytest.fixture
def engines(ready: Ready) -> Iterator[dict[str, Execution]]:
    """What all examples of a property share."""
    made = {"plain": ready(models.dynamic(), ROWS), "late": ready(models.where_nonzero(), ROWS)}
    yield made
    made.clear()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(counts=st.lists(st.integers(0, 6), min_size=1, max_size=5), seed=st.integers(0, 2**16))
def test_any_sequence_of_shapes_within_the_profile_gives_what_the_model_gives(
    engines: dict[str, Execution], counts: list[int], seed: int
) -> None:
    random = np.random.default_rng(seed)
    for count in counts:
        x = random.integers(-1, 2, size=(count, 3)).astype(np.float32)
        inputs = {"x": x, "scale": SCALE}
        assert_same(engines["plain"].run(inputs), models.answers(models.dynamic(), inputs))
        assert_same(engines["late"].run({"x": x}), models.answers(models.where_nonzero(), {"x": x}))


def test_no_output_shares_memory_with_an_earlier_one_or_with_the_engine(ready: Ready) -> None:
    engine = ready(models.dynamic(), ROWS)
    x = rows(3)
    first = engine.run({"x": x, "scale": SCALE})
    before = {name: np.array(array) for name, array in first.items()}
    second = engine.run({"x": -x, "scale": SCALE})
    assert_same(first, before)
    for name, array in first.items():
        assert not np.shares_memory(np.asarray(array), np.asarray(second[name]))
        assert np.asarray(array).flags.writeable
    engine.close()
    np.testing.assert_array_equal(np.asarray(second["echo"]), -x)


def test_an_input_may_be_changed_as_soon_as_the_run_is_over(ready: Ready) -> None:
    engine = ready(models.dynamic(), ROWS)
    x = rows(2)
    echo = engine.run({"x": x, "scale": SCALE})["echo"]
    before, x[:] = x.copy(), 0
    np.testing.assert_array_equal(np.asarray(echo), before)


@pytest.mark.parametrize("count", [0, 1, 6])
def test_device_tensors_in_give_device_tensors_out(ready: Ready, cuda: Cuda, device: Device, count: int) -> None:
    data = models.dynamic()
    inputs = {"x": rows(count), "scale": SCALE}
    found = ready(data, ROWS).run({name: to_device(cuda, device, array) for name, array in inputs.items()})
    assert_same(to_host(device, found), models.answers(data, inputs))


def test_one_engines_device_tensors_are_anothers_inputs(ready: Ready, cuda: Cuda, device: Device) -> None:
    first, second = ready(models.dynamic(), ROWS), ready(models.where_nonzero(), ROWS)
    inputs = {"x": np.array([[0, 1, 0], [2, 0, 0]], np.float32), "scale": SCALE}
    between = first.run({name: to_device(cuda, device, array) for name, array in inputs.items()})["scaled"]
    first.close()
    found = second.run({"x": between})
    expected = models.answers(models.where_nonzero(), {"x": models.answers(models.dynamic(), inputs)["scaled"]})
    assert_same(to_host(device, found), expected)


class Lent:
    """A producer that makes the memory when it is asked for it, which then belongs to the capsule alone."""

    def __init__(self, cuda: Cuda, device: Device, array: np.ndarray) -> None:
        self._cuda, self._device, self._array = cuda, device, array
        self.shape, self.dtype = array.shape, array.dtype

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._cuda.index

    def __dlpack__(self, *, stream: object = None) -> object:
        return to_device(self._cuda, self._device, self._array).__dlpack__()


def test_an_input_that_its_capsule_alone_keeps_is_kept_until_it_was_read(
    ready: Ready, cuda: Cuda, device: Device
) -> None:
    engine = ready(models.dynamic(), ROWS)
    inputs = {"x": rows(4), "scale": SCALE}
    before = device.live()
    found = engine.run({name: Lent(cuda, device, array) for name, array in inputs.items()})
    assert_same(to_host(device, found), models.answers(models.dynamic(), inputs))
    found.clear()
    assert device.live() == before


def test_shapes_values_come_from_the_device_and_go_to_it(ready: Ready, cuda: Cuda, device: Device) -> None:
    data = models.reshaped()
    inputs = {"x": np.arange(12, dtype=np.float32).reshape(3, 4), "target": np.array([3, 4])}
    engine = ready(data, TARGET, **ON_HOST)
    found = engine.run({name: to_device(cuda, device, array) for name, array in inputs.items()})
    assert_same(to_host(device, found), models.answers(data, inputs))


def test_a_device_output_lives_on_when_its_engine_runs_again_and_ends(ready: Ready, cuda: Cuda, device: Device) -> None:
    engine = ready(models.dynamic(), ROWS)
    first = engine.run({"x": to_device(cuda, device, rows(2)), "scale": to_device(cuda, device, SCALE)})
    engine.run({"x": to_device(cuda, device, rows(3)), "scale": to_device(cuda, device, SCALE)})
    engine.close()
    np.testing.assert_array_equal(to_host(device, first)["echo"], rows(2))


def test_another_thread_may_run_an_engine(ready: Ready, on_thread: Callable[[Callable[[], Any]], Any]) -> None:
    data = models.where_nonzero()
    engine = ready(data, ROWS)
    inputs = {"x": rows(4)}
    assert_same(on_thread(lambda: engine.run(inputs)), models.answers(data, inputs))
    on_thread(engine.close)
    engine.close()


@pytest.mark.parametrize("shared", [True, False], ids=["in one activation memory", "in their own"])
def test_engines_on_several_threads_disturb_each_other_in_nothing(ready: Ready, cuda: Cuda, shared: bool) -> None:
    activations = ActivationMemory(cuda) if shared else None
    kinds = [(models.dynamic(), [{"x": (2, 3)}]), (models.where_nonzero(), []), (models.dynamic(), [])]
    engines = [(data, ready(data, ROWS, graphs=graphs, activations=activations)) for data, graphs in kinds]
    start = threading.Barrier(len(engines))

    def fly(data: bytes, engine: Execution) -> None:
        start.wait(60)
        for count in (2, 6, 3, 2) * 5:
            inputs = {"x": rows(count), "scale": SCALE} if engine is not engines[1][1] else {"x": rows(count)}
            assert_same(engine.run(inputs), models.answers(data, inputs))

    with ThreadPoolExecutor(len(engines)) as pool:
        for flown in [pool.submit(fly, *each) for each in engines]:
            flown.result(timeout=120)
    engines.clear()
