"""Everything that a store says of itself, held against what lies in it: `current`, manifests, files and signatures."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import msgspec

from messages.errors import EngineStoreError, ManifestSignatureError, printable
from messages.lifecycle import Sha256
from runtimes.store.durable_files import PART_SUFFIX
from runtimes.store.engine_store import CURRENT_NAME, EngineStore, Generation, no_current, store_errors
from runtimes.store.manifest import MANIFEST_NAME
from runtimes.store.signature import (
    REMEDY,
    SIGNATURE_NAME,
    ManifestSignature,
    check_genuine,
    read_signature,
    signature_path,
)
from runtimes.store.signing_key import PublicKey
from runtimes.store.verification import Hashing, read_manifest, verify_generation

_SIGNING = re.compile(rf"\.{re.escape(SIGNATURE_NAME)}\.[0-9a-f]+{re.escape(PART_SUFFIX)}")

SignatureState = Literal["none", "verified", "other_key", "not_compared", "damaged"]
"""`verified` is by the key that was asked for; `not_compared` is genuine, but no key was given to hold it against."""


class GenerationCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One generation. `problems` maps a file, relative to the store, to what is wrong with it."""

    number: int
    current: bool
    signature: SignatureState
    version: int | None
    key: str | None
    problems: dict[str, str]


class StoreCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The whole store. `key` is the public key that signatures were held against; `problems` are of `current`."""

    store: str
    current: int | None
    key: str | None
    ok: bool
    generations: list[GenerationCheck]
    problems: dict[str, str]


def check_store(
    store: EngineStore,
    public_key: PublicKey | None,
    *,
    hashing: Hashing | None = None,
) -> StoreCheck:
    """Hash every file of every generation, check every signature, and name what no manifest lists.

    With a public key the current generation must be signed with it; older ones may be unsigned or signed with another
    key, which shows. A damaged signature is a problem wherever it lies. Raises EngineStoreError for a store that
    cannot be listed or holds nothing.
    """
    numbers = store.numbers()
    problems: dict[str, str] = {}
    named: tuple[int, str] | None = None
    try:
        named = store.read_current()
        if named is None and not numbers:
            raise EngineStoreError(f"{store.root}: expected a store of engines, found none; run c7 provision")
    except EngineStoreError as error:
        if not numbers:
            raise
        problems[CURRENT_NAME] = str(error)
    else:
        problems.update(_why_current_is_wrong(store, named))
    generations = []
    for number in numbers:
        is_current = named is not None and number == named[0]
        generations.append(_check_generation(store, number, public_key, hashing, is_current=is_current))
    return StoreCheck(
        store=str(store.root),
        current=None if named is None else named[0],
        key=None if public_key is None else public_key.hex,
        ok=not problems and not any(generation.problems for generation in generations),
        generations=generations,
        problems=problems,
    )


def _why_current_is_wrong(store: EngineStore, named: tuple[int, str] | None) -> dict[str, str]:
    if named is None:
        return {CURRENT_NAME: no_current(store.root)}
    try:
        store.current()
    except EngineStoreError as error:
        return {CURRENT_NAME: str(error)}
    return {}


def _check_generation(
    store: EngineStore, number: int, public_key: PublicKey | None, hashing: Hashing | None, *, is_current: bool
) -> GenerationCheck:
    folder = store.path_of(number)
    problems: dict[str, str] = {}
    manifest_sha256: Sha256 | None = None
    try:
        generation = store.generation(number)
        manifest_sha256 = generation.manifest_sha256
        problems.update(_damaged_files(generation, hashing))
        problems.update(_unlisted(generation))
    except EngineStoreError as error:
        problems[f"{folder.name}/{MANIFEST_NAME}"] = str(error)
    state, signature, problem = _check_signature(signature_path(folder / MANIFEST_NAME), manifest_sha256, public_key)
    if is_current and public_key is not None and state in ("none", "other_key"):
        found = "none" if signature is None else f"one by the key {signature.key}"
        problem = (
            f"{folder / SIGNATURE_NAME}: expected a signature by the key {public_key.hex} of {public_key.path}, found"
            f" {found}; {REMEDY}"
        )
    if problem:
        problems[f"{folder.name}/{SIGNATURE_NAME}"] = problem
    return GenerationCheck(
        number=number,
        current=is_current,
        signature=state,
        version=None if signature is None else signature.version,
        key=None if signature is None else signature.key,
        problems=problems,
    )


def _check_signature(
    path: Path, manifest_sha256: Sha256 | None, public_key: PublicKey | None
) -> tuple[SignatureState, ManifestSignature | None, str]:
    """State, what was read, and what is wrong. A manifest that cannot be read leaves its hash uncompared: None."""
    try:
        signature = read_signature(path)
        if signature is None:
            return "none", None, ""
        check_genuine(path, signature, manifest_sha256 or signature.manifest_sha256)
    except ManifestSignatureError as error:
        return "damaged", None, str(error)
    if public_key is None:
        return "not_compared", signature, ""
    return ("verified" if signature.key == public_key.hex else "other_key"), signature, ""


def _unlisted(generation: Generation) -> dict[str, str]:
    """What lies in a generation and is no part of it; what a killed signer left is removed by the next one."""
    manifest = read_manifest(generation)
    known = {MANIFEST_NAME, SIGNATURE_NAME, *manifest.listed()}
    with store_errors(generation.path, "listed"):
        names = sorted(entry.name for entry in os.scandir(generation.path))
    strangers = [each for each in names if each not in known and not _SIGNING.fullmatch(each)]
    return {
        f"{generation.path.name}/{printable(name)}": (
            f"{generation.path / printable(name)}: expected nothing but what the manifest lists, found this; nothing"
            " loads it: find out who writes this store, and move it away"
        )
        for name in strangers
    }


def _damaged_files(generation: Generation, hashing: Hashing | None) -> dict[str, str]:
    findings = verify_generation(generation, hashing=hashing)
    return {f"{generation.path.name}/{finding.file}": finding.problem for finding in findings}
