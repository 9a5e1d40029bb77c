"""The shapes at which a graph is asked for: completed, each once, and held against what the engine takes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import EngineDeserializeError, TensorSpec
from runtimes.inference_runtime import ProfileRange
from runtimes.tensorrt.inference.graphs import listed_shapes, shape_key
from runtimes.tensorrt.inference.io_tensors import IoTensor

IO = (
    IoTensor("image", TensorSpec((-1, 3), "float16"), is_input=True),
    IoTensor("mask", TensorSpec((4,), "bool"), is_input=True),
    IoTensor("descriptor", TensorSpec((-1, 8), "float16"), is_input=False),
)
PROFILE: tuple[ProfileRange, ...] = (("image", (1, 3), (2, 3), (4, 3)),)
REMEDY = r"; take these shapes out of cuda_graphs in \[runtime.tensorrt\]"


def listed(*shapes: Mapping[str, tuple[int, ...]]) -> list[dict[str, tuple[int, ...]]]:
    return listed_shapes("vpr", IO, PROFILE, shapes)


def test_an_input_with_a_fixed_shape_need_not_be_named() -> None:
    assert listed({"image": (2, 3)}, {"mask": (4,), "image": (4, 3)}) == [
        {"image": (2, 3), "mask": (4,)},
        {"image": (4, 3), "mask": (4,)},
    ]


def test_an_engine_of_fixed_shapes_may_have_its_one_graph_without_naming_any() -> None:
    assert listed_shapes("vpr", IO[1:2], (), [{}]) == [{"mask": (4,)}]


def test_the_same_shapes_are_captured_once() -> None:
    assert listed({"image": (2, 3)}, {"mask": (4,), "image": (2, 3)}, {"image": (1, 3)}) == [
        {"image": (2, 3), "mask": (4,)},
        {"image": (1, 3), "mask": (4,)},
    ]


def test_nothing_listed_is_no_graph_whatever_the_engine_holds() -> None:
    sizes = IoTensor("sizes", TensorSpec((2,), "int64"), is_input=True, on_host=True)
    assert listed_shapes("vpr", (sizes,), (), []) == []


@pytest.mark.parametrize("is_input", [True, False])
def test_an_engine_whose_shapes_hang_on_values_has_no_graph(is_input: bool) -> None:
    sizes = IoTensor("sizes", TensorSpec((2,), "int64"), is_input=is_input, on_host=True)
    with pytest.raises(
        EngineDeserializeError, match="vpr: sizes holds shapes' values, which a graph would freeze" + REMEDY
    ):
        listed_shapes("vpr", (*IO, sizes), PROFILE, [{"image": (2, 3)}])


def test_an_input_that_the_engine_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(
        EngineDeserializeError, match="vpr: cuda_graphs names input descriptor, expected image, mask" + REMEDY
    ):
        listed({"image": (2, 3), "descriptor": (2, 8)})


@pytest.mark.parametrize("shape", [(0, 3), (5, 3), (2, 4), (2,), (2, 3, 1), (-1, 3)])
def test_a_shape_outside_the_profile_is_refused_with_its_range(shape: tuple[int, ...]) -> None:
    expected = r"vpr: cuda_graphs gives input image the shape \[.*\], expected from \[1, 3\] to \[4, 3\]" + REMEDY
    with pytest.raises(EngineDeserializeError, match=expected):
        listed({"image": shape})


def test_a_dynamic_input_has_to_be_named() -> None:
    expected = r"vpr: cuda_graphs names no shape of input image, expected one from \[1, 3\] to \[4, 3\]" + REMEDY
    with pytest.raises(EngineDeserializeError, match=expected):
        listed({"mask": (4,)})
    with pytest.raises(EngineDeserializeError, match=r"names no shape of input image, expected one from \[-1, 3\]"):
        listed_shapes("vpr", IO, (), [{"mask": (4,)}])


def test_a_fixed_input_cannot_have_another_shape() -> None:
    with pytest.raises(EngineDeserializeError, match=r"input mask the shape \[5\], expected from \[4\] to \[4\]"):
        listed({"image": (2, 3), "mask": (5,)})


def test_the_key_of_shapes_does_not_hang_on_their_order() -> None:
    for order in itertools.permutations([("image", (2, 3)), ("mask", (4,)), ("query", ())]):
        assert shape_key(dict(order)) == (("image", (2, 3)), ("mask", (4,)), ("query", ()))


@given(
    st.lists(
        st.fixed_dictionaries({"image": st.tuples(st.integers(1, 4), st.just(3))}, optional={"mask": st.just((4,))})
    )
)
def test_whatever_fits_is_completed_and_has_a_key_of_its_own(asked: list[dict[str, tuple[int, ...]]]) -> None:
    found = listed(*asked)
    keys = [shape_key(shapes) for shapes in found]
    assert len(set(keys)) == len(keys)
    assert set(keys) == {shape_key({"mask": (4,), **shapes}) for shapes in asked}
