"""The airborne binary's side: the one runtime and the one LightGlue are built here, once, and given to every component.

    register_airborne_strategies()
    pre_constructed = build_pre_constructed(config, on_restart_needed=end_the_process)
    components = compose_root(config, pre_constructed)
    ...
    pre_constructed["c7_supervision"].stop()

What is under `c7_inference` is the supervised runtime: whoever holds it runs on the actors, and nobody holds the
strategy below it. `c7_supervision` is the binary's own and no component's: it stops the actors, counts what became of
requests, and says when only a new process can run engines again. Nothing is kept in this module: two bootstraps in one
process give two runtimes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from actors.airborne_config import (
    C7_INFERENCE,
    LIGHTGLUE_RUNTIME,
    AirborneConfig,
    C7AirborneConfig,
    ComponentConfig,
    Config,
    place_of,
    read_c7_inference,
    read_mode,
)
from actors.composition import AirborneBootstrapError, compose_root
from actors.lightglue_runtime import LightGlueRuntime
from actors.strategy_registry import (
    _STRATEGY_REGISTRY,
    AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS,
    check_components,
    consumers_of,
    register_airborne_strategies,
    register_strategy,
)
from actors.supervised_runtime import SupervisedRuntime
from actors.supervision import Supervision
from actors.takeoff import supervise
from actors.thermal import configured_source
from messages import ConfigError, Message, MonotonicClock, RuntimeNotAvailableError
from runtimes import InferenceRuntime, inference_factory, read_entry
from runtimes.available_memory import read_available_memory
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


class PreConstructed(TypedDict, total=False):
    """What is built once and shared. A key that was left out is not there."""

    c7_inference: SupervisedRuntime
    c3_lightglue_runtime: LightGlueRuntime
    c7_supervision: Supervision


def build_pre_constructed(
    config: AirborneConfig,
    *,
    record: Callable[[Message], None] | None = None,
    on_restart_needed: Callable[[str], None] | None = None,
) -> PreConstructed:
    """What components share: `c7_inference`, and `c3_lightglue_runtime` where it is configured or needed.

    With them comes `c7_supervision`, which the binary keeps and stops. All are left out in mode `replay` without a
    `c7_inference` block. `record` and `on_restart_needed` are those of `supervise`. Raises ConfigError for what cannot
    be meant, AirborneBootstrapError for what cannot be built, TelemetryUnavailableError, and whatever loading LightGlue
    raises; nothing runs on after that.
    """
    check_components(config)
    if read_mode(config) == "replay" and C7_INFERENCE not in config.components:
        return {}
    c7_inference, supervision = _build_c7_inference(config, record, on_restart_needed)
    try:
        lightglue = _build_c3_lightglue_runtime(config, c7_inference)
    except BaseException:
        supervision.stop()
        raise
    seeds = PreConstructed(c7_inference=c7_inference, c7_supervision=supervision)
    if lightglue is not None:
        seeds["c3_lightglue_runtime"] = lightglue
    return seeds


def _build_c7_inference(
    config: AirborneConfig,
    record: Callable[[Message], None] | None = None,
    on_restart_needed: Callable[[str], None] | None = None,
) -> tuple[SupervisedRuntime, Supervision]:
    c7 = read_c7_inference(config) or C7AirborneConfig()
    needed = _needed_by(C7_INFERENCE, config)
    clock = MonotonicClock()
    try:
        thermal = configured_source(c7.thermal, clock)
    except ConfigError as error:
        raise ConfigError(f"{place_of(C7_INFERENCE)}.thermal: {error}") from error
    try:
        raw = _build_raw(c7)
    except RuntimeNotAvailableError as error:
        options = ", ".join(f"{runtime} ({flag}=ON)" for runtime, flag in C7_AIRBORNE_BUILD_FLAGS)
        raise AirborneBootstrapError(
            f"pre_constructed[{C7_INFERENCE!r}] cannot be built: {error}; {needed}. The airborne binary runs one of:"
            f" {options}; configure it as {place_of(C7_INFERENCE)}.runtime"
        ) from error
    supervision = supervise(
        raw,
        None,
        priorities=c7.priorities,
        self_test_tolerances=c7.self_test_tolerances,
        load_timeout_s=c7.load_timeout_s,
        run_limit_ms=c7.run_limit_ms,
        runs_at_once=c7.runs_at_once,
        available_memory=lambda: read_available_memory(c7),
        on_restart_needed=on_restart_needed,
        record=record,
        thermal=thermal,
        period_s=c7.thermal.period_s,
        clock=clock,
    )
    return supervision.as_runtime(within_ms=c7.within_ms), supervision


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
