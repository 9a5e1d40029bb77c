"""What the tests of builds share: small models, datasets, and one build through the product's own way."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from onnx import helper

from runtimes.build_report import BuilderName
from runtimes.cuda.port import Cuda
from runtimes.inference_runtime import BuildConfig, Precision, ProfileRange
from runtimes.onnx_types import audit_typed
from runtimes.source_model import read_source
from runtimes.tensorrt.bindings import Engine
from runtimes.tensorrt.building.build import TensorrtBuild, build_engine
from runtimes.tensorrt.building.recipe import engine_recipe
from runtimes.tensorrt.inference.engine import EngineLoader, LoadedEngine
from runtimes.tensorrt.log import TensorrtLog
from tests.runtimes.tensorrt.models import FLOAT, HALF, model

TRTEXEC_FOLDER = Path(__file__).parents[3] / "doubles" / "trtexec"
PROFILE: tuple[ProfileRange, ...] = (("image", (1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8)),)
BATCHES = 10


def descriptor(kind: int = FLOAT) -> bytes:
    """`image` [n, 3, 8, 8] and `bias` [4], whose shape is fixed, -> `descriptor` [n, 4]. Every node has a name."""
    dtype = np.float32 if kind == FLOAT else np.float16
    weight = np.random.default_rng(7).normal(size=(4, 3, 3, 3)).astype(dtype)
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["features"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["features"], ["active"], name="relu"),
        helper.make_node("ReduceMean", ["active"], ["pooled"], name="mean", axes=[2, 3], keepdims=0),
        helper.make_node("Add", ["pooled", "bias"], ["descriptor"], name="add"),
    ]
    inputs: list[Any] = [("image", kind, ["n", 3, 8, 8]), ("bias", kind, [4])]
    return model(nodes, inputs, [("descriptor", kind, ["n", 4])], weight=weight)


def half_descriptor() -> bytes:
    return descriptor(HALF)


def quantized() -> bytes:
    """A convolution between quantisations: `image` [n, 3, 8, 8] -> `features` [n, 4, 8, 8]."""
    random = np.random.default_rng(7)
    scale, zero = np.float32(0.02), np.int8(0)
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["image_q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["image_q", "scale", "zero"], ["image_dq"], name="dequantize"),
        helper.make_node("DequantizeLinear", ["weight_q", "scale", "zero"], ["weight"], name="weights"),
        helper.make_node("Conv", ["image_dq", "weight"], ["features"], name="conv", pads=[1, 1, 1, 1]),
    ]
    return model(
        nodes,
        [("image", FLOAT, ["n", 3, 8, 8])],
        [("features", FLOAT, ["n", 4, 8, 8])],
        scale=np.array(scale),
        zero=np.array(zero),
        weight_q=random.integers(-100, 100, (4, 3, 3, 3), np.int8),
    )


class Bench:
    """Builds in a folder of its own, on the double's device."""

    def __init__(self, trt: ModuleType, log: TensorrtLog, cuda: Cuda, folder: Path) -> None:
        self.trt, self.log, self.cuda, self.folder = trt, log, cuda, folder

    def save(self, data: bytes) -> Path:
        path = self.folder / "model.onnx"
        path.write_bytes(data)
        return path

    def dataset(self, count: int = BATCHES, *, zero: Iterable[str] = ()) -> Path:
        """Batches of `descriptor`'s inputs; those in `zero` are zero in every batch."""
        folder = self.folder / "batches"
        folder.mkdir(exist_ok=True)
        random = np.random.default_rng(1)
        for number in range(count):
            batch = {"image": random.normal(size=(2, 3, 8, 8)), "bias": random.normal(size=4)}
            arrays: dict[str, Any] = {name: (array * (name not in zero)).astype("f4") for name, array in batch.items()}
            np.savez(folder / f"{number:03}.npz", **arrays)
        return folder

    def build(
        self,
        data: bytes,
        precision: Precision = "fp16",
        builder: BuilderName = "api",
        *,
        dataset: Path | None = None,
        profile: tuple[ProfileRange, ...] = PROFILE,
        workspace_mb: int = 1024,
        **keywords: Any,
    ) -> TensorrtBuild:
        path = self.save(data)
        source = read_source(path, suffix=".onnx")
        config = BuildConfig(
            precision=precision,
            calibration_dataset=dataset,
            optimization_profiles=profile,
            workspace_mb=workspace_mb,
        )
        audited, types = audit_typed(source, precision)
        recipe = engine_recipe(str(path), config, types)
        opened: list[LoadedEngine] = []

        def open_engine(plan: bytes) -> Engine:
            opened.append(EngineLoader(self.trt, self.log, self.cuda).load(str(path), "model", plan))
            return opened[0].engine

        try:
            return build_engine(
                self.trt,
                self.log,
                self.cuda,
                recipe,
                source,
                audited,
                config,
                builder=builder,
                open_engine=open_engine,
                **keywords,
            )
        finally:
            opened.clear()


def put_trtexec_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the PATH, and behind it the Python that runs the tests, for its first line."""
    folders = (TRTEXEC_FOLDER, Path(sys.executable).parent, os.environ["PATH"])
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, folders)))
