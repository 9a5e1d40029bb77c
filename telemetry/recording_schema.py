"""The channels of a recording: one for each type of message, with a JSON schema that viewers understand.

Foxglove reads a subset of JSON Schema (its `parseJsonSchema`): the root is an object, nothing is a `$ref`, every field
has a `type`, every object has `properties`. msgspec writes full JSON Schema, so its output is brought into that form.
"""

from __future__ import annotations

from typing import Any, NamedTuple, get_args, get_origin

import msgspec

from messages import Message, WireMessage
from telemetry.request_records import Record, message_name


class RecordingChannel(NamedTuple):
    """`number` is both the channel's and the schema's id in the file."""

    number: int
    topic: str
    schema_name: str
    schema: bytes


def channel_of(record: Record | Message) -> RecordingChannel:
    """Raises KeyError for what is no message."""
    return _CHANNELS[message_name(record)]


def _viewer_schema(message_type: Any) -> dict[str, Any]:
    schema = msgspec.json.schema(message_type)
    definitions = schema.get("$defs", {})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_inlined(schema, definitions)}


def _inlined(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    inlined = {key: value for key, value in schema.items() if key != "default"}  # NaN is a default, and no JSON
    if "enum" in schema:
        inlined["type"] = "string"
    if schema.get("type") == "object":
        inlined["properties"] = {
            name: _inlined(field, definitions) for name, field in schema.get("properties", {}).items()
        }
        if isinstance(schema.get("additionalProperties"), dict):
            inlined["additionalProperties"] = _inlined(schema["additionalProperties"], definitions)
    if isinstance(schema.get("items"), dict):
        inlined["items"] = _inlined(schema["items"], definitions)
    return inlined


def _channels() -> dict[str, RecordingChannel]:
    channels: dict[str, RecordingChannel] = {}
    for number, message_type in enumerate(get_args(WireMessage), start=1):
        name = (get_origin(message_type) or message_type).__name__
        schema = msgspec.json.encode(_viewer_schema(message_type))
        channels[name] = RecordingChannel(number, f"/c7/{name}", f"c7.{name}", schema)
    return channels


_CHANNELS = _channels()
