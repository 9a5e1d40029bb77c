"""What holds how an engine of TensorRT is loaded and run: verified bytes, its own memory, nothing kept silent."""

from __future__ import annotations

from tests.guards.guard import Guard

_INFERENCE = "runtimes/tensorrt/inference/"
_TESTS = "runtimes/tensorrt/inference/"

GUARDS = (
    # 37. Nothing is loaded that was not verified
    Guard(
        37,
        "only-what-was-verified-is-loaded",
        "runtimes/tensorrt_runtime.py",
        "        loaded = self._loader.load(str(entry.path), entry.model, plan)\n",
        "        loaded = self._loader.load(str(entry.path), entry.model, entry.path.read_bytes())\n",
        (
            "runtimes/tensorrt/test_runtime_verifies.py::test_the_bytes_that_were_hashed_are_loaded_whatever_lies_on_the_disk_by_then",
        ),
    ),
    Guard(
        37,
        "metadata-and-engine-agree",
        "runtimes/tensorrt_runtime.py",
        "        _refuse_another(entry, loaded)\n",
        "",
        ("runtimes/tensorrt/test_runtime.py::test_metadata_that_says_something_else_than_the_engine_is_refused",),
    ),
    Guard(
        37,
        "another-versions-plan-is-not-read",
        _INFERENCE + "engine.py",
        "        check_plan_version(subject, plan, str(self._trt.__version__))\n",
        "",
        (_TESTS + "test_loading.py::test_an_engine_of_another_tensorrt_is_refused_before_it_is_read",),
    ),
    Guard(
        37,
        "no-host-code",
        _INFERENCE + "engine.py",
        "    if runtime.engine_host_code_allowed:\n",
        "    if False:\n",
        (_TESTS + "test_opening.py::test_a_runtime_that_would_run_code_of_engines_on_the_host_is_refused",),
    ),
    Guard(
        37,
        "plugins-are-registered",
        _INFERENCE + "engine.py",
        '        if not trt.init_libnvinfer_plugins(log, ""):\n',
        "        if False:\n",
        (_TESTS + "test_opening.py::test_plugins_that_cannot_be_registered_are_refused",),
    ),
    Guard(
        37,
        "a-wild-runtime-is-refused",
        _INFERENCE + "engine.py",
        "        if heard.errors:\n",
        "        if False:\n",
        (_TESTS + "test_opening.py::test_a_runtime_around_a_wild_pointer_is_refused_and_never_touched_or_destroyed",),
    ),
    # 38. What TensorRT says only to itself
    Guard(
        38,
        "a-false-is-told",
        _INFERENCE + "reports.py",
        "        if not succeeded:\n",
        "        if False:\n",
        (
            _TESTS + "test_reports.py"
            "::test_a_call_that_succeeded_raises_nothing_and_one_that_failed_raises_by_its_words",
            _TESTS + "test_execution_faults.py::test_a_call_that_fails_in_a_run_costs_that_run_alone",
        ),
    ),
    Guard(
        38,
        "an-error-beside-a-result-is-told",
        _INFERENCE + "execution.py",
        '                self._reports.require_silence("execute_async_v3")\n',
        "",
        (
            _TESTS + "test_execution_faults.py"
            "::test_an_error_that_was_recorded_counts_though_every_call_said_that_it_succeeded",
        ),
    ),
    Guard(
        38,
        "scratch-memory-was-taken",
        _INFERENCE + "context.py",
        '            self._reports.require_silence("set_device_memory")\n',
        "",
        (
            _TESTS + "test_execution_faults.py"
            "::test_device_memory_that_tensorrt_did_not_take_is_given_again_in_the_next_run",
        ),
    ),
    Guard(
        38,
        "what-a-callback-met-is-raised",
        _INFERENCE + "context.py",
        "        raise_remembered(outputs)\n",
        "",
        (_TESTS + "test_execution_faults.py::test_an_output_for_which_there_is_no_memory_costs_the_run_alone",),
    ),
    Guard(
        38,
        "queued-work-belongs-to-its-run",
        _INFERENCE + "execution.py",
        "                self._stream.synchronize()\n                self._reports",
        "                self._reports",
        (
            _TESTS + "test_execution_faults.py"
            "::test_an_error_of_the_device_belongs_to_the_run_that_met_it_and_to_all_after_it",
            _TESTS + "test_execution_faults.py::test_an_error_that_passes_costs_its_run_alone",
        ),
    ),
    Guard(
        38,
        "the-device-is-asked-after-a-failed-run",
        _INFERENCE + "execution.py",
        "*(block.free for block in blocks.values())])\n                raise_what_is_graver(self._cuda, error)\n",
        "*(block.free for block in blocks.values())])\n",
        (_TESTS + "test_execution_faults.py::test_a_device_that_is_lost_is_found_behind_other_words",),
    ),
    # 39. The memory of a run
    Guard(
        39,
        "an-output-is-a-copy",
        _INFERENCE + "execution.py",
        "np.array(context.tensors[name].view(shape))",
        "context.tensors[name].view(shape)",
        (_TESTS + "test_execution.py::test_no_output_shares_memory_with_an_earlier_one_or_with_the_engine",),
    ),
    Guard(
        39,
        "a-borrowed-input-is-kept-for-its-run",
        _INFERENCE + "execution.py",
        "            borrowed.append(source)\n",
        "",
        (_TESTS + "test_execution.py::test_an_input_that_its_capsule_alone_keeps_is_kept_until_it_was_read",),
    ),
    Guard(
        39,
        "a-graph-keeps-addresses-of-its-own",
        _INFERENCE + "execution.py",
        "                context = self._open_context()\n",
        "                context = self._context\n",
        (_TESTS + "test_engine_graphs.py::test_a_graph_keeps_its_memory_where_other_shapes_need_more",),
    ),
    Guard(
        39,
        "shared-scratch-memory-is-one-runs-at-a-time",
        _INFERENCE + "activation_memory.py",
        "        with self._held(subject, timeout_s):\n            if self._block is None:\n",
        "        if True:\n            if self._block is None:\n",
        (_TESTS + "test_activation_memory.py::test_nobody_waits_for_ever_for_a_run_that_does_not_end",),
    ),
    Guard(
        39,
        "a-failed-run-is-waited-for",
        _INFERENCE + "execution.py",
        "settle_after(error, [self._stream.synchronize, *(",
        "settle_after(error, [*(",
        (
            _TESTS + "test_execution_faults.py"
            "::test_an_input_that_is_not_given_away_is_refused_by_name_and_nothing_is_under_way",
            _TESTS + "test_activation_memory.py"
            "::test_whoever_ran_in_shared_memory_leaves_nothing_under_way_in_it_whichever_wait_fails",
        ),
    ),
    Guard(
        39,
        "memory-goes-after-the-last-work",
        _INFERENCE + "execution.py",
        "        steps = [self._stream.synchronize] if self._is_open else []\n",
        "        steps = []\n",
        (
            _TESTS + "test_execution_faults.py"
            "::test_work_that_could_not_be_waited_for_is_waited_for_before_its_memory_goes",
        ),
    ),
    Guard(
        39,
        "an-engine-that-failed-to-open-leaves-nothing",
        _INFERENCE + "execution.py",
        "            settle_after(error, [self.close])\n",
        "",
        (
            _TESTS + "test_execution_faults.py::test_an_engine_that_finds_no_memory_at_any_step_leaves_nothing_behind",
            _TESTS + "test_execution_faults.py"
            "::test_a_call_that_fails_while_an_engine_is_made_ready_leaves_nothing_behind",
        ),
    ),
    # 40. What does not fit
    Guard(
        40,
        "a-request-is-within-the-profile",
        "runtimes/tensorrt_runtime.py",
        "        check_inputs(\n            entry.model, entry.inputs, entry.build_config.optimization_profiles,",
        "        check_inputs(\n            entry.model, entry.inputs, (),",
        (
            "runtimes/tensorrt/test_runtime_verifies.py"
            "::test_a_shape_outside_the_profile_is_refused_before_tensorrt_sees_it",
        ),
    ),
    Guard(
        40,
        "a-capsule-is-what-its-tensor-says",
        _INFERENCE + "device_tensors.py",
        "        if (shape, place) != (expected.shape, device) or dtype not in _dtypes(expected.dtype):\n",
        "        if False:\n",
        (_TESTS + "test_borrowed_tensors.py::test_a_capsule_that_says_something_else_than_its_tensor_is_refused",),
    ),
    Guard(
        40,
        "shapes-that-do-not-go-together-are-the-requests-fault",
        _INFERENCE + "context.py",
        "        if type(error) is not InferenceError or",
        "        if True or",
        (
            "runtimes/tensorrt/test_runtime.py::test_shapes_that_fit_one_by_one_and_not_together_cost_one_request",
            _TESTS + "test_context.py::test_shapes_that_do_not_fit_together_are_found_before_anything_runs",
        ),
    ),
)
