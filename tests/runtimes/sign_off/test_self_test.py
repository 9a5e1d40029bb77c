"""Known answers: recorded once, given again by the same engine, and by no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import InferenceError, OutOfMemoryError, SelfTestError
from runtimes.fake_runtime import FakeRuntime
from runtimes.fake_steps import computes, raises, returns
from runtimes.npz_file import encode_npz
from runtimes.sign_off import self_test
from runtimes.sign_off.self_test import (
    SELF_TEST_TOLERANCE,
    AnswersTooLargeError,
    check_known_answers,
    record_known_answers,
)

IMAGE: dict[str, np.ndarray] = {"image": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)}
DESCRIPTOR: dict[str, np.ndarray] = {
    "descriptor": np.arange(1, 5, dtype=np.float32),
    "best": np.array([3, 1], np.int64),
}


def answers_of(outputs: dict[str, np.ndarray]) -> bytes:
    fake = FakeRuntime({"vpr": returns(outputs)})
    return record_known_answers(fake, fake.deserialize_engine(fake.entry("vpr")), IMAGE)


def check(step: Any, answers: bytes, tolerance: float = SELF_TEST_TOLERANCE) -> None:
    fake = FakeRuntime({"vpr": step})
    check_known_answers(fake, fake.deserialize_engine(fake.entry("vpr")), answers, tolerance)


def test_an_engine_that_repeats_itself_passes() -> None:
    check(returns(DESCRIPTOR), answers_of(DESCRIPTOR), tolerance=1e-12)


def test_the_recorded_inputs_are_what_the_engine_is_run_on() -> None:
    doubled = computes(lambda inputs: {"y": np.asarray(inputs["image"]) * 2})
    fake = FakeRuntime({"vpr": doubled})
    answers = record_known_answers(fake, fake.deserialize_engine(fake.entry("vpr")), IMAGE)
    check(doubled, answers, tolerance=1e-12)
    with pytest.raises(SelfTestError, match="output y"):
        check(computes(lambda inputs: {"y": np.asarray(inputs["image"]) * 3}), answers)


def test_equal_answers_are_equal_bytes() -> None:
    assert answers_of(DESCRIPTOR) == answers_of({name: array.copy() for name, array in DESCRIPTOR.items()})


def test_another_engine_is_refused_with_output_expected_found_and_what_to_do() -> None:
    other = {**DESCRIPTOR, "descriptor": DESCRIPTOR["descriptor"] * np.float32(1.01)}
    with pytest.raises(SelfTestError) as failed:
        check(returns(other), answers_of(DESCRIPTOR))
    text = str(failed.value)
    assert "vpr: self-test failed: output descriptor: expected a relative error of at most 0.001, found 0.01" in text
    assert "c7 provision" in text
    check(returns(other), answers_of(DESCRIPTOR), tolerance=0.02)


def test_one_integer_of_two_that_differs_is_half_an_output() -> None:
    other = {**DESCRIPTOR, "best": np.array([3, 2], np.int64)}
    with pytest.raises(SelfTestError, match=r"output best: .* found 0\.5"):
        check(returns(other), answers_of(DESCRIPTOR))


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ({"descriptor": DESCRIPTOR["descriptor"]}, "expected outputs best, descriptor, found descriptor"),
        ({**DESCRIPTOR, "descriptor": np.zeros(5, np.float32)}, r"expected shape \[4\], found \[5\]"),
        ({**DESCRIPTOR, "descriptor": np.zeros(4, np.int32)}, "expected float32, found int32"),
        ({**DESCRIPTOR, "descriptor": np.full(4, np.nan, np.float32)}, "4 of 4 values are not finite"),
    ],
)
def test_answers_that_cannot_be_compared_are_a_failed_test(outputs: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(SelfTestError, match=says):
        check(returns(outputs), answers_of(DESCRIPTOR), tolerance=1.0)


def test_an_engine_that_does_not_run_fails_its_test_and_one_without_memory_says_so() -> None:
    with pytest.raises(SelfTestError, match="CUDA error 716"):
        check(raises(InferenceError("CUDA error 716")), answers_of(DESCRIPTOR))
    with pytest.raises(OutOfMemoryError):
        check(raises(OutOfMemoryError("no room")), answers_of(DESCRIPTOR))


def test_more_answers_than_a_store_should_keep_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "SELF_TEST_MAX_BYTES", 60)
    with pytest.raises(AnswersTooLargeError, match="80 bytes of inputs and outputs, at most 60"):
        answers_of(DESCRIPTOR)


def test_as_many_inputs_and_outputs_as_an_engine_may_have_are_kept() -> None:
    inputs: dict[str, np.ndarray] = {f"input/{index}": np.array([index], np.int8) for index in range(64)}
    outputs: dict[str, np.ndarray] = {f"output/{index}": np.array([index], np.float32) for index in range(64)}
    fake = FakeRuntime({"vpr": returns(outputs)})
    answers = record_known_answers(fake, fake.deserialize_engine(fake.entry("vpr")), inputs)
    check(returns(outputs), answers)


@pytest.mark.parametrize(
    "answers",
    [
        b"",
        b"PK\x03\x04 cut off",
        encode_npz({}),
        encode_npz({"input/image": IMAGE["image"]}),
        encode_npz({"output/y": IMAGE["image"], "stray": IMAGE["image"]}),
    ],
    ids=["empty", "cut", "no arrays", "no outputs", "a stray array"],
)
def test_known_answers_that_say_nothing_are_a_failed_test(answers: bytes) -> None:
    with pytest.raises(SelfTestError, match=r"vpr\.engine\.selftest\.npz"):
        check(returns(DESCRIPTOR), answers)


@given(st.floats(1e-4, 0.5), st.floats(1e-4, 0.5))
def test_an_engine_passes_exactly_where_its_error_is_within_the_tolerance(error: float, tolerance: float) -> None:
    if abs(error - tolerance) < 1e-6:
        return
    answers = answers_of({"y": np.array([3.0, -4.0])})
    try:
        check(returns({"y": np.array([3.0, -4.0]) * (1 + error)}), answers, tolerance)
        passed = True
    except SelfTestError:
        passed = False
    assert passed == (error <= tolerance)


def test_the_known_answers_lie_beside_the_engine(tmp_path: Path) -> None:
    with pytest.raises(SelfTestError, match=r"/in-memory/vpr\.engine\.selftest\.npz"):
        check(returns(DESCRIPTOR), b"nonsense")
