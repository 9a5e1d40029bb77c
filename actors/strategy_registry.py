"""Which strategies each component of the airborne binary can be, and what each is constructed with.

C7 has no slot here: it is no strategy of a component but what all of them run on, built once by the bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib.metadata import entry_points
from typing import NamedTuple

from actors.airborne_config import C7_INFERENCE, LIGHTGLUE_RUNTIME, AirborneConfig, place_of, read_component
from messages import ConfigError

ENTRY_POINT_GROUP = "c7_inference.strategies"
"""An installed package offers a strategy as an entry point of this group: `c2_vpr.ultra_vpr = package.module:Class`."""

CLIENT = "client"
"""The need of a component that asks through an `InferenceClient` in its own name; it is made for each from C7."""

AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS: Mapping[str, tuple[str, ...]] = {
    "c1_vio": (C7_INFERENCE,),
    "c2_vpr": (C7_INFERENCE,),
    "c2_5_rerank": (C7_INFERENCE, LIGHTGLUE_RUNTIME),
    "c3_matcher": (C7_INFERENCE, LIGHTGLUE_RUNTIME),
    "c3_5_adhop": (C7_INFERENCE,),
    "c4_pose": (C7_INFERENCE,),
}
"""Component slug -> the keys of `pre_constructed` that its constructor takes. A strategy registered with `needs` of its
own differs: C1's KltRansac is CPU-only and needs none."""

AIRBORNE_STRATEGIES: Mapping[str, Mapping[str, str]] = {
    "c1_vio": {},
    "c2_vpr": {"place_recognition": "actors.perception.place_recognition:PlaceRecognition"},
    "c2_5_rerank": {"reranker": "actors.perception.reranker:ReRanker"},
    "c3_matcher": {"matcher": "actors.perception.matcher:Matcher"},
    "c3_5_adhop": {"refiner": "actors.perception.refiner:Refiner"},
    "c4_pose": {"pose": "actors.perception.pose:PoseEstimation"},
}
"""Component slug -> strategy -> `module:Class`: what this project brings itself."""


class Strategy(NamedTuple):
    """`factory` is `module:Class`, imported when it is composed, or the class itself. `needs` are keyword arguments."""

    factory: str | Callable[..., object]
    needs: tuple[str, ...]


_STRATEGY_REGISTRY: dict[str, dict[str, Strategy]] = {}


def register_airborne_strategies() -> None:
    """Open a slot for each component, and fill it with this project's strategies and those of installed packages.

    Nothing is imported yet. Registering twice changes nothing. Raises ConfigError as `register_strategy` does.
    """
    for component, strategies in AIRBORNE_STRATEGIES.items():
        _STRATEGY_REGISTRY.setdefault(component, {})
        for strategy, factory in strategies.items():
            register_strategy(component, strategy, factory)
    for offered in entry_points(group=ENTRY_POINT_GROUP):
        component, dot, strategy = offered.name.partition(".")
        if not (component and dot and strategy):
            raise ConfigError(
                f"entry point {offered.name!r:.130} of {ENTRY_POINT_GROUP}, which is {offered.value!r:.130}: expected a"
                " name like c2_vpr.ultra_vpr, component and strategy; correct or remove the package"
            )
        register_strategy(component, strategy, offered.value)


def register_strategy(
    component: str, strategy: str, factory: str | Callable[..., object], *, needs: tuple[str, ...] | None = None
) -> None:
    """Say what `strategy` of `component` is constructed by.

    `needs` are the keys of `pre_constructed` that it takes, by default those of its component. Raises ConfigError for
    C7, for a component that is not known and says no needs, and where the name stands for something else already.
    """
    if component == C7_INFERENCE:
        raise ConfigError(
            f"{C7_INFERENCE} has no strategies: it is pre-constructed and shared by all components; choose its runtime"
            f" in {place_of(C7_INFERENCE)}"
        )
    if needs is None:
        if component not in AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS:
            raise ConfigError(
                f"strategy {strategy} of {component}: expected `needs`, the keys of pre_constructed that it takes; only"
                f" {', '.join(AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS)} have some by default"
            )
        needs = AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS[component]
    registered = Strategy(factory, needs)
    before = _STRATEGY_REGISTRY.setdefault(component, {}).setdefault(strategy, registered)
    if before != registered:
        raise ConfigError(
            f"strategy {strategy} of {component}: expected to be registered once, found {before.factory} and"
            f" {factory}; give one of them another name"
        )


def registered_strategies(component: str) -> Mapping[str, Strategy]:
    """By name; none for a component that has no slot."""
    return dict(_STRATEGY_REGISTRY.get(component, {}))


def find_strategy(component: str, strategy: str) -> Strategy:
    """What is registered under that name, or what `module:Class` names. Raises ConfigError naming what there is."""
    registered = registered_strategies(component)
    if strategy in registered:
        return registered[strategy]
    if ":" in strategy and component in AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS:
        return Strategy(strategy, AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS[component])
    raise ConfigError(
        f"{place_of(component)}.strategy: expected one of those registered ({', '.join(registered) or 'none'}) or"
        f" module:Class, found {strategy!r:.130}; register_strategy() adds one"
    )


def check_components(config: AirborneConfig, others: Collection[str] = ()) -> None:
    """Raises ConfigError for a component that nobody knows: a misspelt one would otherwise just be missing."""
    known = list(dict.fromkeys([*AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS, *_STRATEGY_REGISTRY, *others]))
    for component in config.components:
        if component != C7_INFERENCE and component not in known:
            raise ConfigError(
                f"{place_of(component)}: unknown component; expected {C7_INFERENCE}, {', '.join(known)}, or one that"
                " register_strategy() was told of before"
            )


def consumers_of(key: str, config: AirborneConfig) -> list[str]:
    """The configured components that need this key of `pre_constructed`. Raises ConfigError for a malformed block."""
    return [
        component
        for component in config.components
        if component != C7_INFERENCE and key in _needs(component, read_component(config, component).strategy)
    ]


def _needs(component: str, strategy: str) -> tuple[str, ...]:
    """Of a strategy that is not registered, what its component needs."""
    registered = _STRATEGY_REGISTRY.get(component, {}).get(strategy)
    return registered.needs if registered else AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS.get(component, ())
