"""How far outputs are from a reference: what the figures mean, and what no figure may hide."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from runtimes.measurements import AccuracyRecord, OutputError
from runtimes.sign_off.accuracy import IncomparableOutputsError, compare, faults_over, judge_accuracy

FLOATS = st.floats(-1e6, 1e6, allow_nan=False, width=32)
VECTORS = arrays.arrays(np.float32, st.integers(1, 20), elements=FLOATS)
INTEGERS = arrays.arrays(
    st.sampled_from([np.int8, np.uint8, np.int64, np.uint64]), st.integers(1, 20), elements=None, fill=st.nothing()
)


def error_of(engine: object, reference: object) -> OutputError:
    pair = ({"y": np.asarray(engine)}, {"y": np.asarray(reference)})
    return compare([pair])["y"]


def record(**errors: float) -> AccuracyRecord:
    outputs = {name: OutputError(relative_rms=error, max_abs=2 * error) for name, error in errors.items()}
    return AccuracyRecord(reference="torch on the CPU", samples_sha256=None, sample_count=3, outputs=outputs)


# What the figures mean.


@given(VECTORS)
def test_equal_outputs_have_no_error(values: np.ndarray) -> None:
    assert error_of(values, values.copy()) == OutputError(relative_rms=0.0, max_abs=0.0)


@given(VECTORS, st.floats(1e-3, 0.5))
def test_an_engine_that_scales_everything_by_one_plus_e_is_e_off(values: np.ndarray, share: float) -> None:
    reference = values.astype(np.float64)
    found = error_of(reference * (1 + share), reference)
    assert found.relative_rms == pytest.approx(share if reference.any() else 0.0, rel=1e-6)


@given(st.lists(st.tuples(VECTORS, VECTORS), min_size=1, max_size=4))
def test_the_error_over_all_samples_is_that_of_one_long_sample(samples: list[tuple[np.ndarray, np.ndarray]]) -> None:
    pairs = [(engine[: len(expected)], expected[: len(engine)]) for engine, expected in samples]
    found = compare([({"y": engine}, {"y": expected}) for engine, expected in pairs])["y"]
    engine, expected = (np.concatenate(side).astype(np.float64) for side in zip(*pairs, strict=True))
    norm = np.linalg.norm(expected)
    if norm > 0:
        assert found.relative_rms == pytest.approx(np.linalg.norm(engine - expected) / norm, rel=1e-9)
    assert found.max_abs == np.abs(engine - expected).max()


def test_float16_is_compared_in_float64_and_not_in_its_own_arithmetic() -> None:
    reference = np.full(100_000, 60_000, np.float32)  # whose squares and sums float16 cannot hold
    assert error_of(reference.astype(np.float16), reference).relative_rms == pytest.approx(0.0, abs=1e-3)
    assert error_of(np.full(100_000, 30_000, np.float16), reference).relative_rms == pytest.approx(0.5)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_squares_of_very_large_and_very_small_values_neither_overflow_nor_vanish(scale: float) -> None:
    assert error_of(np.array([1.1, -2.2]) * scale, np.array([1.0, -2.0]) * scale).relative_rms == pytest.approx(0.1)


def test_an_error_without_bounds_still_has_a_figure_that_a_file_can_hold() -> None:
    found = error_of([1.7e308, 1.0], [-1.7e308, 1.0])
    assert math.isfinite(found.relative_rms)
    assert math.isfinite(found.max_abs)
    assert math.isfinite(error_of([1e300], [5e-324]).relative_rms)


def test_norms_that_float64_cannot_hold_have_the_largest_figure_and_not_none() -> None:
    reference = np.array([1.7e308, 1.7e308])
    assert error_of(reference, reference).relative_rms == 0.0
    for engine in (reference / 2, -reference):
        found = error_of(engine, reference)
        assert found.relative_rms == sys.float_info.max
        assert faults_over({"y": found}, 1e300) != []


def test_against_a_reference_of_zeros_any_error_is_a_whole_one() -> None:
    assert error_of([0.0, -0.0], [0.0, 0.0]).relative_rms == 0.0
    assert error_of([0.0, 1e-9], [0.0, 0.0]) == OutputError(relative_rms=1.0, max_abs=1e-9)
    assert error_of([0.0, 0.0], [3.0, 4.0]).relative_rms == 1.0, "as is an engine that gives zeros"


@given(INTEGERS)
def test_of_integers_the_share_that_differs_counts(values: np.ndarray) -> None:
    other = values.copy()
    other[:1] ^= other.dtype.type(1)
    assert error_of(values, values).relative_rms == 0.0
    assert error_of(other, values) == OutputError(relative_rms=1 / values.size, max_abs=1.0)


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint64])
def test_the_largest_distance_of_integers_does_not_wrap(kind: type[np.integer]) -> None:
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    assert error_of(np.array([low], kind), np.array([high], kind)).max_abs == float(int(high) - int(low))


@pytest.mark.parametrize(("low", "high"), [(np.int64(-1), np.int64(1)), (np.int8(-128), np.int8(127))])
def test_an_integer_without_dimensions_is_compared_like_any_other(low: np.integer, high: np.integer) -> None:
    distance = float(int(high) - int(low))
    assert error_of(np.array(low), np.array(high)) == OutputError(relative_rms=1.0, max_abs=distance)
    assert error_of(np.array(high), np.array(high)) == OutputError(relative_rms=0.0, max_abs=0.0)


def test_of_booleans_the_share_that_differs_counts() -> None:
    assert error_of([True, False, True, True], [True, True, True, True]) == OutputError(relative_rms=0.25, max_abs=1.0)


def test_an_output_that_is_always_empty_has_no_error() -> None:
    empty = np.zeros((0, 4), np.float32)
    assert error_of(empty, empty).relative_rms == 0.0


# What no figure may hide.


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_where_the_reference_is_has_no_figure(bad: float) -> None:
    with pytest.raises(IncomparableOutputsError, match=r"output y, sample 0: 1 of 3 values .* at 1 expected 2, found"):
        error_of([1.0, bad, 3.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize(("engine", "reference"), [(1.0, math.nan), (1.0, math.inf), (-math.inf, math.inf)])
def test_a_reference_that_is_not_finite_takes_the_very_same_value_alone(engine: float, reference: float) -> None:
    assert error_of([reference, 2.0], [reference, 2.0]).relative_rms == 0.0
    with pytest.raises(IncomparableOutputsError, match="not finite on one side, or differ in their infinity"):
        error_of([engine, 2.0], [reference, 2.0])


@given(VECTORS, st.data())
def test_one_lost_value_among_many_is_always_found(values: np.ndarray, data: st.DataObject) -> None:
    damaged = values.copy()
    damaged[data.draw(st.integers(0, values.size - 1))] = data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    with pytest.raises(IncomparableOutputsError):
        error_of(damaged, values)


def test_other_shapes_are_named_both() -> None:
    with pytest.raises(IncomparableOutputsError, match=r"output y, sample 0: expected shape \[3\], found \[2\]"):
        error_of(np.zeros(2), np.zeros(3))


@pytest.mark.parametrize(
    ("engine", "reference"), [(np.int64, np.float32), (np.float32, np.int64), (np.int32, np.int64), (bool, np.int8)]
)
def test_outputs_of_another_kind_are_no_match(engine: type, reference: type) -> None:
    with pytest.raises(IncomparableOutputsError, match=r"expected \w+, found \w+"):
        error_of(np.zeros(2, engine), np.zeros(2, reference))


def test_outputs_of_other_names_are_no_match() -> None:
    zero = np.zeros(1)
    with pytest.raises(IncomparableOutputsError, match="sample 0: expected outputs a, found a, b"):
        compare([({"a": zero, "b": zero}, {"a": zero})])
    with pytest.raises(IncomparableOutputsError, match="expected outputs a, b, found a"):
        compare([({"a": zero}, {"a": zero, "b": zero})])


def test_no_sample_is_no_proof() -> None:
    with pytest.raises(IncomparableOutputsError, match="at least one sample"):
        compare([])


# The verdict.


def test_an_engine_within_its_tolerance_is_accurate_enough() -> None:
    assert judge_accuracy(record(a=0.01, b=0.002), 0.01) == ""


def test_an_engine_over_its_tolerance_is_refused_with_the_figures_the_worst_first() -> None:
    text = judge_accuracy(record(a=0.02, b=0.3, c=0.001), 0.01)
    assert text.startswith("output b: expected a relative error of at most 0.01, found 0.3 (largest difference 0.6)")
    assert "output a: expected a relative error of at most 0.01, found 0.02" in text
    assert "output c" not in text
    assert "torch on the CPU, over 3 made-up inputs" in text
    assert "accuracy_tolerance" in text


def test_without_a_tolerance_nothing_is_judged() -> None:
    assert judge_accuracy(record(a=10.0), None) == ""


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1), min_size=1), st.floats(1e-6, 1))
def test_the_verdict_is_the_worst_output_against_the_tolerance(errors: dict[str, float], tolerance: float) -> None:
    of = record(**errors)
    assert bool(judge_accuracy(of, tolerance)) == (of.worst > tolerance)
    assert len(faults_over(of.outputs, tolerance)) == sum(error > tolerance for error in errors.values())
