"""Engines that this project builds for nobody, and whose behaviour it has to know all the same."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from runtimes.tensorrt.building.network import ParsedModel
from runtimes.tensorrt.faults import words_of
from runtimes.tensorrt.log import TensorrtLog
from tests.hardware import OVER_DOUBLE
from tests.runtimes.tensorrt import models
from tests.runtimes.tensorrt.on_a_device import networks

X_RANGE = ((1, 4), (2, 4), (4, 4))
VALUES_RANGE = ((1, 1), (4, 2), (8, 8))


def plan_with_shape_values(trt: ModuleType, log: TensorrtLog, folder: Path) -> bytes:
    """`x` float32 [n, 4] reshaped by the values of `target`, from 1 to 8 each."""
    if OVER_DOUBLE:
        profiles, values = ((("x", *X_RANGE),),), ((("target", *VALUES_RANGE),),)
        return _of_the_double(models.reshaped(), profiles=profiles, on_host=("target", "size"), values=values)

    def add_values(profile: Any) -> None:
        profile.set_shape("x", *X_RANGE)
        profile.set_shape_input("target", *VALUES_RANGE)

    return _built(trt, log, folder, models.reshaped(), add_values, "")


def plan_with_host_code(trt: ModuleType, log: TensorrtLog, folder: Path) -> bytes:
    """Of a version-compatible build, which carries a runtime of its own in it."""
    if OVER_DOUBLE:
        return _of_the_double(networks.scaled_rows(), profiles=(networks.ROWS,), host_code=True)
    return _built(
        trt,
        log,
        folder,
        networks.scaled_rows(),
        lambda profile: profile.set_shape(*networks.ROWS[0]),
        "VERSION_COMPATIBLE",
    )


def _of_the_double(onnx: bytes, **fields: Any) -> bytes:
    plan = importlib.import_module("tensorrt.plan")
    version = importlib.import_module("tensorrt.core").CORE.version
    made: bytes = plan.encode(plan.Plan(onnx=onnx, **fields), version)
    return made


def _built(trt: ModuleType, log: TensorrtLog, folder: Path, onnx: bytes, add_ranges: Any, flag: str) -> bytes:
    path = folder / "model.onnx"
    path.write_bytes(onnx)
    with log.listening("WARNING") as heard:
        parsed = ParsedModel(trt, log, path, strongly_typed=False)
        config: Any = parsed.builder.create_builder_config()
        if flag:
            config.set_flag(getattr(trt.BuilderFlag, flag))
        profile = parsed.builder.create_optimization_profile()
        add_ranges(profile)
        assert config.add_optimization_profile(profile) >= 0, words_of(heard.lines)
        plan = parsed.builder.build_serialized_network(parsed.network, config)
    if plan is None:
        pytest.skip(f"TensorRT builds no such engine here: {words_of(heard.lines)}")
    return bytes(memoryview(plan))
