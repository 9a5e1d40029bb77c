"""What is written as TOML is read back as it was, whatever the text holds."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.demo.toml_text import toml_text
from messages import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALAR = st.one_of(TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))


class Inner(msgspec.Struct, frozen=True):
    label: str = ""
    renamed: str = msgspec.field(name="class", default="")


class Outer(msgspec.Struct):
    options: dict[str, object] = {}
    inner: Inner = Inner()
    tables: dict[str, Inner] = {}
    count: int = 3
    sizes: tuple[int, ...] = ()
    path: Path = Path()


@given(options=st.dictionaries(TEXT, st.one_of(SCALAR, st.lists(st.integers(0, 9), max_size=3)), min_size=1))
def test_any_text_number_and_list_comes_back(options: dict[str, object]) -> None:
    assert tomllib.loads(toml_text(Outer(options=options))) == {"options": options}


@given(keys=st.lists(TEXT, unique=True, min_size=1, max_size=3), label=TEXT.filter(bool))
def test_tables_in_tables_come_back(keys: list[str], label: str) -> None:
    written = toml_text(Outer(tables={key: Inner(label=label) for key in keys}))
    assert tomllib.loads(written) == {"tables": {key: {"label": label} for key in keys}}


def test_what_is_left_at_its_default_is_left_out() -> None:
    assert toml_text(Outer(count=3, sizes=(1, 2), inner=Inner(renamed="a:B"))) == (
        'sizes = [1, 2]\n\n[inner]\nclass = "a:B"\n'
    )


def test_an_empty_table_in_a_table_is_still_there() -> None:
    assert tomllib.loads(toml_text(Outer(tables={"bare": Inner()}))) == {"tables": {"bare": {}}}


def test_a_path_with_quotes_and_backslashes_comes_back() -> None:
    path = Path('a "quoted" \\ folder\x7f')
    assert tomllib.loads(toml_text(Outer(path=path))) == {"path": str(path)}


def test_a_name_that_utf_8_cannot_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="UTF-8"):
        toml_text(Outer(path=Path("bad-\udcff-name")))


def test_a_value_without_a_form_is_refused() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        toml_text(Outer(options={"nothing": None}))
