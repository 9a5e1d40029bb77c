"""`c7 engines list` and `rollback`, as a person and a script meet them."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from actors.__main__ import main
from messages import TensorSpec
from runtimes import BuildConfig, BuiltEngine, EngineStore, write_engine
from runtimes.fake_runtime import FAKE_HOST
from runtimes.measurements import AccuracyRecord, MemoryUse, OutputError
from runtimes.source_model import SourceModel
from runtimes.store.disk import Disk
from runtimes.store.engine_artifact import metadata_path
from runtimes.store.engine_writer import sign_off
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.store.staged_generation import stage_generation

LONG = "re-ranker_with_a_name_that_says_all_there_is_to_say"


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """A flight plan and its store of three generations; `vpr` has a measured accuracy."""
    path = tmp_path / "flight.toml"
    path.write_text(
        '[flight]\nname = "test"\n[runtime]\nruntime = "onnx_trt_ep"\nprovider = "cpu"\n'
        '[models.vpr]\nsource = "vpr.onnx"\nprecision = "fp32"\ndeadline_ms = 100\n'
    )
    store = EngineStore(tmp_path / "engines")
    for number in range(3):
        with stage_generation(store) as staged:
            for model in ("vpr", LONG):
                entry = write_engine(
                    staged.directory,
                    model,
                    SourceModel(Path(f"{model}.onnx"), b"source", sha256_of(b"source")),
                    BuiltEngine(
                        data=bytes([number]) * 2_500_000,
                        inputs={"x": TensorSpec((1,), "float32")},
                        outputs={},
                        build_tool="test",
                    ),
                    BuildConfig(precision="fp32"),
                    "onnx_trt_ep[cpu]",
                    FAKE_HOST,
                    1,
                )
                accuracy = AccuracyRecord(
                    reference="fp32",
                    samples_sha256=None,
                    sample_count=1,
                    outputs={"y": OutputError(relative_rms=0.00123, max_abs=1.0)},
                )
                if model == "vpr":
                    memory = MemoryUse(load_bytes=1, run_bytes=1)
                    sign_off(entry, self_test=None, power=None, memory=memory, accuracy=accuracy)
            staged.commit()
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["engines", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def listed(capsys: pytest.CaptureFixture[str], place: Path) -> Any:
    code, out, _ = run(capsys, "list", str(place), "--json")
    assert code == 0
    return json.loads(out)


@pytest.mark.parametrize("place", ["flight.toml", "engines"])
def test_the_list_shows_each_generation_with_its_engines(
    plan: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "list", str(plan.parent / place))
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["generation", "model", "precision", "size", "accuracy"]
    assert ["1", LONG, "fp32", "2.4", "MiB", "-"] in rows
    assert ["vpr", "fp32", "2.4", "MiB", "1.2e-03"] in rows
    assert ["3", "current", LONG, "fp32", "2.4", "MiB", "-"] in rows
    assert rows[-1] == [f"{plan.parent / 'engines'},", "14.3", "MiB"]


def test_the_list_as_json_says_the_same(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys, plan)
    assert (found["current"], found["problem"]) == (3, "")
    assert [(each["number"], each["current"], each["damaged"], each["problem"]) for each in found["generations"]] == [
        (1, False, {}, ""),
        (2, False, {}, ""),
        (3, True, {}, ""),
    ]
    [vpr] = [engine for engine in found["generations"][0]["engines"] if engine["model"] == "vpr"]
    assert vpr == {
        "model": "vpr",
        "file": "vpr__sm0_jp0_trt0_fp32.engine",
        "precision": "fp32",
        "runtime": "onnx_trt_ep[cpu]",
        "size_bytes": 2_500_000,
        "accuracy": 0.00123,
    }


def test_the_list_survives_damage_and_says_which_and_why(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = EngineStore(plan.parent / "engines")
    metadata_path(store.generation(2).entries["vpr"].path).unlink()
    (store.path_of(1) / "manifest.json").write_bytes(b"{")
    (store.root / "current").write_text("0" * 64 + "  gen-000009/manifest.json\n")
    code, out, err = run(capsys, "list", str(plan))
    assert (code, err) == (0, "")
    problems = [line for line in out.splitlines() if line.startswith("DAMAGED")]
    assert [next(name for name in ("gen-000009", "gen-000001", "gen-000002") if name in line) for line in problems] == [
        "gen-000009",
        "gen-000001",
        "gen-000002",
    ]
    assert "vpr__sm0_jp0_trt0_fp32.engine.json: cannot be read: No such file" in problems[2]
    found = listed(capsys, plan)
    assert "gen-000009" in found["problem"]
    assert "not a manifest" in found["generations"][0]["problem"]
    assert found["generations"][1]["damaged"].keys() == {"vpr"}
    assert [engine["model"] for engine in found["generations"][1]["engines"]] == [LONG]


def test_an_empty_store_is_listed_as_such_and_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list", str(tmp_path))
    assert code == 0
    assert "holds no engines yet" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["list", "rollback"])
def test_a_place_that_is_none_is_refused_by_name(plan: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for place, expected in {
        "missing": "cannot be read: No such file",
        "engines/gen-000002": "expected a FLIGHT.toml or the folder of a store, found one of its generations",
        "engines/current": "not TOML",
    }.items():
        code, out, err = run(capsys, command, str(plan.parent / place))
        assert (code, out) == (2, "")
        assert expected in err
        assert place in err


def test_a_rollback_says_where_it_went(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "rollback", str(plan))
    assert (code, out, err) == (0, "generation 2 is current, and whole; it was 3\n", "")
    code, out, _ = run(capsys, "rollback", str(plan), "--generation", "3", "--json")
    assert code == 0
    assert json.loads(out)["generation"] == 3
    assert listed(capsys, plan)["current"] == 3
    code, out, _ = run(capsys, "rollback", str(plan), "--generation", "3")
    assert (code, out) == (0, "generation 3 is current already, and whole\n")


def test_a_rollback_past_damage_names_it_and_one_to_damage_is_refused(
    plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = EngineStore(plan.parent / "engines").generation(2).entries["vpr"].path
    engine.write_bytes(b"?" * 2_500_000)
    code, out, err = run(capsys, "rollback", str(plan), "--generation", "2")
    assert (code, out) == (1, "")
    assert f"{engine}: content altered" in err
    code, out, _ = run(capsys, "rollback", str(plan))
    assert code == 0
    assert out.startswith("DAMAGED  generation 2 was passed over: ")
    assert out.endswith("generation 1 is current, and whole; it was 3\n")


def test_a_rollback_of_a_signed_flight_reminds_of_the_signature(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (plan.parent / "key.pem").write_text("read at takeoff only")
    plan.write_text(plan.read_text().replace('name = "test"', 'name = "test"\npublic_key = "key.pem"'))
    code, out, _ = run(capsys, "rollback", str(plan))
    assert code == 0
    assert "sign it again, c7 engines sign" in out


def test_on_a_narrow_terminal_no_figure_is_cut_off(plan: Path) -> None:
    shown = on_a_terminal(plan, 56, "list")
    assert all(len(line) <= 56 for line in shown.splitlines() if str(plan.parent) not in line)
    assert re.search(r" vpr +fp32 +2\.4 MiB +1\.2e-03 ", shown)
    assert "…" not in shown


def test_on_a_terminal_the_rollback_shows_what_it_hashes(plan: Path) -> None:
    assert "hashing generation 2: 6 of 6 files" in on_a_terminal(plan, 100, "rollback")


def on_a_terminal(plan: Path, columns: int, *arguments: str) -> str:
    """What `c7 engines` writes to a terminal of this width, colours and cursor moves left out."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "LINES": "50", "TERM": "xterm", "NO_COLOR": "1"}
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "actors", "engines", *arguments, str(plan)],
        stdout=theirs,
        stderr=theirs,
        env=environment,
    ) as child:
        os.close(theirs)
        chunks = []
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # Linux says so when the other end is gone
                break
            if not chunk:
                break
            chunks.append(chunk)
    os.close(ours)
    assert child.returncode == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(chunks).decode())


def test_a_store_that_cannot_be_counted_is_listed_without_its_size(
    plan: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_disk: Disk, folder: Path) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(Disk, "list_folder", refuse)
    code, out, _ = run(capsys, "list", str(plan))
    assert code == 0
    assert out.endswith("engines, its size is not known\n")
    code, out, _ = run(capsys, "list", str(plan), "--json")
    assert (code, json.loads(out)["size_bytes"]) == (0, None)
