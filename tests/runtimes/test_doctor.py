"""Which runtimes can run here: each really tried, and each that cannot says why."""

from __future__ import annotations

import pytest

from runtimes.doctor import CONFIGURATIONS, doctor_runtimes
from runtimes.inference_factory import _RUNTIME_TO_BUILD_FLAG


def test_every_runtime_is_tried_and_answers(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    found = doctor_runtimes()
    assert len(found) == len(CONFIGURATIONS)
    assert {each.label.partition("[")[0] for each in found} == set(_RUNTIME_TO_BUILD_FLAG)
    assert all(each.detail for each in found)
    by_label = {each.label: each for each in found}
    assert by_label["onnx_trt_ep[cpu]"].available
    assert by_label["onnx_trt_ep[cpu]"].detail[0].isdigit()
    assert not by_label["tensorrt"].available
    assert capfd.readouterr().out == ""


def test_a_runtime_that_is_built_out_is_reported_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for flag in _RUNTIME_TO_BUILD_FLAG.values():
        monkeypatch.setenv(flag, "OFF")
    assert all("=OFF" in each.detail and not each.available for each in doctor_runtimes())
