"""What former builds timed on this machine, kept for the next build: one folder for each runtime and host.

    engines/timing/onnx_trt_ep-tensorrt-<16 hex digits>/NAME and NAME.sha256

A build works on a private copy. The copy becomes the kept one only after the build succeeded, under the store's lock;
an unreadable or altered file is dropped, and the build times afresh what was in it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from messages.errors import EngineDeserializeError, printable
from runtimes.inference_runtime import HostTuple
from runtimes.store.disk import DISK, Disk
from runtimes.store.engine_store import store_errors
from runtimes.store.regular_file import read_regular_file
from runtimes.store.sha256_sidecar import Sha256Sidecar, read_with_sidecar, sha256_of, write_with_sidecar

TIMING_FOLDER = "timing"
TIMING_MAX_BYTES = 64 * 1024**2
"""All kept files of one runtime on one host. TensorRT's own grow to a few MiB."""
TIMING_MAX_FILES = 16

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")
_SIDECAR_SUFFIX = ".sha256"


class TimingCache:
    """The kept timings of one runtime on one host. Everything but `folder` needs the store's lock."""

    def __init__(self, store_root: Path, runtime_label: str, host: HostTuple, disk: Disk = DISK) -> None:
        self._root = store_root
        self._disk = disk
        self._label = re.sub(r"[^a-z0-9_]+", "-", runtime_label.lower()).strip("-")
        of = sha256_of(msgspec.json.encode([runtime_label, host]))
        self.folder = store_root / TIMING_FOLDER / f"{self._label}-{of[:16]}"

    def check_out(self, target: Path) -> list[str]:
        """Copy what is kept and whole into the new folder `target`; say what was dropped, and why.

        Raises EngineStoreError.
        """
        dropped: list[str] = []
        with store_errors(self._root, "written"):
            self._disk.make_folder(target)
            self._remove_links()
            self._remove_strays()
            for path in self._kept():
                try:
                    data = read_with_sidecar(path, max_bytes=TIMING_MAX_BYTES)
                except EngineDeserializeError as error:
                    dropped.append(str(error))
                    self._drop(path)
                    continue
                self._disk.write_new_file(target / path.name, data)
        return dropped

    def check_in(self, source: Path, *, room_bytes: int) -> str:
        """Keep what a successful build left in `source`, at most `room_bytes` more than before.

        Returns why nothing was kept, or empty text. Raises EngineStoreError.
        """
        with store_errors(self._root, "written"):
            self._remove_links()
            contents, refusal = self._contents(source)
            if refusal or not contents:
                return refusal
            former = {path: path.lstat().st_size for path in self._kept()}
            growth = sum(map(len, contents.values())) - sum(former.values())
            if growth > room_bytes:
                return f"{growth} bytes more of timings do not fit the storage budget: {room_bytes} are left"
            self._disk.make_folders(self.folder)
            for name, data in contents.items():
                write_with_sidecar(self.folder / name, data, self._disk)
            for path in former:
                if path.name not in contents:
                    self._drop(path)
            self._forget_other_hosts()
        return ""

    def _kept(self) -> list[Path]:
        """The kept files, without their sidecars."""
        if not self.folder.is_dir():
            return []
        entries = self._disk.list_folder(self.folder)
        names = [entry.name for entry in entries if _is_plain(entry.name)]
        return [self.folder / name for name in names[:TIMING_MAX_FILES]]

    def _contents(self, source: Path) -> tuple[dict[str, bytes], str]:
        contents: dict[str, bytes] = {}
        total_bytes = 0
        for entry in self._disk.list_folder(source):
            if not entry.is_file(follow_symlinks=False) or not _is_plain(entry.name):
                return {}, f"expected plain files with plain names as timings, found {printable(entry.name)}"
            total_bytes += entry.stat(follow_symlinks=False).st_size
            if total_bytes > TIMING_MAX_BYTES or len(contents) == TIMING_MAX_FILES:
                return {}, (
                    f"expected at most {TIMING_MAX_FILES} files of timings with {TIMING_MAX_BYTES} bytes together,"
                    f" found more at {printable(entry.name)}"
                )
            contents[entry.name] = read_regular_file(source / entry.name, max_bytes=TIMING_MAX_BYTES)
        return contents, ""

    def _remove_links(self) -> None:
        """What lies behind a link in the store is not the store's: it is neither read, nor written, nor removed."""
        for folder in (self.folder.parent, self.folder):
            if folder.is_symlink():
                self._disk.unlink(folder)

    def _drop(self, path: Path) -> None:
        for each in (path, Sha256Sidecar.path_for(path)):
            if each.is_dir() and not each.is_symlink():
                self._disk.remove_tree(each)
            elif os.path.lexists(each):
                self._disk.unlink(each)

    def _remove_strays(self) -> None:
        """What a killed provisioner left: files under hidden names, and sidecars without their file."""
        kept = {path.name for path in self._kept()}
        entries = self._disk.list_folder(self.folder) if self.folder.is_dir() else []
        for entry in entries:
            if entry.name not in kept and entry.name.removesuffix(_SIDECAR_SUFFIX) not in kept:
                self._drop(self.folder / entry.name)

    def _forget_other_hosts(self) -> None:
        """What this runtime timed before the machine became another one (a new JetPack, a new driver) is of no use."""
        of_label = re.compile(re.escape(self._label) + r"-[0-9a-f]{16}")
        for entry in self._disk.list_folder(self.folder.parent):
            other_host = of_label.fullmatch(entry.name) is not None and entry.name != self.folder.name
            if other_host and entry.is_dir(follow_symlinks=False):
                self._disk.remove_tree(Path(entry.path))


def _is_plain(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and not name.endswith(_SIDECAR_SUFFIX)
