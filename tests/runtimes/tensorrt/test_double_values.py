"""What the double's enums, shapes and callbacks answer, word for word as NVIDIA's bindings of 10.3 answer it.

`1 << flag`, `dtype == 0` and a member that is false would pass on a double of Python's `IntEnum`, and fail on a Jetson.
"""

from __future__ import annotations

import json
from functools import cache

import pytest

from tests.bindings.fetched import DOUBLES, OLDEST, run_python, tensorrt

ASKED = (
    "trt.DataType.FLOAT",
    "str(trt.DataType.FLOAT)",
    "f'{trt.TensorFormat.CHW4}'",
    "trt.DataType.HALF.name",
    "trt.DataType.HALF.value",
    "int(trt.DataType.HALF)",
    "trt.float32 == trt.DataType.FLOAT",
    "trt.float32 != trt.float16",
    "trt.float32 == 0",
    "trt.DataType.FLOAT == trt.BuilderFlag.FP16",
    "trt.BuilderFlag(0)",
    "bool(trt.TensorLocation.DEVICE)",
    "trt.TensorLocation.HOST in {trt.TensorLocation.HOST: 1}",
    "1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)",
    "1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "trt.BuilderFlag.FP16 | trt.BuilderFlag.INT8",
    "trt.ILogger.ERROR",
    "trt.Logger.ERROR",
    "trt.Logger().min_severity",
    "trt.Logger(trt.Logger.INFO).min_severity",
    "trt.Logger.Severity is trt.ILogger.Severity",
    "isinstance(trt.Logger(), trt.ILogger)",
    "trt.Dims((1, 2))",
    "tuple(trt.Dims([4, 5]))",
    "len(trt.Dims(()))",
    "len(trt.Dims())",
    "trt.Dims((1, 2))[-1]",
    "trt.Dims((1, 2))[0:1]",
    "trt.Dims((1, 2)) == (1, 2)",
    "trt.Dims((1,) * 9)",
    "trt.volume((2, 3))",
    "trt.volume(())",
    "trt.nptype(trt.float32)",
    "trt.nptype(trt.bfloat16)",
    "trt.IHostMemory()",
    "trt.ICudaEngine()",
    "trt.IExecutionContext()",
    "trt.IBuilderConfig()",
    "trt.INetworkDefinition()",
    "trt.IOptimizationProfile()",
    "trt.ITimingCache()",
    "trt.ITensor()",
    "trt.ParserError()",
    "Uninitialised()",
    "hasattr(trt.IOutputAllocator, 'notify_shape')",
)

ANSWER = """
import json, sys
import tensorrt as trt

class Uninitialised(trt.ILogger):
    def __init__(self):
        pass

def answer(expression):
    try:
        return repr(eval(expression))
    except Exception as error:
        return f"{type(error).__name__}: {error}"

json.dump({each: answer(each) for each in json.load(sys.stdin)}, sys.stdout)
"""
NOT_COMPARED = {"tensorrt_bindings.": "tensorrt.", "'tensorrt.tensorrt.": "'"}
"""The wheels have the extension in a package of another name than JetPack, whose name the double has; and Python names
a class of the double without it where an operator is refused."""


@cache
def answers(*, real: bool) -> dict[str, str]:
    told = run_python("-c", ANSWER, paths=[tensorrt(OLDEST) if real else DOUBLES], stdin=json.dumps(ASKED))
    assert told.returncode == 0, told.stderr
    text = told.stdout
    for theirs, ours in NOT_COMPARED.items():
        text = text.replace(theirs, ours)
    found: dict[str, str] = json.loads(text)
    return found


@pytest.mark.parametrize("expression", ASKED)
def test_the_double_answers_as_nvidias_bindings_do(expression: str) -> None:
    assert answers(real=False)[expression] == answers(real=True)[expression]
