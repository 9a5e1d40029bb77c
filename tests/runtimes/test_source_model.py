"""Reading a source model: its bytes and hash, or a refusal that says what was expected."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from messages import EngineBuildError
from runtimes.source_model import read_source
from runtimes.store.sha256_sidecar import sha256_of


def test_a_source_is_its_bytes_and_their_hash(tmp_path: Path) -> None:
    path = tmp_path / "vpr.onnx"
    path.write_bytes(b"model")
    source = read_source(path, suffix=".onnx")
    assert (source.path, source.data, source.sha256) == (path, b"model", sha256_of(b"model"))


def test_a_link_to_a_source_is_followed(tmp_path: Path) -> None:
    (tmp_path / "v3.onnx").write_bytes(b"model")
    (tmp_path / "vpr.onnx").symlink_to("v3.onnx")
    assert read_source(tmp_path / "vpr.onnx", suffix=".onnx").data == b"model"


@pytest.mark.parametrize(
    ("suffix", "name", "expected"),
    [
        (".onnx", "vpr.pt2", "compiles .onnx files, got '.pt2'.*pytorch_fp16 compiles it"),
        (".pt2", "vpr.onnx", "compiles .pt2 files, got '.onnx'.*tensorrt and onnx_trt_ep compile it"),
        (".onnx", "vpr", "compiles .onnx files, got ''"),
    ],
)
def test_a_source_of_another_runtime_is_refused_with_whose_it_is(
    tmp_path: Path, suffix: str, name: str, expected: str
) -> None:
    (tmp_path / name).write_bytes(b"model")
    with pytest.raises(EngineBuildError, match=expected):
        read_source(tmp_path / name, suffix=suffix)


def test_a_missing_source_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(EngineBuildError, match=r"vpr\.onnx: the source model cannot be read: No such file"):
        read_source(tmp_path / "vpr.onnx", suffix=".onnx")


def test_an_empty_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vpr.onnx").touch()
    with pytest.raises(EngineBuildError, match="empty"):
        read_source(tmp_path / "vpr.onnx", suffix=".onnx")


def test_a_folder_and_a_pipe_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(EngineBuildError, match="found a folder"):
        read_source(tmp_path / "folder.onnx", suffix=".onnx")
    with pytest.raises(EngineBuildError, match="found a named pipe"):
        read_source(tmp_path / "pipe.onnx", suffix=".onnx")
