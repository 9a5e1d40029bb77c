"""Files that claim to be larger than anything that is: refused before memory is taken for them."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import msgspec
import pytest

from messages import C7Error, EngineDeserializeError, EngineStoreError
from runtimes.store.engine_artifact import ENGINE_MAX_BYTES, encode_metadata, metadata_path, read_verified, sidecar_of
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.manifest import MANIFEST_MAX_BYTES
from runtimes.store.rollback import roll_back
from runtimes.store.sha256_sidecar import Sha256Sidecar, sha256_of

Commit = Callable[[EngineStore, Mapping[str, bytes]], Generation]
PEAK_MAX_BYTES = 16 * MANIFEST_MAX_BYTES
"""Reading a manifest of the largest size and refusing it may take this much, whatever it claims."""


def damage(generation: Generation | None) -> str:
    assert generation is not None
    return "; ".join(generation.damaged.values())


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < PEAK_MAX_BYTES


def claiming(size: str) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(b'"size_bytes": 9', b'"size_bytes": ' + size.encode())


@pytest.mark.parametrize(
    "change",
    [
        claiming(str(2**31)),
        claiming(str(2**63)),
        claiming(str(2**64)),
        claiming("1" + "0" * 400),
        claiming("1e308"),
        lambda data: b"[" * (MANIFEST_MAX_BYTES - 1),
        lambda data: b'{"engines":' * (MANIFEST_MAX_BYTES // 11),
        lambda data: b'{"files": [' + b"{}," * 1_000_000 + b"{}]}",
        lambda data: b'{"files": [' + b"{}," * 80_000 + b"{}]}",
        lambda data: b'{"engines": {' + b",".join(b'"%d": "a"' % n for n in range(18_000)) + b"}}",
        lambda data: data + b" " * MANIFEST_MAX_BYTES,
    ],
)
def test_a_manifest_with_huge_claims_is_refused_before_anything_is_allocated(
    store: EngineStore, commit: Commit, change: Callable[[bytes], bytes]
) -> None:
    path = commit(store, {"vpr": b"an engine"}).path / "manifest.json"
    data = change(path.read_bytes())
    path.write_bytes(data)
    (store.root / "current").write_text(f"{sha256_of(data)}  gen-000001/manifest.json\n")
    with little_memory():
        try:
            refused = damage(store.current())
        except C7Error as error:
            refused = str(error)
    assert "gen-000001" in refused
    with little_memory(), pytest.raises(EngineStoreError, match="gen-000001"):
        roll_back(store, 1)


@pytest.mark.parametrize("size_bytes", [2**63, 2**33, ENGINE_MAX_BYTES + 1])
def test_an_engine_with_a_huge_claim_is_refused_before_anything_is_allocated(
    store: EngineStore, commit: Commit, size_bytes: int
) -> None:
    committed = commit(store, {"vpr": b"an engine"}).entries["vpr"]
    entry = msgspec.structs.replace(committed, engine_size_bytes=size_bytes)
    metadata = encode_metadata(entry)
    metadata_path(entry.path).write_bytes(metadata)
    Sha256Sidecar.path_for(entry.path).write_bytes(sidecar_of(entry, metadata).format())
    with little_memory(), pytest.raises(EngineDeserializeError, match=entry.path.name):
        read_verified(entry)
    if size_bytes > ENGINE_MAX_BYTES and size_bytes < 2**40:
        os.truncate(entry.path, size_bytes)  # all of it a hole: it takes no room on the disk
        with little_memory(), pytest.raises(EngineDeserializeError, match="expected at most"):
            read_verified(entry)
