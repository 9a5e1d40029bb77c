"""Signing in a store: only what is whole, and each time with a higher version."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from messages import EngineStoreError, ManifestSignatureError, TensorSpec
from runtimes.fake_runtime import FAKE_HOST
from runtimes.inference_runtime import BuildConfig
from runtimes.source_model import SourceModel
from runtimes.store.engine_store import EngineStore
from runtimes.store.engine_writer import BuiltEngine, write_engine
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.store.signature import SIGNATURE_NAME, VERSION_MAX, SignedVersion, verify_signature
from runtimes.store.signed_generation import highest_signed_versions, sign_generation
from runtimes.store.signing_key import PublicKey, public_key_of
from runtimes.store.staged_generation import stage_generation
from runtimes.store.store_lock import store_lock

GROUND = Ed25519PrivateKey.from_private_bytes(b"ground" + bytes(26))
STRANGER = Ed25519PrivateKey.from_private_bytes(b"stranger" + bytes(24))


def commit(store: EngineStore, data: bytes) -> int:
    with stage_generation(store) as staged:
        write_engine(
            staged.directory,
            "vpr",
            SourceModel(Path("vpr.onnx"), b"source", sha256_of(b"source")),
            BuiltEngine(data=data, inputs={"x": TensorSpec((1,), "float32")}, outputs={}, build_tool="test"),
            BuildConfig(precision="fp32"),
            "onnx_trt_ep[cpu]",
            FAKE_HOST,
            1,
        )
        return staged.commit().number


def signed_version(store: EngineStore, number: int, key: Ed25519PrivateKey = GROUND) -> int:
    generation = store.generation(number)
    public = PublicKey(public_key_of(key), Path("ground.pem"))
    return verify_signature(generation.path / "manifest.json", generation.manifest_sha256, public).version


def engine_of(store: EngineStore, number: int) -> Path:
    [entry] = store.generation(number).entries.values()
    return entry.path


def folder_of(store: EngineStore, number: int) -> Path:
    return store.generation(number).path


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    made = EngineStore(tmp_path / "engines")
    commit(made, b"one")
    return made


def test_the_current_generation_is_signed_with_the_first_version(store: EngineStore) -> None:
    signed = sign_generation(store, GROUND)
    assert (signed.generation, signed.version, signed.key) == (1, 1, public_key_of(GROUND))
    assert signed.path == str(folder_of(store, 1) / SIGNATURE_NAME)
    assert signed_version(store, 1) == 1
    assert SignedVersion(1, signed.manifest_sha256).manifest_sha256 == store.generation(1).manifest_sha256


def test_each_signature_has_a_version_above_all_others(store: EngineStore) -> None:
    commit(store, b"two")
    assert [sign_generation(store, GROUND).version for _ in range(3)] == [1, 2, 3]
    assert sign_generation(store, GROUND, number=1).version == 4
    commit(store, b"three")
    assert sign_generation(store, GROUND).version == 5
    assert highest_signed_versions(store) == {public_key_of(GROUND): 5}


def test_another_keys_version_is_taken_up_by_a_person_alone(store: EngineStore) -> None:
    commit(store, b"two")
    sign_generation(store, STRANGER, number=1, version=VERSION_MAX)
    with pytest.raises(
        ManifestSignatureError, match=f"found version {VERSION_MAX} by the key {public_key_of(STRANGER)}"
    ):
        sign_generation(store, GROUND)
    assert not (folder_of(store, 2) / SIGNATURE_NAME).exists()
    assert sign_generation(store, GROUND, version=7).version == 7
    with pytest.raises(ManifestSignatureError, match="expected this key's version 7 to be the highest"):
        sign_generation(store, GROUND)
    with pytest.raises(ManifestSignatureError, match="expected --version above 7"):
        sign_generation(store, GROUND, version=7)


def test_a_key_that_follows_another_goes_on_from_its_version(store: EngineStore) -> None:
    commit(store, b"two")
    assert sign_generation(store, STRANGER, number=1, version=4).version == 4
    with pytest.raises(ManifestSignatureError, match="sign with --version 5"):
        sign_generation(store, GROUND)
    assert [sign_generation(store, GROUND, version=5).version, sign_generation(store, GROUND).version] == [5, 6]


def test_an_older_generation_goes_up_again_by_a_higher_version(store: EngineStore) -> None:
    sign_generation(store, GROUND)
    commit(store, b"two")
    sign_generation(store, GROUND)
    assert sign_generation(store, GROUND, number=1).version == 3
    assert [signed_version(store, number) for number in (1, 2)] == [3, 2]


def test_a_version_can_be_given_and_must_be_above_the_others(store: EngineStore) -> None:
    assert sign_generation(store, GROUND, version=40).version == 40
    for version in (1, 39, 40):
        with pytest.raises(ManifestSignatureError, match=f"expected --version above 40, .* found {version}"):
            sign_generation(store, GROUND, version=version)
    assert sign_generation(store, GROUND).version == 41


def test_a_damaged_engine_is_not_signed_unless_only_the_manifest_is_asked_for(store: EngineStore) -> None:
    engine = engine_of(store, 1)
    engine.write_bytes(b"eno")
    with pytest.raises(EngineStoreError, match=f"not whole, and was not signed: .*{engine.name}: content altered"):
        sign_generation(store, GROUND)
    assert not (folder_of(store, 1) / SIGNATURE_NAME).exists()
    signed = sign_generation(store, GROUND, manifest_only=True)
    assert signed.manifest_only
    assert signed_version(store, 1) == 1


def test_a_ground_station_signs_a_manifest_alone(store: EngineStore) -> None:
    for path in folder_of(store, 1).iterdir():
        if path.name != "manifest.json":
            path.unlink()
    with pytest.raises(EngineStoreError, match="not whole"):
        sign_generation(store, GROUND)
    assert sign_generation(store, GROUND, manifest_only=True).version == 1


def test_a_manifest_that_current_does_not_name_is_not_signed(store: EngineStore) -> None:
    manifest = folder_of(store, 1) / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(EngineStoreError, match=r"manifest\.json: content altered, or .*current is: expected sha256"):
        sign_generation(store, GROUND, manifest_only=True)


def test_a_manifest_of_another_number_is_not_signed(store: EngineStore) -> None:
    folder_of(store, 1).rename(store.path_of(2))
    with pytest.raises(EngineStoreError, match=r"gen-000002/manifest\.json: expected generation 2, found 1"):
        sign_generation(store, GROUND, number=2)


def test_a_generation_that_is_not_there_is_not_signed(store: EngineStore) -> None:
    with pytest.raises(EngineStoreError, match=r"gen-000009/manifest\.json cannot be read"):
        sign_generation(store, GROUND, number=9)


def test_a_store_without_a_current_generation_has_nothing_to_sign(store: EngineStore) -> None:
    (store.root / "current").unlink()
    with pytest.raises(EngineStoreError, match="expected a current generation to sign, found none"):
        sign_generation(store, GROUND)


def test_a_folder_that_is_no_store_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(EngineStoreError, match="expected a store with a generation to sign, found none"):
        sign_generation(EngineStore(tmp_path), GROUND)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data.replace(b"version 1", b"version 2")])
def test_no_version_is_guessed_from_a_damaged_signature(store: EngineStore, damage: object) -> None:
    assert callable(damage)
    sign_generation(store, GROUND)
    path = folder_of(store, 1) / SIGNATURE_NAME
    path.write_bytes(damage(path.read_bytes()))
    commit(store, b"two")
    with pytest.raises(ManifestSignatureError, match=r"gen-000001/manifest\.sig: "):
        sign_generation(store, GROUND)
    path.unlink()
    assert sign_generation(store, GROUND, version=2).version == 2


def test_a_signer_that_was_killed_leaves_nothing_for_long(store: EngineStore) -> None:
    left = folder_of(store, 1) / f".{SIGNATURE_NAME}.dead.part"
    left.write_bytes(b"half")
    sign_generation(store, GROUND)
    assert not left.exists()


def test_signing_waits_for_nobody_for_long_and_says_that_it_waits(
    store: EngineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtimes.store.signed_generation.OPERATOR_WAITS_S", 0.01)
    waits: list[None] = []
    with store_lock(store), pytest.raises(EngineStoreError, match="has held the store"):
        sign_generation(store, GROUND, waiting=lambda: waits.append(None))
    assert waits


def test_signing_says_how_far_the_hashing_is(store: EngineStore) -> None:
    numbers: list[int] = []
    sign_generation(store, GROUND, hashing=lambda number, _: numbers.append(number))
    assert set(numbers) == {1}
    sign_generation(store, GROUND, manifest_only=True, hashing=lambda *_: pytest.fail("nothing is hashed"))
