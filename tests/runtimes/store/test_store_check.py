"""The whole store held against what it says of itself: everything wrong is found and named, in every generation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from messages import EngineStoreError, TensorSpec
from runtimes.fake_runtime import FAKE_HOST
from runtimes.inference_runtime import BuildConfig
from runtimes.measurements import MemoryUse
from runtimes.source_model import SourceModel
from runtimes.store.engine_store import EngineStore
from runtimes.store.engine_writer import BuiltEngine, sign_off, write_engine
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.store.signed_generation import sign_generation
from runtimes.store.signing_key import PublicKey, public_key_of
from runtimes.store.staged_generation import stage_generation
from runtimes.store.store_check import StoreCheck, check_store

GROUND = Ed25519PrivateKey.from_private_bytes(b"ground" + bytes(26))
STRANGER = Ed25519PrivateKey.from_private_bytes(b"stranger" + bytes(24))
PUBLIC = PublicKey(public_key_of(GROUND), Path("ground.pem"))


def commit(store: EngineStore, engines: dict[str, bytes]) -> None:
    with stage_generation(store) as staged:
        for model, data in engines.items():
            entry = write_engine(
                staged.directory,
                model,
                SourceModel(Path(f"{model}.onnx"), b"source", sha256_of(b"source")),
                BuiltEngine(
                    data=data,
                    inputs={"x": TensorSpec((1,), "float32")},
                    outputs={},
                    build_tool="test",
                    calibration_cache=b"scales",
                ),
                BuildConfig(precision="fp32"),
                "onnx_trt_ep[cpu]",
                FAKE_HOST,
                1,
            )
            sign_off(
                entry, self_test=b"answers", power=None, memory=MemoryUse(load_bytes=1, run_bytes=1), accuracy=None
            )
        staged.commit()


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    """Two generations, both signed by the ground station; the second is current."""
    made = EngineStore(tmp_path / "engines")
    for data in (b"one", b"two"):
        commit(made, {"vpr": data, "matcher": data + data})
        sign_generation(made, GROUND)
    return made


def found(checked: StoreCheck) -> dict[str, str]:
    return {**checked.problems, **{name: text for each in checked.generations for name, text in each.problems.items()}}


def test_a_whole_store_signed_with_the_key_is_as_it_should_be(store: EngineStore) -> None:
    numbers: list[int] = []
    checked = check_store(store, PUBLIC, hashing=lambda number, _: numbers.append(number))
    assert checked.ok
    assert found(checked) == {}
    assert sorted(set(numbers)) == [1, 2]
    assert checked.current == 2
    assert checked.key == PUBLIC.hex
    assert [(each.number, each.current, each.signature, each.version) for each in checked.generations] == [
        (1, False, "verified", 1),
        (2, True, "verified", 2),
    ]


def test_without_a_key_a_signature_is_checked_against_the_key_that_it_names(store: EngineStore) -> None:
    checked = check_store(store, None)
    assert checked.ok
    assert [each.signature for each in checked.generations] == ["not_compared", "not_compared"]
    assert [each.key for each in checked.generations] == [PUBLIC.hex, PUBLIC.hex]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("alter", [lambda data: data[:-1], lambda data: bytes([data[0] ^ 1]) + data[1:]])
def test_damage_to_any_file_of_any_generation_is_found_and_named(
    store: EngineStore, number: int, alter: Callable[[bytes], bytes]
) -> None:
    for path in sorted(store.path_of(number).iterdir()):
        whole = path.read_bytes()
        path.write_bytes(alter(whole))
        checked = check_store(store, PUBLIC)
        assert not checked.ok
        assert path.name in " ".join(found(checked).values()), path
        path.unlink()
        checked = check_store(store, PUBLIC)
        assert checked.ok == (path.name == "manifest.sig" and number == 1), path
        path.write_bytes(whole)
    assert check_store(store, PUBLIC).ok


def test_a_manifest_and_a_signature_that_are_both_damaged_are_both_named(store: EngineStore) -> None:
    for name in ("manifest.json", "manifest.sig"):
        (store.path_of(1) / name).write_bytes(b"x")
    assert set(found(check_store(store, PUBLIC))) == {"gen-000001/manifest.json", "gen-000001/manifest.sig"}


@pytest.mark.parametrize("content", [b"", b"x", None])
def test_a_current_that_is_damaged_or_missing_is_found(store: EngineStore, content: bytes | None) -> None:
    if content is None:
        (store.root / "current").unlink()
    else:
        (store.root / "current").write_bytes(content)
    checked = check_store(store, PUBLIC)
    assert not checked.ok
    assert str(store.root / "current") in checked.problems["current"]
    assert [each.number for each in checked.generations] == [1, 2]


def test_a_current_that_names_another_manifest_is_found(store: EngineStore) -> None:
    (store.root / "current").write_text(f"{'0' * 64}  gen-000002/manifest.json\n")
    assert "content altered" in check_store(store, PUBLIC).problems["current"]


def test_the_current_generation_must_be_signed_with_the_key_that_was_given(store: EngineStore) -> None:
    (store.path_of(2) / "manifest.sig").unlink()
    checked = check_store(store, PUBLIC)
    assert "found none; sign it" in found(checked)["gen-000002/manifest.sig"]
    assert checked.generations[1].signature == "none"
    sign_generation(store, STRANGER, version=9)
    checked = check_store(store, PUBLIC)
    assert f"found one by the key {public_key_of(STRANGER)}" in found(checked)["gen-000002/manifest.sig"]
    assert checked.generations[1].signature == "other_key"
    assert check_store(store, None).ok


def test_an_older_generation_may_be_unsigned_or_signed_with_another_key_and_it_shows(store: EngineStore) -> None:
    (store.path_of(1) / "manifest.sig").unlink()
    checked = check_store(store, PUBLIC)
    assert checked.ok
    assert checked.generations[0].signature == "none"
    sign_generation(store, STRANGER, number=1, version=9)
    checked = check_store(store, PUBLIC)
    assert checked.ok
    assert checked.generations[0].signature == "other_key"


def test_a_signature_of_another_generation_is_found(store: EngineStore) -> None:
    (store.path_of(2) / "manifest.sig").write_bytes((store.path_of(1) / "manifest.sig").read_bytes())
    checked = check_store(store, None)
    assert "signs another manifest" in found(checked)["gen-000002/manifest.sig"]
    assert checked.generations[1].signature == "damaged"


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineStoreError, match="expected a store of engines, found none"):
        check_store(EngineStore(tmp_path), None)


@pytest.mark.parametrize("name", ["evil.engine", ".hidden", "a\x1b[2K\n"])
def test_what_no_manifest_lists_is_named(store: EngineStore, name: str) -> None:
    (store.path_of(1) / name).write_bytes(b"?")
    [(file, text)] = found(check_store(store, PUBLIC)).items()
    assert file.startswith("gen-000001/")
    assert "expected nothing but what the manifest lists" in text
    assert (file + text).isprintable()


def test_what_a_killed_signer_left_is_no_stranger(store: EngineStore) -> None:
    (store.path_of(2) / ".manifest.sig.0123456789abcdef.part").write_bytes(b"half")
    assert check_store(store, PUBLIC).ok


def test_generations_that_nothing_points_at_are_told_how_to_be_pointed_at(store: EngineStore) -> None:
    (store.root / "current").unlink()
    assert found(check_store(store, PUBLIC)) == {
        "current": f"{store.root}/current: expected it to name a generation, found no such file; point it at one:"
        " c7 engines rollback FLIGHT.toml --generation N"
    }
