"""The plan's consumers: refused by table and key before anything is loaded, then composed on one runtime."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import pytest
from loguru import logger

from actors import supervise
from actors.airborne_bootstrap import _STRATEGY_REGISTRY, register_strategy
from actors.client import InferenceClient
from actors.consumer import Consumer, Frame
from actors.flight.consumers import check_consumers, compose_consumers
from actors.lightglue_runtime import LightGlueRuntime
from messages import ConfigError, EngineDeserializeError, RequestRejectedError
from runtimes import BuildConfig, EngineCacheEntry, FakeRuntime, FlightPlan, read_flight_plan, returns
from runtimes.fake_steps import hangs_at_load

MODULE = '''
from pathlib import Path
from runtimes import deserialize_cached_engine, read_entry

class Keeping:
    """Keeps what it was constructed with."""
    def on_frame(self, frame):
        return None

class OnRuntime(Keeping):
    def __init__(self, c7_inference, *, engine="", threshold=0.5):
        if threshold > 1:
            raise ValueError("a threshold is at most 1")
        if threshold < 0:
            raise SystemExit(0)
        self.c7_inference, self.engine, self.threshold = c7_inference, engine, threshold

class OnBoth(Keeping):
    def __init__(self, c7_inference, c3_lightglue_runtime):
        self.c7_inference, self.c3_lightglue_runtime = c7_inference, c3_lightglue_runtime

class OnClient(Keeping):
    def __init__(self, client, threshold=0.5):
        self.client, self.threshold = client, threshold

class Asking:
    """Loads its engine when it is constructed, and asks it at each frame."""
    def __init__(self, c7_inference, *, engine):
        self.c7_inference = c7_inference
        self.handle = deserialize_cached_engine(c7_inference, read_entry(Path(engine)))
    def on_frame(self, frame):
        self.c7_inference.infer(self.handle, {"x": frame.image})
        return None

class AsksAtOnce(Asking):
    def __init__(self, c7_inference, *, engine):
        super().__init__(c7_inference, engine=engine)
        self.on_frame(__import__("types").SimpleNamespace(image=__import__("numpy").zeros(3)))

class Deaf(Keeping):
    def __init__(self, threshold=0.5): ...

class TakesAnything(Keeping):
    def __init__(self, **anything): ...

class ByPlaceOnly(Keeping):
    def __init__(self, client, /): ...

class Blind:
    def __init__(self, client): ...

constant = 7
'''
PLAN = """
[flight]
name = "test"
{flight}
[runtime]
runtime = "onnx_trt_ep"
provider = "cpu"
[models.vpr]
source = "vpr.onnx"
precision = "fp32"
deadline_ms = 200
[models.lightglue]
source = "lightglue.onnx"
precision = "fp32"
deadline_ms = 200
"""
FRAMES = '[frames]\nsource = "eyes:Camera"\n'
WAIT_S = 10.0
RESULT = {"y": np.ones(3, np.float32)}


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "plan_consumers.py").write_text(MODULE)
    (tmp_path / "leaving_consumers.py").write_text("raise SystemExit(0)")
    (tmp_path / "broken_consumers.py").write_text("raise RuntimeError('no licence')")
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(_STRATEGY_REGISTRY)
    _STRATEGY_REGISTRY.clear()
    yield
    _STRATEGY_REGISTRY.clear()
    _STRATEGY_REGISTRY.update(before)
    sys.modules.pop("plan_consumers", None)


@pytest.fixture
def error_lines() -> Iterator[list[str]]:
    lines: list[str] = []
    handler = logger.add(lambda line: lines.append(str(line).rstrip()), format="{message}", level="ERROR")
    yield lines
    logger.remove(handler)


def plan_of(folder: Path, consumers: str, *, flight: str = "", frames: str = FRAMES) -> FlightPlan:
    path = folder / "flight.toml"
    path.write_text(PLAN.format(flight=flight) + frames + consumers)
    return read_flight_plan(path)


def named(cls: str, rest: str = "", name: str = "vpr") -> str:
    return f'[consumers.{name}]\nclass = "plan_consumers:{cls}"\n{rest}\n'


class Flying:
    """The plan's consumers on real actors over a FakeRuntime with compiled engines."""

    def __init__(self, folder: Path, *, models: tuple[str, ...] = ("vpr", "lightglue")) -> None:
        self.fake = FakeRuntime({model: returns(RESULT) for model in models})
        self.entries: dict[str, EngineCacheEntry] = {}
        for model in models:
            (folder / f"{model}.onnx").write_bytes(b"a model")
            self.entries[model] = self.fake.compile_engine(folder / f"{model}.onnx", BuildConfig(precision="fp16"))
        self.c7 = supervise(self.fake, self.entries)
        self.runtime = self.c7.as_runtime()

    def compose(self, plan: FlightPlan, *, in_the_air: bool = False) -> Mapping[str, Consumer]:
        return compose_consumers(plan, self.entries, self.runtime, in_the_air=in_the_air)

    def __enter__(self) -> Flying:
        return self

    def __exit__(self, *error: object) -> None:
        self.c7.stop()


def test_every_consumer_has_the_identical_runtime_and_lightglue_and_a_client_in_its_own_name(tmp_path: Path) -> None:
    sections = named("OnRuntime") + "".join(
        named(cls, name=name) for cls, name in (("OnBoth", "m1"), ("OnBoth", "m2"), ("OnClient", "c1"))
    )
    with Flying(tmp_path) as flying:
        built = flying.compose(plan_of(tmp_path, sections, flight='lightglue = "lightglue"'))
        assert list(built) == ["vpr", "m1", "m2", "c1"]
        kept = {name: vars(each) for name, each in built.items()}
        assert {kept[name]["c7_inference"] for name in ("vpr", "m1", "m2")} == {flying.runtime}
        assert kept["m1"]["c3_lightglue_runtime"] is kept["m2"]["c3_lightglue_runtime"]
        lightglue = kept["m1"]["c3_lightglue_runtime"]
        assert isinstance(lightglue, LightGlueRuntime)
        assert lightglue.entry == flying.entries["lightglue"]
        assert isinstance(kept["c1"]["client"], InferenceClient)
        assert kept["c1"]["client"].consumer == "c1"
        assert flying.fake.loads("lightglue") == 1


def test_an_engine_option_is_the_path_of_that_models_engine_in_flight(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, named("OnRuntime", 'engines = { engine = "vpr" }\noptions = { threshold = 0.25 }'))
    with Flying(tmp_path) as flying:
        built = vars(flying.compose(plan)["vpr"])
        assert built["engine"] == str(flying.entries["vpr"].path)
        assert built["threshold"] == 0.25


def test_a_consumer_that_loads_the_flights_engine_by_its_path_runs_on_it_without_another_load(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, named("Asking", 'engines = { engine = "vpr" }'))
    with Flying(tmp_path) as flying:
        assert flying.compose(plan)["vpr"].on_frame(Frame(1, 2, np.zeros((1, 1, 3), np.uint8))) is None
        assert flying.fake.loads("vpr") == 1
        assert flying.c7.tallies()["vpr"].completed == 1


def test_a_strategy_is_looked_up_under_the_consumers_name(tmp_path: Path) -> None:
    register_strategy("c2_vpr", "own", "plan_consumers:OnRuntime")
    register_strategy("c1_vio", "on_the_cpu", "plan_consumers:Deaf", needs=())
    plan = plan_of(tmp_path, '[consumers.c2_vpr]\nstrategy = "own"\n[consumers.c1_vio]\nstrategy = "on_the_cpu"\n')
    with Flying(tmp_path) as flying:
        built = flying.compose(plan)
        assert vars(built["c2_vpr"])["c7_inference"] is flying.runtime
        assert type(built["c1_vio"]).__name__ == "Deaf", "what needs nothing says so when it is registered"


def offer(site: Path, entry_point: str) -> None:
    """What an installed package leaves in a site folder."""
    folder = site / "survey-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: survey\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[c7_inference.strategies]\n{entry_point}\n")


def test_a_strategy_of_an_installed_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    offer(tmp_path, "c2_vpr.survey = plan_consumers:OnRuntime")
    check_consumers(plan_of(tmp_path, '[consumers.c2_vpr]\nstrategy = "survey"\n'))


@pytest.mark.parametrize(
    ("consumers", "text"),
    [
        ('[consumers.vpr]\nclass = "no_such_module:X"', r"\[consumers.vpr\] class: no_such_module cannot be imported"),
        ('[consumers.vpr]\nclass = "broken_consumers:X"', r"\[consumers.vpr\] class: .*RuntimeError: no licence"),
        (named("X"), r"\[consumers.vpr\] class: expected a class X in plan_consumers, found nothing"),
        (named("constant"), r"\[consumers.vpr\] class: expected a class constant in plan_consumers, found a int"),
        (named("Blind"), r"\[consumers.vpr\] class: plan_consumers:Blind has no method on_frame"),
        (
            named("OnClient", "options = { treshold = 0.1 }"),
            r"\[consumers.vpr\] options: \['treshold'\] with client injected do not fit OnClient\(client, threshold",
        ),
        (
            named("OnClient", "options = { client = 1 }"),
            r"\[consumers.vpr\] options: client comes from pre_constructed; remove it here",
        ),
        (
            named("OnRuntime", 'engines = { model = "vpr" }'),
            r"\[consumers.vpr\] options: \['model'\] with c7_inference injected do not fit OnRuntime\(c7_inference",
        ),
        (named("Asking"), r"\[consumers.vpr\] options: \[\] with .* do not fit .*missing a required .*'engine'"),
        (
            named("Deaf"),
            r"^\[consumers.vpr\] class: plan_consumers:Deaf could never ask anything: expected a constructor with a"
            r" parameter named c7_inference, c3_lightglue_runtime or client\. What asks nothing on purpose is"
            r" registered as a strategy that needs nothing$",
        ),
        (named("TakesAnything"), r"\[consumers.vpr\] class: plan_consumers:TakesAnything could never ask anything"),
        (named("ByPlaceOnly"), r"\[consumers.vpr\] class: plan_consumers:ByPlaceOnly could never ask anything"),
        (
            named("OnBoth"),
            r"^\[flight\] lightglue: missing; \[consumers.vpr\] needs c3_lightglue_runtime\. Name the model",
        ),
        (
            '[consumers.c2_vpr]\nstrategy = "unheard"',
            r"\[consumers.c2_vpr\] strategy: expected one that is registered for c2_vpr \(.*\), found 'unheard'; name",
        ),
        (
            '[consumers.vpr]\nstrategy = "own"',
            r"\[consumers.vpr\] strategy: expected one that is registered for vpr \(none is\), found 'own'",
        ),
        (named("OnRuntime", name="c7_inference"), r"\[consumers.c7_inference\] expected another name"),
    ],
)
def test_a_consumer_that_could_not_be_composed_is_refused_by_its_key(tmp_path: Path, consumers: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        check_consumers(plan_of(tmp_path, consumers))


def test_a_strategy_that_needs_what_a_flight_does_not_have_is_refused(tmp_path: Path) -> None:
    register_strategy("c13_fdr", "own", "plan_consumers:Deaf", needs=("c13_port",))
    with pytest.raises(ConfigError, match=r"\[consumers.c13_fdr\] strategy: own needs c13_port, which a flight does"):
        check_consumers(plan_of(tmp_path, '[consumers.c13_fdr]\nstrategy = "own"\n'))


def test_consumers_without_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[consumers\] expects \[frames\] source"):
        check_consumers(plan_of(tmp_path, named("OnClient"), frames=""))


def test_a_constructor_that_raises_is_refused_at_takeoff_by_its_consumer(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, named("OnRuntime", "options = { threshold = 2 }"))
    with Flying(tmp_path) as flying, pytest.raises(ConfigError) as refusal:
        flying.compose(plan)
    assert str(refusal.value) == (
        "[consumers.vpr] vpr: OnRuntime cannot be constructed: ValueError: a threshold is at most 1"
    )


def test_what_a_factory_returns_must_take_frames(tmp_path: Path) -> None:
    register_strategy("c2_vpr", "own", lambda c7_inference: cast("Consumer", c7_inference))
    plan = plan_of(tmp_path, '[consumers.c2_vpr]\nstrategy = "own"\n')
    with Flying(tmp_path) as flying, pytest.raises(ConfigError, match=r"\[consumers.c2_vpr\]: .* has no method on_fra"):
        flying.compose(plan)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            named("OnRuntime", "options = { threshold = 2 }"),
            "[consumers.vpr] vpr: OnRuntime cannot be constructed: ValueError: a threshold is at most 1",
        ),
        (
            named("OnRuntime", "options = { threshold = -1 }"),
            "[consumers.vpr] vpr: OnRuntime cannot be constructed: SystemExit: 0",
        ),
        (
            '[consumers.vpr]\nclass = "broken_consumers:X"\n',
            "[consumers.vpr] class: broken_consumers cannot be imported",
        ),
        (
            '[consumers.vpr]\nclass = "leaving_consumers:X"\n',
            "[consumers.vpr] class: leaving_consumers cannot be imported: SystemExit: 0",
        ),
        ('[consumers.vpr]\nstrategy = "own"\n', "[consumers.vpr] strategy: expected one that is registered for vpr"),
    ],
)
def test_in_the_air_a_consumer_that_cannot_be_had_costs_itself_only(
    tmp_path: Path, error_lines: list[str], section: str, said: str
) -> None:
    plan = plan_of(tmp_path, section + named("OnClient", name="other"))
    with Flying(tmp_path) as flying:
        built = flying.compose(plan, in_the_air=True)
        frame = Frame(1, 2, np.zeros((1, 1, 3), np.uint8))
        assert built["other"].on_frame(frame) is None
        degraded = built["vpr"].on_frame(frame)
        with pytest.raises(ConfigError):
            flying.compose(plan)
    assert degraded is not None
    assert degraded.startswith(said)
    assert len(error_lines) == 1
    assert error_lines[0].startswith("C7 consumer missing in flight; consumer=vpr because=")


def test_in_the_air_a_package_that_offers_nonsense_costs_no_consumer_of_others(
    tmp_path: Path, error_lines: list[str]
) -> None:
    offer(tmp_path, "nonsense = plan_consumers:OnRuntime")
    register_strategy("c2_vpr", "own", "plan_consumers:OnRuntime")
    plan = plan_of(tmp_path, '[consumers.c2_vpr]\nstrategy = "own"\n')
    with Flying(tmp_path) as flying:
        with pytest.raises(ConfigError, match="entry point 'nonsense'"):
            flying.compose(plan)
        assert type(flying.compose(plan, in_the_air=True)["c2_vpr"]).__name__ == "OnRuntime"
    assert len(error_lines) == 1
    assert error_lines[0].startswith("C7 strategies not all registered; ")


def test_in_the_air_a_lightglue_that_cannot_be_had_costs_its_users_only(tmp_path: Path, error_lines: list[str]) -> None:
    plan = plan_of(tmp_path, named("OnBoth") + named("OnClient", name="other"), flight='lightglue = "lightglue"')
    with Flying(tmp_path) as flying:
        flying.entries["lightglue"] = msgspec.structs.replace(flying.entries["lightglue"], runtime_label="tensorrt")
        built = flying.compose(plan, in_the_air=True)
        frame = Frame(1, 2, np.zeros((1, 1, 3), np.uint8))
        assert built["other"].on_frame(frame) is None
        assert "needs pre_constructed['c3_lightglue_runtime'], which is missing" in str(built["vpr"].on_frame(frame))
        with pytest.raises(EngineDeserializeError, match="compiled by tensorrt"):
            flying.compose(plan)
    assert error_lines[0].startswith("C7 LightGlue missing in flight; lightglue does not take off: ")


def test_at_takeoff_nothing_is_constructed_before_everything_was_looked_at(tmp_path: Path) -> None:
    constructed: list[str] = []
    register_strategy("c2_vpr", "own", lambda c7_inference: constructed.append("c2_vpr"))
    plan = plan_of(tmp_path, '[consumers.c2_vpr]\nstrategy = "own"\n' + named("Blind"))
    with Flying(tmp_path) as flying, pytest.raises(ConfigError, match="Blind has no method on_frame"):
        flying.compose(plan)
    assert constructed == []


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            named("OnRuntime", 'engines = { engine = "lightglue" }'),
            "[consumers.vpr] engines.engine: the generation in flight has no engine of lightglue",
        ),
        (named("OnBoth"), "[consumers.vpr] vpr needs pre_constructed['c3_lightglue_runtime'], which is missing"),
    ],
)
def test_in_the_air_a_consumer_whose_engine_the_generation_lacks_says_so_at_each_frame(
    tmp_path: Path, sections: str, said: str
) -> None:
    plan = plan_of(tmp_path, sections, flight='lightglue = "lightglue"')
    with Flying(tmp_path, models=("vpr",)) as flying:
        degraded = flying.compose(plan, in_the_air=True)["vpr"].on_frame(Frame(1, 2, np.zeros((1, 1, 3), np.uint8)))
    assert degraded is not None
    assert degraded.startswith(said)


def test_in_a_recovery_consumers_are_composed_while_their_engines_still_load(tmp_path: Path) -> None:
    fake = FakeRuntime({model: [hangs_at_load(), returns(RESULT)] for model in ("vpr", "lightglue")})
    entries = {}
    for model in fake.entries():
        (tmp_path / f"{model}.onnx").write_bytes(b"a model")
        entries[model] = fake.compile_engine(tmp_path / f"{model}.onnx", BuildConfig(precision="fp16"))
    sections = named("Asking", 'engines = { engine = "vpr" }') + named("OnBoth", name="matcher")
    sections += named("AsksAtOnce", 'engines = { engine = "vpr" }', name="hasty")
    plan = plan_of(tmp_path, sections, flight='lightglue = "lightglue"')
    with supervise(fake, entries, mode="recovery") as c7:
        built = compose_consumers(plan, entries, c7.as_runtime(), in_the_air=True)
        assert c7.readiness.undecided == {"vpr", "lightglue"}
        assert [type(each).__name__ for each in built.values()] == ["Asking", "OnBoth", "MissingConsumer"]
        frame = Frame(1, 2, np.zeros((1, 1, 3), np.uint8))
        with pytest.raises(RequestRejectedError) as refusal:
            built["vpr"].on_frame(frame)
        assert refusal.value.reason == "engine_unavailable"
        fake.release_hung()
        assert c7.readiness.wait(WAIT_S)
        assert built["vpr"].on_frame(frame) is None, "the same handle answers once its engine is back"
        said = built["hasty"].on_frame(frame)
        assert said is not None
        assert said.startswith("[consumers.hasty] cannot be constructed: vpr gave no result, engine_unavailable")
