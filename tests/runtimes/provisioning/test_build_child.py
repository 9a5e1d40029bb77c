"""The child process of a build: its crash, hang or chatter never reaches the provisioner, its last words do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from messages import CalibrationCacheError, EngineBuildError, RuntimeNotAvailableError
from runtimes.config import C7InferenceConfig
from runtimes.host import detect_host
from runtimes.inference_runtime import BuildConfig
from runtimes.provisioning import build_one
from runtimes.provisioning.build_child import build_engine, probe_runtime, run_request
from runtimes.provisioning.build_request import (
    ANSWER_MAX_BYTES,
    BuildEngine,
    EngineBuilt,
    ProbeRuntime,
    RequestFailed,
    RuntimeProbed,
    decode_answer,
    decode_request,
    encode,
)

CONFIG = C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu", engine_dir=Path("/store"))
REQUEST = BuildEngine(
    config=CONFIG,
    model="vpr",
    source=Path("/models/vpr.onnx"),
    source_sha256="a" * 64,
    build_config=BuildConfig(precision="fp32", optimization_profiles=(("x", (1,), (2,), (3,)),)),
    directory=Path("/store/generation"),
    scratch=Path("/store/scratch"),
)
PRELUDE = """
import os, signal, sys, time
from runtimes.provisioning.build_request import EngineBuilt, RequestFailed, decode_request, encode
def answer(document):
    os.write(int(sys.argv[-2]), encode(document))
"""


def child(program: str) -> list[str]:
    return [sys.executable, "-c", PRELUDE + textwrap.dedent(program)]


@pytest.mark.parametrize("request_", [REQUEST, ProbeRuntime(CONFIG)])
def test_a_request_survives_the_way_to_the_child(request_: BuildEngine | ProbeRuntime) -> None:
    assert decode_request(encode(request_)) == request_


@pytest.mark.parametrize(
    "answer",
    [EngineBuilt("vpr.engine"), RuntimeProbed("tensorrt", detect_host("1")), RequestFailed("ConfigError", "no")],
)
def test_an_answer_survives_the_way_back(answer: EngineBuilt | RuntimeProbed | RequestFailed) -> None:
    assert decode_answer(encode(answer)) == answer


def test_the_child_reads_its_request_and_answers_beside_all_that_it_prints() -> None:
    command = child("""
        request = decode_request(sys.stdin.buffer.read())
        print("noise on stdout " * 100_000)
        print("noise on stderr", file=sys.stderr)
        answer(EngineBuilt(request.model + ".engine"))
    """)
    assert build_engine(REQUEST, command=command) == EngineBuilt("vpr.engine")


def test_a_typed_error_of_the_child_is_raised_here() -> None:
    command = child("answer(RequestFailed('CalibrationCacheError', 'another dataset')); sys.exit(1)")
    with pytest.raises(CalibrationCacheError, match="another dataset"):
        build_engine(REQUEST, command=command)


def test_a_traceback_of_the_child_becomes_its_last_words() -> None:
    command = child("raise ValueError('the compiler is confused')")
    with pytest.raises(EngineBuildError, match=r"vpr: the build ended with exit code 1.*the compiler is confused"):
        build_engine(REQUEST, command=command)


@pytest.mark.parametrize(("name", "hint"), [("SIGKILL", "memory"), ("SIGSEGV", "")])
def test_a_crash_is_named_by_its_signal(name: str, hint: str) -> None:
    command = child(f"os.kill(os.getpid(), signal.{name})")
    with pytest.raises(EngineBuildError, match=f"vpr: the build was killed by {name}.*{hint}.*printed nothing"):
        build_engine(REQUEST, command=command)


def test_only_the_end_of_endless_output_is_kept_and_no_control_characters() -> None:
    command = child(r"""
        for line in range(200_000): print("line", line)
        print("\x1b[31mred\x07 end", flush=True)
        sys.exit(3)
    """)
    with pytest.raises(EngineBuildError) as refused:
        build_engine(REQUEST, command=command)
    text = str(refused.value)
    assert text.endswith("[31mred end")
    assert text.isprintable()
    assert len(text) < 700


def test_a_build_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    command = child("print('still thinking', flush=True); time.sleep(3600)")
    with pytest.raises(EngineBuildError, match=r"stopped after 1 s"):
        build_engine(REQUEST, command=command, timeout_s=1)


def test_what_a_child_leaves_behind_does_not_keep_the_provisioner() -> None:
    command = child("""
        answer(EngineBuilt("vpr.engine"))
        if os.fork() == 0:
            time.sleep(60)
    """)
    assert build_engine(REQUEST, command=command, timeout_s=50) == EngineBuilt("vpr.engine")


@pytest.mark.parametrize("parent_ends", [True, False], ids=["after an answer", "with a timeout"])
def test_what_a_child_started_ends_with_it(tmp_path: Path, parent_ends: bool) -> None:
    """A pipe that only the grandchild holds: it is at its end once the grandchild has ended."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    command = child(f"""
        pipe = os.open({str(pipe)!r}, os.O_WRONLY)
        if os.fork() == 0:
            os.write(pipe, b"begun")
            time.sleep(600)
        os.close(pipe)
        if {parent_ends}:
            answer(EngineBuilt("vpr.engine"))
        else:
            time.sleep(600)
    """)
    if parent_ends:
        build_engine(REQUEST, command=command)
    else:
        with pytest.raises(EngineBuildError, match="stopped after 3 s"):
            build_engine(REQUEST, command=command, timeout_s=3)
    os.set_blocking(reader, True)
    with os.fdopen(reader, "rb") as held:
        assert held.read() in (b"begun", b"")


def test_a_chatty_process_that_left_the_childs_group_does_not_keep_the_provisioner(tmp_path: Path) -> None:
    command = child("""
        if os.fork() == 0:
            os.setsid()
            try:
                while True:
                    os.write(1, b"still here")
            finally:
                os._exit(0)
        answer(EngineBuilt("vpr.engine"))
    """)
    assert build_engine(REQUEST, command=command, timeout_s=50) == EngineBuilt("vpr.engine")


def test_an_interrupted_build_has_ended_when_the_interrupt_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Popen would give it a quarter of a second: here none at all."""
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))
        started[0]._sigint_wait_secs = 0  # type: ignore[attr-defined]
        return started[0]

    def interrupt(_: int, __: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(KeyboardInterrupt):
        build_engine(REQUEST, command=child("time.sleep(600)"), heartbeat=interrupt)
    assert started[0].returncode == -signal.SIGKILL


def test_what_a_killed_child_had_in_its_temporary_folder_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    command = child("""
        import tempfile
        folder = tempfile.mkdtemp()
        open(os.path.join(folder, "model.onnx"), "w").write("half")
        print("I work in", folder, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    with pytest.raises(EngineBuildError, match=rf"killed by SIGKILL.*I work in {re.escape(str(tmp_path))}/c7-build-"):
        build_engine(REQUEST, command=command)
    assert [*tmp_path.iterdir()] == []


def test_a_garbled_answer_is_refused() -> None:
    with pytest.raises(EngineBuildError, match="garbled"):
        build_engine(REQUEST, command=child("os.write(int(sys.argv[-2]), b'{\"type\": ')"))


def test_an_answer_to_another_question_is_refused() -> None:
    with pytest.raises(EngineBuildError, match="expected its label, got EngineBuilt"):
        probe_runtime(CONFIG, command=child("answer(EngineBuilt('x'))"))


def test_a_long_build_has_a_heartbeat() -> None:
    beats: list[tuple[int, str]] = []
    command = child("""
        import select
        select.select([], [], [], 1.2)
        answer(EngineBuilt('x'))
    """)
    build_engine(REQUEST, command=command, heartbeat=lambda *beat: beats.append(beat))
    assert beats
    assert all(elapsed_ns >= 1_000_000_000 and phase == "" for elapsed_ns, phase in beats)


def test_a_heartbeat_says_how_far_the_library_is() -> None:
    beats: list[str] = []
    command = child("""
        import select
        from runtimes.provisioning.answer_stream import AnswerPipe
        pipe = AnswerPipe(int(sys.argv[-2]))
        pipe.tell("Building Engine 1/4")
        select.select([], [], [], 1.2)
        pipe.tell("Building Engine 2/4")
        select.select([], [], [], 1.2)
        pipe.answer(EngineBuilt('x'))
    """)
    assert build_engine(REQUEST, command=command, heartbeat=lambda _, phase: beats.append(phase)) == EngineBuilt("x")
    assert list(dict.fromkeys(beats)) == ["Building Engine 1/4", "Building Engine 2/4"]


def test_a_killed_provisioner_leaves_no_compiler_behind(tmp_path: Path) -> None:
    """The child is started by a process that is not the parent it was told of: the parent is dead already."""
    command = [
        sys.executable,
        "-c",
        "import runtimes.provisioning.build_one as b, sys; sys.exit(b.main([sys.argv[1], '1']))",
    ]
    with pytest.raises(EngineBuildError, match="killed by SIGKILL"):
        run_request(ProbeRuntime(CONFIG), timeout_s=60, command=command)


def test_a_runtime_is_probed_by_really_building_it() -> None:
    pytest.importorskip("onnxruntime")
    probed = probe_runtime(C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"))
    assert probed.label == "onnx_trt_ep[cpu]"
    assert probed.host == detect_host(probed.host.runtime_version)


def test_a_runtime_that_cannot_run_here_is_refused_with_its_own_error() -> None:
    with pytest.raises(RuntimeNotAvailableError, match=r"expected a CUDA device 63, found|expected NVIDIA's"):
        probe_runtime(C7InferenceConfig(runtime="tensorrt", device_index=63))


def test_an_error_of_any_length_and_content_survives_the_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: C7InferenceConfig) -> None:
        raise CalibrationCacheError("expected this, \x1b[2K found " + "\U0010fffe" * 100_000)

    monkeypatch.setattr(build_one, "build_inference_runtime", refuse)
    data = encode(build_one.answer_request(ProbeRuntime(CONFIG)))
    assert len(data) <= ANSWER_MAX_BYTES
    answer = decode_answer(data)
    assert isinstance(answer, RequestFailed)
    assert isinstance(answer.error(), CalibrationCacheError)
    assert answer.text.startswith("expected this, \\x1b[2K found ")
