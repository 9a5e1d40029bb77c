"""Writing one compiled engine: all of its files or none, the sidecar last."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from messages.errors import EngineStoreError
from messages.lifecycle import Sha256
from messages.tensor import TensorSpec
from runtimes.build_report import BuildReport
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry, HostTuple
from runtimes.measurements import AccuracyRecord, MemoryUse, PowerMode
from runtimes.source_model import SourceModel
from runtimes.store.disk import DISK, Disk
from runtimes.store.durable_files import write_files_atomically
from runtimes.store.engine_artifact import (
    calibration_path,
    encode_metadata,
    metadata_path,
    self_test_path,
    sidecar_of,
)
from runtimes.store.engine_filename import EngineFilenameSchema
from runtimes.store.sha256_sidecar import Sha256Sidecar, sha256_of
from runtimes.store.storage_budget import over_budget, refuse_if_full


class BuiltEngine(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """What a runtime's compiler hands over: the bytes that `read_engine` gives back, and what they take and give.

    `calibration_cache` is the INT8 calibration cache in the form of `runtimes.calibration`, and the hashes are of the
    dataset and the timing cache that the build used; None where it used none. `report` is that of a TensorRT build.
    """

    data: bytes
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    build_tool: str
    dataset_sha256: Sha256 | None = None
    calibration_cache: bytes | None = None
    timing_cache_sha256: Sha256 | None = None
    report: BuildReport | None = None


def write_engine(
    directory: Path,
    model: str,
    source: SourceModel,
    built: BuiltEngine,
    build_config: BuildConfig,
    runtime_label: str,
    host: HostTuple,
    build_ns: int,
    *,
    room_bytes: int | None = None,
    disk: Disk = DISK,
) -> EngineCacheEntry:
    """Write all files of the engine, or none. One of the same name is replaced only once all of them are on disk.

    `room_bytes` is what the storage budget has left. The entry's path has no link in it, whatever `directory` leads
    through. Raises ConfigError for a model that cannot be named in a file name; EngineStoreError, before anything is
    written, where the budget or the disk has too little room, and where it cannot be written.
    """
    name = EngineFilenameSchema.for_host(model, host, build_config.precision).format()
    entry = EngineCacheEntry(
        model=model,
        path=Path(os.path.realpath(directory)) / name,
        engine_sha256=sha256_of(built.data),
        engine_size_bytes=len(built.data),
        source_name=source.path.resolve().name,  # a link says less than the file that it led to
        source_sha256=source.sha256,
        runtime_label=runtime_label,
        build_config=build_config,
        host=host,
        inputs=built.inputs,
        outputs=built.outputs,
        build_tool=built.build_tool,
        build_ns=build_ns,
        dataset_sha256=built.dataset_sha256,
        calibration_sha256=None if built.calibration_cache is None else sha256_of(built.calibration_cache),
        timing_cache_sha256=built.timing_cache_sha256,
        build=built.report,
    )
    contents = {entry.path: built.data}
    if built.calibration_cache is not None:
        contents[calibration_path(entry.path)] = built.calibration_cache
    _write(entry, contents, room_bytes, disk)
    return entry


def sign_off(
    entry: EngineCacheEntry,
    *,
    self_test: bytes | None,
    power: PowerMode | None,
    memory: MemoryUse,
    accuracy: AccuracyRecord | None,
    room_bytes: int | None = None,
    disk: Disk = DISK,
) -> EngineCacheEntry:
    """Add what provisioning found out about a compiled engine to its files, before it is committed.

    `self_test` are known answers in the form of `runtimes.sign_off.self_test`; `room_bytes` is what the storage budget
    has left beside the engine. Raises EngineStoreError.
    """
    signed_off = msgspec.structs.replace(
        entry,
        self_test_sha256=None if self_test is None else sha256_of(self_test),
        power=power,
        memory=memory,
        accuracy=accuracy,
    )
    contents = {} if self_test is None else {self_test_path(entry.path): self_test}
    _write(signed_off, contents, room_bytes, disk)
    return signed_off


def _write(entry: EngineCacheEntry, contents: dict[Path, bytes], room_bytes: int | None, disk: Disk) -> None:
    """Write these files, the metadata, and last the sidecar that makes them valid."""
    directory = entry.path.parent
    metadata = encode_metadata(entry)
    named = {path.name: data for path, data in contents.items()}
    named[metadata_path(entry.path).name] = metadata
    named[Sha256Sidecar.path_for(entry.path).name] = sidecar_of(entry, metadata).format()
    sizes_bytes = [len(data) for data in named.values()]
    shortage = "" if room_bytes is None else over_budget(sum(sizes_bytes), room_bytes)
    if shortage:
        raise EngineStoreError(f"{directory}: the engine of {entry.model} is not written: {shortage}")
    try:
        refuse_if_full(directory, sizes_bytes, disk)
        disk.make_folders(directory)
        write_files_atomically(directory, named, disk)
    except OSError as error:
        raise EngineStoreError(
            f"{directory}: the engine of {entry.model} cannot be written: {error.filename or directory}:"
            f" {error.strerror or error}; make room there, or name another store in [flight] store"
        ) from error
