"""Inputs and profiles against what an engine takes: the decision, without any engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import DTYPES, EngineBuildError, InvalidInputError, TensorSpec
from runtimes.tensor_check import UNBOUNDED, check_inputs, check_profile, describe_range

NUMPY_DTYPES = sorted(set(DTYPES) - {"bfloat16"})
SPEC = TensorSpec((-1, 3), "float32")
RANGE = ("points", (2, 3), (4, 3), (8, 3))


def points(count: int = 4) -> np.ndarray:
    return np.zeros((count, 3), np.float32)


def shapes() -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(0, 4), max_size=4).map(tuple)


@given(st.sampled_from(NUMPY_DTYPES), shapes(), st.data())
def test_a_tensor_fits_every_pattern_that_is_made_from_it(
    dtype: str, shape: tuple[int, ...], data: st.DataObject
) -> None:
    pattern = tuple(data.draw(st.sampled_from([extent, -1])) for extent in shape)
    span = ("x", tuple(max(0, e - 1) for e in shape), shape, tuple(e + 1 for e in shape))
    spec = TensorSpec(pattern, dtype)  # type: ignore[arg-type]
    check_inputs("model", {"x": spec}, (span,), {"x": np.zeros(shape, dtype)})
    check_profile("model", {"x": TensorSpec((-1,) * len(shape), dtype)}, (span,))  # type: ignore[arg-type]


@given(st.sampled_from(NUMPY_DTYPES), shapes(), st.sampled_from(NUMPY_DTYPES), shapes())
def test_a_tensor_is_taken_exactly_when_dtype_and_shape_are_the_same(
    dtype: str, shape: tuple[int, ...], other_dtype: str, other_shape: tuple[int, ...]
) -> None:
    spec = TensorSpec(shape, dtype)  # type: ignore[arg-type]
    tensor = np.zeros(other_shape, other_dtype)
    if (dtype, shape) == (other_dtype, other_shape):
        check_inputs("model", {"x": spec}, (), {"x": tensor})
    else:
        with pytest.raises(InvalidInputError) as refusal:
            check_inputs("model", {"x": spec}, (), {"x": tensor})
        found = TensorSpec(other_shape, other_dtype)  # type: ignore[arg-type]
        assert str(refusal.value) == f"model: input x: expected {spec}, found {found}"


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
def test_a_size_is_taken_exactly_when_it_lies_in_the_profile(low: int, span: int, size: int) -> None:
    high = low + span
    profile = (("points", (low, 3), (low, 3), (high, 3)),)
    if low <= size <= high:
        check_inputs("model", {"points": SPEC}, profile, {"points": points(size)})
    else:
        with pytest.raises(InvalidInputError, match=f"found float32\\[{size}, 3\\]"):
            check_inputs("model", {"points": SPEC}, profile, {"points": points(size)})


def test_all_faults_are_named_at_once() -> None:
    specs = {"a": SPEC, "b": SPEC, "c": SPEC}
    with pytest.raises(InvalidInputError) as refusal:
        check_inputs("matcher", specs, (), {"a": points(), "b": points().astype(np.int64), "d": points()})
    assert str(refusal.value) == (
        "matcher: input d is unknown: expected a, b, c;"
        " input b: expected float32[?, 3], found int64[4, 3];"
        " input c is missing: expected float32[?, 3], found a, b, d"
    )


def test_dimensions_of_one_name_must_agree() -> None:
    specs = {"points": SPEC, "scores": TensorSpec((-1,), "float32")}
    names = {"points": ("n", ""), "scores": ("n",)}
    check_inputs("matcher", specs, (), {"points": points(5), "scores": np.zeros(5, np.float32)}, dimension_names=names)
    with pytest.raises(InvalidInputError, match=r"input scores axis 0 \(n\): expected 5 as in points axis 0, found 4"):
        check_inputs(
            "matcher", specs, (), {"points": points(5), "scores": np.zeros(4, np.float32)}, dimension_names=names
        )


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ([1.0], "a list, which is no tensor"),
        (None, "a NoneType, which is no tensor"),
        (np.float32(1), "a float32, which is no tensor"),
        (np.array(["a"], object), "object[1]"),
        (points().astype(">f4"), "float32[4, 3] of foreign byte order"),
    ],
)
def test_what_is_no_plain_tensor_is_described(value: Any, found: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        check_inputs("model", {"points": SPEC}, (), {"points": value})
    assert str(refusal.value).endswith(f"found {found}")


@pytest.mark.torch
def test_a_runtime_on_the_host_asks_for_numpy_arrays() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(4, 3)
    check_inputs("model", {"points": SPEC}, (), {"points": tensor})
    with pytest.raises(InvalidInputError, match=r"found float32\[4, 3\] as torch.Tensor; give a NumPy array"):
        check_inputs("model", {"points": SPEC}, (), {"points": tensor}, host_only=True)


def test_a_range_is_described_as_a_person_writes_it() -> None:
    assert describe_range(SPEC, None) == "float32[?, 3]"
    assert describe_range(SPEC, ((2, 3), (8, 3))) == "float32[2..8, 3]"
    assert describe_range(SPEC, ((2, 3), (UNBOUNDED, 3))) == "float32[2.., 3]"


@pytest.mark.parametrize(
    ("profile", "what"),
    [
        ((("pints", (2, 3), (4, 3), (8, 3)),), "names input pints, expected points"),
        ((RANGE, RANGE), "names input points twice"),
        ((("points", (2, 4), (4, 4), (8, 4)),), r"expected within float32\[2\.\.9, 3\]"),
        ((("points", (2,), (4,), (8,)),), "expected within"),
        ((("points", (1, 3), (4, 3), (8, 3)),), r"expected within float32\[2\.\.9, 3\]"),
        ((("points", (2, 3), (4, 3), (10, 3)),), r"expected within float32\[2\.\.9, 3\]"),
        ((("points", (2, 3), (9, 3), (8, 3)),), "expected min <= opt <= max"),
    ],
)
def test_a_profile_that_contradicts_the_model_is_refused(profile: Any, what: str) -> None:
    limits = (("points", (2, 3), (2, 3), (9, 3)),)
    with pytest.raises(EngineBuildError, match=what):
        check_profile("model", {"points": SPEC}, profile, limits=limits)


def test_a_dynamic_input_without_a_range_is_refused_where_each_needs_one() -> None:
    specs = {"points": SPEC, "scale": TensorSpec((1,), "float32"), "mask": TensorSpec((-1,), "bool")}
    check_profile("model", specs, (RANGE,))
    with pytest.raises(EngineBuildError, match=r"no profile for mask bool\[\?\];"):
        check_profile("model", specs, (RANGE,), every_dynamic_input=True)
