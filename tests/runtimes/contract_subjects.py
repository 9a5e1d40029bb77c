"""The runtimes that are asked what every runtime promises, each with a small model and its numbers from elsewhere."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from actors import supervise
from messages import TensorSpec, ThermalFeed
from runtimes.config import C7InferenceConfig, TensorrtSection
from runtimes.fake_runtime import FakeRuntime
from runtimes.fake_steps import computes
from runtimes.inference_runtime import BuildConfig, InferenceRuntime
from runtimes.tensorrt_runtime import TensorrtRuntime
from tests.hardware import require_tensorrt

Arrays = Mapping[str, np.ndarray]


class Subject(NamedTuple):
    """One runtime under the contract. `reference` computes the same model without this project.

    `rounding` is how far off its arithmetic may be where terms cancel out.
    """

    label: str
    dtype: str
    source: Path
    build_config: BuildConfig
    make: Callable[[ThermalFeed | None], InferenceRuntime]
    reference: Callable[[Arrays], Arrays]
    supervised: bool = False
    rounding: float = 1e-5

    def inputs(self, seed: int = 0, images: int = 2) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        return {
            "image": random.normal(size=(images, 3, 8, 8)).astype(self.dtype),
            "bias_by_image": random.normal(size=(images, 4)).astype(self.dtype),
        }


PROFILE = (
    ("image", (1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8)),
    ("bias_by_image", (1, 4), (2, 4), (4, 4)),
)


def fake_subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    weights = np.random.default_rng(3).normal(size=(3, 4)).astype(np.float32)

    def compute(inputs: Arrays) -> Arrays:
        pooled = inputs["image"].mean(axis=(2, 3)) @ weights
        return {"descriptor": pooled + inputs["bias_by_image"], "echo": inputs["image"]}

    source = tmp_path / "descriptor.onnx"
    source.write_bytes(b"any source will do")
    specs = {"image": TensorSpec((-1, 3, 8, 8), "float32"), "bias_by_image": TensorSpec((-1, 4), "float32")}
    script = {"descriptor": computes(compute)}  # type: ignore[arg-type]
    return Subject(
        "fake",
        "float32",
        source,
        BuildConfig(precision="fp32", optimization_profiles=PROFILE),
        lambda thermal: FakeRuntime(script, inputs={"descriptor": specs}, thermal=thermal),
        compute,
    )


def onnx_subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    ort = pytest.importorskip("onnxruntime")
    from runtimes.onnx_trt_ep_runtime import OnnxTrtEpRuntime

    source: Path = request.getfixturevalue("descriptor_onnx")
    session = ort.InferenceSession(source, providers=["CPUExecutionProvider"])
    return Subject(
        "onnx_trt_ep[cpu]",
        "float32",
        source,
        BuildConfig(precision="fp32", optimization_profiles=PROFILE),
        lambda thermal: OnnxTrtEpRuntime(C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"), thermal),
        lambda inputs: dict(zip(("descriptor", "echo"), session.run(None, dict(inputs)), strict=True)),
    )


def torch_subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    torch = pytest.importorskip("torch")
    from runtimes.pytorch_fp16_runtime import PytorchFp16Runtime

    source = Path(shutil.copy(request.getfixturevalue("descriptor_pt2"), tmp_path))
    module = torch.export.load(io.BytesIO(source.read_bytes())).module()

    def reference(inputs: Arrays) -> Arrays:
        outputs = module(torch.tensor(inputs["image"]), torch.tensor(inputs["bias_by_image"]))
        return {name: tensor.detach().numpy().copy() for name, tensor in outputs.items()}

    return Subject(
        "pytorch_fp16[cpu]",
        "float16",
        source,
        BuildConfig(precision="fp16", optimization_profiles=PROFILE),
        lambda thermal: PytorchFp16Runtime(C7InferenceConfig(), thermal),
        reference,
    )


def tensorrt_subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    """Over the doubles of TensorRT and CUDA, whose engines ONNX Runtime computes on the CPU."""
    ort = pytest.importorskip("onnxruntime")
    request.getfixturevalue("trt")
    source: Path = request.getfixturevalue("descriptor_onnx")
    session = ort.InferenceSession(source, providers=["CPUExecutionProvider"])
    config = C7InferenceConfig(runtime="tensorrt", tensorrt=TensorrtSection(builder="api"))
    return Subject(
        "tensorrt",
        "float32",
        source,
        BuildConfig(precision="mixed", optimization_profiles=PROFILE),
        lambda thermal: TensorrtRuntime(config, thermal),
        lambda inputs: dict(zip(("descriptor", "echo"), session.run(None, dict(inputs)), strict=True)),
    )


def tensorrt_on_a_device(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    """NVIDIA's own library on a GPU. The model is fp16 by its own types, and so is its engine, whatever is fastest."""
    require_tensorrt()
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from tests.runtimes.tensorrt import models
    from tests.runtimes.tensorrt.on_a_device.networks import descriptor

    data = descriptor()
    source = tmp_path / "descriptor.onnx"
    source.write_bytes(data)
    config = C7InferenceConfig(runtime="tensorrt", tensorrt=TensorrtSection(builder="api"))
    return Subject(
        "tensorrt",
        "float16",
        source,
        BuildConfig(precision="fp16", optimization_profiles=PROFILE),
        lambda thermal: TensorrtRuntime(config, thermal),
        lambda inputs: models.answers(data, dict(inputs)),
        rounding=8e-3,
    )


STRATEGIES = {
    "fake": fake_subject,
    "onnx_trt_ep": onnx_subject,
    "pytorch_fp16": torch_subject,
    "tensorrt": tensorrt_subject,
    "tensorrt on a device": tensorrt_on_a_device,
}
ON_ACTORS = "supervised "
torch = pytest.mark.torch
on_a_device = pytest.param("tensorrt on a device", marks=pytest.mark.tensorrt)


def on_actors(subject: Subject, request: pytest.FixtureRequest) -> Subject:
    """The same strategy behind the supervisor."""

    def make(thermal: ThermalFeed | None) -> InferenceRuntime:
        supervision = supervise(subject.make(thermal), None)
        request.addfinalizer(supervision.stop)
        return supervision.as_runtime(within_ms=60_000)

    return subject._replace(make=make, supervised=True)
