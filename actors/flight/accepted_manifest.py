"""The highest signed version that this aircraft has accepted: what keeps an older signed manifest from taking off.

`accepted_manifest` in the state folder is one line, `<sha256 of the rest>  version 7 manifest <sha256>`, so that no
flipped bit reads as another version. It is written at a takeoff and never lowered. Who may write the state folder may
remove it: this protection is as strong as that folder's rights.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import msgspec

from messages import TakeoffRefusedError
from messages.lifecycle import Sha256
from runtimes.store.disk import DISK
from runtimes.store.durable_files import PART_SUFFIX, write_atomically
from runtimes.store.regular_file import read_regular_file
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.store.signature import SignatureVersion, SignedVersion

ACCEPTED_NAME: Final = "accepted_manifest"
ACCEPTED_MAX_BYTES: Final = 512

_LINE: Final = re.compile(
    r"(?P<checksum>[0-9a-f]{64})  (?P<rest>version (?P<version>[1-9][0-9]{0,11}) manifest (?P<manifest>[0-9a-f]{64})\n)"
)


class AcceptedManifest(msgspec.Struct, frozen=True):
    """What a takeoff has accepted. `format` and `parse` are inverse, and there is one way to write it."""

    version: SignatureVersion
    manifest_sha256: Sha256

    def format(self) -> bytes:
        rest = f"version {self.version} manifest {self.manifest_sha256}\n".encode("ascii")
        return sha256_of(rest).encode("ascii") + b"  " + rest

    def as_signed(self) -> SignedVersion:
        return SignedVersion(self.version, self.manifest_sha256)

    @classmethod
    def parse(cls, data: bytes) -> AcceptedManifest:
        """Inverse of `format`. Raises ValueError."""
        match = _LINE.fullmatch(data.decode("ascii", errors="replace"))
        if match is None:
            raise ValueError(
                f"expected one line '<sha256>  version N manifest <sha256>', found {data[:ACCEPTED_MAX_BYTES]!r:.160}"
            )
        found = sha256_of(match["rest"].encode("ascii"))
        if found != match["checksum"]:
            raise ValueError(f"its checksum does not match: expected {match['checksum'][:16]}…, found {found[:16]}…")
        return cls(int(match["version"]), match["manifest"])


def why_refused(signed: SignedVersion, accepted: AcceptedManifest | None) -> str:
    """Pure. Why a signed manifest must not take off after `accepted` has; empty where it may.

    The same manifest may take off again. Another one with the same version may not: signed twice under one number,
    nobody can say which of the two is newer.
    """
    if accepted is None or signed.version > accepted.version or signed == accepted.as_signed():
        return ""
    found = f"version {signed.version}" if signed.version < accepted.version else "the same version of another manifest"
    return (
        f"expected a version above {accepted.version}, which this aircraft accepted for the manifest"
        f" {accepted.manifest_sha256[:16]}…, found {found}, {signed.manifest_sha256[:16]}…; make the generation that"
        " was accepted current again, or sign this one with a higher version: c7 engines sign FLIGHT.toml --key"
        f" PRIVATE.pem --version {accepted.version + 1}"
    )


def read_accepted(state: Path) -> AcceptedManifest | None:
    """What was accepted before; None on an aircraft that has accepted none. Raises TakeoffRefusedError."""
    path = _path_in(state)
    try:
        return AcceptedManifest.parse(read_regular_file(path, max_bytes=ACCEPTED_MAX_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TakeoffRefusedError(
            f"{path}: cannot be read: {error.strerror}. Expected a regular file in [flight] state that this user may"
            " read"
        ) from error
    except ValueError as error:
        raise TakeoffRefusedError(
            f"{path}: damaged: {error}. The highest manifest version that this aircraft accepted cannot be told from"
            " it. On the ground: make sure with `c7 engines verify FLIGHT.toml` that the signed version is the newest"
            " that you know of, then move this file away; the next takeoff writes it anew"
        ) from error


def record_accepted(state: Path, signed: SignedVersion) -> None:
    """Bring to disk that a takeoff accepts this manifest. One process at a time (hold the flight lock).

    Raises TakeoffRefusedError for what `why_refused` refuses, and where it cannot be written; nothing is changed
    then, unless only the disk's last confirmation failed: this version is the lowest from then on.
    """
    accepted = read_accepted(state)
    reason = why_refused(signed, accepted)
    path = _path_in(state)
    if reason:
        raise TakeoffRefusedError(f"{path}: {reason}")
    accepting = AcceptedManifest(signed.version, signed.manifest_sha256)
    try:
        if accepting == accepted:
            DISK.fsync_folder(path.parent)  # the takeoff that wrote it may have been killed before it was durable
            return
        for left in path.parent.glob(f".{ACCEPTED_NAME}.*{PART_SUFFIX}"):  # by a takeoff that was killed in here
            DISK.unlink(left)
        write_atomically(path, accepting.format(), DISK)
    except OSError as error:
        raise TakeoffRefusedError(
            f"{path}: version {signed.version} cannot be recorded as accepted: {error.strerror}. Expected [flight]"
            " state to be a folder with free space that this user may write"
        ) from error


def _path_in(state: Path) -> Path:
    # The state folder itself may be a link; the file in it may not.
    return Path(os.path.realpath(state), ACCEPTED_NAME)
