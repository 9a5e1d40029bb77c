"""What holds that an engine of TensorRT is what was asked for, from its recipe to the plan that was built."""

from __future__ import annotations

from tests.guards.guard import Guard

_BUILDING = "runtimes/tensorrt/building/"
_TESTS = "runtimes/tensorrt/building/"

GUARDS = (
    # 36. What was asked for, or none
    Guard(
        36,
        "a-recipe-is-read-back",
        _BUILDING + "builder_config.py",
        "    if found != expected or (",
        "    if (",
        (
            _TESTS + "test_build_precisions.py::test_a_configuration_that_a_tool_changed_is_refused_before_the_build",
            _TESTS + "test_builder_config.py::test_whatever_a_tool_made_of_a_recipe_beside_it_is_refused",
        ),
    ),
    Guard(
        36,
        "nothing-is-left-out-for-memory",
        _BUILDING + "build_findings.py",
        "    if findings.short_of_memory:\n",
        "    if False:\n",
        (
            _TESTS + "test_build_refusals.py::test_a_tactic_left_out_because_the_device_was_short_of_memory_is_fatal",
            _TESTS + "test_findings.py"
            "::test_a_tactic_that_the_workspace_allows_was_left_out_for_want_of_memory_and_the_engine_is_refused",
        ),
    ),
    Guard(
        36,
        "every-int8-tensor-has-a-scale",
        _BUILDING + "build_findings.py",
        '    if unscaled and recipe.precision == "int8":\n',
        "    if False:\n",
        (_TESTS + "test_build_calibration.py::test_a_tensor_without_a_scale_is_fatal_in_int8_and_counted_in_mixed",),
    ),
    Guard(
        36,
        "some-layer-computes-as-asked",
        _BUILDING + "built_engine_audit.py",
        " or why_not_built_as(recipe.precision, precisions)\n",
        "\n",
        (
            _TESTS + "test_build_precisions.py"
            "::test_an_engine_for_which_tensorrt_used_none_of_its_permission_is_refused",
            _TESTS + "test_build_precisions.py"
            "::test_an_int8_engine_without_an_int8_layer_is_refused_and_a_mixed_one_is_not",
        ),
    ),
    Guard(
        36,
        "a-calibration-that-failed-is-raised",
        _BUILDING + "calibrator.py",
        "            if self.failure is not None:\n                raise self.failure\n",
        "",
        (_TESTS + "test_calibrator.py::test_a_last_batch_that_does_not_reach_the_device_is_not_the_end_of_the_data",),
    ),
    Guard(
        36,
        "a-trusted-table-is-taken-or-none-is",
        _BUILDING + "calibrator.py",
        " or trusted is not None:\n                self.failure",
        ":\n                self.failure",
        (
            _TESTS + "test_build_calibration.py"
            "::test_a_trusted_table_that_tensorrt_does_not_take_is_an_error_and_no_new_calibration",
        ),
    ),
    Guard(
        36,
        "foreign-timings-are-dropped",
        _BUILDING + "timings.py",
        "    if not config.set_timing_cache(cache, False):\n",
        "    if not config.set_timing_cache(cache, True):\n",
        (_TESTS + "test_build_timings.py::test_the_timings_of_another_device_are_dropped_with_a_note",),
    ),
    Guard(
        36,
        "trtexec-makes-up-no-scales",
        _BUILDING + "with_trtexec.py",
        '        command.append(f"--calib={folder / SCALES_FILE}")\n',
        "        pass\n",
        (
            _TESTS + "test_trtexec_command.py::test_int8_is_never_without_a_table",
            _TESTS + "test_builds_alike.py"
            "::test_trtexec_is_given_each_input_of_a_calibration_and_no_file_that_it_would_warn_of",
        ),
    ),
    Guard(
        36,
        "an-engine-takes-what-its-model-takes",
        "runtimes/tensorrt_runtime.py",
        "        if differing:\n",
        "        if False:\n",
        (
            "runtimes/tensorrt/test_runtime_verifies.py::test_an_engine_of_another_model_than_the_one_that_was_audited_is_refused",
        ),
    ),
)
