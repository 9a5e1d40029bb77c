"""What TensorRT is asked for: every precision with every kind of model."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import EngineBuildError
from runtimes.inference_runtime import BuildConfig, Precision
from runtimes.onnx_types import OnnxTypes
from runtimes.tensorrt.building.recipe import EngineRecipe, engine_recipe

DATASET = Path("batches")
FP32 = OnnxTypes()
FP16 = OnnxTypes(narrow=("fp16",))
QUANTIZED = OnnxTypes(narrow=("int8",))
BOTH = OnnxTypes(narrow=("fp16", "int8"))
BF16 = OnnxTypes(narrow=("bf16",))
NORMALISED = OnnxTypes(delicate=("norm_0", "softmax_1"))


def recipe(precision: Precision, types: OnnxTypes = FP32, dataset: Path | None = None) -> EngineRecipe:
    return engine_recipe("m", BuildConfig(precision=precision, calibration_dataset=dataset), types)


@pytest.mark.parametrize(
    ("precision", "types", "dataset", "flags", "typed", "calibrated"),
    [
        ("fp16", FP32, None, ("FP16",), False, False),
        ("fp16", FP16, None, (), True, False),
        ("fp16", FP32, DATASET, ("FP16",), False, False),
        ("int8", FP32, DATASET, ("FP16", "INT8"), False, True),
        ("int8", QUANTIZED, None, (), True, False),
        ("int8", BOTH, None, (), True, False),
        ("mixed", FP32, None, ("FP16",), False, False),
        ("mixed", FP32, DATASET, ("FP16", "INT8"), False, True),
        ("mixed", NORMALISED, None, ("FP16", "OBEY_PRECISION_CONSTRAINTS"), False, False),
        ("mixed", NORMALISED, DATASET, ("FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"), False, True),
        ("mixed", FP16, None, (), True, False),
        ("mixed", QUANTIZED, None, (), True, False),
        ("mixed", BOTH, None, (), True, False),
    ],
)
def test_each_precision_of_each_kind_of_model_has_its_flags(
    precision: Precision,
    types: OnnxTypes,
    dataset: Path | None,
    flags: tuple[str, ...],
    typed: bool,
    calibrated: bool,
) -> None:
    made = recipe(precision, types, dataset)

    assert (made.set_flags, made.strongly_typed, made.calibrated) == (flags, typed, calibrated)


@pytest.mark.parametrize(
    ("precision", "types", "dataset", "words"),
    [
        ("fp32", FP32, None, "does precision fp16, int8 or mixed, got fp32"),
        ("fp16", BF16, None, "found one that computes in bf16"),
        ("mixed", BF16, None, "found one that computes in bf16"),
        ("fp16", QUANTIZED, None, "expected fp16, found a model that quantises to int8"),
        ("fp16", BOTH, None, "expected fp16, found a model that quantises to int8"),
        ("int8", FP32, None, "expected calibration_dataset, found none"),
        ("int8", FP16, DATASET, "found a model in fp16; export it in fp32"),
        ("int8", QUANTIZED, DATASET, "expected no calibration_dataset for a model that says its own types"),
        ("mixed", FP16, DATASET, "expected no calibration_dataset for a model that says its own types"),
    ],
)
def test_a_precision_that_a_model_cannot_have_is_refused_by_name(
    precision: Precision, types: OnnxTypes, dataset: Path | None, words: str
) -> None:
    with pytest.raises(EngineBuildError) as refused:
        recipe(precision, types, dataset)

    assert str(refused.value).startswith("m: ")
    assert words in str(refused.value)


def test_only_mixed_holds_delicate_operations_to_fp32() -> None:
    assert recipe("mixed", NORMALISED).fp32_nodes == ("norm_0", "softmax_1")
    assert recipe("fp16", NORMALISED).fp32_nodes == ()
    assert recipe("int8", NORMALISED, DATASET).fp32_nodes == ()


def test_workspace_profile_and_effort_are_those_of_the_configuration() -> None:
    profile = (("x", (1, 3), (2, 3), (4, 3)),)
    made = engine_recipe("m", BuildConfig(workspace_mb=64, optimization_profiles=profile), FP32, optimization_level=5)

    assert (made.workspace_bytes, made.profile, made.optimization_level) == (64 * 1024**2, profile, 5)


@given(
    precision=st.sampled_from(get_args(Precision)),
    narrow=st.sets(st.sampled_from(["fp16", "bf16", "int8"])).map(lambda kinds: tuple(sorted(kinds))),
    delicate=st.sampled_from([(), ("norm",)]),
    dataset=st.sampled_from([None, DATASET]),
)
def test_no_recipe_is_ever_weaker_than_its_words(
    precision: Precision, narrow: tuple[str, ...], delicate: tuple[str, ...], dataset: Path | None
) -> None:
    try:
        made = recipe(precision, OnnxTypes(narrow=narrow, delicate=delicate), dataset)
    except EngineBuildError:
        return

    assert "TF32" in made.cleared_flags
    assert made.strongly_typed == (made.set_flags == ()), "a strongly typed network takes no precision flag"
    assert made.calibrated == ("INT8" in made.set_flags), "INT8 without scales is made up"
    assert not made.calibrated or dataset is not None
    assert bool(made.fp32_nodes) == ("OBEY_PRECISION_CONSTRAINTS" in made.set_flags)
    assert made.precision == precision
