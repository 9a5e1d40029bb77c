"""What holds how engines load, and what is proven before one serves."""

from __future__ import annotations

from tests.guards.guard import Guard

GUARDS = (
    # 18. Loads
    Guard(
        18,
        "one-load-after-the-other",
        "actors/engine_loads.py",
        "        if waiting and not busy:",
        "        if waiting:",
        ("actors/test_fault_classes.py::test_no_engine_loads_before_every_old_one_has_let_go_of_the_lost_context",),
    ),
    Guard(
        18,
        "a-load-is-judged-when-overdue",
        "actors/engine_loads.py",
        "        slot.cancel_due = self._timers.after(self._around.load_timeout_ns, lambda: self._post(overdue))",
        "        slot.cancel_due = lambda: None",
        (
            "actors/test_hangs.py::test_in_a_recovery_a_load_that_hangs_costs_its_own_engine_and_no_other",
            "actors/test_hangs.py::test_a_restart_that_hangs_leaves_the_others_flying",
        ),
    ),
    Guard(
        18,
        "a-load-that-was-given-up-never-serves",
        "actors/supervisor.py",
        "        if loaded.generation == slot.generation and slot.is_awaited and not self._given_up:\n",
        "        if True:\n",
        ("actors/test_hangs.py::test_a_load_that_was_given_up_is_released_when_it_comes_back_and_never_serves",),
    ),
    Guard(
        18,
        "a-load-that-was-given-up-is-released",
        "actors/supervisor.py",
        '        slot.turn_away("engine_unavailable", detail)  # should it still load, it is released again\n',
        "",
        ("actors/test_hangs.py::test_a_load_that_was_given_up_is_released_when_it_comes_back_and_never_serves",),
    ),
    # 19. Proven before it serves
    Guard(
        19,
        "the-self-test-comes-first",
        "actors/engine.py",
        "        self._test(self._handle, started_ns + self._around.load_timeout_ns)\n",
        "",
        (
            "actors/test_self_test.py::"
            "test_an_engine_that_gives_other_answers_refuses_the_takeoff_with_output_expected_and_found",
            "actors/test_self_test.py::test_a_restarted_engine_serves_again_once_it_gave_its_known_answers",
        ),
    ),
    Guard(
        19,
        "memory-that-came-back",
        "actors/engine.py",
        "        if shortage:\n",
        "        if False:\n",
        ("actors/test_kept_engines.py::test_an_engine_is_not_loaded_again_before_its_memory_came_back",),
    ),
    Guard(
        19,
        "the-old-one-is-freed-first",
        "actors/engine.py",
        "        before = self._available_memory() if cause else None\n        self._runtime.release_engine(handle)\n",
        "        before = self._available_memory() if cause else None\n",
        (
            "actors/test_restarts.py::test_one_death_more_than_the_limit_is_quarantined_and_the_others_fly_on",
            "actors/test_freed_engines.py::test_an_engine_that_hung_and_then_crashes_is_freed",
        ),
    ),
    Guard(
        19,
        "the-stale-is-freed-before-a-load",
        "actors/engine.py",
        "            self._runtime.release_engine(stale.handle)\n",
        "            pass\n",
        (
            "actors/test_freed_engines.py::test_the_supervisor_never_frees_what_an_engine_kept_and_nobody_else_waits_for_it",
        ),
    ),
    Guard(
        19,
        "the-suspect-is-read-again",
        "actors/engine.py",
        "shelf.is_open and REMEDIES[self._fault].keeps_module",
        "shelf.is_open",
        ("actors/test_kept_engines.py::test_what_may_be_suspect_is_read_and_verified_again",),
    ),
    Guard(
        19,
        "a-second-death-is-suspect",
        "actors/restart.py",
        "record.deaths[-1].at_ns + policy.window_ns + 1 if record.deaths else 0",
        "0",
        (
            "actors/test_restart.py::test_only_the_first_death_within_the_window_may_start_from_what_was_kept",
            "actors/test_kept_engines.py::"
            "test_the_first_restart_begins_from_what_was_verified_and_the_second_reads_it_again",
        ),
    ),
    # 20. Takeoff
    Guard(
        20,
        "a-takeoff-refuses",
        "actors/takeoff.py",
        "    if reasons:\n",
        "    if False:\n",
        (
            "actors/test_supervision.py::test_takeoff_is_refused_and_names_every_engine_that_did_not_load_and_why",
            "actors/test_hangs.py::test_a_takeoff_with_an_engine_that_never_loads_is_refused_by_name",
        ),
    ),
    Guard(
        20,
        "all-answer-at-once",
        "actors/readiness.py",
        "            self._undecided.add(model)",
        "            pass",
        ("actors/test_deaths.py::test_an_engine_that_dies_before_the_others_have_loaded_is_awaited_again",),
    ),
    # 21. A lost context
    Guard(
        21,
        "every-engine-of-the-device-goes",
        "actors/supervisor.py",
        '            if scope == "device":\n'
        "                self._give_up_context(death.model)\n"
        "            now_ns = self._now_ns()\n",
        "            now_ns = self._now_ns()\n",
        (
            "actors/test_fault_classes.py::"
            "test_a_lost_context_restarts_every_engine_of_the_device_in_the_order_of_priority",
        ),
    ),
    Guard(
        21,
        "nothing-loads-before-all-have-let-go",
        "actors/engine_loads.py",
        '        busy = any(slot.state in {"loading", "stopping"} for slot in self.slots.values())',
        '        busy = any(slot.state in {"loading"} for slot in self.slots.values())',
        ("actors/test_fault_classes.py::test_no_engine_loads_before_every_old_one_has_let_go_of_the_lost_context",),
    ),
    Guard(
        21,
        "what-was-kept-goes-with-it",
        "actors/supervisor.py",
        '            slot.forget_kept()\n            if slot.state in {"loading", "serving"}:',
        '            if slot.state in {"loading", "serving"}:',
        (
            "actors/test_freed_engines.py::"
            "test_an_engine_that_crashes_in_its_last_run_before_the_context_is_given_up_is_not_resumed_in_the_new_one",
        ),
    ),
)
