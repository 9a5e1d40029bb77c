"""What holds the order at the device, and what a fault costs."""

from __future__ import annotations

from tests.guards.guard import Guard

GUARDS = (
    # 14. One run on a device
    Guard(
        14,
        "one-run-at-once",
        "actors/device_gate.py",
        "            if self._free:\n",
        "            if True:\n",
        (
            "actors/test_supervision_behaviours.py::"
            "test_a_burst_of_unimportant_engines_delays_an_urgent_request_by_one_run_at_most",
            "actors/test_device_gate.py::test_runs_never_overlap_and_none_is_lost_under_contention",
        ),
    ),
    Guard(
        14,
        "priority-then-deadline",
        "actors/device_gate.py",
        "(priority, deadline_ns, self._arrivals, waiter)",
        "(0, 0, self._arrivals, waiter)",
        (
            "actors/test_device_gate.py::test_the_next_one_is_chosen_by_priority_then_deadline_then_arrival",
            "actors/test_supervision_behaviours.py::"
            "test_of_engines_of_one_priority_the_earlier_deadline_has_the_device_first",
        ),
    ),
    Guard(
        14,
        "a-wait-for-the-device-ends",
        "actors/device_gate.py",
        "        if waiter.signal.acquire(timeout=max(0.0, remaining_s)):",
        "        if waiter.signal.acquire():",
        ("actors/test_device_gate.py::test_a_busy_device_is_not_waited_for_past_the_deadline",),
    ),
    Guard(
        14,
        "who-gave-up-is-handed-nothing",
        "actors/device_gate.py",
        "            self._waiters = [entry for entry in self._waiters if entry[3] is not waiter]\n",
        "",
        ("actors/test_device_gate.py::test_a_busy_device_is_not_waited_for_past_the_deadline",),
    ),
    Guard(
        14,
        "the-device-is-handed-on",
        "actors/engine.py",
        "                self._serve(pending)\n            finally:\n                self._gate.leave()",
        "                self._serve(pending)\n            finally:\n                pass",
        (
            "actors/test_supervision_behaviours.py::"
            "test_of_engines_of_one_priority_the_earlier_deadline_has_the_device_first",
        ),
    ),
    Guard(
        14,
        "a-self-test-is-a-run",
        "actors/engine.py",
        "        if not self._gate.enter(self._priority, deadline_ns):",
        "        if deadline_ns < 0:",
        ("actors/test_self_test.py::test_the_self_test_waits_for_the_device_like_any_run",),
    ),
    # 15. The class of a fault decides
    Guard(
        15,
        "a-fault-of-the-request-stays-with-it",
        "actors/restart.py",
        " or remedy.tolerated_in_a_row is None or in_a_row <= remedy.tolerated_in_a_row:",
        ":",
        (
            "actors/test_fault_classes.py::test_a_fault_of_one_request_is_told_and_counted_and_the_engine_lives",
            "actors/test_fault_classes.py::test_bad_inputs_in_any_number_never_cost_the_engine",
        ),
    ),
    Guard(
        15,
        "too-many-in-a-row-are-the-engines",
        "actors/restart.py",
        '        return remedy.scope\n    return "engine"',
        "        return remedy.scope\n    return remedy.scope",
        (
            "actors/test_fault_classes.py::test_the_second_time_in_a_row_that_memory_runs_out_restarts_the_engine",
            "actors/test_fault_classes.py::test_the_fourth_transient_fault_in_a_row_is_one_of_the_engine",
        ),
    ),
    Guard(
        15,
        "a-good-run-starts-the-count-anew",
        "actors/engine.py",
        "            self._faults_in_a_row.clear()\n",
        "            pass\n",
        ("actors/test_fault_classes.py::test_memory_that_runs_out_now_and_then_never_costs_the_engine",),
    ),
    Guard(
        15,
        "a-corrupt-engine-stays-down",
        "actors/restart.py",
        "    if remedy.quarantined:\n",
        "    if False:\n",
        (
            "actors/test_restart.py::test_a_corrupt_engine_is_quarantined_for_good_at_once",
            "actors/test_fault_classes.py::"
            "test_an_engine_whose_files_are_not_what_was_signed_off_is_quarantined_for_good",
        ),
    ),
    # 16. Restarts are limited
    Guard(
        16,
        "so-many-restarts-and-no-more",
        "actors/restart.py",
        "    if len(deaths) > policy.max_restarts:",
        "    if False:",
        (
            "actors/test_restart.py::test_delays_double_up_to_the_cap_and_the_limit_quarantines",
            "actors/test_restarts.py::test_one_death_more_than_the_limit_is_quarantined_and_the_others_fly_on",
        ),
    ),
    Guard(
        16,
        "one-restart-for-a-programming-error",
        "actors/restart.py",
        "    if remedy.max_restarts is not None and alike > remedy.max_restarts:",
        "    if False:",
        (
            "actors/test_restart.py::test_a_programming_error_is_restarted_once_and_then_quarantined",
            "actors/test_fault_classes.py::"
            "test_a_programming_error_that_comes_again_is_quarantined_and_the_others_fly_on",
        ),
    ),
    Guard(
        16,
        "delays-double",
        "actors/restart.py",
        "    delay_ns = min(policy.first_delay_ns << len(deaths) - 1, policy.max_delay_ns)",
        "    delay_ns = policy.first_delay_ns",
        (
            "actors/test_restart.py::test_delays_double_up_to_the_cap_and_the_limit_quarantines",
            "actors/test_restarts.py::test_each_restart_within_the_window_waits_twice_as_long",
        ),
    ),
    Guard(
        16,
        "jitter-shortens",
        "actors/restart.py",
        "    return RestartAfter(delay_ns - int(delay_ns * policy.jitter_share * chance), len(deaths)), record",
        "    return RestartAfter(delay_ns, len(deaths)), record",
        ("actors/test_restarts.py::test_engines_that_fell_together_do_not_load_together",),
    ),
    Guard(
        16,
        "a-quiet-window-forgets",
        "actors/restart.py",
        "    return tuple(each for each in record.deaths if now_ns - each.at_ns <= policy.window_ns)",
        "    return record.deaths",
        (
            "actors/test_restart.py::test_a_quiet_window_forgets_old_deaths",
            "actors/test_restarts.py::test_an_engine_that_flew_well_for_a_window_starts_from_the_first_delay_again",
        ),
    ),
    Guard(
        16,
        "time-alone-is-no-recovery",
        "actors/restart.py",
        " if death.served_ns else record.deaths",
        "",
        ("actors/test_restart.py::test_loads_that_take_longer_to_fail_than_the_window_are_given_up_all_the_same",),
    ),
    Guard(
        16,
        "a-delay-is-waited",
        "actors/supervisor.py",
        "        slot.cancel_due = self._timers.after(delay_ns, lambda: self.post(due))",
        "        slot.cancel_due = self._timers.after(0, lambda: self.post(due))",
        ("actors/test_restarts.py::test_a_restart_waits_its_delay_and_not_a_moment_longer",),
    ),
    Guard(
        16,
        "quarantine-has-a-probation",
        "actors/supervisor.py",
        "        if quarantine.probation_in_ns:\n            self._restart_after(slot, quarantine.probation_in_ns)\n",
        "",
        ("actors/test_restarts.py::test_a_quarantined_engine_is_tried_once_more_and_flies_on_where_it_is_well",),
    ),
    Guard(
        16,
        "one-death-ends-a-probation",
        "actors/restart.py",
        "    if on_trial:\n",
        "    if False:\n",
        (
            "actors/test_restarts.py::"
            "test_an_engine_that_dies_on_probation_is_quarantined_at_once_and_for_twice_as_long",
        ),
    ),
    Guard(
        16,
        "each-quarantine-is-longer",
        "actors/restart.py",
        "    probation_in_ns = min(policy.probation_after_ns << record.quarantines, policy.max_probation_after_ns)",
        "    probation_in_ns = policy.probation_after_ns",
        (
            "actors/test_restart.py::"
            "test_an_engine_that_dies_on_probation_waits_twice_as_long_for_the_next_one_up_to_the_cap",
            "actors/test_restarts.py::"
            "test_an_engine_that_dies_on_probation_is_quarantined_at_once_and_for_twice_as_long",
        ),
    ),
    # 17. Poison
    Guard(
        17,
        "poison-is-refused",
        "actors/engine.py",
        "        if suspect is not None and self._poison.is_poison(suspect, started_ns):",
        "        if False:",
        (
            "actors/test_restarts.py::"
            "test_inputs_that_kill_an_engine_twice_that_does_well_on_others_are_refused_and_it_flies_on",
        ),
    ),
    Guard(
        17,
        "only-a-proven-engine-blames",
        "actors/poison.py",
        "        deaths = max(1, self._suspicions.pop(suspect, _NONE).deaths + proven)",
        "        deaths = self._suspicions.pop(suspect, _NONE).deaths + 1",
        (
            "actors/test_poison.py::test_deaths_of_an_engine_that_never_proved_itself_are_its_own",
            "actors/test_restarts.py::test_an_engine_that_dies_of_everything_blames_no_consumer",
        ),
    ),
    Guard(
        17,
        "a-good-run-absolves",
        "actors/poison.py",
        "        self._suspicions.pop(suspect, None)",
        "        pass",
        ("actors/test_poison.py::test_a_run_that_went_well_clears_the_suspicion",),
    ),
    Guard(
        17,
        "poison-is-tried-again",
        "actors/poison.py",
        " and now_ns - suspicion.last_ns <= hold_ns(suspicion.deaths)",
        "",
        (
            "actors/test_poison.py::test_poison_is_tried_again_after_a_hold_that_doubles_with_each_death_up_to_the_cap",
            "actors/test_restarts.py::test_poison_is_tried_again_after_ten_seconds",
        ),
    ),
)
