"""The timing cache of a build: what TensorRT measured of its tactics on this device, kept for the next build.

One file in `timing_cache_dir`, which the provisioner checks out and in. TensorRT compares a cache with the device and
its own version where it is attached with `ignore_mismatch=False`. trtexec attaches with `true`
(samples/utils/timingCache.cpp, tag v10.3.0), and `NvInfer.h` warns that foreign timings "may lead to
functional/performance bugs": so every builder is given only what was attached here first.
"""

from __future__ import annotations

from pathlib import Path

from messages import EngineBuildError
from messages.lifecycle import Sha256
from runtimes.store.regular_file import read_regular_file
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.tensorrt.building.network import BuilderConfig, TimingCache

TIMING_FILE = "tensorrt.timing"
TIMING_MAX_BYTES = 64 * 1024**2
"""What a store keeps of one runtime at most; TensorRT's caches grow to a few MiB."""


def read_timings(directory: Path | None) -> bytes:
    """What former builds left, b"" where there is none. Raises EngineBuildError."""
    if directory is None:
        return b""
    path = directory / TIMING_FILE
    try:
        return read_regular_file(path, max_bytes=TIMING_MAX_BYTES)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise EngineBuildError(f"{path}: the timing cache cannot be read: {error.strerror}; remove it") from error


def fitting_timings(config: BuilderConfig, timings: bytes) -> tuple[bytes, str]:
    """The timings that may be used here, and why others are not. `config` is used up by the try."""
    if not timings:
        return b"", ""
    cache = _timing_cache(config, timings)
    if cache is None:
        return b"", f"{TIMING_FILE}: TensorRT cannot read the timings of former builds; all is timed anew"
    if not config.set_timing_cache(cache, False):
        return b"", f"{TIMING_FILE}: the timings of former builds are another device's; all is timed anew"
    return timings, ""


def attach_timings(config: BuilderConfig, timings: bytes) -> TimingCache:
    """Have the build use and extend these timings. The cache must outlive the build. Raises EngineBuildError."""
    cache = _timing_cache(config, timings)
    if cache is None or not config.set_timing_cache(cache, False):
        raise EngineBuildError(f"{TIMING_FILE}: TensorRT does not take its own timing cache of {len(timings)} bytes")
    return cache


def _timing_cache(config: BuilderConfig, timings: bytes) -> TimingCache | None:
    # A view that nobody else has: 10.3's binding counts references to its buffer without the interpreter's lock
    # (python/src/infer/pyCore.cpp, call_guard of create_timing_cache, tag v10.3.0).
    return config.create_timing_cache(memoryview(timings))


def timings_of(config: BuilderConfig) -> bytes:
    """All timings that the build read or took. Raises EngineBuildError."""
    cache = config.get_timing_cache()
    written = None if cache is None else cache.serialize()
    if written is None:
        raise EngineBuildError(f"{TIMING_FILE}: expected the timings of the build, found none")
    return bytes(memoryview(written))


def keep_timings(directory: Path | None, timings: bytes) -> Sha256 | None:
    """Write them for the next build, and their hash for the record; None without a place. Raises EngineBuildError."""
    if directory is None:
        return None
    path = directory / TIMING_FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path.write_bytes(timings)
    except OSError as error:
        raise EngineBuildError(f"{path}: the timing cache cannot be written: {error.strerror}") from error
    return sha256_of(timings)
