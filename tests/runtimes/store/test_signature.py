"""The signature's one form, and what it takes for one to be believed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from messages import ManifestSignatureError
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.store.signature import (
    SIGNATURE_MAX_BYTES,
    SIGNATURE_NAME,
    VERSION_MAX,
    ManifestSignature,
    SignedVersion,
    read_signature,
    sign_manifest,
    verify_signature,
)
from runtimes.store.signing_key import PublicKey, public_key_of

GROUND = Ed25519PrivateKey.from_private_bytes(b"ground" + bytes(26))
STRANGER = Ed25519PrivateKey.from_private_bytes(b"stranger" + bytes(24))
MANIFEST = b'{"format": 1}\n'
PUBLIC = PublicKey(public_key_of(GROUND), Path("ground.pem"))

signatures = st.builds(
    lambda version, manifest, key, signature: ManifestSignature(
        version=version, manifest_sha256=manifest.hex(), key=key.hex(), signature=signature.hex()
    ),
    st.integers(1, VERSION_MAX),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=64, max_size=64),
)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.json"
    path.write_bytes(MANIFEST)
    return path


def put(manifest: Path, signature: ManifestSignature) -> None:
    (manifest.parent / SIGNATURE_NAME).write_bytes(signature.format())


def verify(manifest: Path) -> SignedVersion:
    return verify_signature(manifest, sha256_of(manifest.read_bytes()), PUBLIC)


def test_what_is_signed_is_verified_and_says_its_version(manifest: Path) -> None:
    put(manifest, sign_manifest(sha256_of(MANIFEST), GROUND, 7))
    assert verify(manifest) == SignedVersion(7, sha256_of(MANIFEST))


def test_the_form_is_five_lines_of_text() -> None:
    lines = sign_manifest(sha256_of(MANIFEST), GROUND, 7).format().decode("ascii").splitlines()
    assert lines[:4] == [
        "c7-manifest-signature 1",
        "version 7",
        f"manifest {sha256_of(MANIFEST)}",
        f"key {public_key_of(GROUND)}",
    ]
    assert len(lines[4]) == len("signature ") + 128
    assert len(lines) == 5


@given(signatures)
def test_format_and_parse_are_inverse(signature: ManifestSignature) -> None:
    assert ManifestSignature.parse(signature.format()) == signature
    assert len(signature.format()) <= SIGNATURE_MAX_BYTES


@given(st.one_of(st.binary(max_size=500), st.text(max_size=100).map(str.encode)))
def test_other_bytes_are_no_signature(data: bytes) -> None:
    with pytest.raises(ValueError, match="expected the lines"):
        ManifestSignature.parse(data)


@settings(max_examples=300)
@given(signature=signatures, data=st.data())
def test_there_is_one_way_to_write_a_signature(signature: ManifestSignature, data: st.DataObject) -> None:
    text = signature.format()
    place = data.draw(st.integers(0, len(text)))
    added = data.draw(st.sampled_from([b" ", b"\n", b"0", b"\r", b"\x00", b"A", b"\xc2"]))
    for altered in (text[:place] + added + text[place:], text[:place], text.upper(), text.replace(b"\n", b"\r\n")):
        if altered == text:
            continue
        try:
            parsed = ManifestSignature.parse(altered)
        except ValueError:
            continue
        assert parsed.format() == altered
        assert parsed != signature


def test_every_flipped_bit_every_truncation_and_every_added_byte_is_refused_by_name(manifest: Path) -> None:
    whole = sign_manifest(sha256_of(MANIFEST), GROUND, 12).format()
    path = manifest.parent / SIGNATURE_NAME
    flipped = [
        whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
        for place in range(len(whole))
        for bit in range(8)
    ]
    truncated = [whole[:kept] for kept in range(len(whole))]
    longer = [whole + added for added in (b"\n", b" ", b"x", b"\x00", whole)]
    for altered in (*flipped, *truncated, *longer):
        path.write_bytes(altered)
        with pytest.raises(ManifestSignatureError) as refused:
            verify(manifest)
        assert str(refused.value).startswith(f"{path}: ")
        assert "c7 engines sign" in str(refused.value)
    path.write_bytes(whole)
    assert verify(manifest).version == 12


def signed_by_a_stranger_in_the_name_of_the_ground() -> ManifestSignature:
    theirs = sign_manifest(sha256_of(MANIFEST), STRANGER, 3)
    return ManifestSignature(
        version=3,
        manifest_sha256=theirs.manifest_sha256,
        key=public_key_of(GROUND),
        signature=theirs.signature,
    )


def with_a_higher_version() -> ManifestSignature:
    ours = sign_manifest(sha256_of(MANIFEST), GROUND, 3)
    return ManifestSignature(version=4, manifest_sha256=ours.manifest_sha256, key=ours.key, signature=ours.signature)


def of_the_other_manifest_but_with_our_hash() -> ManifestSignature:
    other = sign_manifest(sha256_of(b"other"), GROUND, 3)
    return ManifestSignature(version=3, manifest_sha256=sha256_of(MANIFEST), key=other.key, signature=other.signature)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: sign_manifest(sha256_of(MANIFEST), STRANGER, 3), "signed with another key: expected "),
        (
            lambda: sign_manifest(sha256_of(b"other"), GROUND, 3),
            "signs another manifest than manifest.json: expected sha256 ",
        ),
        (signed_by_a_stranger_in_the_name_of_the_ground, "altered: expected a signature that key "),
        (with_a_higher_version, "altered: expected a signature that key "),
        (of_the_other_manifest_but_with_our_hash, "altered: expected a signature that key "),
    ],
)
def test_a_wrong_signature_is_refused_by_what_is_wrong(
    manifest: Path, make: Callable[[], ManifestSignature], reason: str
) -> None:
    put(manifest, make())
    with pytest.raises(ManifestSignatureError) as refused:
        verify(manifest)
    assert reason in str(refused.value)
    assert ", found " in str(refused.value)
    assert str(manifest.parent / SIGNATURE_NAME) in str(refused.value)


def test_an_unsigned_manifest_is_refused_where_a_signature_is_asked_for(manifest: Path) -> None:
    with pytest.raises(ManifestSignatureError, match=r"manifest\.sig: expected a signature .* found none; sign it"):
        verify(manifest)
    assert read_signature(manifest.parent / SIGNATURE_NAME) is None


def test_an_altered_manifest_is_refused(manifest: Path) -> None:
    put(manifest, sign_manifest(sha256_of(MANIFEST), GROUND, 3))
    manifest.write_bytes(MANIFEST + b" ")
    with pytest.raises(ManifestSignatureError, match="signs another manifest"):
        verify(manifest)


def test_a_link_a_folder_and_a_huge_file_in_place_of_a_signature_are_refused(manifest: Path) -> None:
    path = manifest.parent / SIGNATURE_NAME
    put(manifest, sign_manifest(sha256_of(MANIFEST), GROUND, 3))
    moved = path.rename(path.with_name("moved"))
    path.symlink_to(moved)
    with pytest.raises(ManifestSignatureError, match="found a symbolic link"):
        verify(manifest)
    path.unlink()
    path.mkdir()
    with pytest.raises(ManifestSignatureError, match="found a folder"):
        verify(manifest)
    path.rmdir()
    path.write_bytes(bytes(SIGNATURE_MAX_BYTES + 1))
    with pytest.raises(ManifestSignatureError, match="expected at most 1024 bytes"):
        verify(manifest)


@pytest.mark.parametrize("version", [0, -1, VERSION_MAX + 1])
def test_a_version_that_cannot_be_written_is_not_signed(version: int) -> None:
    with pytest.raises(ManifestSignatureError, match=f"expected a version from 1 to {VERSION_MAX}, found {version}"):
        sign_manifest(sha256_of(MANIFEST), GROUND, version)


def test_32_bytes_that_are_no_point_of_the_curve_have_signed_nothing(manifest: Path) -> None:
    signature = ManifestSignature(version=1, manifest_sha256=sha256_of(MANIFEST), key="ff" * 32, signature="00" * 64)
    assert not signature.is_genuine()
