"""What the airborne binary is configured with: its mode, and one block for each of its components."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeVar, get_args, get_origin

import msgspec

from actors.routes import WITHIN_MS_MAX
from messages import ConfigError
from messages.tensor import Name
from runtimes import C7InferenceConfig
from runtimes.flight_plan import Options, ThermalSection
from runtimes.path_text import decode_path

C7_INFERENCE = "c7_inference"
"""The slug of C7's own block, and the key of the one runtime in `pre_constructed`."""

LIGHTGLUE_RUNTIME = "c3_lightglue_runtime"
"""The key of the one `LightGlueRuntime` in `pre_constructed`."""

BinaryMode = Literal["airborne", "replay"]

BlockT = TypeVar("BlockT", bound=msgspec.Struct)


class AirborneConfig(Protocol):
    """What is read of a binary's configuration, whatever its type.

    A block of `components` is a mapping, or any object whose attributes are the block's fields; what else such an
    object has is its own.
    """

    @property
    def mode(self) -> str: ...

    @property
    def components(self) -> Mapping[str, object]: ...


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An `AirborneConfig` for a binary that has none of its own: component slug -> its block."""

    mode: BinaryMode = "airborne"
    components: dict[str, object] = msgspec.field(default_factory=dict)


class C7AirborneConfig(C7InferenceConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`components["c7_inference"]`: the one runtime, its supervision, and the LightGlue engine that is loaded with it.

    `lightglue_engine` is the compiled engine that C2.5 and C3 share. `within_ms` is the deadline of a call that brings
    none. `priorities` (lower is more urgent) and `self_test_tolerances` are per model; the others mean what the keys of
    the same name in a flight plan mean.
    """

    lightglue_engine: Path | None = None
    within_ms: Annotated[float, msgspec.Meta(gt=0, le=WITHIN_MS_MAX)] = 1_000.0
    priorities: dict[Name, Annotated[int, msgspec.Meta(ge=0, le=1000)]] = msgspec.field(default_factory=dict)
    self_test_tolerances: dict[Name, Annotated[float, msgspec.Meta(gt=0, le=1)]] = msgspec.field(default_factory=dict)
    load_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 120.0
    run_limit_ms: Annotated[float, msgspec.Meta(gt=0, le=600_000)] = 5_000.0
    runs_at_once: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    thermal: ThermalSection = ThermalSection()


class ComponentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The block of a component: which strategy it is, by its registered name, and what that is constructed with."""

    strategy: Name
    options: Options = msgspec.field(default_factory=dict)


def read_mode(config: AirborneConfig) -> BinaryMode:
    """Raises ConfigError for any other mode."""
    for mode in get_args(BinaryMode):
        if config.mode == mode:
            return mode  # type: ignore[no-any-return] # get_args knows no types
    raise ConfigError(f"config.mode: expected {' or '.join(get_args(BinaryMode))}, found {config.mode!r:.80}")


def read_c7_inference(config: AirborneConfig) -> C7AirborneConfig | None:
    """C7's own block, None where there is none. Raises ConfigError naming key, expected and found."""
    if C7_INFERENCE not in config.components:
        return None
    return _read_block(place_of(C7_INFERENCE), config.components[C7_INFERENCE], C7AirborneConfig)


def read_component(config: AirborneConfig, slug: str) -> ComponentConfig:
    """The block of a component that is configured. Raises ConfigError naming key, expected and found."""
    return _read_block(place_of(slug), config.components[slug], ComponentConfig)


def place_of(slug: str) -> str:
    """How errors name a component's block."""
    return f"config.components[{slug!r:.130}]"


def _read_block(place: str, block: object, kind: type[BlockT]) -> BlockT:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    given: dict[str, object]
    if isinstance(block, Mapping):
        given = {str(key): value for key, value in block.items()}
        for key in given:
            if key not in fields:
                raise ConfigError(f"{place}: unknown key {key!r:.130}; expected {', '.join(fields)}")
    else:
        given = {name: getattr(block, name) for name in fields if hasattr(block, name)}
        if not given:
            raise ConfigError(
                f"{place}: expected a mapping, or an object with the fields {', '.join(fields)}; found"
                f" {block!r:.80} ({type(block).__name__})"
            )
    for name, field in fields.items():
        if field.required and name not in given:
            raise ConfigError(f"{place}.{name}: missing; expected {_expected(field.type)}")
    return kind(**{name: _convert(f"{place}.{name}", value, fields[name].type) for name, value in given.items()})


def _convert(place: str, value: object, kind: object) -> object:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _read_block(place, value, kind)
    if get_origin(kind) is dict and isinstance(value, Mapping):
        of_key, of_value = get_args(kind)
        return {
            _convert(place, key, of_key): _convert(f"{place}[{key!r:.130}]", each, of_value)
            for key, each in value.items()
        }
    try:
        return msgspec.convert(value, kind, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        text, _, within = str(error).replace("`", "").partition(" - at $")  # such as [0].keypoints[1]
        what = f"expected {_expected(kind)}" if _choices(kind) else text.partition(", got ")[0]
        raise ConfigError(f"{place}{within}: {what[:1].lower()}{what[1:]}, found {value!r:.80}") from error


def _expected(kind: object) -> str:
    choices = _choices(kind)
    return ", ".join(choices) if choices else "a text of 1 to 128 characters"


def _choices(kind: object) -> list[str]:
    """The words of a Literal, also inside `X | None`."""
    if get_origin(kind) is Literal:
        return [str(choice) for choice in get_args(kind)]
    return [choice for part in get_args(kind) for choice in _choices(part)]


def _decode_path(kind: type, value: object) -> object:
    return value if isinstance(value, Path) else decode_path(kind, value)
