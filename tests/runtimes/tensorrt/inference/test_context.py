"""One execution context: TensorRT is told what changed, and every answer of it is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from messages import EngineDeserializeError, InferenceError, InvalidInputError
from runtimes.cuda.port import Cuda
from runtimes.cuda.release import release_all
from runtimes.tensorrt.inference.context import EngineContext
from runtimes.tensorrt.inference.engine import LoadedEngine
from tests.runtimes.tensorrt import models
from tests.runtimes.tensorrt.engines import ROWS, Load, Profile, Ready, assert_same, rows

if TYPE_CHECKING:
    from tests.doubles.tensorrt.core import Core

WORDS = "Error Code 9: Internal Error (it is the weather)"
FIT: Profile = (("a", (1, 3), (2, 3), (4, 3)), ("b", (1, 3), (2, 3), (4, 3)))


@pytest.fixture
def open_context(trt: ModuleType, cuda: Cuda) -> Iterator[Callable[[LoadedEngine], EngineContext]]:
    """A context whose tensors have memory for four rows of three."""
    opened: list[Callable[[], None]] = []

    def open_(loaded: LoadedEngine) -> EngineContext:
        context = EngineContext(trt, cuda, loaded)
        opened.append(context.close)
        for memory in context.tensors.values():
            memory.reserve((4, 4))
        return context

    yield open_
    release_all(opened)


@pytest.fixture
def heard(load: Load) -> Iterator[Callable[..., LoadedEngine]]:
    """Loads an engine whose reports are listened to until the end of the test."""
    with ExitStack() as stack:

        def load_(onnx: bytes, profile: Profile = (), **fields: Any) -> LoadedEngine:
            loaded = load(onnx, profile, **fields)
            stack.enter_context(loaded.reports.listening())
            return loaded

        yield load_


Open = Callable[[LoadedEngine], EngineContext]


def test_the_shapes_that_come_out_are_those_of_the_model(heard: Load, open_context: Open) -> None:
    context = open_context(heard(models.dynamic(), ROWS))
    shapes = {"x": (4, 3), "scale": (3,)}
    assert context.set_shapes(shapes) == {"scaled": (4, 3), "total": (4,), "echo": (4, 3)}
    assert context.set_shapes(shapes | {"x": (1, 3)}) == {"scaled": (1, 3), "total": (1,), "echo": (1, 3)}
    assert context.outputs == {}


def test_an_output_whose_shape_depends_on_values_has_memory_of_its_own_and_no_shape_yet(
    heard: Load, open_context: Open
) -> None:
    context = open_context(heard(models.where_nonzero(), ROWS))
    assert context.set_shapes({"x": (4, 3)}) == {"negated": (4, 3)}
    assert [*context.outputs] == ["where"]
    with pytest.raises(InferenceError, match=r"^m: TensorRT gave no shape for output where, found None$"):
        context.shape_that_came_out("where")


def test_values_that_decide_shapes_are_read_before_shapes_are_asked_for(heard: Load, open_context: Open) -> None:
    profile: Profile = (("x", (1, 4), (2, 4), (4, 4)),)
    loaded = heard(models.reshaped(), profile, on_host=("target", "size"))
    context = open_context(loaded)
    context.tensors["target"].view((2,))[:] = (8, 2)
    assert context.set_shapes({"x": (4, 4), "target": (2,)}) == {"y": (8, 2), "size": (2,)}
    context.tensors["target"].view((2,))[:] = (1, 16)
    assert context.set_shapes({"x": (4, 4), "target": (2,)})["y"] == (1, 16)
    assert context.outputs == {}


def test_nothing_is_told_twice(heard: Load, open_context: Open, core: Core) -> None:
    context = open_context(heard(models.dynamic(), ROWS))
    shapes = {"x": (4, 3), "scale": (3,)}
    for _ in range(2):
        context.set_shapes(shapes)
        context.set_addresses()
        context.set_scratch(0x100, 4096)
    told = Counter(call for call in core.calls if call.startswith("set_"))
    assert told == {"set_input_shape": 2, "set_tensor_address": 5, "set_device_memory": 1}


@pytest.mark.parametrize("call", ["set_input_shape", "set_tensor_address", "set_device_memory"])
def test_what_tensorrt_did_not_take_is_told_again(heard: Load, open_context: Open, core: Core, call: str) -> None:
    context = open_context(heard(models.dynamic(), ROWS))

    def tell() -> None:
        context.set_shapes({"x": (4, 3), "scale": (3,)})
        context.set_addresses()
        context.set_scratch(0x100, 4096)

    core.fail(call, WORDS)
    with pytest.raises(InferenceError, match=rf"^m: {call}\b.* failed: Error Code 9"):
        tell()
    assert core.calls.count(call) == 1
    context._reports.recorder.recorded.clear()
    tell()
    assert core.calls.count(call) > 1


def test_a_shape_outside_the_profile_is_refused_in_tensorrts_words(heard: Load, open_context: Open) -> None:
    context = open_context(heard(models.dynamic(), ROWS))
    with pytest.raises(
        InferenceError, match=r"^m: set_input_shape\(x, \[7, 3\]\) failed: .*does not satisfy any optimization profile"
    ):
        context.set_shapes({"x": (7, 3), "scale": (3,)})
    assert context.set_shapes({"x": (2, 3), "scale": (3,)})["total"] == (2,)


def test_shapes_that_do_not_fit_together_are_found_before_anything_runs(heard: Load, open_context: Open) -> None:
    context = open_context(heard(models.added(), FIT))
    torn, whole = {"a": (2, 3), "b": (3, 3)}, {"a": (2, 3), "b": (2, 3)}
    with pytest.raises(InferenceError, match=r"^m: get_tensor_shape\(c\) failed: .*dimensions are invalid"):
        context.set_shapes(torn)  # nothing ever worked here, so nothing says that it is the request's fault
    assert context.set_shapes(whole) == {"c": (2, 3)}
    expected = r"^m: expected inputs whose shapes go together, found a \[2, 3\], b \[3, 3\]: .*dimensions are invalid"
    with pytest.raises(InvalidInputError, match=expected):
        context.set_shapes(torn)
    assert context.set_shapes(whole) == {"c": (2, 3)}


@pytest.mark.parametrize("times", [1, 2, 9])
def test_a_context_that_gives_no_shape_of_its_own_accord_is_no_requests_fault(
    heard: Load, open_context: Open, core: Core, times: int
) -> None:
    context = open_context(heard(models.added(), FIT))
    context.set_shapes({"a": (2, 3), "b": (2, 3)})
    core.fail("get_tensor_shape", WORDS, times=times)
    with pytest.raises(InferenceError, match=r"get_tensor_shape\(c\) failed") as failure:
        context.set_shapes({"a": (4, 3), "b": (4, 3)})
    assert type(failure.value) is InferenceError


def test_an_engine_runs_on_after_shapes_that_do_not_fit(ready: Ready) -> None:
    engine = ready(models.added(), FIT)
    with pytest.raises(InvalidInputError, match="go together"):
        engine.run({"a": rows(2), "b": rows(3)})
    assert_same(engine.run({"a": rows(2), "b": rows(2)}), {"c": rows(2) + rows(2)})


def test_shape_values_of_unknown_number_are_refused_by_name(heard: Load, open_context: Open) -> None:
    context = open_context(heard(models.where_nonzero(), ROWS, on_host=("where",)))
    with pytest.raises(EngineDeserializeError, match=r"^m: output where is a shape's values, of a number that only"):
        context.set_shapes({"x": (4, 3)})


def test_a_context_that_was_put_away_says_so(heard: Load, open_context: Open) -> None:
    context = open_context(heard(models.dynamic(), ROWS))
    context.close()
    context.close()
    with pytest.raises(InferenceError, match=r"^m: the engine was put away while it was to run$"):
        context.set_shapes({"x": (4, 3), "scale": (3,)})


# From TensorRT 10.16 on shapes are inferred too: older bindings raise there without the interpreter's lock.


@pytest.fixture
def newer(trt: ModuleType, core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    core.version = (10, 16, 1, 11)
    monkeypatch.setattr(trt, "__version__", "10.16.1.11")


def test_shapes_are_inferred_where_that_is_safe(newer: None, heard: Load, open_context: Open, core: Core) -> None:
    context = open_context(heard(models.dynamic(), ROWS))
    assert context.set_shapes({"x": (4, 3), "scale": (3,)})["total"] == (4,)
    assert core.calls.count("infer_shapes") == 1


def test_shapes_are_not_inferred_where_that_may_end_the_process(heard: Load, open_context: Open, core: Core) -> None:
    context = open_context(heard(models.dynamic(), ROWS))
    context.set_shapes({"x": (4, 3), "scale": (3,)})
    assert "infer_shapes" not in core.calls


def test_what_the_bindings_raise_of_shapes_is_an_error_of_the_run(
    newer: None, heard: Load, open_context: Open, core: Core
) -> None:
    context = open_context(heard(models.dynamic(), ROWS))
    core.fail("infer_shapes", WORDS)
    with pytest.raises(InferenceError, match=r"^m: infer_shapes failed: Error Code 9"):
        context.set_shapes({"x": (4, 3), "scale": (3,)})


def test_inputs_that_shapes_lack_are_named(
    newer: None, heard: Load, open_context: Open, trt: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = open_context(heard(models.dynamic(), ROWS))
    monkeypatch.setattr(trt.IExecutionContext, "infer_shapes", lambda _context: ["x", "scale"])
    with pytest.raises(InferenceError, match=r"^m: infer_shapes, which lacks x, scale, failed"):
        context.set_shapes({"x": (4, 3), "scale": (3,)})
