"""Strategies of the airborne components: registered by name, constructed with what they need, none for C7."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from actors import InferenceClient, SupervisedRuntime, supervise
from actors.airborne_bootstrap import (
    _STRATEGY_REGISTRY,
    AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS,
    AirborneBootstrapError,
    Config,
    compose_root,
    register_airborne_strategies,
    register_strategy,
)
from actors.strategy_registry import AIRBORNE_STRATEGIES, Strategy, consumers_of
from messages import ConfigError, OutOfMemoryError
from runtimes import FakeRuntime, returns


@pytest.fixture(autouse=True)
def empty_registry() -> Iterator[None]:
    before = dict(_STRATEGY_REGISTRY)
    _STRATEGY_REGISTRY.clear()
    yield
    _STRATEGY_REGISTRY.clear()
    _STRATEGY_REGISTRY.update(before)


@pytest.fixture
def runtime() -> Iterator[SupervisedRuntime]:
    with supervise(FakeRuntime({"any": returns({})}), None) as supervision:
        yield supervision.as_runtime()


class Recorder:
    """A component of the binary's own, with a seed of its own."""

    def __init__(self, c13_fdr: object, *, rate_hz: float = 1.0) -> None:
        self.c13_fdr = c13_fdr
        self.rate_hz = rate_hz


def composed(slug: str, pre_constructed: dict[str, object] | None = None, **block: object) -> object:
    return compose_root(Config(components={slug: {"strategy": "own", **block}}), pre_constructed or {})[slug]


def test_c7_has_no_slot() -> None:
    register_airborne_strategies()
    assert set(_STRATEGY_REGISTRY) == set(AIRBORNE_STRATEGIES) == set(AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS)
    assert "c7_inference" not in _STRATEGY_REGISTRY
    with pytest.raises(ConfigError, match="c7_inference has no strategies: it is pre-constructed and shared"):
        register_strategy("c7_inference", "own", Recorder)


def test_registering_twice_changes_nothing() -> None:
    register_strategy("c13_fdr", "own", Recorder, needs=("c13_fdr",))
    register_airborne_strategies()
    before = {slug: dict(strategies) for slug, strategies in _STRATEGY_REGISTRY.items()}
    register_strategy("c13_fdr", "own", Recorder, needs=("c13_fdr",))
    register_airborne_strategies()
    assert before == _STRATEGY_REGISTRY


def test_one_name_stands_for_one_strategy() -> None:
    register_strategy("c2_vpr", "own", "first.module:Vpr")
    with pytest.raises(ConfigError) as refusal:
        register_strategy("c2_vpr", "own", "second.module:Vpr")
    assert str(refusal.value) == (
        "strategy own of c2_vpr: expected to be registered once, found first.module:Vpr and second.module:Vpr; give one"
        " of them another name"
    )


def test_a_component_of_the_binarys_own_says_what_it_needs() -> None:
    with pytest.raises(ConfigError, match="strategy own of c13_fdr: expected `needs`"):
        register_strategy("c13_fdr", "own", Recorder)
    register_strategy("c13_fdr", "own", Recorder, needs=("c13_fdr",))
    port = object()
    recorder = composed("c13_fdr", {"c13_fdr": port}, options={"rate_hz": 2.0})
    assert isinstance(recorder, Recorder)
    assert recorder.c13_fdr is port
    assert recorder.rate_hz == 2.0


def test_only_a_strategy_that_needs_a_key_is_its_consumer() -> None:
    register_strategy("c1_vio", "klt_ransac", Recorder, needs=())
    register_strategy("c13_fdr", "own", Recorder, needs=("c13_fdr",))
    blocks: dict[str, object] = {"c7_inference": {}, "c13_fdr": {"strategy": "own"}, "c2_vpr": {"strategy": "unheard"}}
    assert consumers_of("c7_inference", Config(components={**blocks, "c1_vio": {"strategy": "klt_ransac"}})) == [
        "c2_vpr"
    ]
    assert consumers_of("c7_inference", Config(components={**blocks, "c1_vio": {"strategy": "cuda"}})) == [
        "c2_vpr",
        "c1_vio",
    ]


def test_a_strategy_that_nobody_registered_is_refused() -> None:
    register_strategy("c2_vpr", "ultra_vpr", Recorder, needs=())
    with pytest.raises(ConfigError) as refusal:
        composed("c2_vpr")
    assert str(refusal.value) == (
        "config.components['c2_vpr'].strategy: expected one of those registered (ultra_vpr) or module:Class, found"
        " 'own'; register_strategy() adds one"
    )


def test_a_strategy_can_be_named_by_its_class(
    runtime: SupervisedRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_refinement.py").write_text("class Refiner:\n    def __init__(self, c7_inference): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AirborneBootstrapError, match=r"c3_5_adhop needs pre_constructed\['c7_inference'\]"):
        composed("c3_5_adhop", strategy="own_refinement:Refiner")
    with pytest.raises(ConfigError, match=r"\['c3_5_adhop'\]\.strategy: .*missing_module cannot be imported"):
        composed("c3_5_adhop", {"c7_inference": runtime}, strategy="missing_module:Refiner")
    refiner = composed("c3_5_adhop", {"c7_inference": runtime}, strategy="own_refinement:Refiner")
    assert type(refiner).__name__ == "Refiner"


def test_an_installed_package_offers_a_strategy_as_an_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(tmp_path, "c2_vpr.ultra_vpr = ultra_vpr.component:UltraVpr")
    monkeypatch.syspath_prepend(tmp_path)
    assert [each.value for each in entry_points(group="c7_inference.strategies")] == ["ultra_vpr.component:UltraVpr"]
    register_airborne_strategies()
    assert _STRATEGY_REGISTRY["c2_vpr"]["ultra_vpr"].factory == "ultra_vpr.component:UltraVpr"
    assert _STRATEGY_REGISTRY["c2_vpr"]["ultra_vpr"].needs == ("c7_inference",)


def test_an_entry_point_without_a_component_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(tmp_path, "ultra_vpr = ultra_vpr.component:UltraVpr")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match=r"entry point 'ultra_vpr' of c7_inference\.strategies, which is 'ultra_vpr\.comp"
    ):
        register_airborne_strategies()


def test_options_that_do_not_fit_are_refused_before_any_component_is_constructed() -> None:
    constructed: list[str] = []
    register_strategy("c1_vio", "own", lambda: constructed.append("c1_vio"), needs=())
    register_strategy("c13_fdr", "own", Recorder, needs=("c13_fdr",))
    port = object()
    config = Config(
        components={"c1_vio": {"strategy": "own"}, "c13_fdr": {"strategy": "own", "options": {"rate_hertz": 1}}}
    )
    with pytest.raises(ConfigError, match=r"unexpected keyword argument 'rate_hertz'"):
        compose_root(config, {"c13_fdr": port})
    assert constructed == []
    with pytest.raises(ConfigError) as refusal:
        composed("c13_fdr", {"c13_fdr": object()}, options={"rate_hertz": 1})
    assert str(refusal.value).startswith(
        "config.components['c13_fdr'].options: ['rate_hertz'] with c13_fdr injected do not fit Recorder("
    )


def test_an_option_never_takes_the_place_of_what_is_injected() -> None:
    register_strategy("c13_fdr", "own", Recorder, needs=("c13_fdr",))
    with pytest.raises(ConfigError, match=r"\.options: c13_fdr comes from pre_constructed; remove it here"):
        composed("c13_fdr", {"c13_fdr": object()}, options={"c13_fdr": 5})


def test_a_constructor_that_fails_is_named_with_its_component() -> None:
    def fail() -> object:
        raise KeyError("weights")

    register_strategy("c1_vio", "own", fail, needs=())
    with pytest.raises(AirborneBootstrapError, match=r"^c1_vio: fail cannot be constructed: KeyError: 'weights'$"):
        composed("c1_vio")


def test_what_a_constructor_raises_of_our_own_errors_keeps_its_type() -> None:
    def run_out() -> object:
        raise OutOfMemoryError("ultravpr: 300 MB short")

    register_strategy("c1_vio", "own", run_out, needs=())
    with pytest.raises(OutOfMemoryError, match="300 MB short"):
        composed("c1_vio")


def test_a_client_is_made_for_each_component_from_the_one_runtime(runtime: SupervisedRuntime) -> None:
    class Asking:
        def __init__(self, client: InferenceClient) -> None:
            self.client = client

    for slug in ("c2_vpr", "c13_fdr"):
        register_strategy(slug, "own", Asking, needs=("client",))
    config = Config(components={"c2_vpr": {"strategy": "own"}, "c13_fdr": {"strategy": "own"}})
    composed_ones = compose_root(config, {"c7_inference": runtime})
    assert [vars(each)["client"].consumer for each in composed_ones.values()] == ["c2_vpr", "c13_fdr"]
    with pytest.raises(
        AirborneBootstrapError, match=r"c2_vpr needs pre_constructed\['c7_inference'\], which is missing"
    ):
        compose_root(config, {})


def test_a_strategy_that_the_caller_brings_goes_before_the_registry_and_under_any_name() -> None:
    register_strategy("c13_fdr", "own", lambda: "registered", needs=())
    brought = {"anything": Strategy(lambda: "brought", ()), "c13_fdr": Strategy(lambda: "brought", ())}
    config = Config(components={slug: {"strategy": "own"} for slug in brought})
    assert compose_root(config, {}, strategies=brought) == dict.fromkeys(brought, "brought")
    with pytest.raises(ConfigError, match=r"\['anything'\]: unknown component"):
        compose_root(config, {})


def offer(site: Path, entry_point: str) -> None:
    """What an installed package leaves in a site folder."""
    folder = site / "ultra_vpr-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: ultra-vpr\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[c7_inference.strategies]\n{entry_point}\n")
