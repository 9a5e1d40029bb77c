"""The airborne binary's side: the one runtime and the one LightGlue are built here, once, and given to every component.

    register_airborne_strategies()
    pre_constructed = build_pre_constructed(config, supervise_raw)
    components = compose_root(config, pre_constructed)
    ...
    pre_constructed["c7_inference"].stop()

What is under `c7_inference` is the supervised runtime: whoever holds it runs on the actors, and nobody holds the
strategy below it. How a strategy is put under supervision, `supervise_raw`, is the binary's to say. Nothing is kept in
this module: two bootstraps in one process give two runtimes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol, TypedDict, runtime_checkable

from actors.airborne_config import (
    C7_INFERENCE,
    LIGHTGLUE_RUNTIME,
    AirborneConfig,
    C7AirborneConfig,
    ComponentConfig,
    Config,
    place_of,
    read_c7_inference,
    read_component,
    read_mode,
)
from actors.consumer import load_class
from actors.lightglue_runtime import LightGlueRuntime
from actors.strategy_registry import (
    _STRATEGY_REGISTRY,
    AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS,
    Strategy,
    check_components,
    consumers_of,
    find_strategy,
    register_airborne_strategies,
    register_strategy,
)
from messages import C7Error, ConfigError, RuntimeNotAvailableError, describe_error
from runtimes import InferenceRuntime, inference_factory, read_entry
from runtimes.config import RuntimeName

__all__ = [
    "AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS",
    "C7_AIRBORNE_BUILD_FLAGS",
    "_STRATEGY_REGISTRY",
    "AirborneBootstrapError",
    "AirborneConfig",
    "C7AirborneConfig",
    "ComponentConfig",
    "Config",
    "LightGlueRuntime",
    "PreConstructed",
    "StoppableRuntime",
    "build_pre_constructed",
    "compose_root",
    "register_airborne_strategies",
    "register_strategy",
]

C7_AIRBORNE_BUILD_FLAGS: tuple[tuple[RuntimeName, str], ...] = (
    ("tensorrt", "BUILD_TENSORRT_RUNTIME"),
    ("pytorch_fp16", "BUILD_PYTORCH_FP16_RUNTIME"),
)
"""The runtimes that may fly, with the flags that build them in; `onnx_trt_ep` is for research, on the workstation."""

_DOES_WITHOUT_IN_REPLAY: Mapping[str, tuple[str, ...]] = {"c4_pose": (C7_INFERENCE,)}
"""C4 takes nothing but the thermal state from C7: in a replay without C7 it is given None and stays on the steady
path, as it does when telemetry is lost."""


class AirborneBootstrapError(C7Error):
    """The airborne binary cannot be put together as configured. The text names the key, and who needs it."""


@runtime_checkable
class StoppableRuntime(InferenceRuntime, Protocol):
    """A runtime that lives on actors and ends with `stop()`. No strategy has that method."""

    def stop(self) -> None: ...


class PreConstructed(TypedDict, total=False):
    """What is built once and shared. A key that was left out is not there."""

    c7_inference: StoppableRuntime
    c3_lightglue_runtime: LightGlueRuntime


SuperviseRaw = Callable[[InferenceRuntime, C7AirborneConfig], StoppableRuntime]
"""Puts a raw strategy under supervision, as configured: what it returns is all that anybody is given of it."""


def build_pre_constructed(config: AirborneConfig, supervise_raw: SuperviseRaw) -> PreConstructed:
    """What components share: `c7_inference`, and `c3_lightglue_runtime` where it is configured or needed.

    Both are left out in mode `replay` without a `c7_inference` block. Raises ConfigError for what cannot be meant,
    AirborneBootstrapError for what cannot be built, and whatever loading LightGlue raises; nothing runs on after that.
    """
    check_components(config)
    if read_mode(config) == "replay" and C7_INFERENCE not in config.components:
        return {}
    c7_inference = _build_c7_inference(config, supervise_raw)
    try:
        lightglue = _build_c3_lightglue_runtime(config, c7_inference)
    except BaseException:
        c7_inference.stop()
        raise
    seeds = PreConstructed(c7_inference=c7_inference)
    if lightglue is not None:
        seeds["c3_lightglue_runtime"] = lightglue
    return seeds


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


def _build_c7_inference(config: AirborneConfig, supervise_raw: SuperviseRaw) -> StoppableRuntime:
    c7 = read_c7_inference(config) or C7AirborneConfig()
    needed = _needed_by(C7_INFERENCE, config)
    try:
        raw = _build_raw(c7)
    except RuntimeNotAvailableError as error:
        options = ", ".join(f"{runtime} ({flag}=ON)" for runtime, flag in C7_AIRBORNE_BUILD_FLAGS)
        raise AirborneBootstrapError(
            f"pre_constructed[{C7_INFERENCE!r}] cannot be built: {error}; {needed}. The airborne binary runs one of:"
            f" {options}; configure it as {place_of(C7_INFERENCE)}.runtime"
        ) from error
    return supervise_raw(raw, c7)


def _build_raw(c7: C7AirborneConfig) -> InferenceRuntime:
    if c7.runtime not in dict(C7_AIRBORNE_BUILD_FLAGS):
        raise RuntimeNotAvailableError(f"runtime {c7.runtime} is configured but no airborne runtime")
    try:
        inference_factory.check_runtime_config(c7)
    except ConfigError as error:
        raise ConfigError(f"{place_of(C7_INFERENCE)}.{error}") from error
    return inference_factory.build_inference_runtime(c7)


def _build_c3_lightglue_runtime(config: AirborneConfig, c7_inference: InferenceRuntime) -> LightGlueRuntime | None:
    """LightGlue on the runtime that was built; None where none is configured and nobody needs it."""
    c7 = read_c7_inference(config) or C7AirborneConfig()
    if c7.lightglue_engine is not None:
        return LightGlueRuntime(c7_inference, read_entry(c7.lightglue_engine))
    if consumers_of(LIGHTGLUE_RUNTIME, config):
        raise AirborneBootstrapError(
            f"pre_constructed[{LIGHTGLUE_RUNTIME!r}] cannot be built: {place_of(C7_INFERENCE)}.lightglue_engine is not"
            f" set; {_needed_by(LIGHTGLUE_RUNTIME, config)}. Set it to the path of the compiled LightGlue engine"
        )
    return None


def _needed_by(key: str, config: AirborneConfig) -> str:
    consumers = consumers_of(key, config)
    if consumers:
        return f"needed by {', '.join(consumers)}"
    all_consumers = [slug for slug, keys in AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS.items() if key in keys]
    return f"no consumer is configured, {', '.join(all_consumers)} would need it"


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
