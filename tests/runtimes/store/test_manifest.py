"""A manifest has one way to be written, and whatever else it says is refused in words that steer no terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import pytest

from messages import EngineStoreError
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.staged_generation import stage_generation

Commit = Callable[[EngineStore, Mapping[str, bytes]], Generation]


def compact(data: bytes) -> bytes:
    return msgspec.json.format(data, indent=-1)


def in_another_order(data: bytes) -> bytes:
    document = msgspec.json.decode(data)
    return msgspec.json.format(msgspec.json.encode(dict(reversed(document.items()))), indent=2) + b"\n"


@pytest.mark.parametrize(
    "rewritten",
    [
        compact,
        in_another_order,
        lambda data: data + b" ",
        lambda data: data[:-1],
        lambda data: data.replace(b'"number": 1,', b'"number": 2,\n  "number": 1,'),
        lambda data: data.replace(b'"vpr": "', b'"vpr": "other.engine",\n    "vpr": "'),
        lambda data: data.replace(b'"vpr"', b'"\\u0076pr"'),
        lambda data: data.replace(b'  "format": 1,\n', b""),
    ],
)
def test_the_same_manifest_written_in_another_way_is_refused(
    store: EngineStore, commit: Commit, rewritten: Callable[[bytes], bytes]
) -> None:
    path = commit(store, {"vpr": b"one"}).path / "manifest.json"
    data = rewritten(path.read_bytes())
    assert data != path.read_bytes()
    path.write_bytes(data)
    with pytest.raises(EngineStoreError, match=r"manifest\.json: not a manifest as it is written"):
        store.generation(1)  # it is asked for by its number: there is no hash to hold it against


STEERING = "x\n2026 INFO all is well \x1b[2K\x9b31m\u202e"


@pytest.mark.parametrize("place", ["field", "model", "sha256"])
def test_what_a_manifest_says_does_not_steer_a_log_or_a_terminal(
    store: EngineStore, commit: Commit, place: str
) -> None:
    path = commit(store, {"vpr": b"one"}).path / "manifest.json"
    document = msgspec.json.decode(path.read_bytes())
    if place == "field":
        document[STEERING] = 1
    elif place == "model":
        document["engines"] = {STEERING: document["engines"]["vpr"]}
    else:
        document["files"][0]["sha256"] += "\n"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    with pytest.raises(EngineStoreError, match="not a manifest: ") as refused:
        store.generation(1)
    assert str(refused.value).isprintable()


def test_a_store_whose_numbers_are_used_up_is_refused_before_current_is_touched(
    store: EngineStore, commit: Commit
) -> None:
    committed = commit(store, {"vpr": b"one"})
    store.path_of(999_999).mkdir()
    with pytest.raises(EngineStoreError, match="generations up to 999999, found them used up"):
        commit(store, {"vpr": b"two"})
    assert store.current() == committed


def test_a_folder_in_other_digits_is_no_generation(store: EngineStore, commit: Commit) -> None:
    commit(store, {"vpr": b"one"})
    (store.root / "gen-\u0660\u0660\u0660\u0660\u0660\u0661").mkdir()
    assert store.numbers() == [1]
    with stage_generation(store) as staged:
        assert staged.former == store.current()
