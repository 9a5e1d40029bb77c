"""What the tests of the runtime itself share: inputs of one small model, and records that were altered."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
import numpy as np

from runtimes.inference_runtime import BuildConfig, EngineCacheEntry
from runtimes.store.engine_artifact import encode_metadata, metadata_path, sidecar_of
from runtimes.store.sha256_sidecar import Sha256Sidecar
from runtimes.tensorrt_runtime import TensorrtRuntime

FP16 = BuildConfig(
    precision="fp16",
    optimization_profiles=(
        ("image", (1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8)),
        ("bias_by_image", (1, 4), (2, 4), (4, 4)),
    ),
)


class MakeRuntime(Protocol):
    def __call__(self, **section: Any) -> TensorrtRuntime: ...


def arrays(images: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "image": random.normal(size=(images, 3, 8, 8)).astype(np.float32),
        "bias_by_image": random.normal(size=(images, 4)).astype(np.float32),
    }


def rewritten(entry: EngineCacheEntry, **changes: Any) -> EngineCacheEntry:
    """The same engine with other metadata, signed off again by a new sidecar: an altered record that nobody noticed."""
    changed = msgspec.structs.replace(entry, **changes)
    metadata = encode_metadata(changed)
    changed.path.write_bytes(entry.path.read_bytes())
    metadata_path(changed.path).write_bytes(metadata)
    Sha256Sidecar.path_for(changed.path).write_bytes(sidecar_of(changed, metadata).format())
    return changed
