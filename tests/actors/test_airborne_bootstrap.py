"""The airborne bootstrap: one runtime and one LightGlue for all components, or a refusal that names who is without."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from actors import SupervisedRuntime, Supervision, airborne_bootstrap, supervise
from actors.airborne_bootstrap import (
    _STRATEGY_REGISTRY,
    AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS,
    C7_AIRBORNE_BUILD_FLAGS,
    AirborneBootstrapError,
    Config,
    LightGlueRuntime,
    PreConstructed,
    build_pre_constructed,
    compose_root,
    register_airborne_strategies,
    register_strategy,
)
from messages import (
    NS_PER_MS,
    ConfigError,
    EngineDeserializeError,
    Infer,
    InferCompleted,
    Message,
    RuntimeNotAvailableError,
)
from runtimes import (
    BuildConfig,
    C7InferenceConfig,
    FakeRuntime,
    InferenceRuntime,
    inference_factory,
    read_entry,
    returns,
)
from tests.actors.references import ways

FLAGS = {
    "tensorrt": "BUILD_TENSORRT_RUNTIME",
    "onnx_trt_ep": "BUILD_ONNX_TRT_EP_RUNTIME",
    "pytorch_fp16": "BUILD_PYTORCH_FP16_RUNTIME",
}
NO_TORCH = "pytorch_fp16 needs torch, which cannot be imported"
NO_TENSORRT = (
    "tensorrt: expected NVIDIA's Python bindings of TensorRT, which cannot be imported (import of tensorrt halted; None"
    " in sys.modules); install JetPack's (`make setup-jetson`), on x86-64 c7-inference's extra `tensorrt`"
)
CONSUMERS: dict[str, tuple[str, ...]] = {
    "none": (),
    "place recognition": ("c2_vpr",),
    "both LightGlue users": ("c3_matcher", "c2_5_rerank"),
    "pose estimation": ("c4_pose",),
    "a front end on the CPU": ("c1_vio",),
    "a front end on the CPU and a matcher": ("c1_vio", "c3_matcher"),
    "all": ("c1_vio_cuda", "c2_vpr", "c2_5_rerank", "c3_matcher", "c3_5_adhop", "c4_pose"),
}


class Binary:
    """Builds the seeds of a configuration on a fake strategy, and counts what was constructed."""

    def __init__(self) -> None:
        self.raw: list[FakeRuntime] = []
        self.supervisions: list[Supervision] = []
        self.terms: list[dict[str, object]] = []
        self.recorded: list[Message] = []

    def build(self, config: Config) -> PreConstructed:
        return build_pre_constructed(config, record=self.recorded.append)

    def supervise(self, raw: InferenceRuntime, engines: None, **terms: Any) -> Supervision:
        self.terms.append(terms)
        self.supervisions.append(supervise(raw, engines, **terms))
        return self.supervisions[-1]

    def construct_raw(self, *_: object) -> FakeRuntime:
        self.raw.append(matching_runtime())
        return self.raw[-1]

    @property
    def alive(self) -> list[bool]:
        return [each.is_alive() for each in self.supervisions]


class Component:
    """What a component keeps of its construction."""

    def __init__(self, **given: object) -> None:
        self.given = given


class PoseEstimation:
    def __init__(self, c7_inference: object, *, within_ms: float = 5.0) -> None:
        self.c7_inference = c7_inference
        self.within_ms = within_ms


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Each test begins with the registry of a fresh process, and this project's slots in it."""
    before = dict(_STRATEGY_REGISTRY)
    _STRATEGY_REGISTRY.clear()
    register_airborne_strategies()
    yield
    _STRATEGY_REGISTRY.clear()
    _STRATEGY_REGISTRY.update(before)


@pytest.fixture
def binary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Binary]:
    """A binary whose pytorch_fp16 is a fake, without TensorRT, and whose flags are all unset, hence ON."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for flag in FLAGS.values():
        monkeypatch.delenv(flag, raising=False)
    built = Binary()
    monkeypatch.setattr("runtimes.pytorch_fp16_runtime.PytorchFp16Runtime", built.construct_raw)
    monkeypatch.setattr(airborne_bootstrap, "supervise", built.supervise)
    yield built
    for supervision in built.supervisions:
        supervision.stop()


@pytest.fixture(scope="module")
def lightglue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled engine of the fake runtime."""
    source = tmp_path_factory.mktemp("lightglue") / "lightglue.onnx"
    source.write_bytes(b"a matcher")
    return matching_runtime().compile_engine(source, BuildConfig()).path


def matching_runtime() -> FakeRuntime:
    return FakeRuntime({"lightglue": returns({})}, label="pytorch_fp16[cpu]")


def configured(c7: object | None, *slugs: str, mode: str = "airborne", strategy: str = "any") -> Config:
    blocks: dict[str, object] = {slug: {"strategy": strategy} for slug in slugs}
    return Config(mode=mode, components=blocks if c7 is None else {"c7_inference": c7, **blocks})  # type: ignore[arg-type]


# The whole matrix, held against a table: the first row that fits a cell says what becomes of it.

NOTHING: set[str] = set()
RUNTIME = {"c7_inference", "c7_supervision"}
BOTH = {"c7_inference", "c3_lightglue_runtime", "c7_supervision"}
NO_ENGINE = (
    "pre_constructed['c3_lightglue_runtime'] cannot be built: config.components['c7_inference'].lightglue_engine is not"
    " set; {needed}. Set it to the path of the compiled LightGlue engine"
)


def built_out(runtime: str, flag: str) -> str:
    return f"runtime {runtime} is configured but built out: {flag}=OFF; set {flag}=ON or configure another runtime"


class Row(NamedTuple):
    """None fits everything. `found` are the seeded keys, the whole refusal, or why there is no runtime."""

    found: set[str] | str
    mode: str | None = None
    runtimes: tuple[str | None, ...] | None = None
    off: str | None = None
    missing: str | None = None
    lightglue: bool | None = None
    matches: bool | None = None


TABLE = (
    Row(NOTHING, mode="replay", runtimes=(None,)),
    Row("runtime onnx_trt_ep is configured but no airborne runtime", runtimes=("onnx_trt_ep",)),
    Row(built_out("tensorrt", "BUILD_TENSORRT_RUNTIME"), runtimes=("tensorrt",), off="tensorrt"),
    Row(NO_TENSORRT, runtimes=("tensorrt",), missing="tensorrt"),
    Row(built_out("pytorch_fp16", "BUILD_PYTORCH_FP16_RUNTIME"), runtimes=(None, "pytorch_fp16"), off="pytorch_fp16"),
    Row(NO_TORCH, runtimes=(None, "pytorch_fp16"), missing="torch"),
    Row(BOTH, lightglue=True),
    Row(NO_ENGINE, matches=True),
    Row(RUNTIME),
)


class Cell(NamedTuple):
    mode: str
    runtime: str | None
    on: Mapping[str, bool]
    missing: str
    lightglue: bool
    consumers: tuple[str, ...]

    def fits(self, row: Row) -> bool:
        matches = bool({"c2_5_rerank", "c3_matcher"} & set(self.consumers))
        return (
            row.mode in (None, self.mode)
            and (row.runtimes is None or self.runtime in row.runtimes)
            and (row.off is None or not self.on[row.off])
            and row.missing in (None, self.missing)
            and row.lightglue in (None, self.lightglue)
            and row.matches in (None, matches)
        )

    def expected(self) -> set[str] | str:
        found = next(row.found for row in TABLE if self.fits(row))
        if isinstance(found, set):
            return found
        if found is NO_ENGINE:
            users = [slug for slug in self.consumers if slug in ("c2_5_rerank", "c3_matcher")]
            return found.format(needed=f"needed by {', '.join(users)}")
        users = [slug.removesuffix("_cuda") for slug in self.consumers if slug != "c1_vio"]
        everybody = "c1_vio, c2_vpr, c2_5_rerank, c3_matcher, c3_5_adhop, c4_pose"
        needed = f"needed by {', '.join(users)}" if users else f"no consumer is configured, {everybody} would need it"
        return (
            f"pre_constructed['c7_inference'] cannot be built: {found}; {needed}. The airborne binary runs one of:"
            " tensorrt (BUILD_TENSORRT_RUNTIME=ON), pytorch_fp16 (BUILD_PYTORCH_FP16_RUNTIME=ON); configure it as"
            " config.components['c7_inference'].runtime"
        )


@pytest.mark.parametrize("mode", ["airborne", "replay"])
@pytest.mark.parametrize("consumers", CONSUMERS.values(), ids=CONSUMERS)
@pytest.mark.parametrize("missing", ["", "torch", "tensorrt"], ids=["both libraries", "no torch", "no tensorrt"])
@pytest.mark.parametrize(
    ("runtime", "with_lightglue"), [(None, False), *product(FLAGS, (True, False))], ids=lambda value: str(value)
)
def test_what_is_seeded_follows_from_runtime_flags_consumers_and_mode(
    binary: Binary,
    monkeypatch: pytest.MonkeyPatch,
    lightglue: Path,
    runtime: str | None,
    with_lightglue: bool,
    missing: str,
    consumers: tuple[str, ...],
    mode: str,
) -> None:
    def no_torch(*_: object) -> FakeRuntime:
        raise RuntimeNotAvailableError(NO_TORCH)

    if missing == "torch":
        monkeypatch.setattr("runtimes.pytorch_fp16_runtime.PytorchFp16Runtime", no_torch)
    if missing != "tensorrt":
        monkeypatch.setattr("runtimes.tensorrt_runtime.TensorrtRuntime", binary.construct_raw)
    register_strategy("c1_vio", "klt_ransac", Component, needs=())
    blocks: dict[str, object] = {slug.removesuffix("_cuda"): {"strategy": "any"} for slug in consumers}
    if "c1_vio" in consumers:
        blocks["c1_vio"] = {"strategy": "klt_ransac"}
    if runtime is not None:
        blocks["c7_inference"] = {"runtime": runtime, "lightglue_engine": lightglue if with_lightglue else None}
    config = Config(mode=mode, components=blocks)  # type: ignore[arg-type]

    for states in product((True, False), repeat=3):
        on = dict(zip(FLAGS, states, strict=True))
        for name, flag in FLAGS.items():
            monkeypatch.setenv(flag, "ON" if on[name] else "OFF")
        raw_before, supervised_before = len(binary.raw), len(binary.supervisions)
        expected = Cell(mode, runtime, on, missing, with_lightglue, consumers).expected()
        found: set[str] | str
        try:
            found = set(binary.build(config))
        except AirborneBootstrapError as error:
            found = str(error)
        assert found == expected, on
        flies = isinstance(expected, set) and "c7_inference" in expected
        only_lightglue_failed = isinstance(expected, str) and "lightglue_engine is not set" in expected
        assert len(binary.raw) - raw_before == len(binary.supervisions) - supervised_before
        assert len(binary.raw) - raw_before == (1 if flies or only_lightglue_failed else 0)
        assert binary.alive[supervised_before:] == ([False] if only_lightglue_failed else [True] * flies)
        for supervision in binary.supervisions[supervised_before:]:
            supervision.stop()


# What a reader of the matrix wants to see once, written out.


def test_the_research_runtime_is_refused_with_the_two_airborne_options_and_no_other(binary: Binary) -> None:
    config = configured(C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"), "c2_vpr", "c3_5_adhop")
    with pytest.raises(AirborneBootstrapError) as refusal:
        binary.build(config)
    assert str(refusal.value) == (
        "pre_constructed['c7_inference'] cannot be built: runtime onnx_trt_ep is configured but no airborne runtime;"
        " needed by c2_vpr, c3_5_adhop. The airborne binary runs one of: tensorrt (BUILD_TENSORRT_RUNTIME=ON),"
        " pytorch_fp16 (BUILD_PYTORCH_FP16_RUNTIME=ON); configure it as config.components['c7_inference'].runtime"
    )
    assert "BUILD_ONNX_TRT_EP_RUNTIME" not in str(refusal.value)


def test_with_both_flags_off_the_refusal_names_key_flags_and_the_configured_consumer(
    binary: Binary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILD_TENSORRT_RUNTIME", "OFF")
    monkeypatch.setenv("BUILD_PYTORCH_FP16_RUNTIME", "OFF")
    with pytest.raises(AirborneBootstrapError) as refusal:
        binary.build(configured({"runtime": "tensorrt", "device": "cuda"}, "c2_vpr"))
    assert str(refusal.value) == (
        "pre_constructed['c7_inference'] cannot be built: runtime tensorrt is configured but built out:"
        " BUILD_TENSORRT_RUNTIME=OFF; set BUILD_TENSORRT_RUNTIME=ON or configure another runtime; needed by c2_vpr."
        " The airborne binary runs one of: tensorrt (BUILD_TENSORRT_RUNTIME=ON), pytorch_fp16"
        " (BUILD_PYTORCH_FP16_RUNTIME=ON); configure it as config.components['c7_inference'].runtime"
    )
    assert isinstance(refusal.value.__cause__, RuntimeNotAvailableError)


@pytest.mark.parametrize("runtime", ["tensorrt", "pytorch_fp16"])
def test_an_airborne_runtime_that_can_be_built_is_built_once(
    binary: Binary, monkeypatch: pytest.MonkeyPatch, lightglue: Path, runtime: str
) -> None:
    asked: list[C7InferenceConfig] = []

    def build(config: C7InferenceConfig) -> FakeRuntime:
        asked.append(config)
        return binary.construct_raw()

    monkeypatch.setattr(inference_factory, "build_inference_runtime", build)
    seeds = binary.build(configured({"runtime": runtime, "lightglue_engine": str(lightglue)}))
    assert [config.runtime for config in asked] == [runtime]
    assert isinstance(seeds["c7_inference"], SupervisedRuntime)
    assert len(binary.supervisions) == 1
    assert binary.raw[0].loads("lightglue") == 1


@pytest.mark.torch
def test_an_unconfigured_binary_runs_the_workstation_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    for flag in FLAGS.values():
        monkeypatch.delenv(flag, raising=False)
    seeds = build_pre_constructed(Config())
    assert list(seeds) == ["c7_inference", "c7_supervision"]
    assert seeds["c7_inference"].current_runtime_label() == "pytorch_fp16[cpu]"
    seeds["c7_supervision"].stop()


def test_airborne_flags_are_those_of_the_factory() -> None:
    assert C7_AIRBORNE_BUILD_FLAGS == (
        ("tensorrt", "BUILD_TENSORRT_RUNTIME"),
        ("pytorch_fp16", "BUILD_PYTORCH_FP16_RUNTIME"),
    )
    assert set(C7_AIRBORNE_BUILD_FLAGS) <= set(inference_factory._RUNTIME_TO_BUILD_FLAG.items())


# One runtime, one LightGlue, for everybody.


def test_every_component_receives_the_identical_runtime_and_the_identical_lightglue(
    binary: Binary, lightglue: Path
) -> None:
    slugs = tuple(AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS)
    for slug in slugs:
        register_strategy(slug, "any", Component)
    config = configured({"lightglue_engine": lightglue}, *slugs)

    seeds = binary.build(config)
    components = compose_root(config, seeds)

    assert (len(binary.raw), len(binary.supervisions), binary.raw[0].loads("lightglue")) == (1, 1, 1)
    assert list(components) == list(slugs)
    for slug, component in components.items():
        assert isinstance(component, Component)
        assert tuple(component.given) == AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS[slug]
        assert all(given is dict(seeds)[key] for key, given in component.given.items())


def test_lightglue_runs_on_the_runtime_that_everybody_shares(binary: Binary, lightglue: Path) -> None:
    seeds = binary.build(configured({"lightglue_engine": lightglue}))
    matcher = seeds["c3_lightglue_runtime"]
    assert matcher.match({}) == {}
    assert [call.model for call in binary.raw[0].calls] == ["lightglue"]
    assert matcher.entry.path == lightglue
    matcher.release()
    matcher.release()
    assert binary.raw[0].loaded == ()


def test_two_bootstraps_give_two_runtimes(binary: Binary, lightglue: Path) -> None:
    config = configured({"lightglue_engine": lightglue})
    first, second = binary.build(config), binary.build(config)
    assert first["c7_inference"] is not second["c7_inference"]
    assert first["c3_lightglue_runtime"] is not second["c3_lightglue_runtime"]
    assert len(binary.raw) == 2
    assert not [
        name for name, value in vars(airborne_bootstrap).items() if isinstance(value, SupervisedRuntime | FakeRuntime)
    ]


def test_no_public_attribute_of_what_is_shared_leads_to_the_strategy_below(binary: Binary, lightglue: Path) -> None:
    seen: dict[int, object] = {}
    to_visit: list[object] = [*dict(binary.build(configured({"lightglue_engine": lightglue}))).values()]
    while to_visit:
        visited = to_visit.pop()
        if id(visited) not in seen and not isinstance(visited, type):
            seen[id(visited)] = visited
            # A bound method's __self__ is the object that was visited already.
            to_visit += [getattr(visited, name) for name in dir(visited) if not name.startswith("_")]
    assert not [each for each in seen.values() if each is binary.raw[0]]


def test_nothing_that_is_given_to_components_refers_to_the_strategy_by_any_way(binary: Binary, lightglue: Path) -> None:
    for slug in AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS:
        register_strategy(slug, "any", Component)
    config = configured({"lightglue_engine": lightglue}, *AIRBORNE_REQUIRED_PRE_CONSTRUCTED_KEYS)
    seeds = binary.build(config)
    for component in compose_root(config, seeds).values():
        assert ways(component, seeds["c7_inference"]), "it has the runtime"
        assert ways(component, binary.raw[0]) == []


def test_lightglue_that_does_not_load_stops_the_runtime_that_was_started_for_it(
    binary: Binary, lightglue: Path, tmp_path: Path
) -> None:
    missing = tmp_path / lightglue.name
    with pytest.raises(EngineDeserializeError, match=r"lightglue.*\.sha256"):
        binary.build(configured({"lightglue_engine": missing}, "c3_matcher"))
    assert binary.alive == [False]


def test_the_runtime_is_supervised_as_its_block_says(binary: Binary) -> None:
    block = {
        "run_limit_ms": 700,
        "load_timeout_s": 7,
        "runs_at_once": 2,
        "priorities": {"lightglue": 3},
        "self_test_tolerances": {"lightglue": 0.5},
        "thermal": {"period_s": 0.25},
    }
    binary.build(configured(block, "c2_vpr"))
    terms = {name: binary.terms[0][name] for name in ("run_limit_ms", "load_timeout_s", "runs_at_once", "period_s")}
    assert terms == {"run_limit_ms": 700.0, "load_timeout_s": 7.0, "runs_at_once": 2, "period_s": 0.25}
    assert binary.terms[0]["priorities"] == {"lightglue": 3}
    assert binary.terms[0]["self_test_tolerances"] == {"lightglue": 0.5}


def test_a_call_without_a_frame_ends_after_the_time_of_the_block(binary: Binary, lightglue: Path) -> None:
    seeds = binary.build(configured({"lightglue_engine": lightglue, "within_ms": 250}))
    seeds["c3_lightglue_runtime"].match({})
    (asked,) = (message for message in binary.recorded if isinstance(message, Infer))
    (answered,) = (message for message in binary.recorded if isinstance(message, InferCompleted))
    assert asked.request_id == answered.request_id
    assert 0 < asked.deadline_ns - time.monotonic_ns() <= 250 * NS_PER_MS


def test_a_thermal_trace_that_nobody_plays_is_refused_with_its_place(binary: Binary, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.components\['c7_inference'\]\.thermal: .*remove `trace`"):
        binary.build(configured({"thermal": {"source": "auto", "trace": tmp_path / "heat.jsonl"}}))
    assert (binary.raw, binary.supervisions) == ([], [])


# Composition.


def test_a_key_that_is_missing_is_named_with_the_component_that_needs_it(binary: Binary) -> None:
    register_strategy("c3_matcher", "any", Component)
    config = configured({}, "c3_matcher")
    seeds = binary.build(configured({}))
    with pytest.raises(AirborneBootstrapError) as refusal:
        compose_root(config, seeds)
    assert str(refusal.value) == (
        "c3_matcher needs pre_constructed['c3_lightglue_runtime'], which is missing; found c7_inference,"
        " c7_supervision."
        " build_pre_constructed(config) builds c7_inference and c3_lightglue_runtime, others are the binary's own"
    )


def test_a_runtime_that_bypasses_the_actors_is_refused() -> None:
    register_strategy("c2_vpr", "any", Component)
    with pytest.raises(AirborneBootstrapError) as refusal:
        compose_root(configured({}, "c2_vpr"), {"c7_inference": FakeRuntime({})})
    assert str(refusal.value) == (
        "pre_constructed['c7_inference']: expected the supervised runtime that build_pre_constructed() gives, found a"
        " FakeRuntime, whose callers would bypass the actors"
    )


def test_a_lightglue_that_bypasses_the_actors_is_refused(binary: Binary, lightglue: Path) -> None:
    register_strategy("c3_matcher", "any", Component)
    config = configured({"lightglue_engine": lightglue}, "c3_matcher")
    bypass = LightGlueRuntime(matching_runtime(), read_entry(lightglue))
    with pytest.raises(AirborneBootstrapError) as refusal:
        compose_root(config, {**binary.build(config), "c3_lightglue_runtime": bypass})
    assert str(refusal.value) == (
        "pre_constructed['c3_lightglue_runtime']: expected a LightGlueRuntime on pre_constructed['c7_inference'], found"
        " one on another runtime, whose callers would bypass the actors"
    )


def test_a_replay_without_c7_composes_what_can_do_without_it(binary: Binary) -> None:
    register_strategy("c1_vio", "klt_ransac", Component, needs=())
    register_strategy("c4_pose", "klt_ransac", PoseEstimation)
    config = configured(None, "c1_vio", "c4_pose", mode="replay", strategy="klt_ransac")
    components = compose_root(config, binary.build(config))
    pose = components["c4_pose"]
    assert isinstance(pose, PoseEstimation)
    assert pose.c7_inference is None
    assert binary.raw == []


def test_a_replay_without_c7_refuses_a_component_that_needs_it(binary: Binary) -> None:
    register_strategy("c2_vpr", "any", Component)
    config = configured(None, "c2_vpr", mode="replay")
    with pytest.raises(
        AirborneBootstrapError, match=r"c2_vpr needs pre_constructed\['c7_inference'\], .*; found nothing"
    ):
        compose_root(config, binary.build(config))


def test_pose_estimation_does_not_do_without_c7_in_the_air() -> None:
    register_strategy("c4_pose", "any", PoseEstimation)
    with pytest.raises(AirborneBootstrapError, match=r"c4_pose needs pre_constructed\['c7_inference'\]"):
        compose_root(configured(None, "c4_pose"), {})
