"""What holds that nothing dies in silence, lingers or makes anybody wait."""

from __future__ import annotations

from tests.guards.guard import Guard

GUARDS = (
    # 25. No actor dies in silence
    Guard(
        25,
        "a-start-that-fails-ends-the-actor",
        "actors/supervised.py",
        "except BaseException as error:  # noqa: BLE001  # a SystemExit here",
        "except Exception as error:  # a SystemExit here",
        (
            "actors/test_supervised.py::test_an_actor_that_fails_to_start_ends_with_its_cause_and_is_not_taken_for_alive",
            "actors/test_supervision_limits.py::test_a_takeoff_names_every_engine_that_fails_and_leaves_nothing_loaded",
        ),
    ),
    Guard(
        25,
        "a-handler-that-fails-ends-its-actor-only",
        "actors/supervised.py",
        "            return self.handle(message)\n"
        "        except BaseException as error:  # noqa: BLE001  # pykka stops every actor of the process otherwise",
        "            return self.handle(message)\n        except ZeroDivisionError as error:",
        ("actors/test_supervised.py::test_an_actor_whose_handler_fails_ends_alone_with_its_cause_and_once",),
    ),
    Guard(
        25,
        "a-release-that-fails-is-reported",
        "actors/engine.py",
        "        finally:\n            self.mailbox.running_since_ns = None\n            fact = EngineDied",
        "        except ZeroDivisionError:\n            pass\n        else:\n"
        "            self.mailbox.running_since_ns = None\n            fact = EngineDied",
        ("actors/test_deaths.py::test_an_engine_that_cannot_be_released_still_reports_its_death_and_comes_back",),
    ),
    Guard(
        25,
        "a-message-that-kills-is-answered",
        "actors/supervised.py",
        "        if self.mailbox.reply_expected:\n",
        "        if False:\n",
        ("actors/test_deaths.py::test_a_message_that_meets_a_dying_supervisor_is_not_answered_with_nothing",),
    ),
    Guard(
        25,
        "a-dead-mailbox-closes",
        "actors/supervised.py",
        "            self.mailbox.close()\n",
        "            pass\n",
        ("actors/test_supervised.py::test_an_actor_whose_handler_fails_ends_alone_with_its_cause_and_once",),
    ),
    Guard(
        25,
        "a-late-letter-is-answered",
        "actors/mailbox.py",
        "        if closed:\n            if letter.reply_to is None:\n                raise _dead()\n"
        "            _bury(letter)\n",
        "",
        ("actors/test_mailbox.py::test_a_closed_mailbox_answers_late_letters_at_once",),
    ),
    Guard(
        25,
        "a-timer-that-raises-is-alone",
        "actors/timers.py",
        "except Exception as error:  # noqa: BLE001  # whatever one action does",
        "except ZeroDivisionError as error:  # whatever one action does",
        ("actors/test_deaths.py::test_a_timer_that_raises_takes_no_other_timer_with_it",),
    ),
    # 26. A stop is bounded
    Guard(
        26,
        "a-stop-settles-everything",
        "actors/supervisor.py",
        '            slot.mailbox.abandon("shutting_down", cause)\n',
        "",
        (
            "actors/test_hangs.py::"
            "test_a_stop_waits_a_second_for_an_engine_that_may_still_return_and_settles_what_it_holds",
        ),
    ),
    Guard(
        26,
        "a-stop-waits-a-second",
        "actors/supervisor.py",
        "        end_ns = self._now_ns() + round(STOP_TIMEOUT_S * NS_PER_S)",
        "        end_ns = self._now_ns() + round(3600 * NS_PER_S)",
        (
            "actors/test_hangs.py::"
            "test_a_stop_waits_a_second_for_an_engine_that_may_still_return_and_settles_what_it_holds",
        ),
    ),
    Guard(
        26,
        "a-stop-does-not-wait-for-what-hangs",
        "actors/supervisor.py",
        '            left_s = 0.0 if slot.state == "hung" else (end_ns - self._now_ns()) / NS_PER_S',
        "            left_s = (end_ns - self._now_ns()) / NS_PER_S",
        ("actors/test_hangs.py::test_a_stop_does_not_wait_for_an_engine_that_is_known_to_hang",),
    ),
    Guard(
        26,
        "nobody-waits-for-its-own-end",
        "actors/mailbox.py",
        "        if self._reader == self.scheduling.current():\n            return True\n",
        "",
        ("actors/test_endings.py::test_a_stop_from_the_supervisors_own_thread_does_not_wait_for_itself",),
    ),
    Guard(
        26,
        "the-interpreters-end-stops-too",
        "actors/supervision.py",
        "        atexit.register(self.stop)\n",
        "",
        (
            "actors/test_endings.py::"
            "test_an_interpreter_that_ends_with_a_hung_engine_ends_all_the_same_and_answers_everybody",
        ),
    ),
    # 27. Nothing is left behind
    Guard(
        27,
        "a-closed-mailbox-has-no-files",
        "actors/mailbox.py",
        "            self._bell = UNHEARD\n",
        "",
        ("actors/test_bell.py::test_a_mailbox_that_closed_keeps_no_descriptor_and_nobody_is_hurt_by_ringing",),
    ),
    Guard(
        27,
        "what-was-kept-is-freed-at-the-end",
        "actors/supervisor.py",
        "            slot.free_kept(self._around.runtime)\n",
        "            pass\n",
        ("actors/test_kept_engines.py::test_a_module_that_was_kept_is_freed_where_the_flight_ends_before_its_restart",),
    ),
    Guard(
        27,
        "a-timer-that-is-not-needed-goes",
        "actors/engine_loads.py",
        "        slot.cancel_due()\n        self._say.loaded(",
        "        self._say.loaded(",
        ("actors/test_deaths.py::test_two_hundred_restarts_leave_no_timer_behind",),
    ),
    Guard(
        27,
        "a-start-that-fails-halfway-is-undone",
        "actors/takeoff.py",
        "        undo.callback(stop_all, supervisor)\n",
        "",
        ("actors/test_endings.py::test_a_start_that_fails_halfway_leaves_nothing_running",),
    ),
    Guard(
        27,
        "a-timer-of-a-released-engine-goes",
        "actors/engine_loads.py",
        "        slot.cancel_due()\n        if slot.has_stale",
        "        if slot.has_stale",
        (
            "actors/test_engine_releases.py::test_an_engine_that_is_down_with_something_kept_is_freed_before_it_is_forgotten",
            "actors/test_engine_releases.py::test_an_engine_in_quarantine_is_forgotten_with_its_probation",
        ),
    ),
    # 28. To watch costs nobody anything
    Guard(
        28,
        "stale-heat-is-lost",
        "telemetry/thermal_snapshot.py",
        "        return state if self._now_ns() <= fresh_until_ns else unseen(state)",
        "        return state",
        ("telemetry/test_thermal_snapshot.py::test_a_stale_state_is_refused_and_claims_no_throttle",),
    ),
    Guard(
        28,
        "a-source-that-hangs-is-left",
        "telemetry/thermal_sampler.py",
        "        if not attempt.done.wait(max(0.0, deadline_s - time.monotonic())):",
        "        if not attempt.done.wait():",
        ("telemetry/test_thermal_sampler.py::test_a_hanging_source_costs_one_thread_however_often_it_is_asked",),
    ),
    Guard(
        28,
        "a-feed-is-bounded",
        "actors/thermal_feed.py",
        "deque(maxlen=FEED_MAX)",
        "deque()",
        ("actors/test_thermal.py::test_a_slow_subscriber_misses_the_oldest_transitions_and_knows_how_many",),
    ),
    Guard(
        28,
        "a-full-recorder-drops",
        "telemetry/flight_recorder.py",
        "        if self._accepts and len(queue) < self._queue_limit:",
        "        if self._accepts:",
        ("telemetry/test_flight_recorder.py::test_a_full_queue_drops_counts_and_marks_and_never_blocks",),
    ),
    Guard(
        28,
        "a-foreign-tensor-costs-no-engine",
        "telemetry/flight_recorder.py",
        "except Exception as error:  # noqa: BLE001 (a tensor is foreign code",
        "except ZeroDivisionError as error:  # (a tensor is foreign code",
        ("telemetry/test_flight_recorder.py::test_a_message_without_a_wire_form_is_counted_and_leaves_its_mark",),
    ),
)
