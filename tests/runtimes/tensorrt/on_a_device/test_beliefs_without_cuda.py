"""What happens where TensorRT is installed and no device is to be had, each in a process that sees none."""

from __future__ import annotations

import pytest

from tests.runtimes.tensorrt.on_a_device.conftest import InChild, Say

pytestmark = pytest.mark.tensorrt


def test_our_runtime_is_refused_in_words_before_tensorrt_is_asked_for_one(in_child: InChild) -> None:
    found = in_child("runtime_without_cuda", without_cuda=True)
    assert (found["exit_code"], found["raised"]) == (0, "RuntimeNotAvailableError")
    assert "expected a CUDA device 0, found 0" in found["text"]


@pytest.mark.belief("a Runtime of the full library without CUDA is a wild object too")
def test_tensorrts_own_runtime_is_made_all_the_same_and_only_its_log_says_why_not(in_child: InChild, say: Say) -> None:
    found = in_child("raw_runtime_without_cuda", without_cuda=True)
    say(f"made {found['made']} {found['raised']}: {found['errors']}")
    assert found["made"]
    assert found["errors"]


@pytest.mark.belief("the line of a Builder that is made without a device")
def test_tensorrts_own_builder_is_not_made_and_its_log_names_cuda(in_child: InChild, say: Say) -> None:
    found = in_child("raw_builder_without_cuda", without_cuda=True)
    say(f"made {found['made']} {found['raised']}: {found['errors']}")
    assert "factory function returned nullptr" in found["raised"]
    assert any("CUDA initialization failure" in line for line in found["errors"])
