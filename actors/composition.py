"""The components of a process: each is constructed once, with what is pre-constructed and shared by all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from types import MappingProxyType

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
from actors.lightglue_runtime import LightGlueRuntime
from actors.strategy_registry import CLIENT, Strategy, check_components, find_strategy
from actors.supervised_runtime import SupervisedRuntime
from messages import C7Error, ConfigError, describe_error

SHARED_KEYS: tuple[str, ...] = (C7_INFERENCE, LIGHTGLUE_RUNTIME, CLIENT)
"""The parameters by which a constructor says what of C7 it needs."""

_DOES_WITHOUT_IN_REPLAY: Mapping[str, tuple[str, ...]] = {"c4_pose": (C7_INFERENCE,)}
"""C4 takes nothing but the thermal state from C7: in a replay without C7 it is given None and stays on the steady
path, as it does when telemetry is lost."""

_REGISTERED_ONLY: Mapping[str, Strategy] = MappingProxyType({})


class AirborneBootstrapError(C7Error):
    """The airborne binary cannot be put together as configured. The text names the key, and who needs it."""


def compose_root(
    config: AirborneConfig,
    pre_constructed: Mapping[str, object],
    *,
    strategies: Mapping[str, Strategy] = _REGISTERED_ONLY,
) -> dict[str, object]:
    """Every configured component by its slug, constructed as `Class(**needs, **options)`.

    Its needs are those of `pre_constructed`, the identical instances for all, but for `client`: that is
    `c7_inference.client(slug)`. A slug of `strategies` is constructed by that one, whatever the registry has, and may
    be any name. Nothing is constructed before everything was looked at.

    Raises ConfigError for what cannot be meant, AirborneBootstrapError for a key that is missing, a `c7_inference` that
    would bypass the actors and a constructor that fails, and what a constructor raises of this project's own errors.
    """
    check_components(config, strategies)
    mode = read_mode(config)
    _refuse_a_bypass(pre_constructed)
    prepared: list[tuple[str, Callable[[], object]]] = []
    for slug in config.components:
        if slug != C7_INFERENCE:
            component = read_component(config, slug)
            strategy = strategies.get(slug) or find_strategy(slug, component.strategy)
            spared = _DOES_WITHOUT_IN_REPLAY.get(slug, ()) if mode == "replay" else ()
            injected = _injected(slug, strategy, pre_constructed, spared)
            prepared.append((slug, _prepare(slug, strategy, injected, component)))
    return {slug: construct() for slug, construct in prepared}


def needs_of(factory: Callable[..., object]) -> tuple[str, ...]:
    """The `SHARED_KEYS` that are names of its parameters. None of a class written in C that has no signature."""
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:
        return ()
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(key for key in SHARED_KEYS if key in parameters and parameters[key].kind in by_name)


def check_fit(
    place: str, factory: Callable[..., object], injected: Collection[str], options: Mapping[str, object]
) -> None:
    """Whether `factory` can be called with both, by keyword. Raises ConfigError naming `place`, that of the options."""
    taken = sorted(set(injected) & options.keys())
    if taken:
        raise ConfigError(f"{place}: {', '.join(taken)} comes from pre_constructed; remove it here")
    with suppress(ValueError):  # a class written in C need not have a signature; its constructor then speaks for itself
        signature = inspect.signature(factory)
        try:
            signature.bind(**dict.fromkeys(injected), **options)
        except TypeError as error:
            raise ConfigError(
                f"{place}: {sorted(options)} with {', '.join(injected) or 'nothing'} injected do not fit"
                f" {_name_of(factory)}{signature}: {error}"
            ) from error


def _refuse_a_bypass(pre_constructed: Mapping[str, object]) -> None:
    runtime = pre_constructed.get(C7_INFERENCE)
    if C7_INFERENCE in pre_constructed and not isinstance(runtime, SupervisedRuntime):
        raise AirborneBootstrapError(
            f"pre_constructed[{C7_INFERENCE!r}]: expected the supervised runtime that build_pre_constructed() gives,"
            f" found a {type(runtime).__name__}, whose callers would bypass the actors"
        )
    lightglue = pre_constructed.get(LIGHTGLUE_RUNTIME)
    if isinstance(lightglue, LightGlueRuntime) and not lightglue.runs_on(runtime):
        raise AirborneBootstrapError(
            f"pre_constructed[{LIGHTGLUE_RUNTIME!r}]: expected a LightGlueRuntime on"
            f" pre_constructed[{C7_INFERENCE!r}], found one on another runtime, whose callers would bypass the actors"
        )


def _injected(
    slug: str, strategy: Strategy, pre_constructed: Mapping[str, object], spared: tuple[str, ...]
) -> dict[str, object]:
    injected: dict[str, object] = {}
    for need in strategy.needs:
        key = C7_INFERENCE if need == CLIENT else need
        if key not in pre_constructed and key not in spared:
            raise AirborneBootstrapError(
                f"{slug} needs pre_constructed[{key!r}], which is missing; found"
                f" {', '.join(sorted(pre_constructed)) or 'nothing'}. build_pre_constructed(config) builds"
                f" {C7_INFERENCE} and {LIGHTGLUE_RUNTIME}, others are the binary's own"
            )
        shared = pre_constructed.get(key)
        injected[need] = shared.client(slug) if need == CLIENT and isinstance(shared, SupervisedRuntime) else shared
    return injected


def _prepare(
    slug: str, strategy: Strategy, injected: Mapping[str, object], component: ComponentConfig
) -> Callable[[], object]:
    factory = strategy.factory
    if isinstance(factory, str):
        factory = load_class(factory, f"{place_of(slug)}.strategy")
    check_fit(f"{place_of(slug)}.options", factory, injected, component.options)
    arguments = {**injected, **component.options}

    def construct() -> object:
        try:
            return factory(**arguments)
        except C7Error:
            raise
        except (Exception, SystemExit) as error:  # foreign code, which ends no process of ours
            raise AirborneBootstrapError(
                f"{slug}: {_name_of(factory)} cannot be constructed: {describe_error(error)}"
            ) from error

    return construct


def _name_of(factory: Callable[..., object]) -> str:
    return getattr(factory, "__name__", repr(factory))
