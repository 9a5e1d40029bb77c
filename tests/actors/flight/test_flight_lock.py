"""One flight process per state folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from actors.flight.flight_lock import LOCK_NAME, FlightLock
from messages import FlightProcessError
from runtimes.store.disk import DISK

_HOLDER = """
import sys
from pathlib import Path
from actors.flight.flight_lock import FlightLock
with FlightLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_the_lock_creates_its_folder_and_names_its_holder(tmp_path: Path) -> None:
    with FlightLock(tmp_path / "deep" / "state"):
        assert (tmp_path / "deep" / "state" / LOCK_NAME).read_text() == f"{os.getpid()}\n"


def test_a_second_lock_is_refused_with_the_holders_pid(tmp_path: Path) -> None:
    with FlightLock(tmp_path), pytest.raises(FlightProcessError, match=rf"pid {os.getpid()}; expected none\. Stop it"):
        FlightLock(tmp_path)


def test_a_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    lock = FlightLock(tmp_path)
    lock.release()
    lock.release()
    with FlightLock(tmp_path):
        pass


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    with subprocess.Popen(  # noqa: S603  # our own interpreter and text
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(FlightProcessError, match=f"pid {holder.pid}; "):
            FlightLock(tmp_path)
        holder.kill()
        holder.wait(10)
        with FlightLock(tmp_path):
            assert (tmp_path / LOCK_NAME).read_text() == f"{os.getpid()}\n"


def test_a_refused_lock_leaves_no_file_descriptor_behind(tmp_path: Path) -> None:
    with FlightLock(tmp_path):
        before = open_descriptors()
        with pytest.raises(FlightProcessError):
            FlightLock(tmp_path)
        assert open_descriptors() == before


def test_a_child_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    with FlightLock(tmp_path):
        child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    with child, FlightLock(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(FlightProcessError, match=rf"{tmp_path}/state/{LOCK_NAME}: cannot be locked.*\[flight\] state"):
        FlightLock(tmp_path / "state")


def test_each_folder_that_is_made_for_it_outlasts_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsynced: list[Path] = []
    monkeypatch.setattr(DISK, "fsync_folder", fsynced.append)
    FlightLock(tmp_path / "var" / "flight").release()
    assert set(fsynced) == {tmp_path, tmp_path / "var"}
    fsynced.clear()
    FlightLock(tmp_path / "var" / "flight").release()
    assert fsynced == []


def test_a_full_disk_is_not_mistaken_for_a_missing_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(FlightProcessError, match=r"cannot be locked: No space left on device\. .*on a disk with room"):
        FlightLock(tmp_path)
