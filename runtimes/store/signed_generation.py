"""Signing a generation that is whole, with a version above all that were signed in this store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from messages.errors import EngineStoreError, ManifestSignatureError
from messages.lifecycle import Sha256
from runtimes.store.durable_files import PART_SUFFIX, write_atomically
from runtimes.store.engine_store import EngineStore, Generation, store_errors
from runtimes.store.manifest import MANIFEST_NAME
from runtimes.store.signature import (
    SIGNATURE_NAME,
    SignatureVersion,
    read_signature,
    sign_manifest,
    signature_path,
)
from runtimes.store.signing_key import PublicKeyHex, public_key_of
from runtimes.store.store_lock import OPERATOR_WAITS_S, store_lock
from runtimes.store.verification import Hashing, verify_generation

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class SignedGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """What `sign_generation` did. `manifest_only`: the engines themselves were not looked at."""

    generation: int
    version: int
    key: str
    manifest_sha256: Sha256
    path: str
    manifest_only: bool


def sign_generation(
    store: EngineStore,
    private_key: Ed25519PrivateKey,
    *,
    number: int | None = None,
    version: int | None = None,
    manifest_only: bool = False,
    waiting: Callable[[], None] | None = None,
    hashing: Hashing | None = None,
) -> SignedGeneration:
    """Sign the current generation, or the one with this `number`, in place of any signature that it has.

    All its files are hashed first, unless `manifest_only`. The version is one above the highest that this key has
    signed in this store; a given `version` must be above it too. Where another key has signed a higher one, it must be
    given: whoever writes the store can sign any version with a key of their own, and an aircraft that has accepted the
    highest of all accepts nothing after it. Holds the store's lock. Raises EngineStoreError for a store or generation
    that is missing, damaged or cannot be written, ManifestSignatureError for a version that is too low or has to be
    given, and for a signature in the store that is damaged, so that no version can be told from it.
    """
    if not store.numbers():  # before a lock file is left in a folder that is no store
        raise EngineStoreError(
            f"{store.root}: expected a store with a generation to sign, found none; run c7 provision FLIGHT.toml"
        )
    with store_lock(store, timeout_s=OPERATOR_WAITS_S, waiting=waiting):
        generation = _to_sign(store, number)
        if not manifest_only:
            _refuse_damaged(generation, hashing)
        version = _next_version(store, public_key_of(private_key), version)
        signature = sign_manifest(generation.manifest_sha256, private_key, version)
        path = signature_path(generation.path / MANIFEST_NAME)
        with store_errors(store.root, "written"):
            _remove_leftovers(store, generation.path)
            write_atomically(path, signature.format(), store.disk)
    return SignedGeneration(
        generation=generation.number,
        version=signature.version,
        key=signature.key,
        manifest_sha256=signature.manifest_sha256,
        path=str(path),
        manifest_only=manifest_only,
    )


def _next_version(store: EngineStore, key: PublicKeyHex, wanted: SignatureVersion | None) -> SignatureVersion:
    by_key = highest_signed_versions(store)
    own = by_key.pop(key, 0)
    if wanted is not None:
        if wanted <= own:
            raise ManifestSignatureError(
                f"{store.root}: expected --version above {own}, the highest that this key has signed in this store,"
                f" found {wanted}"
            )
        return wanted
    other, highest = max(by_key.items(), key=lambda item: item[1], default=("", 0))
    if highest > own:
        raise ManifestSignatureError(
            f"{store.root}: expected this key's version {own} to be the highest in this store, found version {highest}"
            f" by the key {other}. If that key is yours too, sign with --version {highest + 1}; if it is nobody's that"
            " you know of, find out who writes this store, then sign with a --version above every one of yours"
        )
    return own + 1


def highest_signed_versions(store: EngineStore) -> dict[PublicKeyHex, SignatureVersion]:
    """By public key, the highest version in the signatures of all generations; whose keys they are is not asked.

    Raises ManifestSignatureError for one that is damaged, EngineStoreError.
    """
    highest: dict[PublicKeyHex, SignatureVersion] = {}
    for number in store.numbers():
        path = signature_path(store.path_of(number) / MANIFEST_NAME)
        found = read_signature(path)
        if found is None:
            continue
        if not found.is_genuine():
            raise ManifestSignatureError(
                f"{path}: altered: key {found.key[:16]}… has not signed version {found.version} in it, so the highest"
                " version of this store cannot be told. Move the file away, and sign with a --version above every one"
                " that you know of"
            )
        highest[found.key] = max(highest.get(found.key, 0), found.version)
    return highest


def _to_sign(store: EngineStore, number: int | None) -> Generation:
    generation = store.current() if number is None else store.generation(number)
    if generation is None:
        raise EngineStoreError(f"{store.root}: expected a current generation to sign, found none; run c7 provision")
    return generation


def _refuse_damaged(generation: Generation, hashing: Hashing | None) -> None:
    problems = [finding.problem for finding in verify_generation(generation, hashing=hashing)]
    if problems:
        raise EngineStoreError(
            f"generation {generation.number} is not whole, and was not signed: {'; '.join(problems)}"
        )


def _remove_leftovers(store: EngineStore, folder: Path) -> None:
    """What a signer left that was killed; no other one is at work, because the lock is held."""
    for path in folder.glob(f".{SIGNATURE_NAME}.*{PART_SUFFIX}"):
        store.disk.unlink(path)
