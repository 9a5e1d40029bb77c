"""Errors, as messages and logs carry them."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

import messages.errors
from messages import C7Error, EngineDied, InferenceError, decode_json, describe_error, encode_json
from messages.errors import DETAIL_MAX_CHARS, printable

ERRORS = [
    value for value in vars(messages.errors).values() if inspect.isclass(value) and issubclass(value, BaseException)
]


@given(text=st.text(max_size=3_000))
def test_any_text_becomes_one_bounded_line_that_a_message_can_carry(text: str) -> None:
    for error in (InferenceError(text), ValueError(text), OSError(5, text, text)):
        line = describe_error(error)
        assert len(line) <= DETAIL_MAX_CHARS
        assert len(line.splitlines()) == 1
        died = EngineDied("m", 1, line)
        assert decode_json(encode_json(died)) == died


def test_an_error_of_ours_speaks_for_itself() -> None:
    assert describe_error(InferenceError("expected a,\n  got b")) == "expected a, got b"


def test_an_error_of_a_library_says_its_type() -> None:
    assert describe_error(ZeroDivisionError("division by zero")) == "ZeroDivisionError: division by zero"


def test_an_error_of_ours_without_text_says_its_type() -> None:
    assert describe_error(InferenceError()) == "InferenceError: "


def test_a_long_text_is_cut_where_one_can_see_it() -> None:
    assert describe_error(InferenceError("x" * 5_000)) == "x" * (DETAIL_MAX_CHARS - 1) + "…"


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_has_one_root_and_says_what_it_means(error: type[C7Error]) -> None:
    assert issubclass(error, C7Error)
    assert error.__doc__
    assert getattr(messages, error.__name__) is error


@given(st.text())
def test_printable_text_is_one_line_that_steers_nothing(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(text) == text or not text.isprintable()
    assert describe_error(InferenceError(text)).isprintable()


def test_printable_text_shows_what_it_escapes_and_has_a_bound() -> None:
    assert printable("a\x1b[2K\n\x9b\u202eb\udc80") == "a\\x1b[2K\\n\\x9b\\u202eb\\udc80"
    assert printable("abcdef", 4) == "abc…"
