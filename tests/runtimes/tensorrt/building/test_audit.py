"""In which precisions an engine computes, by the inspector's words, and when it is not what was asked for."""

from __future__ import annotations

import json

import pytest

from runtimes.inference_runtime import Precision
from runtimes.tensorrt.building.layer_audit import count_precisions, why_not_built_as

FORMATS = {
    "Channel major FP16 format where channel % 4 == 0": "fp16",
    "Row major linear FP16 format": "fp16",
    "Half": "fp16",
    "Thirty-two wide channel vectorized row major Int8 format": "int8",
    "Row major Int8 format": "int8",
    "Row major linear FP32": "fp32",
    "Four wide channel vectorized row major FP32 format": "fp32",
    "Float": "fp32",
    "BFloat16": "bf16",
    "Row major linear FP8 format": "fp8",
    "Int32": "other",
    "Row major linear Int64 format": "other",
    "Bool": "other",
    "N/A due to dynamic shapes": "untold",
}


def tensor(datatype: str) -> dict[str, object]:
    return {"Name": "t", "Location": "Device", "Dimensions": [1, 3, 8, 8], "Format/Datatype": datatype}


def layer(*inputs: str, kind: str = "CaskConvolution", outputs: tuple[str, ...] = ("Row major linear FP32",)) -> object:
    return {
        "Name": "conv",
        "LayerType": kind,
        "Inputs": [tensor(each) for each in inputs],
        "Outputs": [tensor(each) for each in outputs],
        "TacticValue": "0x0",
    }


def information(*layers: object) -> str:
    return json.dumps({"Layers": layers, "Bindings": ["x", "y"]})


@pytest.mark.parametrize(("words", "precision"), FORMATS.items())
def test_every_format_that_nvidia_publishes_has_its_precision(words: str, precision: str) -> None:
    assert count_precisions(information(layer(words))) == {precision: 1}


def test_a_layer_counts_as_its_narrowest_input_and_without_inputs_as_its_output() -> None:
    quantised = layer("Row major linear FP32", "Row major Int8 format")
    constant = layer(outputs=("Half",))

    assert count_precisions(information(quantised, constant)) == {"fp16": 1, "int8": 1}


def test_layers_that_only_move_data_say_nothing_of_the_precision() -> None:
    moved = [layer("Half", kind=kind) for kind in ("Reformat", "NoOp")]

    counts = count_precisions(information(*moved, layer("Float")))
    assert counts == {"fp32": 1, "moved": 2}
    assert "1 in fp32" in why_not_built_as("fp16", counts)


def test_a_layer_without_tensors_tells_nothing() -> None:
    assert count_precisions(information({"Name": "conv", "LayerType": "CaskConvolution"})) == {"untold": 1}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"Layers": ["conv"], "Bindings": []}', '{"Layers": 3}'])
def test_an_inspector_that_does_not_tell_details_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected the inspector's JSON"):
        count_precisions(text)


@pytest.mark.parametrize(
    ("precision", "counts", "is_what_was_asked_for"),
    [
        ("fp16", {"fp16": 1, "fp32": 99}, True),
        ("fp16", {"fp32": 3}, False),
        ("fp16", {"int8": 3}, False),
        ("int8", {"int8": 1, "fp16": 20}, True),
        ("int8", {"fp16": 20}, False),
        ("mixed", {"fp16": 1}, True),
        ("mixed", {"int8": 1}, True),
        ("mixed", {"fp32": 1}, False),
        ("fp16", {"other": 4, "moved": 1}, True),
        ("fp16", {"untold": 4}, True),
        ("fp16", {"untold": 4, "fp32": 1}, False),
        ("fp16", {}, True),
    ],
)
def test_an_engine_in_which_nothing_computes_as_asked_for_is_refused(
    precision: Precision, counts: dict[str, int], is_what_was_asked_for: bool
) -> None:
    why = why_not_built_as(precision, counts)

    assert (why == "") == is_what_was_asked_for
    assert why == "" or "export the model in that precision" in why
