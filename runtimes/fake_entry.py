"""The host and the entries of engines that are made for tests and need no file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from messages import TensorSpec
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry, HostTuple
from runtimes.store.sha256_sidecar import sha256_of

FAKE_HOST = HostTuple(
    sm=0,
    sm_count=0,
    device_name="fake",
    jetpack="0",
    l4t="0",
    tensorrt="0",
    cuda="0",
    machine="fake",
    runtime_version="0",
)
"""No machine at all: what engines are bound to that are made for tests."""


def fake_host(label: str) -> HostTuple:
    """The host of a fake runtime with this label: engines of another label are another host's."""
    return msgspec.structs.replace(FAKE_HOST, device_name=label)


def entry_in_memory(
    model: str, label: str, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]
) -> EngineCacheEntry:
    """An engine whose file is nowhere: only the fake runtime that made this entry loads it."""
    content = model.encode()
    return EngineCacheEntry(
        model=model,
        path=Path("/in-memory") / f"{model}.engine",
        engine_sha256=sha256_of(content),
        engine_size_bytes=len(content),
        source_name=f"{model}.fake",
        source_sha256=sha256_of(content),
        runtime_label=label,
        build_config=BuildConfig(),
        host=fake_host(label),
        inputs=dict(inputs),
        outputs=dict(outputs),
        build_tool="fake",
        build_ns=0,
    )
