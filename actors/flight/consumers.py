"""The plan's consumers: looked at on the ground without constructing any, composed once the engines are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from loguru import logger

from actors.airborne_config import C7_INFERENCE, LIGHTGLUE_RUNTIME, Config
from actors.composition import SHARED_KEYS, AirborneBootstrapError, check_fit, compose_root, needs_of
from actors.consumer import Consumer, Frame, check_method, load_class
from actors.lightglue_runtime import LightGlueRuntime
from actors.strategy_registry import Strategy, register_airborne_strategies, registered_strategies
from actors.supervised_runtime import SupervisedRuntime
from messages import C7Error, ConfigError, describe_error
from runtimes import EngineCacheEntry, FlightPlan
from runtimes.flight_plan import ConsumerSection, Options


class MissingConsumer:
    """Stands in for a consumer that a recovery could not construct: the others fly, and each of its frames says why."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def on_frame(self, frame: Frame) -> str | None:  # noqa: ARG002  # what every consumer is called with
        return self._reason


def check_consumers(plan: FlightPlan) -> None:
    """Import every class that the plan names and fit its needs and options; construct none.

    Raises ConfigError naming the plan's table and key.
    """
    if plan.frames is None and plan.consumers:
        raise ConfigError("[consumers] expects [frames] source: consumers are driven by frames")
    if _names_strategies(plan):
        register_airborne_strategies()
    for name in plan.consumers:
        _find_strategy(plan, name)


def compose_consumers(
    plan: FlightPlan, entries: Mapping[str, EngineCacheEntry], runtime: SupervisedRuntime, *, in_the_air: bool
) -> dict[str, Consumer]:
    """The plan's consumers by name, all on this one runtime and one LightGlue; constructed in the plan's order.

    An option of `engines` becomes the path of that model's engine among `entries`. Constructors run on the caller's
    thread, outside any frame. Raises ConfigError as `check_consumers` does, before any is constructed, and for one that
    cannot be constructed. In the air all that is logged, and a MissingConsumer flies in the place of each.
    """
    if in_the_air:
        _register_in_the_air(plan)
        shared = _shared_in_the_air(plan, entries, runtime)
        return {name: _compose_in_the_air(plan, name, entries, shared) for name in plan.consumers}
    check_consumers(plan)
    shared = _shared(plan, entries, runtime)
    return {name: _compose(plan, name, entries, shared) for name in plan.consumers}


def compose_each(
    plan: FlightPlan, entries: Mapping[str, EngineCacheEntry], runtime: SupervisedRuntime
) -> tuple[dict[str, Consumer], dict[str, str]]:
    """As at a takeoff, but one that cannot be constructed keeps nobody from being tried: by name those that could be,
    and why the others could not. Raises ConfigError as `check_consumers` does, before any is constructed.
    """
    check_consumers(plan)
    shared = _shared(plan, entries, runtime)
    composed: dict[str, Consumer] = {}
    missing: dict[str, str] = {}
    for name in plan.consumers:
        try:
            composed[name] = _compose(plan, name, entries, shared)
        except ConfigError as error:  # noqa: PERF203  # each is tried on its own
            missing[name] = str(error)
    return composed, missing


def _shared(plan: FlightPlan, entries: Mapping[str, EngineCacheEntry], runtime: SupervisedRuntime) -> dict[str, object]:
    shared: dict[str, object] = {C7_INFERENCE: runtime}
    lightglue = entries.get(plan.flight.lightglue or "")
    if lightglue is not None:
        shared[LIGHTGLUE_RUNTIME] = LightGlueRuntime(runtime, lightglue)
    return shared


def _names_strategies(plan: FlightPlan) -> bool:
    return any(section.strategy for section in plan.consumers.values())


def _register_in_the_air(plan: FlightPlan) -> None:
    try:
        if _names_strategies(plan):
            register_airborne_strategies()
    except ConfigError as error:  # of one installed package: whose strategy is missing for that, its consumer says
        logger.error("C7 strategies not all registered; {}", describe_error(error))


def _shared_in_the_air(
    plan: FlightPlan, entries: Mapping[str, EngineCacheEntry], runtime: SupervisedRuntime
) -> dict[str, object]:
    try:
        return _shared(plan, entries, runtime)
    except C7Error as error:  # such as of a plan that names another runtime than took off
        logger.error("C7 LightGlue missing in flight; {}", describe_error(error))
        return {C7_INFERENCE: runtime}


def _compose_in_the_air(
    plan: FlightPlan, name: str, entries: Mapping[str, EngineCacheEntry], shared: Mapping[str, object]
) -> Consumer:
    try:
        return _compose(plan, name, entries, shared)
    except ConfigError as error:
        logger.error("C7 consumer missing in flight; consumer={} because={}", name, describe_error(error))
        return MissingConsumer(str(error))


def _compose(
    plan: FlightPlan, name: str, entries: Mapping[str, EngineCacheEntry], shared: Mapping[str, object]
) -> Consumer:
    section, strategy = plan.consumers[name], _find_strategy(plan, name)
    for option, model in section.engines.items():
        if model not in entries:
            raise ConfigError(f"[consumers.{name}] engines.{option}: the generation in flight has no engine of {model}")
    paths: Options = {option: str(entries[model].path) for option, model in section.engines.items()}
    block = {"strategy": section.strategy or "class", "options": {**section.options, **paths}}
    try:
        composed = compose_root(Config(components={name: block}), shared, strategies={name: strategy})[name]
    except AirborneBootstrapError as error:
        raise ConfigError(f"[consumers.{name}] {error}") from error
    except C7Error as error:  # one of our own errors that its constructor let through
        raise ConfigError(f"[consumers.{name}] cannot be constructed: {describe_error(error)}") from error
    check_method(composed, "on_frame", type(composed).__name__, f"[consumers.{name}]")
    return cast("Consumer", composed)


def _find_strategy(plan: FlightPlan, name: str) -> Strategy:
    """What it is constructed by and what it needs."""
    section, place = plan.consumers[name], f"[consumers.{name}]"
    if name == C7_INFERENCE:
        raise ConfigError(f"{place} expected another name: {C7_INFERENCE} is what all consumers run on")
    factory, needs = _named_class(place, section) if section.strategy is None else _registered(place, name, section)
    for need in needs:
        if need not in SHARED_KEYS:
            raise ConfigError(
                f"{place} strategy: {section.strategy} needs {need}, which a flight does not have; it has"
                f" {', '.join(SHARED_KEYS)}"
            )
        if need == LIGHTGLUE_RUNTIME and plan.flight.lightglue is None:
            raise ConfigError(
                f"[flight] lightglue: missing; [consumers.{name}] needs {LIGHTGLUE_RUNTIME}. Name the model of [models]"
                " that consumers share as LightGlue"
            )
    paths: Options = dict.fromkeys(section.engines, "")
    check_fit(f"{place} options", factory, needs, {**section.options, **paths})
    return Strategy(factory, needs)


def _named_class(place: str, section: ConsumerSection) -> tuple[Callable[..., object], tuple[str, ...]]:
    import_path = section.factory or ""  # a plan that names neither is not read
    factory = _consumer_class(import_path, f"{place} class")
    needs = needs_of(factory)
    if not needs:
        raise ConfigError(
            f"{place} class: {import_path} could never ask anything: expected a constructor with a parameter named"
            f" {', '.join(SHARED_KEYS[:-1])} or {SHARED_KEYS[-1]}. What asks nothing on purpose is registered as a"
            " strategy that needs nothing"
        )
    return factory, needs


def _registered(place: str, name: str, section: ConsumerSection) -> tuple[Callable[..., object], tuple[str, ...]]:
    strategies = registered_strategies(name)
    found = strategies.get(section.strategy or "")
    if found is None:
        raise ConfigError(
            f"{place} strategy: expected one that is registered for {name} ({', '.join(strategies) or 'none is'}),"
            f" found {section.strategy!r:.130}; name a class instead, or install the package that brings it"
        )
    if isinstance(found.factory, str):
        return _consumer_class(found.factory, f"{place} strategy"), found.needs
    return found.factory, found.needs


def _consumer_class(import_path: str, plan_key: str) -> type:
    cls = load_class(import_path, plan_key)
    check_method(cls, "on_frame", import_path, plan_key)
    return cls
