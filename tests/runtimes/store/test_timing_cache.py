"""Timings of former builds: whole, of this runtime on this host, bounded, and never one build's torn work."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from runtimes.fake_runtime import FAKE_HOST
from runtimes.inference_runtime import HostTuple
from runtimes.store import timing_cache
from runtimes.store.timing_cache import TIMING_MAX_FILES, TimingCache

LABEL = "onnx_trt_ep[tensorrt]"
ROOM = 10_000


@pytest.fixture
def kept(tmp_path: Path) -> TimingCache:
    """One file of timings, checked in by an earlier build."""
    cache = TimingCache(tmp_path / "engines", LABEL, FAKE_HOST)
    assert check_in(cache, tmp_path / "earlier", {"gemm.timing": b"gemm 3 ns"}) == ""
    return cache


def check_in(cache: TimingCache, folder: Path, contents: dict[str, bytes], room_bytes: int = ROOM) -> str:
    folder.mkdir()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return cache.check_in(folder, room_bytes=room_bytes)


def check_out(cache: TimingCache, folder: Path) -> tuple[dict[str, bytes], list[str]]:
    dropped = cache.check_out(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}, dropped


def test_what_a_build_left_is_there_for_the_next_one(kept: TimingCache, tmp_path: Path) -> None:
    assert check_out(kept, tmp_path / "build") == ({"gemm.timing": b"gemm 3 ns"}, [])


def test_a_build_works_on_a_copy_of_its_own(kept: TimingCache, tmp_path: Path) -> None:
    check_out(kept, tmp_path / "build")
    (tmp_path / "build" / "gemm.timing").write_bytes(b"half a li")
    assert check_out(kept, tmp_path / "other") == ({"gemm.timing": b"gemm 3 ns"}, [])


def test_the_last_build_to_succeed_wins(kept: TimingCache, tmp_path: Path) -> None:
    assert check_in(kept, tmp_path / "a", {"gemm.timing": b"gemm 4 ns"}) == ""
    assert check_in(kept, tmp_path / "b", {"gemm.timing": b"gemm 5 ns", "conv.timing": b"conv 9 ns"}) == ""
    expected = {"gemm.timing": b"gemm 5 ns", "conv.timing": b"conv 9 ns"}
    assert check_out(kept, tmp_path / "build") == (expected, [])


def test_a_file_that_a_build_gave_up_is_not_kept(kept: TimingCache, tmp_path: Path) -> None:
    assert check_in(kept, tmp_path / "a", {"conv.timing": b"conv 9 ns"}) == ""
    assert sorted(path.name for path in kept.folder.iterdir()) == ["conv.timing", "conv.timing.sha256"]


def test_a_build_without_timings_leaves_no_folder(tmp_path: Path) -> None:
    cache = TimingCache(tmp_path / "engines", "onnx_trt_ep[cpu]", FAKE_HOST)
    (tmp_path / "engines").mkdir()
    assert check_in(cache, tmp_path / "a", {}) == ""
    assert list((tmp_path / "engines").iterdir()) == []


@pytest.mark.parametrize("field", HostTuple.__struct_fields__)
def test_another_host_has_timings_of_its_own(kept: TimingCache, tmp_path: Path, field: str) -> None:
    was = getattr(FAKE_HOST, field)
    other = msgspec.structs.replace(FAKE_HOST, **{field: was + 1 if isinstance(was, int) else f"{was}.9"})
    cache = TimingCache(tmp_path / "engines", LABEL, other)
    assert check_out(cache, tmp_path / "build") == ({}, [])


def test_another_runtime_has_timings_of_its_own(kept: TimingCache, tmp_path: Path) -> None:
    cache = TimingCache(tmp_path / "engines", "tensorrt", FAKE_HOST)
    assert check_in(cache, tmp_path / "a", {"gemm.timing": b"gemm 1 ns"}) == ""
    assert check_out(kept, tmp_path / "b")[0] == {"gemm.timing": b"gemm 3 ns"}
    assert check_out(cache, tmp_path / "c")[0] == {"gemm.timing": b"gemm 1 ns"}


def test_what_was_timed_before_an_upgrade_goes_with_the_first_build_after_it(kept: TimingCache, tmp_path: Path) -> None:
    tensorrt = TimingCache(tmp_path / "engines", "tensorrt", FAKE_HOST)
    check_in(tensorrt, tmp_path / "a", {"gemm.timing": b"gemm 1 ns"})
    upgraded = TimingCache(tmp_path / "engines", LABEL, msgspec.structs.replace(FAKE_HOST, jetpack="6.3"))
    assert check_in(upgraded, tmp_path / "b", {"gemm.timing": b"gemm 2 ns"}) == ""
    assert not kept.folder.exists()
    assert tensorrt.folder.exists()


@pytest.mark.parametrize("which", ["gemm.timing", "gemm.timing.sha256"])
def test_every_flipped_bit_drops_the_file_with_a_reason(kept: TimingCache, tmp_path: Path, which: str) -> None:
    path = kept.folder / which
    whole = {each.name: each.read_bytes() for each in kept.folder.iterdir()}
    for bit in range(8 * len(whole[which])):
        for name, data in whole.items():
            (kept.folder / name).write_bytes(data)
        altered = bytearray(whole[which])
        altered[bit // 8] ^= 1 << bit % 8
        path.write_bytes(altered)
        contents, dropped = check_out(kept, tmp_path / f"build-{bit}")
        assert contents == {}
        assert len(dropped) == 1
        assert "gemm.timing" in dropped[0]
        assert list(kept.folder.iterdir()) == []


def test_a_link_a_pipe_and_a_folder_are_no_timings(kept: TimingCache, tmp_path: Path) -> None:
    path = kept.folder / "gemm.timing"
    (tmp_path / "elsewhere").write_bytes(path.read_bytes())
    makers: tuple[Callable[[], None], ...] = (
        lambda: path.symlink_to(tmp_path / "elsewhere"),
        lambda: os.mkfifo(path),
        path.mkdir,
    )
    sidecar = path.with_name("gemm.timing.sha256").read_bytes()
    for number, make in enumerate(makers):
        if path.exists():
            path.unlink()
        path.with_name("gemm.timing.sha256").write_bytes(sidecar)
        make()
        contents, dropped = check_out(kept, tmp_path / f"build-{number}")
        assert (contents, len(dropped)) == ({}, 1)
        assert not os.path.lexists(path)
    assert (tmp_path / "elsewhere").read_bytes() == b"gemm 3 ns"


def test_what_a_killed_provisioner_left_is_removed(kept: TimingCache, tmp_path: Path) -> None:
    (kept.folder / ".gemm.timing.0123.part").write_bytes(b"half")
    (kept.folder / "conv.timing.sha256").write_bytes(b"of a file that was never renamed into place")
    assert check_out(kept, tmp_path / "build") == ({"gemm.timing": b"gemm 3 ns"}, [])
    assert sorted(path.name for path in kept.folder.iterdir()) == ["gemm.timing", "gemm.timing.sha256"]


def test_timings_that_grow_too_large_are_not_kept_and_the_former_ones_stay(
    kept: TimingCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing_cache, "TIMING_MAX_BYTES", 20)
    assert "expected at most 16 files of timings with 20 bytes together" in check_in(
        kept, tmp_path / "a", {"a": bytes(15), "b": bytes(6)}
    )
    many = {f"{number:02}": b"1" for number in range(TIMING_MAX_FILES + 1)}
    assert "found more at 16" in check_in(kept, tmp_path / "b", many)
    assert check_out(kept, tmp_path / "build") == ({"gemm.timing": b"gemm 3 ns"}, [])


def test_timings_that_do_not_fit_the_storage_budget_are_not_kept(kept: TimingCache, tmp_path: Path) -> None:
    reason = check_in(kept, tmp_path / "a", {"gemm.timing": bytes(20)}, room_bytes=10)
    assert reason == "11 bytes more of timings do not fit the storage budget: 10 are left"
    assert check_in(kept, tmp_path / "b", {"gemm.timing": bytes(19)}, room_bytes=10) == ""


@pytest.mark.parametrize("name", [".hidden", "über.timing", "a b", "gemm.timing.sha256"])
def test_names_that_are_not_plain_are_not_kept(kept: TimingCache, tmp_path: Path, name: str) -> None:
    assert f"found {name}" in check_in(kept, tmp_path / "a", {name: b"x"})


def test_a_folder_among_a_builds_timings_is_not_kept(kept: TimingCache, tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    assert "found deep" in kept.check_in(tmp_path / "a", room_bytes=ROOM)


@pytest.mark.parametrize("which", ["timing", "of this host"])
def test_what_lies_behind_a_link_is_neither_read_nor_written_nor_removed(
    kept: TimingCache, tmp_path: Path, which: str
) -> None:
    folder = kept.folder.parent if which == "timing" else kept.folder
    outside = folder.rename(tmp_path / "outside")
    of_host = outside / kept.folder.name if which == "timing" else outside
    (of_host / "stray").write_bytes(b"somebody else's")
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    folder.symlink_to(outside)
    assert check_out(kept, tmp_path / "build") == ({}, [])
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(outside)
    assert check_in(kept, tmp_path / "later", {"conv.timing": b"conv 1 ns"}) == ""
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before
    assert check_out(kept, tmp_path / "next") == ({"conv.timing": b"conv 1 ns"}, [])
