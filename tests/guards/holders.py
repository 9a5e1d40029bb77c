"""What holds the engines that come and go: who holds them, a first load, a release."""

from __future__ import annotations

from tests.guards.guard import Guard

GUARDS = (
    # 29. One engine for all who hold it
    Guard(
        29,
        "holders-are-counted",
        "actors/engine_loader.py",
        "                held.holders += 1\n",
        "                pass\n",
        (
            "actors/test_engine_loader.py::test_an_engine_is_loaded_once_for_all_who_ask_and_stops_with_the_last_of_them",
        ),
    ),
    Guard(
        29,
        "the-last-one-lets-go",
        "actors/engine_loader.py",
        "            if held.holders:\n                continue\n",
        "",
        (
            "actors/test_engine_loader.py::test_an_engine_is_loaded_once_for_all_who_ask_and_stops_with_the_last_of_them",
            "actors/test_engine_loader.py::test_a_handle_that_is_released_twice_counts_once",
        ),
    ),
    Guard(
        29,
        "one-engine-of-a-model",
        "actors/engine_loader.py",
        "            elif msgspec.structs.replace(entry, path=held.entry.path) == held.entry:\n",
        "            elif True:\n",
        ("actors/test_engine_loader.py::test_another_engine_of_a_model_is_refused_until_the_first_one_is_let_go_of",),
    ),
    Guard(
        29,
        "the-flight-holds-its-own",
        "actors/engine_loader.py",
        "{model: _Held(entry) for model, entry in flight.items()}",
        "{}",
        (
            "actors/test_engine_loader.py::test_an_engine_of_the_flight_is_not_waited_for_and_flies_on_when_it_is_let_go_of",
        ),
    ),
    Guard(
        29,
        "an-interrupted-load-is-nobodys",
        "actors/engine_loader.py",
        "        except BaseException:  # a Ctrl-C: nobody will hold it\n"
        "            self._told(ReleaseEngine(entry.model, Reply(self._scheduling)))\n"
        "            raise\n",
        "        except BaseException:\n            raise\n",
        ("actors/test_engine_loader.py::test_a_ctrl_c_while_an_engine_loads_leaves_nobody_who_holds_it",),
    ),
    Guard(
        29,
        "a-strange-handle-is-refused",
        "actors/supervised_runtime.py",
        "        model = self._resident.require(handle).entry.model\n",
        "        model = handle.entry.model\n",
        ("actors/test_supervised_runtime.py::test_a_handle_of_another_runtime_over_the_same_actors_is_a_stranger",),
    ),
    Guard(
        29,
        "nothing-is-compiled-in-flight",
        "actors/supervised_runtime.py",
        "        refuse_to_compile(model_path, self._loader.models())\n",
        "",
        ("actors/test_supervised_runtime.py::test_nothing_is_compiled_while_an_engine_of_the_flight_restarts",),
    ),
    # 30. A first load
    Guard(
        30,
        "a-first-load-is-final",
        "actors/supervisor.py",
        '        elif self._loads.fail_order(slot, death.detail or "it was stopped", death.fault):\n',
        "        elif False:\n",
        ("actors/test_engine_loads.py::test_a_first_load_that_fails_is_final_forgotten_and_may_be_ordered_again",),
    ),
    Guard(
        30,
        "a-load-that-failed-is-forgotten",
        "actors/supervisor.py",
        "                self._give_up_context(death.model)\n            self._loads.forget(slot)\n",
        "                self._give_up_context(death.model)\n",
        ("actors/test_engine_loads.py::test_a_first_load_that_fails_is_final_forgotten_and_may_be_ordered_again",),
    ),
    Guard(
        30,
        "a-first-load-takes-its-context-along",
        "actors/supervisor.py",
        '            if scope == "device":\n'
        "                self._give_up_context(death.model)\n"
        "            self._loads.forget(slot)\n",
        "            self._loads.forget(slot)\n",
        ("actors/test_engine_loads.py::test_a_first_load_that_loses_the_context_has_every_other_engine_loaded_again",),
    ),
    Guard(
        30,
        "a-load-that-was-too-late-is-nobodys",
        "actors/supervisor.py",
        '        slot.unwanted = self._loads.fail_order(slot, detail, "hang") or slot.unwanted\n',
        '        self._loads.fail_order(slot, detail, "hang")\n',
        (
            "actors/test_engine_loads.py::test_a_load_that_was_given_up_is_not_ordered_again_before_it_has_returned_and_then_it_is",
        ),
    ),
    Guard(
        30,
        "a-load-says-its-fault",
        "actors/engine_loader.py",
        "_LOAD_ERRORS.get(failure.fault, EngineDeserializeError)(detail)",
        "EngineDeserializeError(detail)",
        ("actors/test_engine_loader.py::test_a_load_that_fails_raises_what_a_runtime_raises_and_leaves_nothing",),
    ),
    Guard(
        30,
        "an-order-ends-with-the-supervisor",
        "actors/supervisor.py",
        '        self._loads.give_up(f"the supervisor ended: {cause or \'it was stopped\'}", "engine_fault")\n',
        "",
        ("actors/test_engine_loads.py::test_whoever_waits_for_the_supervisor_is_answered_when_it_ends",),
    ),
    Guard(
        30,
        "who-waits-looks-for-the-supervisor",
        "actors/engine_loader.py",
        "            if not self._supervisor.is_alive():\n                return reply.wait(0.0)\n",
        "",
        ("actors/test_engine_loader.py::test_a_supervisor_that_dies_of_an_order_leaves_nobody_waiting",),
    ),
    # 31. A release
    Guard(
        31,
        "a-released-engine-ends",
        "actors/engine_loads.py",
        '        slot.forget_kept()\n        slot.turn_away("engine_unavailable", detail)\n',
        "        slot.forget_kept()\n",
        ("actors/test_engine_releases.py::test_a_release_is_answered_once_the_engine_is_free",),
    ),
    Guard(
        31,
        "a-released-load-never-serves",
        "actors/engine_slot.py",
        'return self.state == "loading" and not self.unwanted',
        'return self.state == "loading"',
        (
            "actors/test_engine_releases.py::test_an_engine_that_still_loads_is_forgotten_when_its_load_returns_and_never_serves",
        ),
    ),
    Guard(
        31,
        "a-released-load-is-no-run",
        "actors/engine_loads.py",
        '        if slot.state == "serving":  # a load',
        '        if slot.state in {"loading", "serving"}:  # a load',
        (
            "actors/test_engine_releases.py::test_a_self_test_that_takes_its_time_is_no_hang_because_its_engine_was_released",
        ),
    ),
    Guard(
        31,
        "what-it-kept-is-freed-first",
        "actors/engine_loads.py",
        "        if slot.has_stale and self.given_up is None:\n",
        "        if False:\n",
        (
            "actors/test_engine_releases.py::test_an_engine_that_is_down_with_something_kept_is_freed_before_it_is_forgotten",
            "actors/test_engine_releases.py::test_what_was_kept_and_became_stale_is_freed_before_its_engine_is_forgotten",
        ),
    ),
    Guard(
        31,
        "a-release-does-not-wait-for-what-hangs",
        "actors/engine_loads.py",
        "who knows for how long\n            slot.tell_gone()\n",
        "who knows for how long\n            pass\n",
        (
            "actors/test_engine_releases.py::test_a_release_of_an_engine_that_hangs_is_answered_at_once",
            "actors/test_engine_releases.py::test_an_engine_whose_restart_hangs_is_left_behind_and_forgotten_once_it_returns",
        ),
    ),
    Guard(
        31,
        "what-has-ended-is-gone",
        "actors/supervisor.py",
        '        slot.ref = None\n        if slot.state in {"quarantined", "hung"} and not slot.unwanted:\n',
        '        if slot.state in {"quarantined", "hung"} and not slot.unwanted:\n',
        (
            "actors/test_engine_releases.py::test_an_engine_whose_restart_was_too_late_and_has_returned_is_forgotten_when_it_is_released",
        ),
    ),
    Guard(
        31,
        "nobody-waits-for-who-was-released",
        "actors/engine_loads.py",
        "        self._readiness.forget(model)\n",
        "",
        (
            "actors/test_engine_loads.py::test_a_recovery_does_not_wait_for_an_engine_that_was_released_before_it_came_back",
        ),
    ),
)
