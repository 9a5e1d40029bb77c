"""Hashing a whole generation: everything that is wrong is found, each file once, in little memory."""

from __future__ import annotations

import os
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtimes.inference_runtime import EngineCacheEntry
from runtimes.measurements import MemoryUse
from runtimes.store import verification
from runtimes.store.engine_artifact import metadata_path, self_test_path
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.engine_writer import sign_off
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.store.staged_generation import stage_generation
from runtimes.store.verification import CHUNK_BYTES, HashedSoFar, hash_regular_file, verify_generation

Commit = Callable[[EngineStore, Mapping[str, bytes]], Generation]
WriteEngine = Callable[[Path, str, bytes], EngineCacheEntry]
ENGINES = {"matcher": b"m" * 5000, "vpr": b"v" * 3000}


@pytest.fixture
def generation(store: EngineStore, commit: Commit) -> Generation:
    return commit(store, ENGINES)


def files_found(generation: Generation) -> set[str]:
    return {finding.file for finding in verify_generation(generation)}


@pytest.mark.parametrize("workers", [None, 1, 7, 1000])
def test_a_whole_generation_has_no_findings(generation: Generation, workers: int | None) -> None:
    assert verify_generation(generation, workers) == ()


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_of_any_file_is_found_in_that_file_alone(generation: Generation, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(generation.path.iterdir())))
    content = path.read_bytes()
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    altered = bytearray(content)
    altered[bit // 8] ^= 1 << bit % 8
    path.write_bytes(altered)
    try:
        [finding] = verify_generation(generation)
        assert finding.file == path.name
        assert finding.model == next((model for model in ENGINES if path.name.startswith(model)), "")
        assert str(path) in finding.problem
        assert "expected sha256" in finding.problem
    finally:
        path.write_bytes(content)


def test_every_file_that_is_missing_short_or_long_is_found(generation: Generation) -> None:
    vpr, matcher = generation.entries["vpr"].path, generation.entries["matcher"].path
    vpr.unlink()
    matcher.write_bytes(matcher.read_bytes() + b"m")
    metadata_path(matcher).write_bytes(b"")
    problems = {finding.file: finding.problem for finding in verify_generation(generation)}
    assert problems.keys() == {vpr.name, matcher.name, metadata_path(matcher).name}
    assert "No such file" in problems[vpr.name]
    assert "expected 5000 bytes, found 5001" in problems[matcher.name]


def test_known_answers_are_files_like_the_others(store: EngineStore, write_small: WriteEngine) -> None:
    with stage_generation(store) as staged:
        entry = write_small(staged.directory, "vpr", b"an engine")
        memory = MemoryUse(load_bytes=1, run_bytes=1)
        sign_off(entry, self_test=b"known answers", power=None, memory=memory, accuracy=None)
        generation = staged.commit()
    assert verify_generation(generation) == ()
    answers = self_test_path(generation.entries["vpr"].path)
    answers.write_bytes(b"other answers")
    assert files_found(generation) == {answers.name}


def test_files_that_are_whole_and_contradict_each_other_are_found(store: EngineStore, commit: Commit) -> None:
    commit(store, ENGINES)
    path = store.path_of(1) / "manifest.json"
    swapped = path.read_text().replace('"vpr": "vpr__', '"vpr2": "vpr__')
    path.write_text(swapped)
    [finding] = verify_generation(store.generation(1))
    assert finding.model == "vpr2"
    assert "lists another engine: expected vpr2" in finding.problem


def test_a_manifest_that_changed_since_it_was_read_is_found(generation: Generation) -> None:
    path = generation.path / "manifest.json"
    path.write_bytes(path.read_bytes() + b"\n")
    [finding] = verify_generation(generation)
    assert (finding.file, finding.model) == ("manifest.json", "")
    assert "changed while it was verified" in finding.problem
    path.unlink()
    assert files_found(generation) == {"manifest.json"}


_OPENED: Counter[str] | None = None


def _count_opens(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _OPENED is not None:
        _OPENED[Path(os.fsdecode(str(arguments[0]))).name] += 1


sys.addaudithook(_count_opens)


def test_each_file_is_opened_once(generation: Generation) -> None:
    global _OPENED
    _OPENED = Counter()
    try:
        verify_generation(generation)
        opened = dict(_OPENED)
    finally:
        _OPENED = None
    listed = {path.name for path in generation.path.iterdir()}
    assert {name: count for name, count in opened.items() if name in listed} == dict.fromkeys(listed, 1)


def test_memory_does_not_grow_with_the_engines(store: EngineStore, commit: Commit) -> None:
    size = 24 * CHUNK_BYTES
    generation = commit(store, {"large": b"x" * size, "larger": b"y" * size})
    verify_generation(generation)
    tracemalloc.start()
    try:
        assert verify_generation(generation, 2) == ()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert CHUNK_BYTES < peak_bytes < 4 * CHUNK_BYTES


def test_progress_reaches_all_of_it_on_the_callers_thread(generation: Generation) -> None:
    heard: list[HashedSoFar] = []
    threads: set[str] = set()

    def hear(number: int, so_far: HashedSoFar) -> None:
        assert number == generation.number
        heard.append(so_far)
        threads.add(threading.current_thread().name)

    verify_generation(generation, hashing=hear)
    assert threads == {threading.current_thread().name}
    assert [each.files_done for each in heard] == sorted(each.files_done for each in heard)
    assert heard[-1].files_done == heard[-1].files == 6
    assert (
        heard[-1].bytes_done
        == heard[-1].bytes_total
        == sum(path.stat().st_size for path in generation.path.iterdir() if path.name != "manifest.json")
    )


def test_an_interrupted_verification_ends_with_its_threads(generation: Generation) -> None:
    def interrupt(_number: int, _so_far: HashedSoFar) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_generation(generation, hashing=interrupt)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("c7-verify")]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(0, 200), chunk=st.integers(1, 64))
def test_the_hash_is_of_all_of_the_file_however_it_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, chunk: int
) -> None:
    monkeypatch.setattr(verification, "CHUNK_BYTES", chunk)
    data = bytes(range(200))[:size]
    path = tmp_path / "file"
    path.write_bytes(data)
    assert hash_regular_file(path, exact_bytes=size) == sha256_of(data)
    with pytest.raises(OSError, match=f"expected {size + 1} bytes, found {size}"):
        hash_regular_file(path, exact_bytes=size + 1)


@pytest.mark.parametrize("size_afterwards", [3, 10])
def test_a_file_that_changes_its_size_while_it_is_hashed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_afterwards: int
) -> None:
    monkeypatch.setattr(verification, "CHUNK_BYTES", 4)
    path = tmp_path / "file"
    path.write_bytes(b"eight by")
    with pytest.raises(OSError, match="found it changing while it was read"):
        hash_regular_file(path, exact_bytes=8, tally=lambda _: os.truncate(path, size_afterwards))
