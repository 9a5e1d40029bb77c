"""Several files become valid together, or all stay as they were."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from runtimes.store.disk import Disk
from runtimes.store.durable_files import write_atomically, write_files_atomically

FORMER = {"engine": b"former engine", "json": b"former json", "sha256": b"former sha256"}
NEXT = {"engine": b"next engine", "json": b"next json", "sha256": b"next sha256", "calibration": b"scales"}


class NotingDisk(Disk):
    """Notes what becomes visible and what is made durable; fails where it is told to, as often as it is told to."""

    def __init__(self, *, fails: tuple[str, ...] = (), code: int = errno.EIO) -> None:
        self.done: list[str] = []
        self.fails = list(fails)
        self.code = code

    def _do(self, what: str) -> None:
        self.done.append(what)
        if what in self.fails:
            self.fails.remove(what)
            raise OSError(self.code, os.strerror(self.code))

    def fsync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        self._do("fsync folder" if path.is_dir() else f"fsync {path.name.split('.')[1]}")
        super().fsync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        self._do(f"replace {target.name}")
        super().replace(source, target)

    def link(self, source: Path, target: Path) -> None:
        self._do("link")
        super().link(source, target)


def found(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_contents_are_durable_before_any_name_and_all_names_before_the_last(tmp_path: Path) -> None:
    disk = NotingDisk()
    write_files_atomically(tmp_path, FORMER, disk)
    assert found(tmp_path) == FORMER
    assert disk.done == [
        *("fsync engine", "fsync json", "fsync sha256"),
        *("replace engine", "replace json", "fsync folder", "replace sha256", "fsync folder"),
    ]


def test_one_file_is_replaced_in_one_step_and_that_is_made_durable(tmp_path: Path) -> None:
    disk = NotingDisk()
    write_atomically(tmp_path / "current", b"2", disk)
    assert disk.done == ["fsync current", "replace current", "fsync folder"]


STEPS = ("fsync engine", "fsync sha256", "replace engine", "replace json", "replace sha256", "fsync folder")


@pytest.mark.parametrize("step", [*STEPS, "link"])
def test_whichever_step_fails_the_former_files_are_back(tmp_path: Path, step: str) -> None:
    write_files_atomically(tmp_path, FORMER)
    with pytest.raises(OSError, match="Input/output error"):
        write_files_atomically(tmp_path, NEXT, NotingDisk(fails=(step,)))
    assert found(tmp_path) == FORMER


@pytest.mark.parametrize("step", STEPS)
def test_whichever_step_fails_nothing_is_left_where_nothing_was(tmp_path: Path, step: str) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        write_files_atomically(tmp_path, NEXT, NotingDisk(fails=(step,)))
    assert found(tmp_path) == {}


def test_the_former_files_are_back_though_the_last_fsync_of_all_fails(tmp_path: Path) -> None:
    class LastFails(NotingDisk):
        def fsync(self, descriptor: int) -> None:
            if "replace calibration" in self.done:
                self.fails.append("fsync folder")
            super().fsync(descriptor)

    write_files_atomically(tmp_path, FORMER)
    with pytest.raises(OSError, match="Input/output error"):
        write_files_atomically(tmp_path, NEXT, LastFails())
    assert found(tmp_path) == FORMER


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_links_is_written_all_the_same(tmp_path: Path, code: int) -> None:
    write_files_atomically(tmp_path, FORMER)
    write_files_atomically(tmp_path, NEXT, NotingDisk(fails=("link",) * len(FORMER), code=code))
    assert found(tmp_path) == NEXT


def test_an_error_names_the_file_and_not_the_hidden_name_when_room_is_short(tmp_path: Path) -> None:
    class Full(Disk):
        def write(self, descriptor: int, data: memoryview) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def free_bytes(self, path: Path) -> int | None:
            return 7

    with pytest.raises(OSError, match=r"36 bytes are needed, 7 bytes are free there, 29 bytes are missing") as refused:
        write_files_atomically(tmp_path, FORMER | {"sha256": b"0123456789ab"}, Full())
    assert refused.value.filename == str(tmp_path / "engine")
    assert found(tmp_path) == {}


def test_an_fsync_that_fails_is_not_tried_again(tmp_path: Path) -> None:
    disk = NotingDisk(fails=("fsync current",))
    with pytest.raises(OSError, match="Input/output error"):
        write_atomically(tmp_path / "current", b"2", disk)
    assert disk.done == ["fsync current"]


def test_a_very_long_name_can_be_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("e" * 255), b"1")
    assert found(tmp_path) == {"e" * 255: b"1"}
