"""What holds the calls of components: their deadline, and that none goes past the actors."""

from __future__ import annotations

from tests.guards.guard import Guard

GUARDS = (
    # 32. A frame's scope
    Guard(
        32,
        "one-deadline-for-a-frame",
        "actors/supervised_runtime.py",
        "            consumer, frame_id, deadline_ns, captured_ns = scope\n",
        "            consumer, frame_id, _, captured_ns = scope\n"
        "            deadline_ns = routes.clock.monotonic_ns() + self._within_ns\n",
        (
            "actors/test_frame_scope.py::test_all_calls_of_a_scope_have_its_one_deadline",
            "actors/test_frame_scope.py::test_a_scope_whose_time_has_passed_never_runs_the_engine",
        ),
    ),
    Guard(
        32,
        "an-inner-scope-is-never-later",
        "actors/frame_scope.py",
        "        deadline_ns = min(deadline_ns, around.deadline_ns)\n",
        "        pass\n",
        ("actors/test_frame_scope.py::test_a_scope_within_another_one_never_has_a_later_deadline",),
    ),
    Guard(
        32,
        "a-scope-ends-with-its-block",
        "actors/frame_scope.py",
        "        _SCOPE.reset(token)\n",
        "        pass\n",
        ("actors/test_frame_scope.py::test_a_scope_ends_also_where_its_block_raises",),
    ),
    Guard(
        32,
        "ten-minutes-for-a-scope",
        "actors/supervised_runtime.py",
        "            pending = routes.submit_made(  # a scope",
        "            pending = routes.submit(  # a scope",
        ("actors/test_frame_scope.py::test_a_scope_on_another_clock_makes_no_wait_longer_than_ten_minutes",),
    ),
    Guard(
        32,
        "a-call-that-is-interrupted-is-cancelled",
        "actors/supervised_runtime.py",
        "            pending.cancel()\n            raise\n",
        "            raise\n",
        ("actors/test_supervised_runtime.py::test_a_ctrl_c_in_a_call_gives_the_request_up",),
    ),
    Guard(
        32,
        "the-first-run-that-expires-ends-the-frame",
        "actors/perception/frame_runs.py",
        "        self._expired = reason == EXPIRED\n",
        "",
        ("actors/perception/test_frame_runs.py::test_once_a_run_has_expired_no_other_of_the_frame_is_asked_for",),
    ),
    # 33. Nobody bypasses the actors
    Guard(
        33,
        "only-a-weak-reference-leads-to-the-strategy",
        "actors/supervision.py",
        "            WeakMethod(self._compile_engine),\n",
        "            lambda: self._compile_engine,\n",
        (
            "actors/test_supervised_runtime.py::test_nothing_that_a_component_holds_refers_to_the_strategy_by_any_way",
            "actors/test_airborne_bootstrap.py"
            "::test_nothing_that_is_given_to_components_refers_to_the_strategy_by_any_way",
        ),
    ),
    Guard(
        33,
        "a-bypass-is-refused",
        "actors/composition.py",
        "    if C7_INFERENCE in pre_constructed and not isinstance(runtime, SupervisedRuntime):\n",
        "    if False:\n",
        ("actors/test_airborne_bootstrap.py::test_a_runtime_that_bypasses_the_actors_is_refused",),
    ),
    Guard(
        33,
        "a-lightglue-that-bypasses-is-refused",
        "actors/composition.py",
        "    if isinstance(lightglue, LightGlueRuntime) and not lightglue.runs_on(runtime):\n",
        "    if False:\n",
        ("actors/test_airborne_bootstrap.py::test_a_lightglue_that_bypasses_the_actors_is_refused",),
    ),
    # 34. A consumer costs only its own frames
    Guard(
        34,
        "a-consumer-that-raises-goes-on",
        "actors/flight/frame_loop.py",
        "        except BaseException as error:  # noqa: BLE001  # a consumer is",
        "        except ZeroDivisionError as error:  # noqa: BLE001  # a consumer is",
        (
            "actors/flight/test_consumer_isolation.py::"
            "test_a_consumer_that_raises_at_every_frame_costs_no_frame_of_another",
            "actors/flight/test_frame_loop.py::test_a_consumer_that_raises_has_a_degraded_frame_and_goes_on",
        ),
    ),
    Guard(
        34,
        "a-report-that-is-lost-grounds-nobody",
        "actors/flight/frame_loop.py",
        "            except Exception as error:  # noqa: BLE001  # a broken",
        "            except ZeroDivisionError as error:  # noqa: BLE001  # a broken",
        ("actors/flight/test_frame_loop.py::test_a_report_that_cannot_be_taken_does_not_ground_the_consumer",),
    ),
    Guard(
        34,
        "a-frame-that-was-overtaken-is-missed",
        "actors/flight/frame_loop.py",
        "                self._missed += 1\n            self._newest = frame\n",
        "                pass\n            self._newest = frame\n",
        ("actors/flight/test_frame_loop.py::test_a_slow_consumer_gets_the_newest_frame_and_its_misses_are_counted",),
    ),
    Guard(
        34,
        "in-the-air-a-missing-consumer-costs-itself",
        "actors/flight/consumers.py",
        '    except ConfigError as error:\n        logger.error("C7 consumer missing',
        '    except ZeroDivisionError as error:\n        logger.error("C7 consumer missing',
        ("actors/flight/test_consumers.py::test_in_the_air_a_consumer_that_cannot_be_had_costs_itself_only",),
    ),
    # 35. What a flight is made of
    Guard(
        35,
        "a-rehearsal-names-what-cannot-be-constructed",
        "actors/flight/preflight.py",
        ", [*faults, *missing.values()]\n",
        ", []\n",
        (
            "actors/flight/test_preflight_construction.py"
            "::test_every_component_that_cannot_be_constructed_is_named_and_the_engines_are_measured_all_the_same",
        ),
    ),
    Guard(
        35,
        "in-the-air-the-surroundings-ground-nobody",
        "actors/flight/surroundings.py",
        "    if not in_the_air:\n        if plan.frames",
        "    if True:\n        if plan.frames",
        ("actors/flight/test_late_sources.py::test_in_the_air_what_is_not_there_is_no_reason_to_stay_down",),
    ),
    Guard(
        35,
        "in-the-air-the-frame-source-may-come-late",
        "actors/flight/late_sources.py",
        "    return LateFrameSource(frames) if in_the_air else build_source(frames)\n",
        "    return build_source(frames)\n",
        (
            "actors/flight/test_late_sources.py"
            "::test_the_frame_thread_looks_at_each_frame_and_its_failure_is_one_line_in_ten_seconds",
        ),
    ),
    Guard(
        35,
        "in-the-air-the-thermal-source-may-come-late",
        "actors/flight/late_sources.py",
        "        return LateThermalSource(section, clock)\n",
        "        pass\n",
        (
            "actors/flight/test_late_sources.py"
            "::test_a_thermal_source_that_comes_late_is_telemetry_that_was_lost_and_is_restored",
        ),
    ),
)
