"""Engines that a provisioning run has finished and not yet committed, kept for the run after a kill.

    engines/.drafts/<16 hex digits of the sidecar's hash>/     an engine with all its files, hard-linked

A draft's folder gets its name once everything in it is durable, so one that has a name is whole. The store's lock is
held. All methods raise OSError.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from messages.errors import EngineDeserializeError
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.store.disk import Disk
from runtimes.store.durable_files import hidden_path
from runtimes.store.engine_artifact import (
    artifact_files,
    encode_metadata,
    read_stored_entry,
    sidecar_of,
    verify_artifact,
)
from runtimes.store.sha256_sidecar import sha256_of

DRAFTS_NAME = ".drafts"
_KEY_CHARS = 16
_ENGINE_SUFFIX = ".engine"


class DraftEngines:
    """The drafts of one store."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self._folder = root / DRAFTS_NAME
        self._disk = disk

    def keep(self, entry: EngineCacheEntry) -> None:
        """Keep this engine; another draft of the same engine file goes, so that drafts cannot pile up."""
        key = sha256_of(sidecar_of(entry, encode_metadata(entry)).format())[:_KEY_CHARS]
        kept = self._folder / key
        if kept.is_dir():
            return
        self._disk.make_folders(self._folder)
        hidden = hidden_path(kept)
        self._disk.make_folder(hidden)
        try:
            for path in artifact_files(entry):
                self._disk.link(path, hidden / path.name)
            self._disk.fsync_folder(hidden)
            self._disk.replace(hidden, kept)
        except BaseException:
            with contextlib.suppress(OSError):  # the error on its way says more; the next run removes what is left
                self._disk.remove_tree(hidden)
            raise
        self._disk.fsync_folder(self._folder)
        for other in self._kept():
            if other != kept and entry.path.name in _engine_names(self._disk, other):
                self._disk.remove_tree(other)

    def read(self) -> dict[str, list[EngineCacheEntry]]:
        """The drafts by model, every file of them hashed. One that is damaged is removed: it is compiled again."""
        drafts: dict[str, list[EngineCacheEntry]] = {}
        for kept in self._kept():
            try:
                (name,) = _engine_names(self._disk, kept)
                entry = read_stored_entry(kept / name)
                verify_artifact(entry)
            except (EngineDeserializeError, ValueError):
                self._disk.remove_tree(kept)
                continue
            drafts.setdefault(entry.model, []).append(entry)
        return drafts

    def remove(self) -> None:
        if os.path.lexists(self._folder):
            self._disk.remove_tree(self._folder)

    def _kept(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        entries = self._disk.list_folder(self._folder)
        return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]


def _engine_names(disk: Disk, folder: Path) -> list[str]:
    return [entry.name for entry in disk.list_folder(folder) if entry.name.endswith(_ENGINE_SUFFIX)]
