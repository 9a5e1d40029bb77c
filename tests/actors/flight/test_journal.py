"""The journal: what was acknowledged is there, what was cut short is not, and damage is never read as a record."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.flight.journal import (
    JOURNAL_MAX_BYTES,
    JOURNAL_NAME,
    Journal,
    JournalRecord,
    format_line,
    parse_journal,
    read_journal,
)
from messages import AirborneDeclared, FlightClosed, FlightOpened, JournalError, LandedDeclared

OPENED = FlightOpened(
    flight_id="demo-000001",
    life=1,
    engine_generation=7,
    manifest_sha256="ab" * 32,
    boot_id="5a0f",
    pid=4711,
    opened_at=10,
)
RECORDS = [
    JournalRecord(1, OPENED),
    JournalRecord(2, AirborneDeclared(20)),
    JournalRecord(3, LandedDeclared(30)),
    JournalRecord(5, FlightClosed("line\nend, ✈ and \x00", 40)),
]
IMAGE = b"".join(map(format_line, RECORDS))
ENDS = [len(b"".join(map(format_line, RECORDS[:count]))) for count in range(len(RECORDS) + 1)]


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / JOURNAL_NAME).write_bytes(IMAGE)
    return tmp_path


def test_a_new_journal_has_no_records_and_is_for_its_user_only(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        assert journal.records == ()
        assert journal.path == tmp_path / JOURNAL_NAME
    assert (tmp_path / JOURNAL_NAME).stat().st_mode & 0o777 == 0o600


def test_what_was_appended_is_read_at_the_next_start_in_its_order(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        journal.append(OPENED)
        journal.append(AirborneDeclared(20))
    with Journal.open(tmp_path) as journal:
        assert journal.append(LandedDeclared(30)).sequence == 3
        written = journal.records
    assert read_journal(tmp_path) == written
    assert [record.message for record in written] == [OPENED, AirborneDeclared(20), LandedDeclared(30)]
    assert [record.sequence for record in written] == [1, 2, 3]


def test_a_folder_without_a_journal_reads_as_no_records_and_stays_empty(tmp_path: Path) -> None:
    assert read_journal(tmp_path) == ()
    assert list(tmp_path.iterdir()) == []


def test_a_cut_at_every_offset_leaves_exactly_the_whole_lines_before_it() -> None:
    for cut in range(len(IMAGE) + 1):
        whole = max(count for count, end in enumerate(ENDS) if end <= cut)
        assert parse_journal(IMAGE[:cut], "journal") == (RECORDS[:whole], ENDS[whole])


@pytest.mark.parametrize("cut", [1, ENDS[1] - 1, ENDS[1] + 1, ENDS[2] + 9, len(IMAGE) - 1])
def test_a_line_that_a_crash_cut_short_is_gone_after_the_next_start(tmp_path: Path, cut: int) -> None:
    (tmp_path / JOURNAL_NAME).write_bytes(IMAGE[:cut])
    seen = read_journal(tmp_path)
    assert (tmp_path / JOURNAL_NAME).stat().st_size == cut  # looking changes nothing
    with Journal.open(tmp_path) as journal:
        assert journal.records == seen
        journal.append(LandedDeclared(99))
    assert [record.message for record in read_journal(tmp_path)] == [*(r.message for r in seen), LandedDeclared(99)]


def test_every_single_flipped_bit_is_refused_by_file_and_offset() -> None:
    for position in range(len(IMAGE)):
        line_start = max(end for end in ENDS if end <= position)
        for bit in range(8):
            flipped = bytearray(IMAGE)
            flipped[position] ^= 1 << bit
            with pytest.raises(JournalError, match=rf"^state/flight.journal: the record at byte {line_start} "):
                parse_journal(bytes(flipped), "state/flight.journal")


@given(st.lists(st.tuples(st.integers(0, len(IMAGE) - 1), st.integers(1, 255)), min_size=1, max_size=8))
def test_damage_of_any_kind_never_gives_a_record_that_was_not_written(damage: list[tuple[int, int]]) -> None:
    image = bytearray(IMAGE)
    for position, mask in damage:
        image[position] ^= mask
    try:
        records, _ = parse_journal(bytes(image), "journal")
    except JournalError:
        return
    assert records == RECORDS[: len(records)]


@given(st.binary(max_size=300))
def test_bytes_from_anywhere_behind_whole_records_never_become_a_record(garbage: bytes) -> None:
    try:
        records, _ = parse_journal(IMAGE + garbage, "journal")
    except JournalError:
        return
    assert records == RECORDS


def test_a_line_that_comes_twice_is_refused() -> None:
    with pytest.raises(JournalError, match="its sequence number 1 follows 5"):
        parse_journal(IMAGE + format_line(RECORDS[0]), "journal")


def test_a_record_of_another_release_is_refused_not_skipped() -> None:
    newer = format_line(RECORDS[1]).replace(b"AirborneDeclared", b"OrbitDeclared")
    body = newer[9:-1]
    with pytest.raises(JournalError, match="this release cannot read it"):
        parse_journal(b"%08x %s\n" % (zlib.crc32(body), body), "journal")


def test_a_damaged_journal_is_not_opened_and_not_touched(folder: Path) -> None:
    damaged = bytearray(IMAGE)
    damaged[ENDS[1] + 12] ^= 0x10
    (folder / JOURNAL_NAME).write_bytes(damaged)
    with pytest.raises(JournalError, match=rf"at byte {ENDS[1]} is damaged.*1 before it are whole.*another name"):
        Journal.open(folder)
    assert (folder / JOURNAL_NAME).read_bytes() == damaged


@pytest.mark.parametrize("reader", [Journal.open, read_journal])
def test_a_journal_that_is_no_regular_file_is_refused_at_once(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / JOURNAL_NAME)
    with pytest.raises(JournalError, match="expected a regular file"):
        reader(tmp_path)


@pytest.mark.parametrize("reader", [Journal.open, read_journal])
def test_a_symbolic_link_is_not_followed(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    (tmp_path / "elsewhere").write_bytes(IMAGE)
    (tmp_path / JOURNAL_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JournalError, match="cannot be read or written"):
        reader(tmp_path)


@pytest.mark.parametrize("reader", [Journal.open, read_journal])
def test_a_file_beyond_the_limit_is_refused_before_it_is_parsed(
    tmp_path: Path, reader: Callable[[Path], object]
) -> None:
    with (tmp_path / JOURNAL_NAME).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(JournalError, match=f"at most {JOURNAL_MAX_BYTES} bytes"):
        reader(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"nowhere/flight\.journal: .*\[flight\] state"):
        Journal.open(tmp_path / "nowhere")


def test_a_closed_journal_takes_nothing_and_closes_twice(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="it is closed"):
        journal.append(OPENED)


def test_a_refused_open_leaves_no_file_descriptor_behind(folder: Path) -> None:
    (folder / JOURNAL_NAME).write_bytes(b"not a journal\n")
    before = open_descriptors()
    with pytest.raises(JournalError):
        Journal.open(folder)
    assert open_descriptors() == before


def test_an_append_is_one_write_and_then_one_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal.open(tmp_path) as journal:
        calls: list[str] = []
        write, fsync = os.write, os.fsync

        def noted_write(fd: int, data: bytes) -> int:
            calls.append("write")
            return write(fd, data)

        def noted_fsync(fd: int) -> None:
            calls.append("fsync")
            fsync(fd)

        monkeypatch.setattr(os, "write", noted_write)
        monkeypatch.setattr(os, "fsync", noted_fsync)
        journal.append(OPENED)
    assert calls == ["write", "fsync"]


def test_the_folder_is_on_disk_before_a_journal_is_handed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())))
    Journal.open(tmp_path).close()
    assert synced == [str(tmp_path)]


def _full_disk(fd: int, data: bytes) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def _nearly_full_disk(fd: int, data: bytes) -> int:
    return os.pwrite(fd, data[:20], 0)  # the file is open for appending: this appends too


@pytest.mark.parametrize("disk", [_full_disk, _nearly_full_disk])
def test_a_full_disk_refuses_the_record_and_takes_the_next_one_once_there_is_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch, disk: Callable[[int, bytes], int]
) -> None:
    with Journal.open(folder) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", disk)
            with pytest.raises(JournalError, match=r"AirborneDeclared was not recorded: .*Free space"):
                journal.append(AirborneDeclared(50))
        assert (folder / JOURNAL_NAME).read_bytes() == IMAGE
        assert journal.append(AirborneDeclared(60)).sequence == 6
    assert read_journal(folder) == (*RECORDS, JournalRecord(6, AirborneDeclared(60)))


def test_remains_that_cannot_be_cut_off_close_the_journal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int, length: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with Journal.open(folder) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", _nearly_full_disk)
            patched.setattr(os, "ftruncate", broken)
            with pytest.raises(JournalError, match="was not recorded"):
                journal.append(AirborneDeclared(50))
        with pytest.raises(JournalError, match="takes no more records: the remains"):
            journal.append(AirborneDeclared(60))
    assert read_journal(folder) == tuple(RECORDS)


def test_a_failed_fsync_is_never_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def failing(fd: int) -> None:
        tries.append(fd)
        raise OSError(errno.EIO, "Input/output error")

    with Journal.open(folder) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", failing)
            with pytest.raises(JournalError, match="what is on disk is unknown; start the flight process again"):
                journal.append(AirborneDeclared(50))
            with pytest.raises(JournalError, match="takes no more records"):
                journal.append(AirborneDeclared(60))
        assert len(tries) == 1
        assert journal.records == tuple(RECORDS)
        with pytest.raises(JournalError, match="takes no more records"):
            journal.compact(RECORDS[:1])


def test_a_full_journal_says_so_before_it_writes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.flight.journal.JOURNAL_MAX_BYTES", len(IMAGE) + 10)
    with Journal.open(folder) as journal, pytest.raises(JournalError, match="this one is full"):
        journal.append(LandedDeclared(50))
    assert (folder / JOURNAL_NAME).read_bytes() == IMAGE


def test_a_compacted_journal_holds_what_was_kept_and_counts_on(folder: Path) -> None:
    with Journal.open(folder) as journal:
        journal.compact(RECORDS[2:])
        assert journal.records == tuple(RECORDS[2:])
        assert journal.append(OPENED).sequence == 6
    assert read_journal(folder) == (*RECORDS[2:], JournalRecord(6, OPENED))
    assert [path.name for path in folder.iterdir()] == [JOURNAL_NAME]


def test_compacting_with_nothing_to_drop_writes_nothing(folder: Path) -> None:
    before = (folder / JOURNAL_NAME).stat()
    with Journal.open(folder) as journal:
        journal.compact(RECORDS)
    after = (folder / JOURNAL_NAME).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


class PowerCut(BaseException):  # no error: the test's stand-in for the end of the world
    """Nothing after it runs."""


@pytest.mark.parametrize("survivor_bytes", [0, 1, 100, 10_000])
@pytest.mark.parametrize("step", range(4))
def test_a_power_cut_at_any_step_of_a_compaction_leaves_the_old_journal_or_the_new_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: int, survivor_bytes: int
) -> None:
    done: list[str] = []

    def cut_before(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def stepped(*args: object, **kwargs: object) -> object:
            if len(done) == step:
                raise PowerCut
            done.append(name)
            return call(*args, **kwargs)

        return stepped

    journal = Journal.open(folder)
    with monkeypatch.context() as patched:
        for name in ("write", "fsync", "replace"):
            patched.setattr(os, name, cut_before(name, getattr(os, name)))
        with pytest.raises(PowerCut):
            journal.compact(RECORDS[2:])
    journal.close()
    assert done == ["write", "fsync", "replace"][:step]
    left_over = folder / "flight.journal.new"
    if left_over.exists() and "fsync" not in done:  # unsynced bytes survive or not, as the disk likes
        left_over.write_bytes(left_over.read_bytes()[:survivor_bytes])
    with Journal.open(folder) as journal:
        assert list(journal.records) == (RECORDS[2:] if step == 3 else RECORDS)
        journal.compact(RECORDS[3:])  # what an interrupted compaction left is no obstacle
    assert read_journal(folder) == tuple(RECORDS[3:])


def test_a_compaction_that_finds_no_room_leaves_the_journal_in_use(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal.open(folder) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", _full_disk)
            with pytest.raises(JournalError, match=r"could not be compacted: .*It is unchanged"):
                journal.compact(RECORDS[2:])
        journal.append(LandedDeclared(50))
    assert read_journal(folder) == (*RECORDS, JournalRecord(6, LandedDeclared(50)))


_WRITER = """
import sys
from pathlib import Path
from actors.flight.journal import Journal
from messages import AirborneDeclared
with Journal.open(Path(sys.argv[1])) as journal:
    while True:
        print(journal.append(AirborneDeclared(1)).sequence, flush=True)
"""


def test_nothing_that_was_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:  # noqa: S603  # our own interpreter
        assert writer.stdout is not None
        for _ in range(50):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    with Journal.open(tmp_path) as journal:
        sequences = [record.sequence for record in journal.records]
    assert sequences == list(range(1, len(sequences) + 1))
    assert acknowledged <= len(sequences) <= acknowledged + 1


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.just("reopen"),
            st.just("torn"),
            st.integers(0, 3),
            st.builds(AirborneDeclared, st.integers(0, 2**62)),
            st.builds(FlightClosed, st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.integers(0, 9)),
        ),
        max_size=25,
    )
)
def test_the_journal_is_a_list_that_survives_reopening_compacting_and_torn_ends(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str | int | AirborneDeclared | FlightClosed]
) -> None:
    folder = tmp_path_factory.mktemp("state")
    model: list[JournalRecord] = []
    journal = Journal.open(folder)
    for step in steps:
        if isinstance(step, str):
            journal.close()
            if step == "torn":
                with (folder / JOURNAL_NAME).open("ab") as file:
                    file.write(format_line(JournalRecord(10_000, OPENED))[:-7])
            journal = Journal.open(folder)
        elif isinstance(step, int):
            model = model[-step:] if step else model
            journal.compact(model)
        else:
            model.append(journal.append(step))
        assert list(journal.records) == model
    journal.close()
    assert list(read_journal(folder)) == model
