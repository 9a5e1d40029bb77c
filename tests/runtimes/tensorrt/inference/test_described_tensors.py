"""The inputs and outputs of an engine that was loaded: every type, and what no array could be."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from messages import EngineDeserializeError
from runtimes.tensorrt.inference.io_tensors import shape_of
from tests.runtimes.tensorrt import models
from tests.runtimes.tensorrt.engines import ROWS, Load, Profile

if TYPE_CHECKING:
    from tests.doubles.tensorrt.core import Core


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (models.FLOAT, "float32"),
        (models.HALF, "float16"),
        (models.INT8, "int8"),
        (models.INT32, "int32"),
        (models.INT64, "int64"),
        (models.BOOL, "bool"),
        (models.UINT8, "uint8"),
    ],
)
def test_every_type_that_arrays_have_is_described_by_its_name(load: Load, kind: int, dtype: str) -> None:
    loaded = load(models.echo(kind))
    assert [tensor.spec.dtype for tensor in loaded.io] == [dtype, dtype]


def test_a_type_that_no_array_has_is_refused_by_name(load: Load) -> None:
    with pytest.raises(EngineDeserializeError, match=r"^m\.engine: x is BF16, expected one of FLOAT, HALF, INT8"):
        load(models.echo(models.BFLOAT16))


def test_a_layout_that_no_array_has_is_refused(load: Load, trt: ModuleType) -> None:
    with pytest.raises(EngineDeserializeError, match=r"total lies in memory as .*, expected LINEAR, which arrays are"):
        load(models.dynamic(), ROWS, formats={"total": int(trt.TensorFormat.CHW32)})


def test_a_tensor_without_a_shape_is_refused(load: Load, core: Core) -> None:
    core.fail("get_tensor_shape", "", after=1)
    with pytest.raises(EngineDeserializeError, match=r"^m\.engine: TensorRT gives no shape of scale; compile it again"):
        load(models.dynamic(), ROWS)


def test_what_lies_on_the_host_is_told_with_the_values_that_the_profile_allows(load: Load) -> None:
    profile: Profile = (("x", (1, 4), (2, 4), (4, 4)),)
    loaded = load(
        models.reshaped(), profile, on_host=("target", "size"), values=((("target", (1, 4), (2, 4), (4, 4)),),)
    )
    told = {tensor.name: (tensor.on_host, tensor.values) for tensor in loaded.io}
    assert told == {
        "x": (False, ()),
        "target": (True, ((1, 4), (2, 4), (4, 4))),
        "y": (False, ()),
        "size": (True, ()),
    }


def test_an_invalid_shape_is_none_and_one_without_dimensions_is_not(trt: ModuleType) -> None:
    assert shape_of(trt.Dims._invalid()) is None
    assert shape_of(trt.Dims([])) == ()
    assert shape_of(trt.Dims([-1, 3])) == (-1, 3)
