"""What holds the bounds, the order and the price of waiting."""

from __future__ import annotations

from tests.guards.guard import Guard

GUARDS = (
    # 4. A sender never blocks, and everything is bounded
    Guard(
        4,
        "a-wait-ends-at-the-deadline",
        "actors/pending.py",
        "        if signal.acquire(timeout=max(0.0, remaining_s)):",
        "        if signal.acquire():",
        ("actors/test_stepped.py::test_a_request_expires_at_its_deadline_to_the_nanosecond",),
    ),
    Guard(
        4,
        "ten-minutes-at-most",
        "actors/client.py",
        "    if not 0.0 < within_ms <= WITHIN_MS_MAX:",
        "    if within_ms != within_ms:",
        ("actors/test_supervision.py::test_a_deadline_that_is_no_deadline_is_a_mistake",),
    ),
    Guard(
        4,
        "ten-minutes-for-what-the-supervisor-is-sent",
        "actors/routes.py",
        "            request = msgspec.structs.replace(request, deadline_ns=latest_ns)",
        "            pass",
        (
            "actors/test_stepped_actor.py::"
            "test_a_request_that_the_supervisor_is_sent_waits_ten_minutes_at_most_whatever_its_deadline",
        ),
    ),
    Guard(
        4,
        "a-burst-is-bounded",
        "actors/shedding.py",
        "        if len(burst) >= REQUESTS_PER_FRAME:",
        "        if False:",
        ("actors/test_mailbox.py::test_a_flood_within_one_frame_is_refused",),
    ),
    Guard(
        4,
        "all-consumers-together-are-bounded",
        "actors/shedding.py",
        "    if len(frames) >= FRAMES_TOTAL:",
        "    if False:",
        ("actors/test_mailbox.py::test_many_consumers_together_are_bounded",),
    ),
    Guard(
        4,
        "suspicions-are-bounded",
        "actors/poison.py",
        "        if len(self._suspicions) >= SUSPECTS_MAX:",
        "        if False:",
        ("actors/test_poison.py::test_a_flood_of_signatures_does_not_grow_the_list",),
    ),
    Guard(
        4,
        "a-reason-is-bounded",
        "actors/pending.py",
        "                detail[:DETAIL_MAX_CHARS],\n",
        "                detail,\n",
        ("actors/test_pending.py::test_what_is_told_of_a_rejection_is_bounded",),
    ),
    Guard(
        4,
        "strangers-share-a-row",
        "actors/ledger.py",
        "        counts = self._counts.get(request.model) or self._unknown\n",
        "        counts = self._counts.setdefault(request.model, ModelCounts())\n",
        ("actors/test_pending.py::test_wrong_names_share_one_row_of_the_ledger",),
    ),
    # 5. Whole frames, the oldest first
    Guard(
        5,
        "a-frame-too-many-makes-room",
        "actors/shedding.py",
        "    if len(waiting) >= frames_per_consumer:",
        "    if False:",
        (
            "actors/test_mailbox.py::test_a_newer_frame_sheds_the_oldest_frame_of_its_consumer_whole",
            "actors/test_shedding.py::test_a_newer_frame_takes_the_place_of_the_oldest_whatever_order_they_came_in",
        ),
    ),
    Guard(
        5,
        "the-whole-frame-goes",
        "actors/mailbox.py",
        "                        stale = self._frames[victim]\n                        del self._frames[victim]\n",
        "                        stale = [self._frames[victim].pop(0)]\n"
        "                        if not self._frames[victim]:\n"
        "                            del self._frames[victim]\n",
        ("actors/test_mailbox.py::test_a_newer_frame_sheds_the_oldest_frame_of_its_consumer_whole",),
    ),
    Guard(
        5,
        "the-oldest-goes",
        "actors/shedding.py",
        "        oldest = min(waiting)",
        "        oldest = waiting[0]",
        ("actors/test_shedding.py::test_a_newer_frame_takes_the_place_of_the_oldest_whatever_order_they_came_in",),
    ),
    Guard(
        5,
        "an-older-frame-takes-no-newer-ones-place",
        "actors/shedding.py",
        "        if frame < oldest:",
        "        if False:",
        (
            "actors/test_mailbox_policy.py::test_a_late_request_of_an_older_frame_is_shed_and_the_newer_frames_stay",
            "actors/test_shedding.py::test_a_late_request_of_an_older_frame_takes_nobodys_place",
        ),
    ),
    # 6. What is over is not run
    Guard(
        6,
        "expired-in-the-queue-is-not-run",
        "actors/engine.py",
        "        if self._now_ns() >= pending.deadline_ns:",
        "        if False:",
        ("actors/test_expiry.py::test_work_that_expired_in_the_queue_never_asks_for_the_device",),
    ),
    Guard(
        6,
        "expired-at-the-device-is-not-run",
        "actors/engine.py",
        "        if started_ns >= pending.deadline_ns:",
        "        if False:",
        ("actors/test_supervision_behaviours.py::test_a_device_that_comes_free_at_the_deadline_itself_is_not_used",),
    ),
    Guard(
        6,
        "given-up-is-not-run",
        "actors/engine.py",
        "  # given up while it waited: nothing to wait for the device for\n"
        "            self.mailbox.finish()\n"
        "            return\n",
        "\n            pass\n",
        (
            "actors/test_supervision_behaviours.py::test_a_request_that_was_given_up_in_the_queue_never_asks_for_the_device",
        ),
    ),
    Guard(
        6,
        "a-run-begins-for-somebody",
        "actors/engine.py",
        "        if request is None or self._handle is None:\n            return\n",
        "        request = request or Infer('', {}, '', 0, 0, 0)\n        assert self._handle is not None\n",
        (
            "actors/test_supervision_behaviours.py::"
            "test_a_request_that_is_given_up_while_it_waits_for_the_device_is_not_run",
        ),
    ),
    Guard(
        6,
        "the-tick-settles-what-waits",
        "actors/mailbox.py",
        '        _reject(overdue, "expired", "the deadline passed in the queue")\n',
        "",
        ("actors/test_mailbox_policy.py::test_a_sweep_settles_what_is_overdue_and_leaves_the_rest_in_order",),
    ),
    Guard(
        6,
        "the-tick-settles-what-runs",
        "actors/mailbox.py",
        '            current.reject("expired", f"the deadline passed {where}")\n',
        "            del where\n",
        (
            "actors/test_mailbox_policy.py::"
            "test_a_sweep_settles_the_running_request_and_says_that_its_inputs_are_still_read",
        ),
    ),
    Guard(
        6,
        "the-tick-goes-on",
        "actors/supervisor.py",
        "        self._timers.after(SWEEP_PERIOD_NS, lambda: self.post(SweepDue()))\n",
        "        self._timers.after(SWEEP_PERIOD_NS, lambda: None)\n",
        ("actors/test_supervision_behaviours.py::test_what_is_overdue_and_nobody_waits_for_is_settled_within_a_tick",),
    ),
    # 7. Admission
    Guard(
        7,
        "what-cannot-be-met-is-refused",
        "actors/admission.py",
        "    if needed_ns <= left_ns:",
        "    if needed_ns >= 0:",
        (
            "actors/test_admission.py::test_what_is_ahead_what_runs_and_its_own_run_must_fit",
            "actors/test_mailbox_policy.py::test_of_a_burst_as_many_are_taken_as_can_be_answered",
        ),
    ),
    Guard(
        7,
        "an-idle-engine-is-given-everything",
        "actors/admission.py",
        "    if run_estimate_ns is None or (ahead == 0 and running_for_ns is None):",
        "    if run_estimate_ns is None:",
        ("actors/test_admission.py::test_an_idle_engine_is_given_every_request_however_high_the_estimate",),
    ),
    Guard(
        7,
        "a-refused-request-takes-nobodys-place",
        "actors/mailbox.py",
        "                    if refusal is not None:\n"
        "                        return refusal\n"
        "                    if victim is not None:",
        "                    if refusal is not None and victim is None:\n"
        "                        return refusal\n"
        "                    victim = victim or min(self._frames, default=None)\n"
        "                    if victim is not None:",
        ("actors/test_mailbox_policy.py::test_a_request_that_is_refused_takes_nobodys_place",),
    ),
    # 8. Control ahead of work
    Guard(
        8,
        "control-goes-first",
        "actors/mailbox.py",
        "            if self._control:\n",
        "            if self._control and not self._frames:\n",
        ("actors/test_mailbox.py::test_control_goes_ahead_of_work",),
    ),
)
