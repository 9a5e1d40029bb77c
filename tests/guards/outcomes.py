"""What holds that every request has one honest outcome, in time."""

from __future__ import annotations

from tests.guards.guard import Guard

GUARDS = (
    # 1. Exactly one outcome
    Guard(
        1,
        "refused-is-rejected",
        "actors/routes.py",
        "                pending.reject(refusal.reason, refusal.detail)",
        "                pass",
        (
            "actors/test_supervision_behaviours.py::"
            "test_while_an_engine_is_away_its_requests_are_told_so_at_once_and_why",
            "actors/test_client.py::test_a_refusal_arrives_as_a_message_too",
        ),
    ),
    Guard(
        1,
        "interrupted-is-cancelled",
        "actors/routes.py",
        '                pending.reject("cancelled", "interrupted while it was submitted")',
        "                pass",
        ("actors/test_endings.py::test_an_interrupt_anywhere_in_a_call_loses_no_request_and_no_engine",),
    ),
    Guard(
        1,
        "counted-and-marked-at-once",
        "actors/ledger.py",
        "            counts.submitted, pending.counts = counts.submitted + 1, counts",
        "            counts.submitted += 1\n            pending.counts = counts",
        ("actors/test_endings.py::test_an_interrupt_anywhere_in_a_call_loses_no_request_and_no_engine",),
    ),
    Guard(
        1,
        "settled-and-counted-at-once",
        "actors/pending.py",
        "                rejected[reason], self.outcome, self._request = rejected.get(reason, 0) + 1, outcome, None",
        "                rejected[reason] = rejected.get(reason, 0) + 1\n"
        "                self.outcome, self._request = outcome, None",
        ("actors/test_endings.py::test_an_interrupt_anywhere_in_a_call_loses_no_request_and_no_engine",),
    ),
    Guard(
        1,
        "shed-is-told",
        "actors/mailbox.py",
        '                _reject(stale, reason, f"frame {pending.frame_id} took its place")',
        "                pass",
        (
            "actors/test_mailbox.py::test_a_newer_frame_sheds_the_oldest_frame_of_its_consumer_whole",
            "actors/test_supervision_behaviours.py::"
            "test_a_consumers_newest_frames_stay_and_its_oldest_goes_while_others_keep_theirs",
        ),
    ),
    Guard(
        1,
        "shed-is-told-by-who-is-interrupted",
        "actors/mailbox.py",
        '            _reject(stale, reason, f"frame {pending.frame_id} was to take its place")',
        "",
        ("actors/test_endings.py::test_an_interrupt_anywhere_in_a_call_loses_no_request_and_no_engine",),
    ),
    Guard(
        1,
        "closed-refuses",
        "actors/mailbox.py",
        "                if self._refusal is not None:\n                    return self._refusal\n",
        "",
        (
            "actors/test_mailbox.py::test_a_refusing_mailbox_settles_what_waits_and_lets_the_running_request_end",
            "actors/test_mailbox_policy.py::test_the_mailbox_does_what_a_simple_model_of_it_does",
        ),
    ),
    Guard(
        1,
        "death-settles-what-waits",
        "actors/mailbox.py",
        "        for burst in frames.values():\n            _reject(burst, reason, detail)",
        "",
        (
            "actors/test_fault_classes.py::"
            "test_what_waited_behind_the_fault_is_told_that_the_engine_is_away_and_not_that_it_failed",
            "actors/test_supervision_behaviours.py::"
            "test_what_waits_behind_a_death_has_its_outcome_and_the_next_generation_begins_empty",
        ),
    ),
    Guard(
        1,
        "death-abandons-its-mailbox",
        "actors/engine.py",
        '        self.mailbox.abandon("engine_unavailable", cause)\n',
        "",
        (
            "actors/test_fault_classes.py::"
            "test_what_waited_behind_the_fault_is_told_that_the_engine_is_away_and_not_that_it_failed",
        ),
    ),
    Guard(
        1,
        "abandoned-run-is-settled",
        "actors/mailbox.py",
        "        if current is not None:\n            current.reject(reason, detail)",
        "",
        (
            "actors/test_hangs.py::test_a_request_whose_deadline_is_later_than_the_limit_learns_that_the_run_failed",
            "actors/test_hangs.py::"
            "test_a_stop_waits_a_second_for_an_engine_that_may_still_return_and_settles_what_it_holds",
        ),
    ),
    Guard(
        1,
        "taken-stays-in-keeping",
        "actors/mailbox.py",
        "            self._current = burst.pop(0)\n",
        "            taken = burst.pop(0)\n            if not burst:\n                del self._frames[frame]\n"
        "            return taken\n",
        (
            "actors/test_mailbox.py::test_work_is_taken_in_the_order_of_frames_and_stays_in_keeping_until_it_is_finished",
        ),
    ),
    Guard(
        1,
        "a-fault-is-told",
        "actors/engine.py",
        "        pending.reject(REMEDIES[fault].reason, detail)\n",
        "",
        ("actors/test_fault_classes.py::test_a_fault_of_one_request_is_told_and_counted_and_the_engine_lives",),
    ),
    Guard(
        1,
        "an-observer-keeps-nothing-back",
        "actors/pending.py",
        "        finally:\n            if self._settled is not None:",
        "        except ZeroDivisionError:\n            pass\n        else:\n            if self._settled is not None:",
        ("actors/test_pending.py::test_an_observer_that_fails_keeps_the_outcome_from_nobody",),
    ),
    # 2. The first outcome stays
    Guard(
        2,
        "first-result-stays",
        "actors/pending.py",
        "            counts = self.counts\n            if self.outcome is None:",
        "            counts = self.counts\n            if counts is not None:",
        (
            "actors/test_pending.py::test_a_late_result_is_dropped",
            "actors/test_hangs.py::test_what_an_engine_still_returns_after_it_was_fenced_is_told_to_nobody",
        ),
    ),
    Guard(
        2,
        "first-rejection-stays",
        "actors/pending.py",
        "            if request is None:\n                return False\n",
        "            request = request or Infer('vpr', {}, self.consumer, self.frame_id, self.deadline_ns, 1)\n",
        (
            "actors/test_pending.py::test_the_first_settle_wins_and_only_the_winner_counts",
            "actors/test_pending.py::test_many_threads_settle_and_one_outcome_comes_out",
        ),
    ),
    Guard(
        2,
        "told-once",
        "actors/pending.py",
        "            listener, self._listener = self._listener, None\n",
        "            listener = self._listener\n",
        ("actors/test_pending.py::test_a_listener_that_comes_while_the_outcome_is_announced_is_told_once",),
    ),
    # 3. No late result
    Guard(
        3,
        "late-result-is-rejected",
        "actors/engine.py",
        "        if ended_ns > pending.deadline_ns:",
        "        if False:",
        (
            "actors/test_supervision_behaviours.py::"
            "test_a_result_that_comes_past_its_deadline_is_nobodys_and_its_run_is_counted",
        ),
    ),
)
