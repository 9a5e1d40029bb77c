"""The schemas of a recording, held against the rules by which Foxglove reads them."""

from __future__ import annotations

from typing import Any, get_args, get_origin

import msgspec
import pytest

from messages import EngineLoaded, WireMessage
from telemetry.recording_schema import _CHANNELS, channel_of

NAMES = [(get_origin(kind) or kind).__name__ for kind in get_args(WireMessage)]
SCALARS = {"boolean", "string", "number", "integer"}


def check_object(schema: dict[str, Any], where: str) -> None:
    """Foxglove's `parseJsonSchema`: every object has properties, every field a known type, every array typed items."""
    assert schema["type"] == "object", where
    for name, field in schema["properties"].items():
        check_field(field, f"{where}.{name}")
    if isinstance(schema.get("additionalProperties"), dict):
        check_field(schema["additionalProperties"], f"{where}.*")


def check_field(field: dict[str, Any], where: str) -> None:
    assert "$ref" not in field, where
    assert "oneOf" not in field, where
    assert "anyOf" not in field, where
    if field["type"] == "array":
        check_field(field["items"], f"{where}[]")
    elif field["type"] == "object":
        check_object(field, where)
    else:
        assert field["type"] in SCALARS, where


def test_every_message_has_a_channel_of_its_own() -> None:
    assert list(_CHANNELS) == NAMES
    assert len({channel.number for channel in _CHANNELS.values()}) == len(NAMES)
    assert all(0 < channel.number < 2**16 for channel in _CHANNELS.values())
    assert channel_of(EngineLoaded("vpr", 1, 1)).topic == "/c7/EngineLoaded"


@pytest.mark.parametrize("name", NAMES)
def test_a_viewer_can_read_the_schema_of_every_message(name: str) -> None:
    schema = msgspec.json.decode(_CHANNELS[name].schema)
    check_object(schema, name)
    assert schema["properties"]["type"] == {"enum": [name], "type": "string"}
    assert "$defs" not in schema
