"""A store that somebody else wrote: whatever it names or holds, nothing outside its folder is opened."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from messages import EngineDeserializeError, EngineStoreError
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.store.engine_artifact import metadata_path, read_verified, sidecar_of
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.inventory import take_inventory
from runtimes.store.read_ahead import ReadAhead
from runtimes.store.rollback import roll_back
from runtimes.store.sha256_sidecar import Sha256Sidecar, sha256_of
from runtimes.store.verification import verify_generation

Commit = Callable[[EngineStore, Mapping[str, bytes]], Generation]
ENGINE = "vpr__sm0_jp0_trt0_fp32.engine"
NOT_ASKED = {
    "manifest.json": {"read_verified", "read_ahead"},  # who has an entry has read the manifest before
    ENGINE: {"current", "generation", "inventory"},  # they look at its size alone
}
"""Which readers have no business with a file."""

_RECORDED: list[str] | None = None
_real_open = os.open


def _record(event: str, arguments: tuple[object, ...]) -> None:
    if _RECORDED is not None and event in ("open", "os.listdir", "os.scandir") and not isinstance(arguments[0], int):
        _RECORDED.append(os.fsdecode(str(arguments[0])))


sys.addaudithook(_record)


@contextmanager
def nothing_outside(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every path that is opened lies in `root` by its name, and every descriptor that comes of it in truth.

    A name without a folder is opened in a folder's descriptor; where that one leads shows in the descriptor got.
    """
    global _RECORDED
    strangers: list[str] = []

    def watch(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        descriptor = _real_open(path, flags, mode, dir_fd=dir_fd)
        found = Path(f"/proc/self/fd/{descriptor}").readlink()
        if root not in (found, *found.parents):
            strangers.append(f"{path} led to {found}")
        return descriptor

    monkeypatch.setattr(os, "open", watch)
    _RECORDED = []
    try:
        yield
    finally:
        recorded, _RECORDED = _RECORDED, None
        monkeypatch.setattr(os, "open", _real_open)
    named = [Path(text) for text in recorded]
    strangers += [
        str(path) for path in named if ".." in path.parts or (len(path.parts) > 1 and root not in (path, *path.parents))
    ]
    assert strangers == []
    assert named, "something was opened"


class Attacked(NamedTuple):
    """A store with one generation as it was committed, and a whole copy of all of it elsewhere."""

    store: EngineStore
    generation: Generation
    outside: Path

    @property
    def entry(self) -> EngineCacheEntry:
        return self.generation.entries["vpr"]

    def readers(self) -> dict[str, Callable[[], str]]:
        """Everything that reads a store, each giving what it refuses and why, or "" where it refuses nothing."""
        return {
            "current": lambda: _damage(self.store.current()),
            "generation": lambda: _damage(self.store.generation(1)),
            "read_verified": lambda: _nothing(read_verified(self.entry)),
            "read_ahead": self._read_ahead,
            "verification": lambda: "; ".join(finding.problem for finding in verify_generation(self.generation)),
            "rollback": lambda: _nothing(roll_back(self.store, 1)),
            "inventory": self._take_inventory,
        }

    def _read_ahead(self) -> str:
        with ReadAhead([self.entry]) as ahead:
            return _nothing(ahead.read(self.entry))

    def _take_inventory(self) -> str:
        inventory = take_inventory(self.store)
        [found] = inventory.generations
        return "; ".join([inventory.problem, found.problem, *found.damaged.values()]).strip("; ")


def _damage(generation: Generation | None) -> str:
    assert generation is not None
    return "; ".join(generation.damaged.values())


def _nothing(_: object) -> str:
    return ""


def refusals(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What each reader says of the store as it lies there, having opened nothing outside it."""
    said: dict[str, str] = {}
    for name, read in attacked.readers().items():
        with nothing_outside(attacked.store.root, monkeypatch):
            try:
                said[name] = read()
            except (EngineStoreError, EngineDeserializeError) as error:
                said[name] = str(error)
    return said


@pytest.fixture
def attacked(tmp_path: Path, commit: Commit) -> Attacked:
    store = EngineStore(tmp_path / "engines")
    generation = commit(store, {"vpr": b"an engine"})
    outside = tmp_path / "outside"
    shutil.copytree(store.root, outside)
    return Attacked(store, generation, outside)


def put_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def put_relative_link(path: Path, outside: Path) -> None:
    path.symlink_to(os.path.relpath(outside, path.parent))


def put_dangling_link(path: Path, outside: Path) -> None:
    path.symlink_to("nowhere")


def put_pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def put_folder(path: Path, outside: Path) -> None:
    path.mkdir()


def put_socket(path: Path, outside: Path) -> None:
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)  # the name of a socket has 107 bytes at most
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


def put_device(path: Path, outside: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero never ends
    except PermissionError:
        pytest.skip("only root makes devices")


def put_nothing(path: Path, outside: Path) -> None:
    assert not path.exists()


def put_empty_file(path: Path, outside: Path) -> None:
    path.touch()


PUT = [
    put_link,
    put_relative_link,
    put_dangling_link,
    put_pipe,
    put_folder,
    put_socket,
    put_device,
    put_nothing,
    put_empty_file,
]


@pytest.mark.parametrize("put", PUT)
@pytest.mark.parametrize("name", ["manifest.json", ENGINE, f"{ENGINE}.json", f"{ENGINE}.sha256"])
def test_a_file_of_a_generation_that_is_no_file_is_refused_by_name(
    attacked: Attacked, name: str, put: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = attacked.generation.path / name
    path.unlink()
    put(path, attacked.outside / "gen-000001" / name)
    for reader, text in refusals(attacked, monkeypatch).items():
        assert name in text or (text == "" and reader in NOT_ASKED.get(name, ())), f"{reader}: {text}"


@pytest.mark.parametrize("put", [each for each in PUT if each is not put_folder])
def test_a_generation_folder_that_is_no_folder_is_refused_by_name(
    attacked: Attacked, put: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(attacked.generation.path)
    put(attacked.generation.path, attacked.outside / "gen-000001")
    if put is put_nothing:
        with pytest.raises(EngineStoreError, match="expected a store with generations"):
            roll_back(attacked.store, 1)
        return
    for text in refusals(attacked, monkeypatch).values():
        assert "gen-000001" in text


@pytest.mark.parametrize("put", [each for each in PUT if each is not put_nothing])
def test_a_current_that_is_no_file_is_refused_by_name(
    attacked: Attacked, put: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = attacked.store.root / "current"
    path.unlink()
    put(path, attacked.outside / "current")
    with nothing_outside(attacked.store.root, monkeypatch), pytest.raises(EngineStoreError, match="current"):
        attacked.store.current()
    assert "current" in take_inventory(attacked.store).problem


def test_a_hard_link_is_a_file_and_its_content_decides(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = attacked.outside / "gen-000001" / ENGINE
    attacked.entry.path.unlink()
    os.link(copy, attacked.entry.path)
    assert set(refusals(attacked, monkeypatch).values()) == {""}
    copy.write_bytes(b"AN ENGINE")
    assert ENGINE in refusals(attacked, monkeypatch)["read_verified"]


def test_a_link_to_the_whole_store_is_the_operators(attacked: Attacked) -> None:
    link = attacked.outside / "link"
    link.symlink_to(attacked.store.root)
    assert EngineStore(link).current() == attacked.generation


# --- what the files say -----------------------------------------------------------------------------------------


def put_manifest(attacked: Attacked, data: bytes) -> None:
    """A manifest that `current` names by its right hash: only what it says is wrong."""
    (attacked.generation.path / "manifest.json").write_bytes(data)
    (attacked.store.root / "current").write_text(f"{sha256_of(data)}  gen-000001/manifest.json\n")


def manifest_naming(attacked: Attacked, engine: str) -> bytes:
    """The manifest with every file of the engine under this name, in keeping with itself."""
    document = msgspec.json.decode((attacked.generation.path / "manifest.json").read_bytes())
    document["engines"]["vpr"] = engine
    for file in document["files"]:
        file["name"] = file["name"].replace(ENGINE, engine)
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.characters(codec="utf-8"), max_size=300))
@example("..")
@example(".")
@example("")
@example("../outside/gen-000001/" + ENGINE)
@example("/etc/passwd")
@example("sub/x.engine")
@example("..\\x.engine")
@example("x\0.engine")
@example("x.engine\n")
@example("a" * 5000)
@example("ü.engine")
@example("e\u0301.engine")
@example("x.engine")
@example(".hidden.engine")
@example("-rf")
@example("manifest.json")
@example("current")
def test_a_manifest_that_names_any_other_file_is_refused_and_opens_nothing_outside(
    attacked: Attacked, name: str
) -> None:
    put_manifest(attacked, manifest_naming(attacked, name))
    with pytest.MonkeyPatch.context() as patch, nothing_outside(attacked.store.root, patch):
        try:
            refused = _damage(attacked.store.current())
        except EngineStoreError as error:
            refused = str(error)
    assert "gen-000001" in refused


@pytest.mark.parametrize(
    "text",
    [
        "{sha}  ../outside/gen-000001/manifest.json\n",
        "{sha}  gen-000001/../../outside/gen-000001/manifest.json\n",
        "{sha}  {outside}/gen-000001/manifest.json\n",
        "{sha}  gen-000001/manifest.json\0\n",
        "{sha}  gen-1/manifest.json\n",
        "{sha}  gen-\u0660\u0660\u0660\u0660\u0660\u0661/manifest.json\n",
        "{sha}  gen-000001/manifest.json\n{sha}  gen-000001/manifest.json\n",
        "{sha}  gen-000001/manifest.json",
    ],
)
def test_a_current_that_names_any_other_file_is_refused_and_opens_nothing_outside(
    attacked: Attacked, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = text.format(sha=attacked.generation.manifest_sha256, outside=attacked.outside)
    (attacked.store.root / "current").write_bytes(line.encode())
    with nothing_outside(attacked.store.root, monkeypatch), pytest.raises(EngineStoreError, match="current"):
        attacked.store.current()


def test_metadata_and_sidecar_cannot_lead_elsewhere(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    document = msgspec.json.decode(metadata_path(attacked.entry.path).read_bytes())
    document["path"] = str(attacked.outside / "gen-000001" / ENGINE)
    metadata = msgspec.json.encode(document)
    metadata_path(attacked.entry.path).write_bytes(metadata)
    sidecar = sidecar_of(attacked.entry, metadata)
    Sha256Sidecar.path_for(attacked.entry.path).write_bytes(sidecar.format())
    with (
        nothing_outside(attacked.store.root, monkeypatch),
        pytest.raises(EngineDeserializeError, match=r"unknown field `path`"),
    ):
        read_verified(attacked.entry)
