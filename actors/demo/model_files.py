"""The source models that the demo provisions from, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from actors.demo.networks import SIZES, DemoRuntime
from actors.demo.packages import require_packages
from messages import ConfigError


def write_models(
    directory: Path, runtime: DemoRuntime, on_written: Callable[[Path], None] | None = None
) -> dict[str, Path]:
    """Write the four source models that `runtime` provisions from: model name -> file.

    `.onnx` for ONNX Runtime and TensorRT, in about half a second; `.pt2` for PyTorch, in about ten. Files that are
    there are overwritten; `on_written` is called after each. Raises ConfigError where a package of the demo is missing
    or the directory cannot be written.
    """
    require_packages("onnx", *(("torch",) if runtime == "pytorch_fp16" else ()))
    sizes = SIZES[runtime]
    files: dict[str, Path] = {}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, network in sizes.networks().items():
            if runtime == "pytorch_fp16":
                from actors.demo.torch_rendering import save_exported_program

                files[name] = directory / f"{name}.pt2"
                save_exported_program(network, files[name], extent_max=sizes.extractor.keypoints)
            else:
                files[name] = directory / f"{name}.onnx"
                files[name].write_bytes(network.SerializeToString())
            if on_written is not None:
                on_written(files[name])
    except OSError as error:
        raise ConfigError(f"demo models: expected a folder to write to, found {directory}: {error.strerror}") from error
    return files
