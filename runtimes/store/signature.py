"""The signature of a generation: `manifest.sig` beside the manifest, five lines, Ed25519.

    c7-manifest-signature 1
    version 7
    manifest <sha256 of manifest.json>
    key <public key, 64 hex digits>
    signature <128 hex digits over the bytes of the lines before>

The version only ever grows, and it is the signer's: the manifest does not know it. An operator goes back to an older
generation by signing it again, and an aircraft takes no version below the highest that it has accepted.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from messages.errors import ManifestSignatureError
from messages.lifecycle import Sha256
from runtimes.store.regular_file import read_regular_file
from runtimes.store.signing_key import PublicKey, PublicKeyHex, public_key_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE_NAME = "manifest.sig"
SIGNATURE_MAX_BYTES = 1024
VERSION_MAX = 999_999_999_999

REMEDY = "sign it with the ground station's key: c7 engines sign FLIGHT.toml --key PRIVATE.pem"

SignatureVersion = Annotated[int, msgspec.Meta(ge=1, le=VERSION_MAX)]

_FORMAT = re.compile(
    r"c7-manifest-signature 1\n"
    r"version (?P<version>[1-9][0-9]{0,11})\n"
    r"manifest (?P<manifest>[0-9a-f]{64})\n"
    r"key (?P<key>[0-9a-f]{64})\n"
    r"signature (?P<signature>[0-9a-f]{128})\n"
)


class SignedVersion(msgspec.Struct, frozen=True):
    """What a signature that was verified says: this manifest is version `version`."""

    version: SignatureVersion
    manifest_sha256: Sha256


class ManifestSignature(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `manifest.sig`. `format` and `parse` are inverse, and there is one way to write it.

    What it says is not to be believed before `verify_signature`.
    """

    version: SignatureVersion
    manifest_sha256: Sha256
    key: PublicKeyHex
    signature: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}\Z")]

    def statement(self) -> bytes:
        """What is signed: every byte before the last line."""
        return _statement(self.version, self.manifest_sha256, self.key)

    def format(self) -> bytes:
        return self.statement() + f"signature {self.signature}\n".encode("ascii")

    @classmethod
    def parse(cls, data: bytes) -> ManifestSignature:
        """Inverse of `format`. Raises ValueError."""
        match = _FORMAT.fullmatch(data.decode("ascii", errors="replace"))
        if match is None:
            raise ValueError(
                "expected the lines 'c7-manifest-signature 1', 'version N', 'manifest <sha256>', 'key <hex>' and"
                f" 'signature <hex>', found {data[:120]!r}"
            )
        return cls(
            version=int(match["version"]),
            manifest_sha256=match["manifest"],
            key=match["key"],
            signature=match["signature"],
        )

    def is_genuine(self) -> bool:
        """Whether `key` has signed this statement; whose key that is, is not asked."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.key))
            key.verify(bytes.fromhex(self.signature), self.statement())
        except (InvalidSignature, ValueError):  # ValueError: 32 bytes that are no point of the curve
            return False
        return True


def signature_path(manifest: Path) -> Path:
    return manifest.with_name(SIGNATURE_NAME)


def sign_manifest(
    manifest_sha256: Sha256, private_key: Ed25519PrivateKey, version: SignatureVersion
) -> ManifestSignature:
    """Sign the manifest that has this hash. Raises ManifestSignatureError for a version outside 1 to VERSION_MAX."""
    if not 1 <= version <= VERSION_MAX:
        raise ManifestSignatureError(f"expected a version from 1 to {VERSION_MAX}, found {version}")
    key = public_key_of(private_key)
    signature = private_key.sign(_statement(version, manifest_sha256, key)).hex()
    return ManifestSignature(version=version, manifest_sha256=manifest_sha256, key=key, signature=signature)


def read_signature(path: Path) -> ManifestSignature | None:
    """Read `manifest.sig`; None where there is none. Raises ManifestSignatureError for any other content."""
    try:
        return ManifestSignature.parse(read_regular_file(path, max_bytes=SIGNATURE_MAX_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ManifestSignatureError(f"{path}: the signature cannot be read: {error.strerror}; {REMEDY}") from error
    except ValueError as error:
        raise ManifestSignatureError(f"{path}: not a manifest's signature: {error}; {REMEDY}") from error


def verify_signature(manifest: Path, manifest_sha256: Sha256, public_key: PublicKey) -> SignedVersion:
    """What the signature beside `manifest` says of the content that has this hash, if `public_key` made it.

    Raises ManifestSignatureError, naming the file, expected and found: for a signature that is missing, altered, made
    by another key, or of another manifest.
    """
    path = signature_path(manifest)
    found = read_signature(path)
    if found is None:
        raise ManifestSignatureError(
            f"{path}: expected a signature by the key {public_key.hex[:16]}… of {public_key.path}, found none; {REMEDY}"
        )
    if found.key != public_key.hex:
        raise ManifestSignatureError(
            f"{path}: signed with another key: expected {public_key.hex} of {public_key.path}, found {found.key};"
            f" {REMEDY}"
        )
    check_genuine(path, found, manifest_sha256)
    return SignedVersion(found.version, manifest_sha256)


def check_genuine(path: Path, found: ManifestSignature, manifest_sha256: Sha256) -> None:
    """Raises ManifestSignatureError where `found` is altered or signs another manifest than the one with this hash."""
    if not found.is_genuine():
        raise ManifestSignatureError(
            f"{path}: altered: expected a signature that key {found.key[:16]}… made over version {found.version} and"
            f" manifest {found.manifest_sha256[:16]}…, found one that it did not make; {REMEDY}"
        )
    if found.manifest_sha256 != manifest_sha256:
        raise ManifestSignatureError(
            f"{path}: signs another manifest than manifest.json: expected sha256 {manifest_sha256}, found"
            f" {found.manifest_sha256}; {REMEDY}"
        )


def _statement(version: int, manifest_sha256: Sha256, key: PublicKeyHex) -> bytes:
    return f"c7-manifest-signature 1\nversion {version}\nmanifest {manifest_sha256}\nkey {key}\n".encode("ascii")
