"""Log files: rotation, order, full disks."""

from __future__ import annotations

from pathlib import Path

import pytest

from telemetry.line_writer import LineWriter


def test_a_file_is_rotated_by_size_and_only_the_newest_four_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "c7.log"
    writer = LineWriter(path, file_max_bytes=100)
    for number in range(60):
        writer.write(b"line %03d\n" % number)
    assert writer.close(30)
    files = [path.with_name(name) for name in ("c7.log.3", "c7.log.2", "c7.log.1", "c7.log")]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(file.stat().st_size <= 100 for file in files)
    kept = "".join(file.read_text() for file in files).splitlines()
    assert kept == [f"line {number:03}" for number in range(60 - len(kept), 60)]
    assert len(kept) > 30
    assert writer.lost == 0


def test_a_log_that_exists_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "c7.log"
    for text in (b"one\n", b"two\n"):
        writer = LineWriter(path)
        writer.write(text)
        assert writer.close(30)
    assert path.read_text() == "one\ntwo\n"


def test_lines_that_come_after_the_end_are_counted(tmp_path: Path) -> None:
    writer = LineWriter(tmp_path / "c7.log")
    assert writer.close(30)
    assert writer.close(30)
    writer.write(b"late\n")
    assert writer.lost == 1


def test_a_full_disk_loses_lines_and_is_counted() -> None:
    writer = LineWriter(Path("/dev/full"))
    writer.write(b"one\n")
    writer.write(b"two\n")
    assert writer.close(30)
    assert writer.lost == 2


def test_a_file_that_cannot_be_opened_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LineWriter(tmp_path / "missing" / "c7.log")
