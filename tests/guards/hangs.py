"""What holds that a hang, a device that is gone and a dead supervisor are said and end the process."""

from __future__ import annotations

from tests.guards.guard import Guard

GUARDS = (
    # 22. Hangs
    Guard(
        22,
        "a-run-over-its-limit-hangs",
        "actors/supervisor.py",
        "            if running_ns is not None and running_ns > slot.spec.run_limit_ns:\n                self",
        "            if False:\n                self",
        (
            "actors/test_hangs.py::test_a_hang_is_found_within_a_tick_of_its_limit_and_once",
            "actors/test_hangs.py::test_a_request_whose_deadline_is_later_than_the_limit_learns_that_the_run_failed",
        ),
    ),
    Guard(
        22,
        "what-stood-still-is-no-hang",
        "actors/supervisor.py",
        "stood_still = now_ns - self._swept_ns > NS_PER_S",
        "stood_still = False",
        ("actors/test_hangs.py::test_a_process_that_stood_still_as_a_whole_takes_no_run_for_one_that_hangs",),
    ),
    Guard(
        22,
        "a-fenced-device-is-not-entered",
        "actors/device_gate.py",
        "            if self._fenced:\n                return False\n",
        "",
        (
            "actors/test_hangs_while_dying.py::test_no_engine_begins_a_run_on_a_device_that_a_load_has_found_gone",
            "actors/test_device_gate.py::test_a_fenced_device_is_entered_by_nobody_and_who_waits_is_sent_away_at_once",
        ),
    ),
    Guard(
        22,
        "who-waits-is-sent-away",
        "actors/device_gate.py",
        "        for *_, waiter in waiters:\n            waiter.signal.release()",
        "        del waiters",
        (
            "actors/test_device_gate.py::test_a_fenced_device_is_entered_by_nobody_and_who_waits_is_sent_away_at_once",
            "actors/test_hangs.py::test_no_second_engine_touches_the_device_of_one_that_hangs",
        ),
    ),
    Guard(
        22,
        "a-hang-fences",
        "actors/supervisor.py",
        '        slot.state = "hung"\n        self._around.gate.fence(detail)\n',
        '        slot.state = "hung"\n',
        ("actors/test_hangs.py::test_no_second_engine_touches_the_device_of_one_that_hangs",),
    ),
    Guard(
        22,
        "a-device-that-is-gone-is-fenced",
        "actors/engine.py",
        '            self._gate.fence(f"{self._spec.model}: {describe_error(error)}")\n',
        "            pass\n",
        (
            "actors/test_fault_classes.py::test_no_run_begins_between_a_fault_of_the_device_and_its_report",
            "actors/test_hangs_while_dying.py::test_no_engine_begins_a_run_on_a_device_that_a_load_has_found_gone",
        ),
    ),
    Guard(
        22,
        "a-hang-settles-what-runs",
        "actors/supervisor.py",
        '        slot.mailbox.abandon(REMEDIES["hang"].reason, detail)\n',
        "",
        ("actors/test_hangs.py::test_a_request_whose_deadline_is_later_than_the_limit_learns_that_the_run_failed",),
    ),
    Guard(
        22,
        "nothing-loads-into-a-device-that-is-gone",
        "actors/engine_loads.py",
        "        if self.given_up is None:\n            slot.launch(self._around, keeps",
        "        if True:\n            slot.launch(self._around, keeps",
        (
            "actors/test_freed_engines.py::"
            "test_a_device_that_is_found_gone_while_an_engine_lets_go_of_a_lost_context_asks_for_a_new_process",
        ),
    ),
    Guard(
        22,
        "a-death-is-timed-too",
        "actors/engine.py",
        "self.mailbox.running_since_ns = self._now_ns()  # an engine that never lets go",
        "pass  # an engine that never lets go",
        (
            "actors/test_hangs_while_dying.py::"
            "test_an_engine_that_never_lets_go_of_its_device_hangs_and_a_new_process_is_asked_for",
        ),
    ),
    # 23. A new process
    Guard(
        23,
        "asked-for-once",
        "actors/supervision.py",
        "        if not self.reason:\n            self.reason = reason",
        "        if True:\n            self.reason = reason",
        (
            "actors/test_supervision_limits.py::"
            "test_a_callback_that_raises_ends_the_supervisor_and_leaves_no_request_unanswered",
        ),
    ),
    Guard(
        23,
        "the-need-is-told",
        "actors/supervisor.py",
        "        self._say.process_restart_needed(self._slots, fault, detail)\n        self._need_restart(detail)",
        "        self._say.process_restart_needed(self._slots, fault, detail)",
        (
            "actors/test_hangs.py::test_the_process_is_asked_for_once_and_told_which_engine_hangs",
            "actors/test_fault_classes.py::"
            "test_a_device_that_is_gone_takes_every_engine_along_and_asks_for_a_new_process",
        ),
    ),
    Guard(
        23,
        "gone-after-its-end-was-said",
        "actors/supervisor.py",
        '        if gone and slot.state in {"stopping", "quarantined"}:',
        "        if False:",
        (
            "actors/test_fault_classes.py::"
            "test_an_engine_that_finds_the_device_gone_while_its_context_is_given_up_asks_for_a_new_process",
            "actors/test_fault_classes.py::"
            "test_a_load_that_was_given_up_and_then_finds_the_device_gone_asks_for_a_new_process",
        ),
    ),
    Guard(
        23,
        "the-process-ends",
        "actors/flight/process.py",
        "        if supervision.restart_needed:\n",
        "        if False:\n",
        (
            "actors/flight/test_process_restart.py::"
            "test_a_process_whose_engine_hangs_settles_everything_ends_with_75_and_is_recovered_by_the_next",
        ),
    ),
    Guard(
        23,
        "75-says-start-me-again",
        "actors/__main__.py",
        "    if isinstance(error, RestartNeededError):\n        return RESTART_ME\n",
        "",
        ("actors/test_command.py::test_each_end_has_its_exit_code",),
    ),
    # 24. The supervisor's death
    Guard(
        24,
        "a-dead-supervisor-asks-for-a-new-process",
        "actors/supervisor.py",
        '        if cause:\n            self._need_restart(f"the supervisor died: {cause}")',
        "",
        (
            "actors/test_supervision_behaviours.py::"
            "test_a_supervisor_that_dies_settles_everything_and_asks_for_a_new_process",
        ),
    ),
    Guard(
        24,
        "a-dead-supervisor-turns-everybody-away",
        "actors/supervisor.py",
        "        self._say.supervisor_ended(self._slots, cause)\n",
        "",
        (
            "actors/test_supervision_behaviours.py::"
            "test_after_the_supervisors_death_an_engine_that_was_down_is_no_longer_said_to_come_back",
        ),
    ),
)
