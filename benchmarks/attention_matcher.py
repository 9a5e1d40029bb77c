"""A feature matcher of LightGlue's size and kind, written and exported here: nothing is downloaded.

9 layers of self and cross attention over two sets of 512 keypoints, 256 wide, 4 heads, and the assignment of the last
layer; seeded weights. The layers are LightGlue's own in kind and width; its rotary position encoding is an addition
here, and it has one assignment head, not one per layer.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

WIDTH = 256
HEADS = 4
LAYERS = 9
KEYPOINTS = 512


def export_matcher_pt2(path: Path) -> str:
    """Write the matcher in fp16 to `path` and say what it is."""
    import torch

    program = torch.export.export(_matcher().half(), _example(torch.half))
    torch.export.save(program, path)
    return _described(program.state_dict, len(program.graph.nodes), path)


def export_matcher_onnx(path: Path) -> str:
    """Write the matcher in fp32 to `path` and say what it is."""
    import onnx
    import torch

    matcher = _matcher()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs nothing but torch says that it is the old one
        torch.onnx.export(matcher, _example(torch.float), str(path), dynamo=False, opset_version=17)
    return _described(matcher.state_dict(), len(onnx.load(path).graph.node), path)


def _described(weights: dict[str, torch.Tensor], node_count: int, path: Path) -> str:
    parameters = sum(tensor.numel() for tensor in weights.values())
    return f"{parameters / 1e6:.2f} M parameters, {node_count} nodes, {path.stat().st_size / 1e6:.1f} MB"


def _example(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    import torch

    torch.manual_seed(2)
    return tuple(torch.randn(1, KEYPOINTS, extent, dtype=dtype) for extent in (WIDTH, WIDTH, 2, 2))


def _matcher() -> torch.nn.Module:
    import torch
    from torch import nn

    def heads(tokens: torch.Tensor) -> torch.Tensor:
        return tokens.reshape(*tokens.shape[:-1], HEADS, -1).transpose(1, 2)

    def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(-2)

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(2 * WIDTH, 2 * WIDTH), nn.LayerNorm(2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
            )

        def forward(self, tokens: torch.Tensor, message: torch.Tensor) -> torch.Tensor:
            mixed: torch.Tensor = tokens + self.layers(torch.cat([tokens, message], -1))
            return mixed

    class SelfAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
            self.out = nn.Linear(WIDTH, WIDTH)
            self.mixing = Mixing()

        def forward(self, tokens: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            queries, keys, values = (heads(part) for part in self.qkv(tokens).chunk(3, -1))
            mixed: torch.Tensor = self.mixing(tokens, self.out(attend(queries + position, keys + position, values)))
            return mixed

    class CrossAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qk = nn.Linear(WIDTH, WIDTH)
            self.value = nn.Linear(WIDTH, WIDTH)
            self.out = nn.Linear(WIDTH, WIDTH)
            self.mixing = Mixing()

        def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            left_qk, right_qk = heads(self.qk(left)), heads(self.qk(right))
            to_left = self.out(attend(left_qk, right_qk, heads(self.value(right))))
            to_right = self.out(attend(right_qk, left_qk, heads(self.value(left))))
            return self.mixing(left, to_left), self.mixing(right, to_right)

    class Matcher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Linear(2, WIDTH // HEADS, bias=False)
            self.self_attention = nn.ModuleList(SelfAttention() for _ in range(LAYERS))
            self.cross_attention = nn.ModuleList(CrossAttention() for _ in range(LAYERS))
            self.projection = nn.Linear(WIDTH, WIDTH)
            self.matchability = nn.Linear(WIDTH, 1)

        def forward(
            self,
            descriptors0: torch.Tensor,
            descriptors1: torch.Tensor,
            keypoints0: torch.Tensor,
            keypoints1: torch.Tensor,
        ) -> dict[str, torch.Tensor]:
            left, right = descriptors0, descriptors1
            at_left = torch.sin(self.position(keypoints0)).unsqueeze(1)
            at_right = torch.sin(self.position(keypoints1)).unsqueeze(1)
            for itself, across in zip(self.self_attention, self.cross_attention, strict=True):
                left, right = across(itself(left, at_left), itself(right, at_right))
            similarity = self.projection(left) @ self.projection(right).transpose(-1, -2) / WIDTH**0.5
            certain = self.matchability(left) + self.matchability(right).transpose(-1, -2)
            scores = similarity.log_softmax(-1) + similarity.log_softmax(-2) + nn.functional.logsigmoid(certain)
            return {"log_assignment": scores}

    torch.manual_seed(1)
    return Matcher().eval()
