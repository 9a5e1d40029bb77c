"""Hypothesis strategies for every message, read off the structs: a new field is tested the day it is added."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import strategies as st
from msgspec import inspect

from messages import WireMessage

INT64_MAX = 2**63 - 1


def strategy_of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Values that a declared type admits, its bounds included."""
    match kind:
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType(ge=ge, le=le):
            return st.integers(min_value=ge, max_value=le)
        case inspect.FloatType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern, fullmatch=True)
        case inspect.StrType(min_length=shortest, max_length=longest):
            text = st.text(st.characters(exclude_categories=["Cs"]), min_size=shortest or 0, max_size=16)
            return text if longest is None else text | st.just("€" * longest)
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.VarTupleType(item_type=item):
            return st.lists(strategy_of(item), max_size=4).map(tuple)
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(strategy_of(key), strategy_of(value), max_size=4)
        case inspect.StructType(cls=struct, fields=fields):
            return st.builds(struct, **{field.name: strategy_of(field.type) for field in fields})
    raise TypeError(f"no strategy for {kind}; add one here")


@pytest.fixture(scope="session")
def message_strategies() -> dict[str, st.SearchStrategy[msgspec.Struct]]:
    """By wire tag: a strategy for each member of the union, tensors already described."""
    kinds = inspect.multi_type_info(get_args(WireMessage))
    return {kind.cls.__name__: strategy_of(kind) for kind in kinds if isinstance(kind, inspect.StructType)}


@pytest.fixture(scope="session")
def any_message(message_strategies: dict[str, st.SearchStrategy[WireMessage]]) -> st.SearchStrategy[WireMessage]:
    return st.one_of(*message_strategies.values())
