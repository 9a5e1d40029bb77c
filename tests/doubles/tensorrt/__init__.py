"""Stands before NVIDIA's package of this name on `sys.path`: TensorRT 10.3 over the double of CUDA and ONNX Runtime."""

# ruff: noqa: A001, F403, F405 - the names are NVIDIA's, and so is where they stand

from __future__ import annotations

from .building import *
from .core import CORE
from .enums import *
from .inference import *

__version__ = ".".join(map(str, CORE.version[:3]))

float32, float16, int8, int32 = DataType.FLOAT, DataType.HALF, DataType.INT8, DataType.INT32
bool, uint8, int64, bfloat16 = DataType.BOOL, DataType.UINT8, DataType.INT64, DataType.BF16
fp8, int4 = DataType.FP8, DataType.INT4
