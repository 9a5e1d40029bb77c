"""The rehearsal of a takeoff: what is measured, what is held against it, and a table that shows why."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from actors.flight.preflight import (
    RUNS_FOR_P99,
    RUNS_MAX,
    RUNS_MIN,
    EngineRehearsal,
    Verdict,
    judge_rehearsal,
    measured_enough,
    nearest_rank,
    rehearse,
)
from actors.flight.preflight_table import print_verdict
from messages import NS_PER_S, EngineDeserializeError, InferenceError, TensorSpec, VirtualClock
from runtimes import FakeRuntime, FlightPlan, fails_to_load, raises, read_flight_plan, returns, takes_ms
from runtimes.available_memory import AvailableMemory
from runtimes.fake_steps import Step
from runtimes.measurements import MemoryUse
from runtimes.memory_budget import MIB, MemoryBudget, plan_memory

RESULT = {"y": np.zeros(1, np.float32)}
PLENTY = plan_memory([], AvailableMemory(host_bytes=1024 * MIB), reserve_mb=256)
LONG_NAME = "c2_5_reranker_of_the_second_generation"


def engine(model: str = "vpr", p99_run_ms: float = 10.0, **changes: Any) -> EngineRehearsal:
    fields: dict[str, Any] = {
        "self_test": "passed",
        "inputs": "samples",
        "first_run_ms": 50.0,
        "median_run_ms": p99_run_ms,
        "runs": 200,
        "calls_per_frame": 1.0,
        "deadline_ms": 100.0,
    }
    return EngineRehearsal(model=model, p99_run_ms=p99_run_ms, **{**fields, **changes})


def judged(*engines: EngineRehearsal, period_ms: float = 100.0, memory: MemoryBudget = PLENTY) -> Verdict:
    return judge_rehearsal(engines, period_ms, memory)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=300), st.floats(0.001, 1.0))
def test_nearest_rank_is_the_smallest_value_that_the_share_does_not_exceed(values: list[int], share: float) -> None:
    found = nearest_rank(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) < share * len(values) + 1e-6


@pytest.mark.parametrize(("runs", "p99"), [(1, 1), (20, 20), (100, 99), (101, 100), (200, 198)])
def test_the_p99_of_enough_runs_leaves_the_slowest_out(runs: int, p99: int) -> None:
    assert nearest_rank(range(1, runs + 1), 0.99) == p99


def test_the_slowest_run_is_the_p99_of_exactly_those_numbers_of_runs_that_the_note_names() -> None:
    for runs in range(1, RUNS_MAX + 1):
        assert (nearest_rank(range(runs), 0.99) == runs - 1) is (runs < RUNS_FOR_P99)


@pytest.mark.parametrize(
    ("runs", "elapsed_s", "enough"),
    [
        (-1, 0, False),
        (RUNS_MIN - 1, 3600, False),
        (RUNS_MIN, 4.9, False),
        (RUNS_MIN, 5, True),
        (RUNS_MAX - 1, 4.9, False),
        (RUNS_MAX, 0, True),
    ],
)
def test_there_are_runs_for_a_p99_or_as_many_as_there_is_time_for(runs: int, elapsed_s: float, enough: bool) -> None:
    assert measured_enough(runs, round(elapsed_s * NS_PER_S)) is enough


def test_what_fits_the_frame_to_the_last_millisecond_is_a_go() -> None:
    verdict = judged(engine("a", 40.0), engine("b", 6.0, calls_per_frame=10))
    assert verdict.go
    assert verdict.frame_ms == 100.0
    assert verdict.problems == ()


def test_all_calls_of_a_frame_are_held_against_its_period_and_the_largest_part_is_named() -> None:
    verdict = judged(engine("a", 40.0), engine("b", 6.1, calls_per_frame=10))
    assert not verdict.go
    [problem] = verdict.problems
    assert problem == (
        "one frame's calls take 101.0 ms, the frame's period is 100.0 ms; b takes most of it: 10 calls of 6.1 ms"
    )


def test_a_run_is_held_against_its_deadline() -> None:
    verdict = judged(engine("a", 12.5, deadline_ms=12), period_ms=math.inf)
    assert verdict.problems == ("a: a run takes 12.5 ms (p99 of 200), its deadline is 12 ms",)


def test_without_frames_there_is_no_period_to_hold_calls_against() -> None:
    assert judged(engine("a", 90.0, calls_per_frame=1000), period_ms=math.inf).go


def test_memory_that_does_not_last_is_a_no_go_by_itself() -> None:
    entry = FakeRuntime({"vpr": [returns({})]}).entry("vpr")
    short = plan_memory([entry], AvailableMemory(host_bytes=1), reserve_mb=1)
    verdict = judged(memory=short)
    assert not verdict.go
    assert "memory_reserve_mb" in verdict.problems[0]


@given(st.lists(st.tuples(st.floats(0, 200), st.floats(0, 20), st.floats(1, 200)), min_size=1, max_size=6))
def test_a_go_means_that_every_figure_is_within_its_bound(rows: list[tuple[float, float, float]]) -> None:
    engines = [
        engine(f"m{index}", p99, calls_per_frame=calls, deadline_ms=deadline)
        for index, (p99, calls, deadline) in enumerate(rows)
    ]
    within = all(p99 <= deadline for p99, _, deadline in rows) and sum(p99 * calls for p99, calls, _ in rows) <= 100.0
    assert judged(*engines).go is within


class Camera:
    """Constructed, and never read."""

    def read(self, frame_id: int) -> np.ndarray:
        raise AssertionError(f"a rehearsal reads no frame, not {frame_id}")


def plan_for(
    folder: Path, *models: str, rate_hz: float | None = None, samples: str = "", deadline_ms: float = 100.0
) -> FlightPlan:
    text = '[flight]\nname = "test"\n[runtime]\nruntime = "onnx_trt_ep"\nprovider = "cpu"\n'
    for index, model in enumerate(models):
        text += f'[models.{model}]\nsource = "{model}.onnx"\nprecision = "fp32"\ndeadline_ms = {deadline_ms}\n'
        text += f"priority = {len(models) - index}\n" + samples
    if rate_hz is not None:
        text += f'[frames]\nsource = "{__name__}:Camera"\nrate_hz = {rate_hz}\n'
    (folder / "flight.toml").write_text(text)
    return read_flight_plan(folder / "flight.toml")


def rehearsed(
    plan: FlightPlan, scripts: dict[str, Sequence[Step]], inputs: dict[str, dict[str, TensorSpec]] | None = None
) -> tuple[Verdict, FakeRuntime]:
    """On a clock that only the scripted runs move."""
    clock = VirtualClock()
    fake = FakeRuntime(scripts, inputs=inputs, clock=clock)
    return rehearse(plan, fake, fake.entries(), PLENTY, clock), fake


def test_the_first_run_is_kept_apart_and_the_rest_is_measured(tmp_path: Path) -> None:
    steps = [takes_ms(900, returns(RESULT)), takes_ms(50, returns(RESULT)), takes_ms(3, returns(RESULT))]
    verdict, fake = rehearsed(plan_for(tmp_path, "vpr", rate_hz=10.0), {"vpr": steps})
    [row] = verdict.engines
    assert (row.first_run_ms, row.median_run_ms, row.p99_run_ms, row.runs) == (900.0, 3.0, 3.0, RUNS_MAX)
    assert len(fake.calls) == RUNS_MAX + 1
    assert verdict.go
    assert verdict.frame_period_ms == 100.0
    assert fake.loaded == ()


def test_a_first_run_that_takes_long_costs_no_measured_run(tmp_path: Path) -> None:
    steps = [takes_ms(30_000, returns(RESULT)), takes_ms(3, returns(RESULT))]
    verdict, _ = rehearsed(plan_for(tmp_path, "vpr"), {"vpr": steps})
    assert [(row.first_run_ms, row.runs) for row in verdict.engines] == [(30_000.0, RUNS_MAX)]


def test_a_slow_engine_makes_fewer_runs_and_says_how_many(tmp_path: Path) -> None:
    verdict, _ = rehearsed(plan_for(tmp_path, "vpr", deadline_ms=1000), {"vpr": [takes_ms(500, returns(RESULT))]})
    [row] = verdict.engines
    assert row.runs == RUNS_MIN
    assert verdict.go
    assert "of fewer than 100 runs p99 is the slowest one: vpr" in printed(verdict, 80)


def test_engines_are_rehearsed_in_the_order_of_loading(tmp_path: Path) -> None:
    scripts: dict[str, Sequence[Step]] = {name: [returns(RESULT)] for name in ("later", "urgent")}
    verdict, _ = rehearsed(plan_for(tmp_path, "later", "urgent"), scripts)
    assert [row.model for row in verdict.engines] == ["urgent", "later"]


def test_an_engine_that_refuses_its_input_is_a_no_go_with_its_reason(tmp_path: Path) -> None:
    verdict, _ = rehearsed(plan_for(tmp_path, "vpr"), {"vpr": [raises(InferenceError("error 716"))]})
    assert not verdict.go
    [problem] = verdict.problems
    assert problem.startswith("vpr: rejected its rehearsal input: inference_error")
    assert "716" in problem


def test_an_engine_that_does_not_load_is_a_no_go_with_its_reason(tmp_path: Path) -> None:
    script = [fails_to_load(EngineDeserializeError("content altered"))]
    verdict, _ = rehearsed(plan_for(tmp_path, "vpr"), {"vpr": script})
    assert not verdict.go
    assert verdict.engines == ()
    assert "vpr" in verdict.problems[0]
    assert "content altered" in verdict.problems[0]


def test_memory_that_does_not_last_loads_nothing(tmp_path: Path) -> None:
    fake = FakeRuntime({"vpr": [returns(RESULT)]})
    short = plan_memory([fake.entry("vpr")], AvailableMemory(host_bytes=1), reserve_mb=1)
    verdict = rehearse(plan_for(tmp_path, "vpr"), fake, fake.entries(), short)
    assert not verdict.go
    assert fake.loads("vpr") == 0


def with_samples(folder: Path, shapes: Sequence[tuple[int, ...]]) -> None:
    (folder / "samples").mkdir()
    for index, shape in enumerate(shapes):
        np.savez(folder / "samples" / f"{index}.npz", x=np.zeros(shape, np.float32))


INPUTS = {"vpr": {"x": TensorSpec((-1, 2), "float32")}}


def test_the_plans_samples_are_run_one_after_the_other_and_again(tmp_path: Path) -> None:
    with_samples(tmp_path, [(1, 2), (3, 2), (2, 2)])
    plan = plan_for(tmp_path, "vpr", samples='samples = "samples"\n')
    verdict, fake = rehearsed(plan, {"vpr": [returns(RESULT)]}, INPUTS)
    assert verdict.go
    assert verdict.engines[0].inputs == "samples"
    assert [call.inputs["x"].shape[0] for call in fake.calls[:7]] == [1, 3, 2, 1, 3, 2, 1]


def test_samples_that_do_not_fit_the_engine_are_a_no_go(tmp_path: Path) -> None:
    with_samples(tmp_path, [(1, 2), (1, 5)])
    plan = plan_for(tmp_path, "vpr", samples='samples = "samples"\n')
    verdict, _ = rehearsed(plan, {"vpr": [returns(RESULT)]}, INPUTS)
    assert not verdict.go
    assert "invalid_input" in verdict.problems[0]


def test_samples_that_are_no_samples_are_a_no_go_by_their_name(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    plan = plan_for(tmp_path, "vpr", samples='samples = "samples"\n')
    verdict, _ = rehearsed(plan, {"vpr": [returns(RESULT)]}, INPUTS)
    assert not verdict.go
    assert "expected .npz files in the folder" in verdict.problems[0]


def test_where_the_samples_are_not_on_the_aircraft_inputs_are_made_up_and_it_is_said(tmp_path: Path) -> None:
    plan = plan_for(tmp_path, "vpr", samples='samples = "samples"\n')
    verdict, _ = rehearsed(plan, {"vpr": [returns(RESULT)]}, {"vpr": {"x": TensorSpec((1, 2), "float32")}})
    assert verdict.engines[0].inputs == "made up"
    assert "timed on made-up inputs, for want of samples: vpr" in printed(verdict, 80)


def test_inputs_that_cannot_be_made_up_are_a_no_go_that_names_the_table(tmp_path: Path) -> None:
    verdict, _ = rehearsed(plan_for(tmp_path, "vpr"), {"vpr": [returns(RESULT)]}, INPUTS)
    assert not verdict.go
    assert "[models.vpr.profiles.x]" in verdict.problems[0]


def printed(verdict: Verdict, width: int) -> str:
    sink = io.StringIO()
    print_verdict(verdict, Console(file=sink, width=width))
    return sink.getvalue()


def a_full_verdict(gpu: bool) -> Verdict:
    names = ("backbone", LONG_NAME, "r[ed]")
    fake = FakeRuntime({name: [returns({})] for name in names})
    use = MemoryUse(
        load_bytes=1234 * MIB, run_bytes=987 * MIB, device_load_bytes=2345 * MIB, device_run_bytes=1111 * MIB
    )
    entries = [msgspec.structs.replace(fake.entry(name), memory=use if gpu else None) for name in names]
    available = AvailableMemory(host_bytes=7620 * MIB, device_bytes=9000 * MIB if gpu else None)
    memory = plan_memory(entries, available, reserve_mb=256)
    rows = [
        engine(name, 119.96, first_run_ms=23456.7, deadline_ms=60000, calls_per_frame=13, self_test="none", runs=20)
        for name in names
    ]
    return judge_rehearsal(rows, 333.3, memory)


@pytest.mark.parametrize("gpu", [False, True], ids=["one memory", "discrete gpu"])
@pytest.mark.parametrize("width", [80, 140])
def test_every_figure_and_reason_is_readable_on_a_terminal(width: int, gpu: bool) -> None:
    verdict = a_full_verdict(gpu)
    text = printed(verdict, width)
    rows = text.splitlines()
    assert all(len(line.rstrip()) <= width for line in rows if not line.startswith("NO-GO"))
    assert "…" not in text
    assert (LONG_NAME if width == 140 else LONG_NAME[:8]) in text
    for figure in ("23456.7", "120.0", "60000", "13", "1559.5", "468 %", "20"):
        assert figure in text, figure
    assert "r[ed]" in text
    assert text.count("NO-GO  ") == len(verdict.problems) > 0
    assert "one frame: 4678.4 ms of the period of 333.3 ms (1404 %)" in text
    assert ("10368.0" in text) is gpu, "the device's part after the third engine"


def test_a_go_ends_with_the_word() -> None:
    assert printed(judged(engine()), 80).rstrip().endswith("GO")
    assert "the plan has no [frames], so there is no period" in printed(judged(engine(), period_ms=math.inf), 120)


def test_the_verdict_in_json_is_the_same_as_on_the_screen() -> None:
    verdict = a_full_verdict(gpu=True)
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict
    endless = msgspec.json.decode(msgspec.json.encode(judged(engine(), period_ms=math.inf)))
    assert endless["frame_period_ms"] is None


def test_a_reason_keeps_its_lines_and_does_not_steer_the_terminal() -> None:
    verdict = msgspec.structs.replace(judged(engine()), go=False, problems=("engine [red]\x1b[2K\u202e\nhas a table",))
    assert "NO-GO  engine [red]\\x1b[2K\\u202e\nhas a table" in printed(verdict, 80)
