"""Which TensorRT is taken, and how another one is refused."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from messages import RuntimeNotAvailableError
from runtimes.tensorrt.library import import_tensorrt, version_numbers, why_refused


@pytest.mark.parametrize("version", ["10.3.0", "10.3.0.26", "10.4", "10.16.1.11", "10.99.9"])
def test_tensorrt_10_3_and_newer_is_taken(version: str) -> None:
    assert why_refused(version) == ""


@pytest.mark.parametrize("version", ["11.0.0", "11.4.0.106", "12.1"])
def test_tensorrt_11_is_refused_by_name_with_its_reason(version: str) -> None:
    refused = why_refused(version)
    assert f"found {version}, which has neither calibrators nor precision flags" in refused
    assert "expected TensorRT 10.3 or newer, before 11" in refused


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0", "10.0.1"])
def test_an_older_tensorrt_is_refused_by_name(version: str) -> None:
    assert f"expected TensorRT 10.3 or newer, before 11, found {version};" in why_refused(version)


@pytest.mark.parametrize("version", ["", "unknown", "10"])
def test_a_tensorrt_that_tells_no_version_is_refused(version: str) -> None:
    assert "found one without a version" in why_refused(version)


def test_a_version_is_read_as_numbers_as_far_as_they_go() -> None:
    assert version_numbers("10.3.0.26") == (10, 3, 0, 26)
    assert version_numbers("10.16.1.post12.dev1") == (10, 16, 1)
    assert version_numbers("none") == ()


def test_without_the_library_the_refusal_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(RuntimeNotAvailableError, match=r"^tensorrt: expected NVIDIA's Python bindings.*setup-jetson"):
        import_tensorrt()


def test_the_module_is_given_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("tensorrt")
    module.__version__ = "10.3.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    assert import_tensorrt() is module


def test_a_module_of_a_version_that_is_refused_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("tensorrt")
    module.__version__ = "11.4.0.106"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(RuntimeNotAvailableError, match=r"found 11\.4\.0\.106"):
        import_tensorrt()
