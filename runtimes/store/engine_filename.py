"""The self-describing name of an engine file: `{model}__sm{SM}_jp{JetPack}_trt{TensorRT}_{precision}.engine`."""

from __future__ import annotations

import re
from typing import cast

import msgspec

from messages.errors import ConfigError
from runtimes.inference_runtime import HostTuple, Precision

FILENAME_MAX_CHARS = 200
"""Leaves room in the 255 bytes of a Linux file name for the suffixes of metadata, sidecar and temporary files."""

_MODEL = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_VERSION = r"[0-9A-Za-z]+(?:[.+-][0-9A-Za-z]+)*"
_NAME = re.compile(
    rf"(?P<model>{_MODEL})__sm(?P<sm>0|[1-9][0-9]*)_jp(?P<jetpack>{_VERSION})_trt(?P<tensorrt>{_VERSION})"
    r"_(?P<precision>fp16|int8|mixed|fp32)\.engine"
)


class EngineFilenameSchema(msgspec.Struct, frozen=True, kw_only=True):
    """What the name of an engine file says. `format` and `parse` are inverse.

    A model's name is of ASCII letters, digits, `.`, `_` and `-`, starts with a letter or digit and has no `..`.
    Construction raises ConfigError for anything that cannot be said in a file name.
    """

    model: str
    sm: int
    jetpack: str
    tensorrt: str
    precision: Precision

    def __post_init__(self) -> None:
        check_model_name(self.model)
        name = self.format()
        match = _NAME.fullmatch(name)
        if match is None or match["model"] != self.model or ".." in name:
            raise ConfigError(
                f"no engine file can be named for {self.model!r} with sm {self.sm}, JetPack {self.jetpack!r}, TensorRT"
                f" {self.tensorrt!r}, precision {self.precision!r}: expected plain numbers and versions"
            )
        if len(name) > FILENAME_MAX_CHARS:
            raise ConfigError(
                f"the engine file name of model {self.model[:40]!r}… has {len(name)} characters, at most"
                f" {FILENAME_MAX_CHARS} fit; shorten the model's name"
            )

    @classmethod
    def for_host(cls, model: str, host: HostTuple, precision: Precision) -> EngineFilenameSchema:
        """The name on this host. It carries major and minor of TensorRT; the metadata has all four parts."""
        tensorrt = ".".join(host.tensorrt.split(".")[:2])
        return cls(model=model, sm=host.sm, jetpack=host.jetpack, tensorrt=tensorrt, precision=precision)

    @classmethod
    def parse(cls, name: str) -> EngineFilenameSchema:
        """Read a file name (no folder in it). Raises ConfigError for any other name."""
        match = _NAME.fullmatch(name) if len(name) <= FILENAME_MAX_CHARS else None
        if match is None:
            raise ConfigError(
                f"expected a name like 'ultravpr__sm87_jp6.2_trt10.3_fp16.engine', got {name[:FILENAME_MAX_CHARS]!r}"
            )
        return cls(
            model=match["model"],
            sm=int(match["sm"]),
            jetpack=match["jetpack"],
            tensorrt=match["tensorrt"],
            precision=cast("Precision", match["precision"]),
        )

    def format(self) -> str:
        return f"{self.model}__sm{self.sm}_jp{self.jetpack}_trt{self.tensorrt}_{self.precision}.engine"


def check_model_name(model: str) -> None:
    """Raises ConfigError for a model that no file can be named after."""
    if not re.fullmatch(_MODEL, model) or ".." in model:
        raise ConfigError(
            "expected a model name of ASCII letters, digits, '.', '_' and '-' that starts with a letter or digit and"
            f" has no '..', got {model[:160]!r}"
        )
