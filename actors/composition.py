"""The components of a process: each is constructed once, with what is pre-constructed and shared by all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol, runtime_checkable

from actors.airborne_config import (
    C7_INFERENCE,
    LIGHTGLUE_RUNTIME,
    AirborneConfig,
    ComponentConfig,
    place_of,
    read_component,
    read_mode,
)
from actors.consumer import load_class
from actors.strategy_registry import Strategy, check_components, find_strategy
from messages import C7Error, ConfigError, describe_error
from runtimes import InferenceRuntime

_DOES_WITHOUT_IN_REPLAY: Mapping[str, tuple[str, ...]] = {"c4_pose": (C7_INFERENCE,)}
"""C4 takes nothing but the thermal state from C7: in a replay without C7 it is given None and stays on the steady
path, as it does when telemetry is lost."""


class AirborneBootstrapError(C7Error):
    """The airborne binary cannot be put together as configured. The text names the key, and who needs it."""


@runtime_checkable
class StoppableRuntime(InferenceRuntime, Protocol):
    """A runtime that lives on actors and ends with `stop()`. No strategy has that method."""

    def stop(self) -> None: ...


def compose_root(config: AirborneConfig, pre_constructed: Mapping[str, object]) -> dict[str, object]:
    """Every configured component by its slug, constructed as `Class(**needs, **options)`.

    Its needs are those of `pre_constructed`, the identical instances for all. Nothing is constructed before everything
    was looked at. Raises ConfigError for what cannot be meant, AirborneBootstrapError for a key that is missing, a
    `c7_inference` that would bypass the actors and a constructor that fails, and what a constructor raises of this
    project's own errors.
    """
    check_components(config)
    mode = read_mode(config)
    _refuse_a_bypass(pre_constructed)
    prepared: list[tuple[str, Callable[[], object]]] = []
    for slug in config.components:
        if slug != C7_INFERENCE:
            component = read_component(config, slug)
            strategy = find_strategy(slug, component.strategy)
            spared = _DOES_WITHOUT_IN_REPLAY.get(slug, ()) if mode == "replay" else ()
            injected = _injected(slug, strategy, pre_constructed, spared)
            prepared.append((slug, _prepare(slug, strategy, injected, component)))
    return {slug: construct() for slug, construct in prepared}


def _refuse_a_bypass(pre_constructed: Mapping[str, object]) -> None:
    if C7_INFERENCE not in pre_constructed:
        return
    found = pre_constructed[C7_INFERENCE]
    if not isinstance(found, StoppableRuntime):
        raise AirborneBootstrapError(
            f"pre_constructed[{C7_INFERENCE!r}]: expected the supervised runtime that build_pre_constructed() gives,"
            f" found a {type(found).__name__}, whose callers would bypass the actors"
        )


def _injected(
    slug: str, strategy: Strategy, pre_constructed: Mapping[str, object], spared: tuple[str, ...]
) -> dict[str, object]:
    for key in strategy.needs:
        if key not in pre_constructed and key not in spared:
            raise AirborneBootstrapError(
                f"{slug} needs pre_constructed[{key!r}], which is missing; found"
                f" {', '.join(sorted(pre_constructed)) or 'nothing'}. build_pre_constructed(config) builds"
                f" {C7_INFERENCE} and {LIGHTGLUE_RUNTIME}, others are the binary's own"
            )
    return {key: pre_constructed.get(key) for key in strategy.needs}


def _prepare(
    slug: str, strategy: Strategy, injected: Mapping[str, object], component: ComponentConfig
) -> Callable[[], object]:
    factory = strategy.factory
    if isinstance(factory, str):
        factory = load_class(factory, f"{place_of(slug)}.strategy")
    name = getattr(factory, "__name__", repr(factory))
    taken = sorted(injected.keys() & component.options.keys())
    if taken:
        raise ConfigError(f"{place_of(slug)}.options: {', '.join(taken)} comes from pre_constructed; remove it here")
    arguments = {**injected, **component.options}
    with suppress(ValueError):  # a class written in C need not have a signature; its constructor then speaks for itself
        signature = inspect.signature(factory)
        try:
            signature.bind(**arguments)
        except TypeError as error:
            raise ConfigError(
                f"{place_of(slug)}: {', '.join(injected) or 'nothing'} injected and options"
                f" {sorted(component.options)} do not fit {name}{signature}: {error}"
            ) from error

    def construct() -> object:
        try:
            return factory(**arguments)
        except C7Error:
            raise
        except Exception as error:
            raise AirborneBootstrapError(f"{slug}: {name} cannot be constructed: {describe_error(error)}") from error

    return construct
