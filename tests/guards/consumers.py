"""What holds what consumers are told: about their inputs, by messages, in the statistics."""

from __future__ import annotations

from tests.guards.guard import Guard

GUARDS = (
    # 9. inputs_released
    Guard(
        9,
        "a-run-reads-its-inputs",
        "actors/pending.py",
        "            self._running = self._request is not None\n",
        "",
        (
            "actors/test_pending.py::test_a_rejection_says_when_an_engine_still_reads_the_inputs",
            "actors/test_hangs.py::"
            "test_whoever_waits_for_an_engine_that_hangs_learns_at_the_deadline_and_that_it_still_reads_the_inputs",
        ),
    ),
    Guard(
        9,
        "a-run-that-ended-does-not",
        "actors/pending.py",
        '        """The engine has returned: it reads the inputs no longer."""\n        self._running = False\n',
        "        return\n",
        ("actors/test_pending.py::test_a_rejection_says_when_an_engine_still_reads_the_inputs",),
    ),
    Guard(
        9,
        "a-failed-run-has-ended",
        "actors/engine.py",
        "            pending.end_run()\n            self.mailbox.running_since_ns = None\n",
        "            self.mailbox.running_since_ns = None\n",
        ("actors/test_fault_classes.py::test_a_fault_of_one_request_is_told_and_counted_and_the_engine_lives",),
    ),
    # 10. Ownership
    Guard(
        10,
        "the-dict-is-copied",
        "actors/client.py",
        "Infer(model, dict(inputs), self.consumer",
        "Infer(model, inputs, self.consumer",
        ("actors/test_supervision.py::test_a_consumer_may_fill_the_same_dict_again_at_once",),
    ),
    Guard(
        10,
        "a-pending-lets-its-inputs-go",
        "actors/pending.py",
        "counts.completed, self.outcome, self._request = counts.completed + 1, outcome, None",
        "counts.completed, self.outcome = counts.completed + 1, outcome",
        ("actors/test_retention.py::test_a_pending_that_its_consumer_keeps_holds_the_outcome_and_not_the_inputs",),
    ),
    Guard(
        10,
        "an-idle-actor-forgets",
        "actors/mailbox.py",
        "                self._handed = FORGET_LETTER\n                return FORGET_LETTER\n",
        "                pass\n",
        ("actors/test_retention.py::test_an_idle_mailbox_lets_its_actor_forget_the_last_letter_once",),
    ),
    Guard(
        10,
        "an-error-holds-no-inputs",
        "actors/supervised.py",
        "            traceback.clear_frames(link.__traceback__)\n            link.__traceback__ = None\n",
        "            pass\n",
        ("actors/test_retention.py::test_an_exception_that_somebody_keeps_holds_no_input",),
    ),
    # 11. Outcomes as messages
    Guard(
        11,
        "undelivered-is-counted",
        "actors/client.py",
        "            self._routes.ledger.count_undelivered(outcome)\n",
        "",
        (
            "actors/test_supervision_behaviours.py::"
            "test_an_outcome_that_its_actor_does_not_take_is_counted_and_the_engine_runs_on",
            "actors/test_client.py::test_a_dead_actor_disturbs_no_engine_and_its_outcomes_are_counted_and_said_once",
        ),
    ),
    Guard(
        11,
        "a-consumers-mailbox-costs-no-engine",
        "actors/client.py",
        "        except Exception as error:  # noqa: BLE001  # a consumer's mailbox; the thread is an engine's",
        "        except ZeroDivisionError as error:",
        (
            "actors/test_supervision_behaviours.py::"
            "test_an_outcome_that_its_actor_does_not_take_is_counted_and_the_engine_runs_on",
        ),
    ),
    Guard(
        11,
        "a-listener-costs-no-engine",
        "actors/pending.py",
        "        except Exception as error:  # noqa: BLE001  # an engine's thread",
        "        except ZeroDivisionError as error:  # an engine's thread",
        (
            "actors/test_supervision_limits.py::"
            "test_a_listener_that_raises_costs_no_engine_no_supervisor_and_nobody_elses_outcome",
        ),
    ),
    # 12. Our own actors never wait for an outcome
    Guard(
        12,
        "an-actor-is-refused-a-wait",
        "actors/supervised.py",
        "    if actor:\n        raise BlockingCallError(",
        "    if actor is None:\n        raise BlockingCallError(",
        (
            "actors/test_client.py::test_one_of_our_own_actors_is_refused_a_wait_and_told_what_to_use",
            "actors/test_stepped_actor.py::test_our_own_actors_are_refused_to_wait_as_on_threads",
        ),
    ),
    Guard(
        12,
        "an-actors-loop-is-marked",
        "actors/supervised.py",
        "        _CURRENT.set(type(self).__name__)\n",
        "",
        ("actors/test_client.py::test_one_of_our_own_actors_is_refused_a_wait_and_told_what_to_use",),
    ),
    Guard(
        12,
        "a-runtimes-call-does-not-wait-on-an-actor",
        "actors/supervised_runtime.py",
        '        refuse_to_block("infer()")\n',
        "",
        ("actors/test_supervised_runtime.py::test_no_call_waits_on_the_thread_of_one_of_our_own_actors",),
    ),
    # 13. Ledger and statistics
    Guard(
        13,
        "a-late-run-is-a-run",
        "actors/engine.py",
        "            pending.count_late_run(started_ns - pending.submitted_ns, ended_ns - started_ns)\n",
        "",
        (
            "actors/test_supervision_behaviours.py::"
            "test_a_result_that_comes_past_its_deadline_is_nobodys_and_its_run_is_counted",
        ),
    ),
    Guard(
        13,
        "a-dropped-result-is-a-run",
        "actors/pending.py",
        "            if counts is not None:\n                counts.count_run(outcome.queued_ns, outcome.run_ns)\n",
        "            if counts is not None and won:\n"
        "                counts.count_run(outcome.queued_ns, outcome.run_ns)\n",
        ("actors/test_pending.py::test_a_run_whose_result_came_too_late_is_a_run_all_the_same",),
    ),
    Guard(
        13,
        "a-fault-is-counted",
        "actors/engine.py",
        "        self._around.count_fault(request.model, fault)\n",
        "",
        ("actors/test_fault_classes.py::test_a_fault_of_one_request_is_told_and_counted_and_the_engine_lives",),
    ),
)
