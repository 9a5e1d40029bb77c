"""Shapes as TensorRT gives them, and what an engine's tensors may differ in from what is expected of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import TensorSpec
from runtimes.inference_runtime import ProfileRange
from runtimes.tensorrt.inference.io_tensors import IoTensor, differences, shape_of, specs

IMAGE = TensorSpec((-1, 3), "float32")
PROFILE: tuple[ProfileRange, ...] = (("image", (2, 3), (2, 3), (2, 3)),)
extents = st.integers(-1, 3)
shapes = st.lists(extents, max_size=4).map(tuple)
tensor_specs = st.builds(TensorSpec, shapes, st.sampled_from(["float32", "float16"]))
tensors = st.dictionaries(st.sampled_from(["image", "mask", "query"]), tensor_specs)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[ProfileRange, ...]:
    names = draw(st.lists(st.sampled_from(["image", "mask", "query"]), unique=True))
    each = []
    for name in names:
        low = draw(st.lists(st.integers(0, 3), max_size=4))
        high = [size + draw(st.integers(0, 1)) for size in low]
        each.append((name, tuple(low), tuple(high), tuple(high)))
    return tuple(each)


class Dims:
    """TensorRT's `Dims`, which has -1 dimensions where TensorRT knows no shape."""

    def __init__(self, *sizes: int, rank: int | None = None) -> None:
        self._sizes = sizes
        self._rank = len(sizes) if rank is None else rank

    def __len__(self) -> int:
        return self._rank

    def __getitem__(self, axis: int) -> int:
        return self._sizes[axis]


def test_a_shape_is_what_tensorrt_says_of_each_dimension() -> None:
    assert shape_of(Dims(2, 3)) == (2, 3)
    assert shape_of(Dims(-1, 3)) == (-1, 3)
    assert shape_of(Dims()) == ()


def test_a_tensor_of_which_tensorrt_knows_no_shape_has_none() -> None:
    assert shape_of(Dims(rank=-1)) is None


def test_inputs_and_outputs_keep_the_engines_order() -> None:
    io = (
        IoTensor("query", IMAGE, is_input=True),
        IoTensor("descriptor", TensorSpec((4,), "float16"), is_input=False),
        IoTensor("image", IMAGE, is_input=True),
    )
    assert list(specs(io, inputs=True)) == ["query", "image"]
    assert specs(io, inputs=False) == {"descriptor": TensorSpec((4,), "float16")}


def test_each_tensor_that_is_missing_unknown_or_another_is_told() -> None:
    expected = {"image": IMAGE, "mask": TensorSpec((4,), "bool")}
    found = {"image": TensorSpec((-1, 3), "float16"), "query": IMAGE}
    assert differences(expected, found) == [
        "mask: expected bool[4], found none",
        "query: expected none, found float32[?, 3]",
        "image: expected float32[?, 3], found float16[?, 3]",
    ]


@pytest.mark.parametrize(("one", "other"), [((-1, 3), (2, 3)), ((2, 3), (-1, 3)), ((-1, -1), (2, 3))])
def test_a_dimension_to_which_the_profile_leaves_one_size_may_be_dynamic_or_fixed(
    one: tuple[int, ...], other: tuple[int, ...]
) -> None:
    assert differences({"image": TensorSpec(one, "int8")}, {"image": TensorSpec(other, "int8")}, PROFILE) == []


@pytest.mark.parametrize(
    ("one", "other", "profile"),
    [
        ((5,), (3,), ()),
        ((5,), (-1,), ()),
        ((-1,), (5,), ()),
        ((5,), (3,), (("image", (5,), (5,), (5,)),)),
        ((3,), (5,), (("image", (5,), (5,), (5,)),)),
        ((-1,), (3,), (("image", (5,), (5,), (5,)),)),
        ((-1,), (5,), (("image", (1,), (5,), (5,)),)),
        ((-1,), (5,), (("mask", (5,), (5,), (5,)),)),
        ((5,), (5, 1), (("image", (5,), (5,), (5,)),)),
        ((-1,), (5,), (("image", (5, 1), (5, 1), (5, 1)),)),
    ],
)
def test_another_size_is_a_difference(
    one: tuple[int, ...], other: tuple[int, ...], profile: tuple[ProfileRange, ...]
) -> None:
    expected, found = TensorSpec(one, "int8"), TensorSpec(other, "int8")
    assert differences({"image": expected}, {"image": found}, profile) == [f"image: expected {expected}, found {found}"]


@given(one=tensors, profile=ranges())
def test_tensors_never_differ_from_themselves(one: dict[str, TensorSpec], profile: tuple[ProfileRange, ...]) -> None:
    assert differences(one, dict(one), profile) == []


@given(one=tensors, other=tensors, profile=ranges())
def test_both_sides_see_as_many_differences(
    one: dict[str, TensorSpec], other: dict[str, TensorSpec], profile: tuple[ProfileRange, ...]
) -> None:
    assert len(differences(one, other, profile)) == len(differences(other, one, profile))


@given(one=tensors, other=tensors, profile=ranges())
def test_what_agrees_takes_the_same_arrays_within_the_profile(
    one: dict[str, TensorSpec], other: dict[str, TensorSpec], profile: tuple[ProfileRange, ...]
) -> None:
    allowed = {name: (low, high) for name, low, _, high in profile}
    told = {text.partition(":")[0] for text in differences(one, other, profile)}
    for name in one.keys() & other.keys() - told:
        assert one[name].dtype == other[name].dtype
        for axis, (a, b) in enumerate(zip(one[name].shape, other[name].shape, strict=True)):
            if a != b:
                low, high = (shape[axis] for shape in allowed[name])
                assert low == high == max(a, b)
                assert min(a, b) == -1
