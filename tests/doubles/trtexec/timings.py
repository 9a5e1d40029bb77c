"""How trtexec reads and writes a file of timings (`samples/utils/timingCache.cpp` and `fileLock.h`, v10.3.0)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .console import say


def attach_timings(file: str, config: Any) -> None:
    """buildTimingCacheFromFile of samples/utils/timingCache.cpp: a mismatch is ignored."""
    if not file:
        return
    path = Path(file)
    Path(f"{path}.lock").touch()
    try:
        data = path.read_bytes()
        say("I", f"[TRT] Loaded {len(data)} bytes of timing cache from {path}")
    except OSError:
        say(
            "W",
            f"[TRT] Could not read timing cache from: {path}. A new timing cache will be generated and written.",
        )
        data = b""
    cache = config.create_timing_cache(data)
    if cache is None or not config.set_timing_cache(cache, True):
        say("E", "TimingCache creation failed")


def keep_timings(file: str, builder: Any, config: Any) -> None:
    """updateTimingCacheFile: what the file holds by now, and the new ones."""
    if not file:
        return
    path = Path(file)
    held = builder.create_builder_config().create_timing_cache(path.read_bytes() if path.exists() else b"")
    if held is None:
        say("E", f"Exception detected: Failed to create timingCache from {path}!")
        return
    cache = config.get_timing_cache()
    if cache is not None:
        held.combine(cache, False)
    path.write_bytes(bytes(memoryview(held.serialize())))
    say("I", f"[TRT] Saved {path.stat().st_size} bytes of timing cache to {path}")
