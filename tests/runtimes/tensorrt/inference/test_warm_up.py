"""The runs before the first frame: each point of the profile once, with inputs that an engine takes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from messages import TensorSpec
from runtimes.inference_runtime import ProfileRange
from runtimes.tensor_check import check_inputs
from runtimes.tensorrt.inference.io_tensors import IoTensor, specs
from runtimes.tensorrt.inference.warm_up import shapes_at, warm_ups

IO = (
    IoTensor("image", TensorSpec((-1, 3), "float16"), is_input=True),
    IoTensor("mask", TensorSpec((4,), "bool"), is_input=True),
    IoTensor("descriptor", TensorSpec((-1, 8), "float16"), is_input=False),
)
PROFILE: tuple[ProfileRange, ...] = (("image", (1, 3), (2, 3), (4, 3)),)
SIZES = IoTensor("sizes", TensorSpec((2,), "int64"), is_input=True, on_host=True, values=((1, 1), (8, 8), (16, 32)))


def test_the_least_usual_and_greatest_shapes_are_run_in_this_order() -> None:
    runs = list(warm_ups(IO, PROFILE))
    assert [run.point for run in runs] == ["min", "opt", "max"]
    assert [run.inputs["image"].shape for run in runs] == [(1, 3), (2, 3), (4, 3)]
    for run in runs:
        assert list(run.inputs) == ["image", "mask"], "outputs are no inputs"
        assert {name: array.dtype for name, array in run.inputs.items()} == {
            "image": np.float16,
            "mask": np.bool_,
        }
        assert not any(array.any() for array in run.inputs.values())


def test_points_of_the_same_shapes_are_run_once() -> None:
    assert [run.point for run in warm_ups(IO, (("image", (1, 3), (4, 3), (4, 3)),))] == ["min", "opt"]
    assert [run.point for run in warm_ups(IO, (("image", (1, 3), (1, 3), (4, 3)),))] == ["min", "max"]
    assert [run.point for run in warm_ups(IO, (("image", (2, 3), (2, 3), (2, 3)),))] == ["min"]
    assert [run.point for run in warm_ups(IO[1:2], ())] == ["min"]


def test_an_input_of_shapes_values_holds_those_of_the_profile_at_every_point() -> None:
    runs = list(warm_ups((SIZES,), ()))
    assert [run.inputs["sizes"].tolist() for run in runs] == [[1, 1], [8, 8], [16, 32]]
    assert {run.inputs["sizes"].dtype for run in runs} == {np.dtype(np.int64)}


def test_one_value_that_decides_a_shape_may_have_no_dimension() -> None:
    count = IoTensor("count", TensorSpec((), "int32"), is_input=True, on_host=True, values=((1,), (2,), (4,)))
    assert [run.inputs["count"].item() for run in warm_ups((count,), ())] == [1, 2, 4]


def test_an_engine_without_inputs_is_run_once() -> None:
    assert [run.inputs for run in warm_ups(IO[2:], ())] == [{}]


def test_an_input_that_the_profile_does_not_name_keeps_its_own_shape() -> None:
    assert shapes_at(IO, PROFILE, 2) == {"image": (4, 3), "mask": (4,)}


@st.composite
def engines(draw: st.DrawFn) -> tuple[tuple[IoTensor, ...], tuple[ProfileRange, ...]]:
    io, profile = [], []
    for name in draw(st.lists(st.sampled_from("abcd"), unique=True)):
        ranges = draw(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3).map(sorted), max_size=3))
        low, opt, high = (tuple(sizes[point] for sizes in ranges) for point in range(3))
        dynamic = low != high
        pattern = tuple(-1 if a != b else a for a, b in zip(low, high, strict=True))
        spec = draw(st.sampled_from([TensorSpec(pattern, "float32"), TensorSpec(pattern, "bool")]))
        io.append(IoTensor(name, spec, is_input=True))
        if dynamic or draw(st.booleans()):
            profile.append((name, low, opt, high))
    return tuple(io), tuple(profile)


@given(engines())
def test_every_warm_up_is_a_request_that_the_engine_takes(
    engine: tuple[tuple[IoTensor, ...], tuple[ProfileRange, ...]],
) -> None:
    io, profile = engine
    runs = list(warm_ups(io, profile))
    for run in runs:
        check_inputs("vpr", specs(io, inputs=True), profile, run.inputs)
    found = [{name: array.shape for name, array in run.inputs.items()} for run in runs]
    wanted = [shapes_at(io, profile, point) for point in range(3)]
    assert all(shapes in found for shapes in wanted)
    assert len(found) == len({tuple(sorted(shapes.items())) for shapes in wanted})
