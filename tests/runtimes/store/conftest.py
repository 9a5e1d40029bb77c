"""Small engines in a store of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from messages import TensorSpec
from runtimes.fake_runtime import FAKE_HOST
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry
from runtimes.source_model import SourceModel
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.engine_writer import BuiltEngine, write_engine
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.store.staged_generation import stage_generation

LABEL = "onnx_trt_ep[cpu]"

WriteEngine = Callable[[Path, str, bytes], EngineCacheEntry]
Commit = Callable[[EngineStore, Mapping[str, bytes]], Generation]


@pytest.fixture(scope="session")
def write_small() -> WriteEngine:
    """`write_small(folder, model, data)`: a whole engine artefact of these bytes."""

    def write(directory: Path, model: str, data: bytes) -> EngineCacheEntry:
        return write_engine(
            directory,
            model,
            SourceModel(Path(f"{model}.onnx"), b"source", sha256_of(b"source")),
            BuiltEngine(data=data, inputs={"x": TensorSpec((1,), "float32")}, outputs={}, build_tool="test"),
            BuildConfig(precision="fp32"),
            LABEL,
            FAKE_HOST,
            1,
        )

    return write


@pytest.fixture(scope="session")
def commit(write_small: WriteEngine) -> Commit:
    """`commit(store, {model: data})`: the next generation of a store."""

    def commit_engines(store: EngineStore, engines: Mapping[str, bytes]) -> Generation:
        with stage_generation(store) as staged:
            for model, data in engines.items():
                write_small(staged.directory, model, data)
            return staged.commit()

    return commit_engines


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines")
