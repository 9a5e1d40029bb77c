"""A consumer on an event loop: a frame's thirteen runs are awaited together while the loop runs on.

    python examples/async_consumer.py MODEL.onnx

Any ONNX model with fixed shapes will do.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from actors import InferenceClient, supervise
from messages import C7Error, InferCompleted
from runtimes import BuildConfig, C7InferenceConfig, EngineCacheEntry, build_inference_runtime, sample_inputs


async def consume(client: InferenceClient, entry: EngineCacheEntry) -> int:
    inputs = sample_inputs(entry)
    runs = [client.infer_async(entry.model, inputs, within_ms=2000, frame_id=1) for _ in range(13)]
    outcomes = await asyncio.gather(*runs)
    completed = sum(isinstance(outcome, InferCompleted) for outcome in outcomes)
    print(f"{completed} of {len(outcomes)} completed")
    return 0 if completed == len(outcomes) else 1


def main(model: Path) -> int:
    runtime = build_inference_runtime(C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu"))
    entry = runtime.compile_engine(model, BuildConfig(precision="fp32"))
    with supervise(runtime, {entry.model: entry}) as c7:
        return asyncio.run(consume(c7.client("matcher"), entry))


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])) if len(sys.argv) == 2 else __doc__)
    except C7Error as refusal:
        sys.exit(f"refused: {refusal}")
