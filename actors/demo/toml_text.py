"""A typed struct as TOML, the way a person would write it: what is left at its default is left out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from messages import ConfigError

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def toml_text(document: msgspec.Struct) -> str:
    """Tables in the order of the struct's fields. Raises ConfigError for text that UTF-8 cannot hold.

    Fields are structs, mappings, paths, texts, numbers, truth values, and sequences of the latter four.
    """
    return "\n".join(_table((), _told(document))).lstrip("\n") + "\n"


def _told(struct: msgspec.Struct) -> dict[str, object]:
    told = {}
    for field in msgspec.structs.fields(struct):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        value = getattr(struct, field.name)
        if value != default:
            told[field.encode_name] = value
    return told


def _table(path: tuple[str, ...], table: Mapping[str, object]) -> Iterator[str]:
    """A table's own values first, then the tables in it: TOML reads a value as part of the last header above it."""
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping | msgspec.Struct)}
    if path and (values or not table):
        yield f"\n[{'.'.join(map(_key, path))}]"
    yield from (f"{_key(key)} = {_value(value)}" for key, value in values.items())
    for key, value in table.items():
        if isinstance(value, msgspec.Struct):
            yield from _table((*path, key), _told(value))
        elif isinstance(value, Mapping):
            yield from _table((*path, key), value)


def _key(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else _text(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return _text(str(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    raise TypeError(f"a {type(value).__name__} has no place in a TOML file")


def _text(text: str) -> str:
    """A basic string. JSON escapes the same way, but for U+007F."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"expected text that UTF-8 can hold, found {text!r}; rename the file or folder") from error
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
