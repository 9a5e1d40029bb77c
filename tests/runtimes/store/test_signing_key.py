"""Key files: what openssl writes is read, and everything else is named for what it is."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messages import ConfigError
from runtimes.store.signing_key import KEY_MAX_BYTES, public_key_of, read_private_key, read_public_key

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PRIVATE_PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
PUBLIC_PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED448 = ed448.Ed448PrivateKey.generate()


def public_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "engines"
    folder.mkdir()
    return folder


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    return tmp_path / "ground.pem"


def test_keys_that_openssl_makes_are_read_and_belong_together(tmp_path: Path, store: Path) -> None:
    private, public = tmp_path / "ground.private.pem", tmp_path / "ground.pem"
    for command in (
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(private)],
        ["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)],
    ):
        subprocess.run(command, check=True, timeout=60)  # noqa: S603 - a constant command
    assert public_key_of(read_private_key(private, store)) == read_public_key(public, store).hex


def test_a_public_key_is_its_32_bytes_and_where_it_was_read(pem: Path, store: Path) -> None:
    pem.write_bytes(PUBLIC_PEM)
    key = read_public_key(pem, store)
    assert bytes.fromhex(key.hex) == KEY.public_key().public_bytes_raw()
    assert key.path == pem


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (PRIVATE_PEM, "found a private key, which never boards"),
        (PUBLIC_PEM + PRIVATE_PEM, "found a private key, which never boards"),
        (public_pem(RSA), "found one of RSA"),
        (public_pem(EC), "found one of E"),
        (public_pem(ED448), "found one of Ed448"),
        (b"", "found something else"),
        (b"-----BEGIN PUBLIC KEY-----\nnothing\n-----END PUBLIC KEY-----\n", "found something else"),
        (PUBLIC_PEM[:40], "found something else"),
        (PUBLIC_PEM.replace(b"MC", b"\xff\xfe"), "found something else"),
        (KEY.public_key().public_bytes_raw(), "found something else"),
        (b"x" * (KEY_MAX_BYTES + 1), "expected at most"),
    ],
)
def test_what_is_no_public_key_is_refused_by_name(pem: Path, store: Path, content: bytes, found: str) -> None:
    pem.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read_public_key(pem, store)
    assert str(refused.value).startswith(f"{pem}: expected ")
    assert "Ed25519 public key" in str(refused.value)
    assert found in str(refused.value)
    assert "openssl pkey" in str(refused.value)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (PUBLIC_PEM, "found a public key; sign with the private key that belongs to it"),
        (private_pem(RSA), "found one of RSA"),
        (private_pem(EC), "found one of E"),
        (private_pem(ED448), "found one of Ed448"),
        (
            KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
            "found one that is protected by a passphrase",
        ),
        (KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), "found something else"),
        (b"", "found something else"),
        (PRIVATE_PEM[:-40], "found something else"),
    ],
)
def test_what_is_no_private_key_is_refused_by_name(pem: Path, store: Path, content: bytes, found: str) -> None:
    pem.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        read_private_key(pem, store)
    assert str(refused.value).startswith(f"{pem}: expected ")
    assert found in str(refused.value)


@pytest.mark.parametrize("read", [read_public_key, read_private_key])
def test_a_key_file_that_is_missing_or_a_folder_is_refused_with_how_to_make_one(
    read: object, tmp_path: Path, store: Path
) -> None:
    assert callable(read)
    with pytest.raises(ConfigError, match=r"nowhere\.pem: .*cannot be read.*make one: openssl"):
        read(tmp_path / "nowhere.pem", store)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="expected a regular file, found a folder"):
        read(tmp_path / "folder", store)


@pytest.mark.parametrize(
    ("read", "content"), [(read_public_key, PUBLIC_PEM), (read_private_key, PRIVATE_PEM)], ids=["public", "private"]
)
def test_a_key_in_the_store_is_refused_through_links_too(
    read: object, content: bytes, tmp_path: Path, store: Path
) -> None:
    assert callable(read)
    inside = store / "key.pem"
    inside.write_bytes(content)
    outside = tmp_path / "link.pem"
    outside.symlink_to(inside)
    (tmp_path / "other-name").symlink_to(store)
    for path in (inside, outside, tmp_path / "other-name" / "key.pem"):
        with pytest.raises(ConfigError, match="found it in the store"):
            read(path, store)
    elsewhere = tmp_path / "elsewhere.pem"
    elsewhere.write_bytes(content)
    (store / "link.pem").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="found it in the store"):
        read(store / "link.pem", store)
    read(elsewhere, store)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_content_of_a_key_file_raises_anything_but_a_config_error(
    pem: Path, store: Path, data: st.DataObject
) -> None:
    altered = bytearray(data.draw(st.sampled_from([PUBLIC_PEM, PRIVATE_PEM])))
    for _ in range(data.draw(st.integers(1, 3))):
        altered[data.draw(st.integers(0, len(altered) - 1))] = data.draw(st.integers(0, 255))
    pem.write_bytes(data.draw(st.sampled_from([bytes(altered), data.draw(st.binary(max_size=200))])))
    for read in (read_public_key, read_private_key):
        with contextlib.suppress(ConfigError):  # a changed comment or base64 may still be a key
            read(pem, store)
