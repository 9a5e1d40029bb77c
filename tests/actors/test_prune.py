"""`c7 engines prune`: what no flight needs goes, and nothing else, whoever flies or kills it meanwhile."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.__main__ import main
from actors.cli_engines import PruneReport, generations_in, prune_store
from actors.flight.flight_lock import FlightLock
from actors.flight.journal import Journal
from messages import EngineStoreError, FlightClosed, FlightOpened, FlightProcessError, JournalError, TensorSpec
from runtimes import BuildConfig, BuiltEngine, EngineStore, read_flight_plan, write_engine
from runtimes.fake_runtime import FAKE_HOST
from runtimes.source_model import SourceModel
from runtimes.store.disk import DISK, Disk
from runtimes.store.fake_disk import FakeDisk, Operation
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.store.staged_generation import stage_generation
from runtimes.store.store_lock import store_lock
from runtimes.store.verification import verify_generation
from runtimes.store_view import StoreView


def commit(store: EngineStore, data: bytes) -> None:
    """A generation with an engine of its own, and one that is the same file in all of them."""
    with stage_generation(store) as staged:
        made = {"own": data} if staged.former else {"own": data, "shared": b"shared"}
        if staged.former is not None:
            staged.link(staged.former.entries["shared"])
        for model, content in made.items():
            write_engine(
                staged.directory,
                model,
                SourceModel(Path("m.onnx"), b"source", sha256_of(b"source")),
                BuiltEngine(data=content, inputs={"x": TensorSpec((1,), "float32")}, outputs={}, build_tool="test"),
                BuildConfig(precision="fp32"),
                "fake",
                FAKE_HOST,
                1,
            )
        staged.commit()


def provisioned(folder: Path, generations: int = 5) -> Path:
    plan = folder / "flight.toml"
    plan.write_text(
        '[flight]\nname = "test"\n[runtime]\nruntime = "onnx_trt_ep"\nprovider = "cpu"\n'
        '[models.own]\nsource = "own.onnx"\nprecision = "fp32"\ndeadline_ms = 100\n'
    )
    for number in range(1, generations + 1):
        commit(EngineStore(folder / "engines"), b"engine %d" % number)
    return plan


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return provisioned(tmp_path)


def store_of(plan: Path) -> EngineStore:
    return EngineStore(plan.parent / "engines")


def prune(plan: Path, *, keep: int = 2, dry_run: bool = False, disk: Disk = DISK) -> PruneReport:
    with StoreView(as_json=True) as view:
        return prune_store(read_flight_plan(plan), keep=keep, dry_run=dry_run, view=view, disk=disk)


def opened(number: int, flight_id: str = "test-000001") -> FlightOpened:
    return FlightOpened(
        flight_id=flight_id,
        life=1,
        engine_generation=number,
        manifest_sha256="0" * 64,
        boot_id="boot",
        pid=1,
        opened_at=1,
    )


def whole(plan: Path) -> list[int]:
    """The generations of the store; each of them has all its files, unaltered."""
    store = store_of(plan)
    for number in store.numbers():
        assert verify_generation(store.generation(number)) == ()
    return store.numbers()


def test_the_newest_stay_and_the_others_go_with_all_their_files(plan: Path) -> None:
    report = prune(plan)
    assert whole(plan) == [4, 5]
    assert report.pruned == (1, 2, 3)
    assert report.kept == {4: "one of the 2 newest", 5: "current"}
    names = sorted(path.name for path in store_of(plan).root.iterdir())
    assert names == [".lock", "current", "gen-000004", "gen-000005"]
    assert report.bytes_before > report.bytes_after > 0
    assert prune(plan).pruned == ()


def test_what_the_journal_names_stays_and_so_does_a_current_that_is_old(plan: Path) -> None:
    (plan.parent / "state").mkdir()
    with Journal.open(plan.parent / "state") as journal:
        for message in (opened(1, "test-000007"), FlightClosed("landed", 2), opened(3, "test-000008")):
            journal.append(message)
    assert main(["engines", "rollback", str(plan), "--generation", "2"]) == 0
    report = prune(plan, keep=1)
    assert report.kept == {1: "flown by test-000007", 2: "current", 3: "flown by test-000008", 5: "the newest"}
    assert whole(plan) == [1, 2, 3, 5]


def test_the_newest_flight_of_a_generation_is_the_one_that_is_named(plan: Path) -> None:
    (plan.parent / "state").mkdir()
    with Journal.open(plan.parent / "state") as journal:
        for flight_id in ("test-000001", "test-000002"):
            journal.append(opened(4, flight_id))
        assert generations_in(journal.records) == {4: "test-000002"}


def test_a_damaged_generation_is_not_one_of_the_newest(plan: Path) -> None:
    (store_of(plan).path_of(4) / "manifest.json").unlink()
    assert prune(plan).kept == {3: "one of the 2 newest", 5: "current"}


def test_a_number_is_not_used_twice_though_the_highest_generation_is_damaged(plan: Path) -> None:
    assert main(["engines", "rollback", str(plan), "--generation", "3"]) == 0
    (store_of(plan).path_of(5) / "manifest.json").unlink()
    assert prune(plan, keep=1).kept.keys() == {3, 4, 5}
    commit(store_of(plan), b"another")
    assert store_of(plan).numbers()[-1] == 6


def test_nothing_is_removed_while_a_flight_process_runs(plan: Path) -> None:
    with FlightLock(plan.parent / "state"), pytest.raises(FlightProcessError, match="a flight process that is running"):
        prune(plan)
    assert whole(plan) == [1, 2, 3, 4, 5]
    assert prune(plan).pruned == (1, 2, 3)


class TakeoffDisk(Disk):
    """Tries to take off at every step of a prune."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.attempts: dict[str, set[bool]] = {"rename": set(), "unlink": set()}

    def _take_off(self, step: str) -> None:
        try:
            FlightLock(self.state).release()
        except FlightProcessError:
            self.attempts[step].add(False)
        else:
            self.attempts[step].add(True)

    def replace(self, source: Path, target: Path) -> None:
        self._take_off("rename")
        super().replace(source, target)

    def unlink(self, path: Path) -> None:
        self._take_off("unlink")
        super().unlink(path)


def test_no_takeoff_begins_while_generations_go_out_of_sight_and_any_may_once_they_are(plan: Path) -> None:
    state = plan.parent / "state"
    FlightLock(state).release()
    disk = TakeoffDisk(state)
    prune(plan, disk=disk)
    assert disk.attempts == {"rename": {False}, "unlink": {True}}


def test_a_plan_that_never_flew_is_pruned_and_gets_no_state_folder(plan: Path) -> None:
    prune(plan)
    assert not (plan.parent / "state").exists()


def test_a_journal_that_does_not_tell_what_is_flown_protects_everything(plan: Path) -> None:
    (plan.parent / "state").mkdir()
    (plan.parent / "state" / "flight.journal").write_bytes(b"00000000 1 {}\n")
    with pytest.raises(JournalError, match="damaged"):
        prune(plan)
    assert whole(plan) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("content", [None, b"nonsense\n", b"0" * 64 + b"  gen-000009/manifest.json\n"])
def test_a_current_that_leads_nowhere_protects_everything(plan: Path, content: bytes | None) -> None:
    path = store_of(plan).root / "current"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineStoreError, match=r"current|gen-000009"):
        prune(plan)
    assert whole(plan) == [1, 2, 3, 4, 5]


def test_a_store_without_generations_is_refused_and_not_made(tmp_path: Path) -> None:
    plan = provisioned(tmp_path, generations=0)
    with pytest.raises(EngineStoreError, match="expected generations of engines, found none"):
        prune(plan)
    assert list(tmp_path.iterdir()) == [plan]


def test_a_provisioner_at_work_is_waited_for(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.cli_engines.OPERATOR_WAITS_S", 0.01)
    with store_lock(store_of(plan)), pytest.raises(EngineStoreError, match="has held the store"):
        prune(plan)
    assert whole(plan) == [1, 2, 3, 4, 5]


def test_a_dry_run_says_what_would_go_and_leaves_it(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["engines", "prune", str(plan), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "would go generation 3" in out
    assert "kept     generation 5: current" in out
    assert whole(plan) == [1, 2, 3, 4, 5]


def test_the_command_says_what_it_did(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["engines", "prune", str(plan), "--keep", "3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["pruned"], document["kept"]["5"], document["dry_run"]) == ([1, 2], "current", False)
    assert main(["engines", "prune", str(plan), "--keep", "3"]) == 0
    assert "nothing to remove" in capsys.readouterr().out
    assert main(["engines", "prune", str(plan), "--keep", "0"]) == 2
    assert main(["engines", "prune", str(plan.parent / "engines")]) == 2
    assert "expected a regular file, found a folder" in capsys.readouterr().err


# --- kills ------------------------------------------------------------------------------------------------------


def killed_disk(at: int) -> FakeDisk:
    """Ends the process that uses it by SIGKILL before operation number `at`."""
    operations = itertools.count()

    def before(operation: Operation, _path: Path | None) -> None:
        if operation != "list_folder" and next(operations) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return FakeDisk(before)


def kill_at_every_step(folder: Path) -> None:
    """For each change of a prune: kill a process right before it; then look at the store, and let another go on."""
    (folder / "template").mkdir()
    template = provisioned(folder / "template")
    half_removed = 0
    go_on: list[Callable[[Path], object]] = [prune, lambda plan: commit(store_of(plan), b"the next")]
    for at in range(1000):
        plan = folder / str(at) / "flight.toml"
        shutil.copytree(template.parent, plan.parent)
        child = os.fork()
        if child == 0:
            prune(plan, keep=1, disk=killed_disk(at))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        numbers = whole(plan)
        assert numbers[-1] == 5
        current = store_of(plan).current()
        assert current is not None
        assert current.number == 5
        half_removed += bool(list(store_of(plan).root.glob(".pruned-*")))
        if status == 0:
            print(at, half_removed)
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        go_on[at % 2](plan)
        assert set(whole(plan)) >= {5}
        assert not list(store_of(plan).root.glob(".pruned-*"))
        shutil.rmtree(plan.parent)


def test_a_kill_before_any_change_leaves_whole_generations_and_what_is_half_removed_is_none(tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603 - this file
        [sys.executable, __file__, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kills, half_removed = map(int, done.stdout.split())
    assert kills > 20
    assert half_removed > 15


if __name__ == "__main__":
    kill_at_every_step(Path(sys.argv[1]))
