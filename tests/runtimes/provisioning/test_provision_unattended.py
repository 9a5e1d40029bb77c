"""`c7 provision` as a process whose terminal is closed, whose reader goes away, or which is killed at work."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from runtimes.store.engine_store import EngineStore

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

C7 = [sys.executable, "-m", "actors"]
IN_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
ENDS_WITHIN_S = 240


SavePlan = Callable[..., Path]


@pytest.fixture
def save_plan(tmp_path: Path) -> SavePlan:
    return lambda *names: plan_in(tmp_path, names)


def plan_in(folder: Path, names: tuple[str, ...]) -> Path:
    """Real models, each of which takes a child process of its own to compile."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    text = '[flight]\nname = "survey"\n[runtime]\nruntime = "onnx_trt_ep"\nprovider = "cpu"\n'
    for seed, name in enumerate(names):
        weight = np.random.default_rng(seed).normal(size=(4, 4)).astype(np.float32)
        values = [helper.make_tensor_value_info(tensor, kind, [1, 4]) for tensor in "xy"]
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        graph = helper.make_graph([node], "graph", values[:1], values[1:], [onnx.numpy_helper.from_array(weight, "w")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, folder / f"{name}.onnx")
        text += f'[models.{name}]\nsource = "{name}.onnx"\nprecision = "fp32"\ndeadline_ms = 50\n'
    path = folder / "flight.toml"
    path.write_text(text)
    return path


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm"}


def models_of(plan: Path) -> set[str]:
    generation = EngineStore(plan.parent / "engines").current()
    return set() if generation is None else set(generation.entries)


def test_a_terminal_that_is_closed_while_a_model_compiles_does_not_end_the_run(save_plan: SavePlan) -> None:
    plan = save_plan("vpr")
    master, slave = pty.openpty()
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-c", IN_A_TERMINAL, *C7, "provision", str(plan)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env=environment(),
    )
    os.close(slave)
    shown = b""
    while b"vpr: compiling" not in shown:
        shown += os.read(master, 4096)
    os.close(master)  # the kernel hangs up on the whole foreground group
    assert process.wait(ENDS_WITHIN_S) == 0
    assert models_of(plan) == {"vpr"}


def test_a_reader_that_goes_away_does_not_end_the_run(save_plan: SavePlan) -> None:
    plan = save_plan("vpr")
    process = subprocess.Popen(  # noqa: S603 - our own command
        [*C7, "provision", str(plan)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "vpr: compile: no engine yet\n"
    process.stdout.close()
    with process.stderr as stderr:
        assert stderr.read() == ""
    assert process.wait(ENDS_WITHIN_S) == 0
    assert models_of(plan) == {"vpr"}


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.chaos)])
def test_a_run_that_is_ended_at_its_second_model_is_taken_up_there(save_plan: SavePlan, number: signal.Signals) -> None:
    plan = save_plan("vpr", "matcher")
    process = subprocess.Popen(  # noqa: S603 - our own command
        [*C7, "provision", str(plan)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()
    )
    assert process.stdout is not None
    with process.stdout as stdout:
        for line in stdout:
            if line.startswith("matcher: compiling"):
                break
        process.send_signal(number)
        assert process.wait(ENDS_WITHIN_S) != 0
    assert models_of(plan) == set()
    again = subprocess.run(  # noqa: S603 - our own command
        [*C7, "provision", str(plan)], capture_output=True, text=True, env=environment(), check=True
    )
    assert "vpr: reuse: finished by an interrupted run" in again.stdout
    assert "vpr: compiling" not in again.stdout
    assert models_of(plan) == {"vpr", "matcher"}


@pytest.mark.chaos
def test_a_second_run_waits_for_the_first_and_finds_it_all_done(save_plan: SavePlan) -> None:
    plan = save_plan("vpr")
    first, second = (
        subprocess.Popen(  # noqa: S603 - our own command
            [*C7, "provision", str(plan)], stdout=subprocess.PIPE, text=True, env=environment()
        )
        for _ in range(2)
    )
    answers = [first.communicate(timeout=ENDS_WITHIN_S)[0], second.communicate(timeout=ENDS_WITHIN_S)[0]]
    assert [first.returncode, second.returncode] == [0, 0]
    assert sorted("the store is up to date: generation 1" in answer for answer in answers) == [False, True]
    assert EngineStore(plan.parent / "engines").numbers() == [1]
