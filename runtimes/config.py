"""Which runtime is used, on which device: always an explicit choice, read once at startup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from messages.tensor import TENSORS_MAX, Name
from runtimes.build_report import BuilderName
from runtimes.inference_runtime import Shape

RuntimeName = Literal["tensorrt", "onnx_trt_ep", "pytorch_fp16"]
Device = Literal["cuda", "cpu"]
Provider = Literal["tensorrt", "cuda", "cpu"]


GRAPHS_MAX = 64
GraphShapes = Annotated[dict[Name, Shape], msgspec.Meta(max_length=TENSORS_MAX)]
"""The shape of each input; one with a fixed shape need not be named."""


class TensorrtSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[runtime.tensorrt]`: what only TensorRT can be told.

    `builder` is the tool that carries a build out, and `optimization_level` how much TensorRT tries in it.
    `cuda_graphs` lists for a model the shapes at which its run is captured when it is loaded. `share_activation_memory`
    has all engines run in one block of scratch memory, one at a time. A graph keeps the address of its scratch memory,
    and a shared block moves when a larger engine is loaded: the two exclude each other.
    """

    builder: BuilderName = "polygraphy"
    cuda_graphs: dict[Name, Annotated[tuple[GraphShapes, ...], msgspec.Meta(max_length=GRAPHS_MAX)]] = {}
    share_activation_memory: bool = False
    optimization_level: Annotated[int, msgspec.Meta(ge=0, le=5)] = 3


class C7InferenceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Configuration of the one runtime of the process.

    `runtime` defaults to the workstation baseline, so that an unconfigured test environment resolves to it.
    `provider` belongs to `onnx_trt_ep`, which has no default for it. `device` is `cpu` unless it is asked for
    `cuda`; for `onnx_trt_ep` the provider says it already. `engine_dir` is where `compile_engine` writes, by default
    a folder `engines` beside the source model. `threads` bounds the CPU threads of one engine's run.
    `storage_room_bytes` bounds what one `compile_engine` may write, and `timing_cache_dir` keeps timings of a build for
    the next one; the provisioner sets both. `tensorrt` belongs to the runtime of that name.
    """

    runtime: RuntimeName = "pytorch_fp16"
    device: Device = "cpu"
    device_index: Annotated[int, msgspec.Meta(ge=0)] = 0
    provider: Provider | None = None
    engine_dir: Path | None = None
    threads: Annotated[int, msgspec.Meta(ge=1)] = 1
    storage_room_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None
    timing_cache_dir: Path | None = None
    tensorrt: TensorrtSection = TensorrtSection()

    @property
    def uses_gpu(self) -> bool:
        """Whether engines run on a GPU. The provider says it where there is one; TensorRT runs nowhere else."""
        return self.runtime == "tensorrt" or (self.provider or self.device) != "cpu"
