"""The demo's four networks, in one size for each runtime that it flies with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from actors.demo.backbone import BackboneSize, backbone
from actors.demo.extractor import ExtractorSize, extractor
from actors.demo.matcher import MatcherSize, matcher
from actors.demo.refiner import RefinerSize, refiner

if TYPE_CHECKING:
    import onnx

DemoRuntime = Literal["tensorrt", "onnx_trt_ep", "pytorch_fp16"]
DEMO_RUNTIMES: tuple[DemoRuntime, ...] = get_args(DemoRuntime)


@dataclass(frozen=True)
class NetworkSizes:
    """One set of networks that fits together: the matcher takes what the extractor finds.

    `rerank_keypoints` and `match_keypoints` are how many of a picture's strongest keypoints each consumer matches.
    """

    dtype: Literal["float32", "float16"]
    backbone: BackboneSize
    extractor: ExtractorSize
    matcher: MatcherSize
    refiner: RefinerSize
    rerank_keypoints: int
    match_keypoints: int

    def networks(self) -> dict[str, onnx.ModelProto]:
        return {
            "backbone": backbone(self.backbone),
            "extractor": extractor(self.extractor),
            "matcher": matcher(self.matcher),
            "refiner": refiner(self.refiner),
        }


_FLOAT32 = NetworkSizes(
    dtype="float32",
    backbone=BackboneSize(image_px=224, patch_px=16, width=192, heads=3, blocks=6, descriptor=256),
    extractor=ExtractorSize(image_px=256, channels=8, descriptor=64, keypoints=256),
    matcher=MatcherSize(image_px=256, descriptor=64, width=64, heads=2, layers=3),
    refiner=RefinerSize(image_px=64, channels=32, hidden=48, steps=4, viewpoints=32),
    rerank_keypoints=128,
    match_keypoints=256,
)

SIZES: dict[DemoRuntime, NetworkSizes] = {
    "tensorrt": _FLOAT32,
    "onnx_trt_ep": _FLOAT32,
    "pytorch_fp16": NetworkSizes(
        dtype="float16",
        backbone=BackboneSize(image_px=112, patch_px=16, width=96, heads=3, blocks=3, descriptor=128),
        extractor=ExtractorSize(image_px=96, channels=4, descriptor=32, keypoints=64),
        matcher=MatcherSize(image_px=96, descriptor=32, width=32, heads=2, layers=1),
        refiner=RefinerSize(image_px=32, channels=8, hidden=16, steps=2, viewpoints=32),
        rerank_keypoints=32,
        match_keypoints=64,
    ),
}
"""What all four consumers ask for one frame takes 113 ms of one core in float32 and 122 ms in float16, pictures
included: a third of 3 Hz.

Measured on an EPYC of 2.6 GHz. Float16 without hardware for it is 6 to 14 times slower than float32 there, hence the
smaller set.
"""
