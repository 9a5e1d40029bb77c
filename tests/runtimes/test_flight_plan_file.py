"""`flight.toml`: read whole, or refused with the file, the table and the key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messages import ConfigError
from runtimes.flight_plan import FlightPlan
from runtimes.flight_plan_file import FLIGHT_PLAN_MAX_BYTES, read_flight_plan

PLAN = """
[flight]
name = "survey"

[runtime]
runtime = "onnx_trt_ep"
provider = "cpu"

[models.ultravpr]
source = "models/ultravpr.onnx"
precision = "fp32"
deadline_ms = 200
consumers = ["place_recognition"]

[models.ultravpr.profiles.image]
min = [1, 3, 224, 224]
opt = [1, 3, 224, 224]
max = [4, 3, 224, 224]

[thermal]
source = "replay"
trace = "heat.jsonl"

[frames]
source = "survey.camera:Camera"
options = { device = "/dev/video0", exposure_ms = 2.5, grey = false }

[consumers.place_recognition]
class = "survey.vpr:PlaceRecognition"
"""


CLASS = 'class = "survey.vpr:PlaceRecognition"\n'


def read(tmp_path: Path, text: str) -> FlightPlan:
    path = tmp_path / "flight.toml"
    path.write_text(text)
    return read_flight_plan(path)


def test_a_whole_plan_is_read_with_its_paths_from_its_own_folder(tmp_path: Path) -> None:
    plan = read(tmp_path, PLAN)
    model = plan.models["ultravpr"]
    assert model.source == tmp_path / "models" / "ultravpr.onnx"
    assert model.deadline_ms == 200.0
    assert model.build_config().optimization_profiles == (
        ("image", (1, 3, 224, 224), (1, 3, 224, 224), (4, 3, 224, 224)),
    )
    assert (plan.flight.store, plan.flight.state) == (tmp_path / "engines", tmp_path / "state")
    assert plan.thermal.trace == tmp_path / "heat.jsonl"
    assert plan.consumers["place_recognition"].factory == "survey.vpr:PlaceRecognition"
    assert plan.frames is not None
    assert plan.frames.options == {"device": "/dev/video0", "exposure_ms": 2.5, "grey": False}


def test_a_consumer_is_a_class_or_a_strategy_with_its_engines_and_its_deadline(tmp_path: Path) -> None:
    plan = read(
        tmp_path,
        PLAN.replace('name = "survey"', 'name = "survey"\nlightglue = "ultravpr"')
        + '[consumers.c2_vpr]\nstrategy = "ultra_vpr"\nengines = { engine = "ultravpr" }\nwithin_ms = 90\n',
    )
    assert plan.flight.lightglue == "ultravpr"
    by_class, by_strategy = plan.consumers.values()
    assert (by_class.factory, by_class.strategy) == ("survey.vpr:PlaceRecognition", None)
    assert (by_class.engines, by_class.within_ms) == ({}, None)
    assert (by_strategy.factory, by_strategy.strategy) == (None, "ultra_vpr")
    assert (by_strategy.engines, by_strategy.within_ms) == ({"engine": "ultravpr"}, 90.0)


def test_paths_are_absolute_though_the_plan_is_named_relatively(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flight.toml").write_text(PLAN)
    monkeypatch.chdir(tmp_path)
    assert read_flight_plan(Path("flight.toml")).flight.store == tmp_path / "engines"


def test_an_absolute_path_stays(tmp_path: Path) -> None:
    plan = read(tmp_path, PLAN.replace('"models/ultravpr.onnx"', '"/models/ultravpr.onnx"'))
    assert plan.models["ultravpr"].source == Path("/models/ultravpr.onnx")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("deadline_ms = 200", 'deadline_ms = "soon"', r"[models.ultravpr] deadline_ms: expected float, got str"),
        ("deadline_ms = 200", "deadline_ms = -1", r"[models.ultravpr] deadline_ms: expected float > 0.0, got -1"),
        ("deadline_ms = 200", "deadline_ms = nan", r"[models.ultravpr] deadline_ms: expected float > 0.0, got nan"),
        ("deadline_ms = 200", "", r"[models.ultravpr] deadline_ms: missing key"),
        ("deadline_ms = 200", "deadline = 200", r"[models.ultravpr] deadline: unknown key; expected source, precision"),
        ('"fp32"', '"fp8"', r"[models.ultravpr] precision: expected fp16, int8, mixed, fp32, got 'fp8'"),
        ('"fp32"', '"int8"', r"[models.ultravpr] calibration_dataset: missing"),
        (
            'precision = "fp32"',
            'precision = "fp32"\ncalibration_dataset = "set"',
            "[models.ultravpr] calibration_dataset: expected none, because onnx_trt_ep calibrates nothing for",
        ),
        ('"models/ultravpr.onnx"', "7", r"[models.ultravpr] source: expected a path, got 7"),
        ('"models/ultravpr.onnx"', '""', r"[models.ultravpr] source: expected a path, got ''"),
        ('["place_recognition"]', '["matcher"]', r"expected names of [consumers] (place_recognition), got 'matcher'"),
        ('["place_recognition"]', "[3]", r"[models.ultravpr] consumers[0]: expected str, got int"),
        ("[models.ultravpr]", '[models."ultra/vpr"]', r'[models."ultra/vpr"] expected a model name'),
        ("min = [1, 3, 224, 224]", "min = [1, 3]", r"[models.ultravpr.profiles.image] expected shapes of one rank"),
        ("min = [1, 3, 224, 224]", "min = [9, 3, 224, 224]", r"min <= opt <= max in every dimension, got min [9, 3"),
        ("min = [1, 3, 224, 224]", "", r"[models.ultravpr.profiles.image] min: missing key"),
        ("min = [1, 3, 224, 224]", 'min = [1, "x"]', r"[models.ultravpr.profiles.image] min[1]: expected int, got str"),
        ('provider = "cpu"', "", r"[runtime] provider: runtime onnx_trt_ep has no default provider"),
        ('provider = "cpu"', 'provider = "gpu"', r"[runtime] provider: expected tensorrt, cuda, cpu, got 'gpu'"),
        ('provider = "cpu"', 'provider = "cpu"\nthreads = 0', r"[runtime] threads: expected int >= 1, got 0"),
        ('provider = "cpu"', 'provider = "cpu"\nengine_dir = "e"', r"[runtime] engine_dir: expected none"),
        ('trace = "heat.jsonl"', "", r"[thermal] trace: missing"),
        ('source = "replay"', 'source = "auto"', r'[thermal] trace: expected none with source = "auto"'),
        ("[thermal]", "[thermals]", r"[thermals]: unknown table or key; expected consumers, flight, frames"),
        ("2.5", "[2.5]", r"[frames] options.exposure_ms: expected a text, number or boolean, got [2.5]"),
        ('"survey.camera:Camera"', '"camera.py"', r"[frames] source: expected str matching regex"),
        (
            'class = "survey.vpr:PlaceRecognition"',
            "",
            '[consumers.place_recognition] expected either class = "module:Class" or strategy = "NAME" of a registered'
            " one, found neither",
        ),
        (CLASS, CLASS + 'strategy = "own"\n', r"[consumers.place_recognition] expected either class"),
        (CLASS, 'strategy = ""\n', r"[consumers.place_recognition] strategy: expected str of length >= 1"),
        (CLASS, 'class = "vpr.py"\n', r"[consumers.place_recognition] class: expected str matching regex"),
        (
            CLASS,
            CLASS + 'engines = { engine = "vpr" }\n',
            "[consumers.place_recognition] engines.engine: expected the name of a model of [models] (ultravpr),"
            " got 'vpr'",
        ),
        (CLASS, CLASS + "engines = { engine = 3 }\n", r"engines.engine: expected the name of a model of [models]"),
        (CLASS, CLASS + "engines = { engine = [] }\n", r"engines.engine: expected the name of a model of [models]"),
        (CLASS, CLASS + "engines = 3\n", r"[consumers.place_recognition.engines] expected a table, got 3"),
        (CLASS, CLASS + 'engines = { "" = "ultravpr" }\n', r"[consumers.place_recognition] engines"),
        (
            CLASS,
            CLASS + 'engines = { engine = "ultravpr" }\noptions = { engine = "x" }\n',
            "[consumers.place_recognition] engine: expected in engines or in options, found in both",
        ),
        (CLASS, CLASS + "within_ms = 0\n", r"[consumers.place_recognition] within_ms: expected float > 0.0, got 0"),
        (CLASS, CLASS + "within_ms = 1e6\n", r"[consumers.place_recognition] within_ms: expected float <= 60000"),
        (
            'name = "survey"',
            'name = "survey"\nlightglue = "glue"',
            "[flight] lightglue: expected the name of a model of [models] (ultravpr), got 'glue'",
        ),
        ("[flight]", "[runway]", r"[runway]: unknown table or key"),
        ('name = "survey"', 'name = "a/b"', r"[flight] name: expected str matching regex"),
        ('name = "survey"', r'name = "a\n"', r"[flight] name: expected str matching regex"),
        ('[flight]\nname = "survey"', "", r"[flight] missing table"),
        ('name = "survey"', "name = survey", r"not TOML: Invalid value (at line 3"),
        ("[thermal]", "[flight]", r"declare ('flight',) twice (at line"),
    ],
)
def test_a_mistake_is_named_by_its_table_and_key(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in PLAN
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, PLAN.replace(old, new, 1))
    assert "flight.toml: " in str(refused.value)
    assert expected in str(refused.value)


def test_the_second_of_two_models_is_the_one_that_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[models\.matcher\] deadline_ms"):
        read(tmp_path, PLAN + '[models.matcher]\nsource = "m.onnx"\ndeadline_ms = "x"\n')


@pytest.mark.parametrize(
    "text", ["", "models = 3\n[flight]\nname='a'\n[runtime]\n", "[flight]\nname='a'\n[runtime]\n[models]\n"]
)
def test_a_plan_without_models_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"flight\.toml"):
        read(tmp_path, text)


def test_a_plan_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"flight\.toml: the flight plan cannot be read: No such file"):
        read_flight_plan(tmp_path / "flight.toml")
    with pytest.raises(ConfigError, match="found a folder"):
        read_flight_plan(tmp_path)
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(ConfigError, match="found a named pipe"):
        read_flight_plan(tmp_path / "pipe.toml")


def test_a_plan_that_is_no_text_or_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "flight.toml"
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="expected UTF-8 text, found byte 0xff"):
        read_flight_plan(path)
    path.write_bytes(b"#" * (FLIGHT_PLAN_MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="expected at most"):
        read_flight_plan(path)


def test_a_plan_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not TOML"):
        read(tmp_path, "x = " + "[" * 100_000)


TABLES = st.sampled_from(["flight", "runtime", "models", "models.vpr", "thermal", "frames", "consumers.a", '"é"'])
VALUES = st.sampled_from(
    ["1", "-1", "1.5", "nan", "true", '""', '"x"', "[]", "[1]", "{}", "{x=1}", "1979-05-27", "07:32:00"]
)
KEYS = st.sampled_from(
    [
        "name",
        "source",
        "runtime",
        "provider",
        "deadline_ms",
        "precision",
        "profiles",
        "options",
        "class",
        "strategy",
        "engines",
        "within_ms",
        "lightglue",
        "consumers",
        "x",
    ]
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TABLES, st.dictionaries(KEYS, VALUES, max_size=4)), max_size=6))
def test_any_toml_is_a_plan_or_refused_by_its_name(tmp_path: Path, tables: list[tuple[str, dict[str, str]]]) -> None:
    text = "\n".join(f"[{table}]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()) for table, keys in tables)
    try:
        read(tmp_path, text)
    except ConfigError as error:
        assert "flight.toml: " in str(error)  # noqa: PT017
