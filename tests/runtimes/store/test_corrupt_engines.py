"""Which damages of an engine's files are final, and which reading it again may heal."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from messages import CorruptEngineError, EngineDeserializeError, OutOfMemoryError
from messages.faults import classify_fault
from runtimes.fake_runtime import FAKE_HOST, FakeRuntime
from runtimes.fake_steps import returns
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry
from runtimes.measurements import MemoryUse
from runtimes.source_model import SourceModel
from runtimes.store import engine_artifact, engine_store, sha256_sidecar
from runtimes.store.engine_artifact import (
    metadata_path,
    read_engine,
    read_entry,
    read_self_test,
    self_test_path,
    verify_artifact,
)
from runtimes.store.engine_store import EngineStore
from runtimes.store.engine_writer import BuiltEngine, sign_off, write_engine
from runtimes.store.manifest import decode_manifest
from runtimes.store.regular_file import is_no_regular_file
from runtimes.store.sha256_sidecar import Sha256Sidecar, read_with_sidecar, sha256_of, write_with_sidecar
from runtimes.takeoff_load import deserialize_cached_engine

LABEL = "onnx_trt_ep[cpu]"


@pytest.fixture
def entry(tmp_path: Path) -> EngineCacheEntry:
    """An engine with known answers beside it."""
    return write(tmp_path / "engines", b"engine" * 100)


def write(folder: Path, data: bytes) -> EngineCacheEntry:
    source = SourceModel(Path("vpr.onnx"), b"source", sha256_of(b"source"))
    built = BuiltEngine(data=data, inputs={}, outputs={}, build_tool="test")
    compiled = write_engine(folder, "vpr", source, built, BuildConfig(precision="fp32"), LABEL, FAKE_HOST, 1)
    memory = MemoryUse(load_bytes=1, run_bytes=1)
    return sign_off(compiled, self_test=b"known answers", power=None, memory=memory, accuracy=None)


FILES: dict[str, Callable[[Path], Path]] = {
    "engine": lambda path: path,
    "metadata": metadata_path,
    "known answers": self_test_path,
    "sidecar": Sha256Sidecar.path_for,
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def lose_the_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("away"))


def replace_the_folder_by_a_file(path: Path) -> None:
    lose_the_folder(path)
    path.parent.write_bytes(b"")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip,
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "empty": lambda path: path.write_bytes(b""),
    "missing": Path.unlink,
    "a link in its place": link,
    "a folder in its place": make_folder,
    "a pipe in its place": make_pipe,
    "without its folder": lose_the_folder,
    "a file in its folder's place": replace_the_folder_by_a_file,
}

UNREADABLE = [errno.EIO, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENOMEM, errno.ESTALE, errno.EINTR]
"""What says nothing of the file: the disk, this user's rights, this process's limits."""


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_files_that_are_not_what_was_signed_off_are_corrupt(entry: EngineCacheEntry, file: str, damage: str) -> None:
    DAMAGES[damage](FILES[file](entry.path))
    with pytest.raises(CorruptEngineError) as refusal:
        verify_artifact(entry)
    assert str(entry.path) in str(refusal.value)
    assert classify_fault(refusal.value) == "corrupt_engine"


@pytest.mark.parametrize("code", UNREADABLE, ids=errno.errorcode.get)
def test_files_that_cannot_be_read_just_then_are_not_corrupt(
    entry: EngineCacheEntry, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, **_: object) -> bytes:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(engine_artifact, "read_regular_file", fail)
    for read in (lambda: read_entry(entry.path), lambda: verify_artifact(entry), lambda: read_self_test(entry)):
        with pytest.raises(EngineDeserializeError, match="cannot be read") as refusal:
            read()
        assert type(refusal.value) is EngineDeserializeError
        assert classify_fault(refusal.value) == "engine_fault"


@pytest.mark.parametrize("code", UNREADABLE, ids=errno.errorcode.get)
def test_what_says_nothing_of_the_file_is_told_from_what_lies_there(code: int) -> None:
    assert not is_no_regular_file(OSError(code, ""))


def test_another_engine_in_its_place_is_corrupt_though_it_is_whole(entry: EngineCacheEntry, tmp_path: Path) -> None:
    other = write(tmp_path / "other", b"another" * 90)
    for path in (other.path, metadata_path(other.path), Sha256Sidecar.path_for(other.path)):
        path.replace(entry.path.with_name(path.name))
    with pytest.raises(CorruptEngineError, match="not the engine that was asked for"):
        verify_artifact(entry)


@pytest.mark.parametrize(
    "metadata",
    [b"{}", b"nonsense", b'{"format": 1}', b'{"format": 3, "path": "x"}', b'{"format": 3}'],
)
def test_metadata_that_contradicts_what_it_is_of_is_corrupt(entry: EngineCacheEntry, metadata: bytes) -> None:
    metadata_path(entry.path).write_bytes(metadata)
    contents = {path.name: path.read_bytes() for path in (entry.path, metadata_path(entry.path))}
    Sha256Sidecar.path_for(entry.path).write_bytes(Sha256Sidecar.over(contents).format())
    with pytest.raises(CorruptEngineError):
        read_entry(entry.path)


def test_an_engine_of_another_host_or_runtime_is_refused_and_not_corrupt(entry: EngineCacheEntry) -> None:
    other_host = msgspec.structs.replace(FAKE_HOST, sm=87)
    for label, host in ((LABEL, other_host), ("tensorrt", FAKE_HOST)):
        with pytest.raises(EngineDeserializeError) as refusal:
            read_engine(entry, runtime_label=label, host=host)
        assert type(refusal.value) is EngineDeserializeError


def test_a_file_that_memory_has_no_room_for_is_out_of_memory(entry: EngineCacheEntry) -> None:
    def read(_: EngineCacheEntry) -> bytes:
        raise MemoryError

    with pytest.raises(OutOfMemoryError, match=rf"{entry.path.name}: no memory for the 600 bytes"):
        read_engine(entry, runtime_label=LABEL, host=FAKE_HOST, read=read)


def test_a_load_in_flight_keeps_the_kind_of_the_error(tmp_path: Path) -> None:
    kinds: list[tuple[str, type[EngineDeserializeError]]] = [
        ("engine", CorruptEngineError),
        ("host", EngineDeserializeError),
    ]
    for name, kind in kinds:
        fake = FakeRuntime({"vpr": returns({})}, engine_dir=tmp_path / name)
        (tmp_path / "vpr.onnx").write_bytes(b"source")
        entry = fake.compile_engine(tmp_path / "vpr.onnx", BuildConfig())
        if kind is CorruptEngineError:
            flip(entry.path)
        else:
            entry = msgspec.structs.replace(entry, host=msgspec.structs.replace(entry.host, sm=87))
        with pytest.raises(EngineDeserializeError, match=r"^vpr does not take off: ") as refusal:
            deserialize_cached_engine(fake, entry)
        assert type(refusal.value) is kind


# A file and its sidecar, and a generation.


def test_a_file_beside_its_sidecar_is_corrupt_or_unreadable_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache"
    for damaged in (path, Sha256Sidecar.path_for(path)):
        for damage in (flip, Path.unlink):
            write_with_sidecar(path, b"content")
            damage(damaged)
            with pytest.raises(CorruptEngineError):
                read_with_sidecar(path, max_bytes=100)

    def fail(path: Path, **_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(sha256_sidecar, "read_regular_file", fail)
    with pytest.raises(EngineDeserializeError) as refusal:
        read_with_sidecar(path, max_bytes=100)
    assert type(refusal.value) is EngineDeserializeError


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.EIO, EngineDeserializeError), (errno.ENOENT, CorruptEngineError)], ids=["EIO", "ENOENT"]
)
def test_a_generations_listed_files_are_corrupt_or_unreadable_alike(
    store: EngineStore,
    commit: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    kind: type[EngineDeserializeError],
) -> None:
    commit(store, {"vpr": b"engine"})
    generation = store.current()
    assert generation is not None
    manifest = decode_manifest(generation.path, (generation.path / "manifest.json").read_bytes())

    def fail(path: Path, **_: object) -> bytes:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(engine_store, "read_regular_file", fail)
    with pytest.raises(EngineDeserializeError) as refusal:
        engine_store._read_listed_entry(generation.path, manifest, "vpr")
    assert type(refusal.value) is kind
