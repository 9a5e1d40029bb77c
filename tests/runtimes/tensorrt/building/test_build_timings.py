"""The timings of former builds: kept with their hash, used again, and dropped with a note where they do not fit."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from messages import EngineBuildError
from runtimes.build_report import BuilderName
from runtimes.cuda.port import Cuda
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.tensorrt.building.timings import TIMING_FILE, TIMING_MAX_BYTES, attach_timings
from runtimes.tensorrt.log import TensorrtLog
from tests.runtimes.tensorrt.building.builds import Bench, descriptor, put_trtexec_first

if TYPE_CHECKING:
    from tests.doubles.tensorrt.core import Core

TIMED = 3
"""Layers of `descriptor`'s engine."""


@pytest.fixture
def bench(trt: ModuleType, log: TensorrtLog, cuda: Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    put_trtexec_first(monkeypatch)
    return Bench(trt, log, cuda, tmp_path)


@pytest.fixture
def timings(tmp_path: Path) -> Path:
    return tmp_path / "timings"


def test_timings_are_kept_with_their_hash_and_the_next_build_measures_nothing(
    bench: Bench, timings: Path, core: Core
) -> None:
    first = bench.build(descriptor(), timing_cache_dir=timings)
    kept = (timings / TIMING_FILE).read_bytes()
    assert first.timing_cache_sha256 == sha256_of(kept)
    assert (len(core.timed), core.found_timed) == (TIMED, [])

    again = bench.build(descriptor(), timing_cache_dir=timings)
    assert (len(core.timed), len(core.found_timed)) == (TIMED, TIMED)
    assert again.data == first.data
    assert again.timing_cache_sha256 == first.timing_cache_sha256


def test_without_a_place_no_timings_are_kept(bench: Bench) -> None:
    assert bench.build(descriptor()).timing_cache_sha256 is None


def test_polygraphy_uses_and_keeps_the_same_timings(bench: Bench, timings: Path, core: Core) -> None:
    pytest.importorskip("polygraphy", reason="Polygraphy is not installed here")
    first = bench.build(descriptor(), timing_cache_dir=timings)

    again = bench.build(descriptor(), builder="polygraphy", timing_cache_dir=timings)
    assert len(core.found_timed) == TIMED
    assert again.timing_cache_sha256 == first.timing_cache_sha256


def test_trtexec_uses_and_keeps_the_same_timings(bench: Bench, timings: Path, core: Core) -> None:
    by_trtexec = bench.build(descriptor(), builder="trtexec", timing_cache_dir=timings)

    here = bench.build(descriptor(), timing_cache_dir=timings)
    assert (core.timed, len(core.found_timed)) == ([], TIMED)
    assert here.timing_cache_sha256 == by_trtexec.timing_cache_sha256
    again = bench.build(descriptor(), builder="trtexec", timing_cache_dir=timings)
    assert again.timing_cache_sha256 == by_trtexec.timing_cache_sha256
    assert again.report.warnings == ()


@pytest.mark.parametrize("builder", ["api", "trtexec"])
def test_the_timings_of_another_device_are_dropped_with_a_note(
    bench: Bench, timings: Path, core: Core, builder: BuilderName
) -> None:
    """trtexec itself would take them: it ignores a mismatch."""
    core.device = "another board"
    bench.build(descriptor(), timing_cache_dir=timings)
    core.device = "double"

    built = bench.build(descriptor(), builder=builder, timing_cache_dir=timings)
    assert built.report.warnings[0] == (
        "tensorrt.timing: the timings of former builds are another device's; all is timed anew"
    )
    assert b"another board" not in (timings / TIMING_FILE).read_bytes()


def test_timings_of_another_device_are_attached_to_no_build(
    bench: Bench, timings: Path, core: Core, trt: ModuleType
) -> None:
    core.device = "another board"
    bench.build(descriptor(), timing_cache_dir=timings)
    core.device = "double"
    builder = trt.Builder(bench.log)

    with pytest.raises(EngineBuildError, match="TensorRT does not take its own timing cache"):
        attach_timings(builder.create_builder_config(), (timings / TIMING_FILE).read_bytes())


def test_timings_that_cannot_be_read_are_dropped_with_a_note_and_written_anew(bench: Bench, timings: Path) -> None:
    timings.mkdir()
    (timings / TIMING_FILE).write_bytes(b"rotten")

    built = bench.build(descriptor(), timing_cache_dir=timings)
    assert built.report.warnings[0] == (
        "tensorrt.timing: TensorRT cannot read the timings of former builds; all is timed anew"
    )
    assert (timings / TIMING_FILE).read_bytes() != b"rotten"


def test_timings_that_are_no_file_or_too_large_are_an_error_by_name(bench: Bench, timings: Path) -> None:
    (timings / TIMING_FILE).mkdir(parents=True)
    with pytest.raises(EngineBuildError, match=r"tensorrt\.timing: the timing cache cannot be read"):
        bench.build(descriptor(), timing_cache_dir=timings)
    (timings / TIMING_FILE).rmdir()
    with (timings / TIMING_FILE).open("wb") as file:
        file.truncate(TIMING_MAX_BYTES + 1)

    with pytest.raises(EngineBuildError, match=r"tensorrt\.timing: the timing cache cannot be read"):
        bench.build(descriptor(), timing_cache_dir=timings)


@pytest.mark.parametrize("builder", ["api", "polygraphy"])
def test_a_build_that_gives_no_timings_is_an_error(bench: Bench, core: Core, builder: BuilderName) -> None:
    if builder == "polygraphy":
        pytest.importorskip("polygraphy", reason="Polygraphy is not installed here")
    core.fail("serialize_timing_cache", "")

    with pytest.raises(EngineBuildError, match="expected the timings of the build, found none"):
        bench.build(descriptor(), builder=builder)


def test_a_tensorrt_that_does_not_take_a_new_cache_is_an_error(bench: Bench, core: Core) -> None:
    core.fail("create_timing_cache", "")

    with pytest.raises(EngineBuildError, match="TensorRT does not take its own timing cache of 0 bytes"):
        bench.build(descriptor())
