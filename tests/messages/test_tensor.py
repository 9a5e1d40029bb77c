"""How a tensor is described."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import DTYPES, Tensor, TensorSpec, dtype_name, spec_of, specs_of

NUMPY_DTYPES = [name for name in DTYPES if name != "bfloat16"]  # NumPy has none of its own


@pytest.mark.parametrize("name", NUMPY_DTYPES)
def test_numpy_dtypes_are_named_as_numpy_names_them(name: str) -> None:
    assert dtype_name(np.dtype(name)) == name
    assert spec_of(np.zeros((1, 2), name)) == TensorSpec((1, 2), name)  # type: ignore[arg-type]


@pytest.mark.parametrize("order", ["<", ">"])
def test_byte_order_is_no_part_of_the_name(order: str) -> None:
    assert dtype_name(np.dtype("f2").newbyteorder(order)) == "float16"  # type: ignore[arg-type]


@pytest.mark.torch
@pytest.mark.parametrize("name", [*NUMPY_DTYPES, "bfloat16"])
def test_torch_dtypes_have_the_same_names(name: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.zeros((2, 0), dtype=getattr(torch, name))
    assert isinstance(tensor, Tensor)
    assert spec_of(tensor) == TensorSpec((2, 0), name)  # type: ignore[arg-type]


@given(shape=st.lists(st.integers(0, 3), max_size=6).map(tuple))
def test_shapes_are_kept_in_order(shape: tuple[int, ...]) -> None:
    assert spec_of(np.zeros(shape, np.uint8)).shape == shape


@pytest.mark.parametrize("array", [np.array([None]), np.array(["a"]), np.array([1j]), np.zeros(1, "datetime64[ns]")])
def test_a_dtype_that_no_engine_takes_is_refused_by_name(array: Tensor) -> None:
    with pytest.raises(
        TypeError, match=re.escape(f"dtype {dtype_name(array.dtype)} has no description; expected one of float64")
    ):
        spec_of(array)


def test_a_mapping_is_described_name_by_name() -> None:
    tensors = {"a": np.zeros(1, np.int8), "b": np.zeros((), np.bool_)}
    assert specs_of(tensors) == {"a": TensorSpec((1,), "int8"), "b": TensorSpec((), "bool")}


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (TensorSpec((1, -1, 64), "float16"), "float16[1, ?, 64]"),
        (TensorSpec((), "bool"), "bool[]"),
    ],
)
def test_a_spec_reads_as_an_error_message_shows_it(spec: TensorSpec, text: str) -> None:
    assert str(spec) == text
