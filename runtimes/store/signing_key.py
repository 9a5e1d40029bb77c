"""The Ed25519 keys of manifests: PEM files as `openssl genpkey` and `openssl pkey -pubout` write them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from messages.errors import ConfigError
from runtimes.store.regular_file import read_regular_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_MAX_BYTES = 16 * 1024
MAKE_KEY = "openssl genpkey -algorithm ed25519 -out ground.private.pem"
MAKE_PUBLIC_KEY = "openssl pkey -in ground.private.pem -pubout -out ground.pem"

PublicKeyHex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""The 32 bytes of an Ed25519 public key."""


class PublicKey(msgspec.Struct, frozen=True):
    """Whose signature is believed. `path` is the file that it was read from, for the errors."""

    hex: PublicKeyHex
    path: Path


def read_public_key(path: Path, store_root: Path) -> PublicKey:
    """Read a PEM file with one Ed25519 public key.

    Raises ConfigError, naming the file and what was found: for a missing file, a private key, a key of another kind,
    and a key that lies in the store, where whoever replaces the engines would replace it too.
    """
    _refuse_key_in_store(path, store_root, "public")
    data = _read(path, "public", MAKE_PUBLIC_KEY)
    if b"PRIVATE KEY" in data:
        raise ConfigError(
            f"{path}: expected an Ed25519 public key, found a private key, which never boards; {_remedy('public')}"
        )
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _garbled(path, "public", error) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _other_kind(path, "public", key)
    return PublicKey(key.public_bytes_raw().hex(), path)


def read_private_key(path: Path, store_root: Path) -> Ed25519PrivateKey:
    """Read a PEM file with one Ed25519 private key that no passphrase protects. Raises ConfigError."""
    _refuse_key_in_store(path, store_root, "private")
    data = _read(path, "private", MAKE_KEY)
    if b"PUBLIC KEY" in data and b"PRIVATE KEY" not in data:
        raise ConfigError(
            f"{path}: expected an Ed25519 private key, found a public key; sign with the private key that belongs to it"
        )
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(data, password=None)
    except TypeError as error:
        raise ConfigError(
            f"{path}: expected a private key without a passphrase, found one that is protected by a passphrase; write"
            f" a copy without it to a disk in memory: openssl pkey -in {path} -out /dev/shm/ground.private.pem"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _garbled(path, "private", error) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _other_kind(path, "private", key)
    return key


def public_key_of(private_key: Ed25519PrivateKey) -> PublicKeyHex:
    return private_key.public_key().public_bytes_raw().hex()


def _read(path: Path, kind: str, make: str) -> bytes:
    try:
        return read_regular_file(path, max_bytes=KEY_MAX_BYTES, follow_links=True)
    except OSError as error:
        raise ConfigError(
            f"{path}: expected a PEM file with an Ed25519 {kind} key; it cannot be read: {error.strerror}; make one:"
            f" {make}"
        ) from error


def _refuse_key_in_store(path: Path, store_root: Path, kind: str) -> None:
    root = os.path.realpath(store_root)
    # The name counts as well as what a link of that name leads to: either can be replaced by who writes the store.
    if any(Path(found).is_relative_to(root) for found in (path.absolute(), os.path.realpath(path))):
        raise ConfigError(
            f"{path}: expected the {kind} key elsewhere, found it in the store {store_root}, where whoever replaces"
            " the engines has it too; move it"
        )


def _garbled(path: Path, kind: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path}: expected a PEM file with an Ed25519 {kind} key, found something else: {str(error)[:200]};"
        f" {_remedy(kind)}"
    )


def _other_kind(path: Path, kind: str, key: object) -> ConfigError:
    found = type(key).__name__.removesuffix("Key").removesuffix("Public").removesuffix("Private").lstrip("_")
    return ConfigError(f"{path}: expected an Ed25519 {kind} key, found one of {found}; {_remedy(kind)}")


def _remedy(kind: str) -> str:
    return f"make it with: {MAKE_KEY if kind == 'private' else MAKE_PUBLIC_KEY}"
