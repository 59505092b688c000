"""Nights in which something breaks late: nothing won is lost, nothing false is claimed, and the night goes on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from world import (
    DIVERGED,
    FAILED,
    LOST,
    FakeMailbox,
    World,
    at_desk,
    claimed,
    configs,
    ended,
    killed,
    night,
    training,
    work,
)

from hfagent.agent import estimate, proposals, thresholds
from hfagent.agent.events import (
    ContaminationChecked,
    Event,
    Fact,
    Flagged,
    JobIntended,
    JobSubmitted,
    Scored,
)
from hfagent.agent.fakes import Ending, FakeFirewall
from hfagent.agent.findings import Flag, Response
from hfagent.agent.planner import rule_planner
from hfagent.agent.records import JobSpec, Refusal
from hfagent.agent.rules import next_move
from hfagent.agent.setback import setback
from hfagent.agent.state import State


def world(*, falling: bool, **skill: float) -> World:
    named = {name.replace("_", "-"): value for name, value in skill.items()}
    return World(
        {"baseline": 0.1, "sft-01": 0.4, "sft-02": 0.6, "sft-03": 0.5, "sft-01-x1": 0.5, "sft-02-x1": 0.2, **named},
        falling=falling,
    )


def run(path: Path, there: World, **plan: Any) -> State:
    return night(path / "night.jsonl", there, **plan)


@pytest.mark.parametrize("max_trials", [1, 2])
def test_a_run_whose_extension_diverges_again_and_again_is_kept_and_confirmed(tmp_path: Path, max_trials: int) -> None:
    there = world(falling=True, sft_02=0.2)
    there.endings = training(DIVERGED, "sft-01-x1", "sft-01-x1-r1", "sft-01-x1-r2")
    state = run(tmp_path, there, max_trials=max_trials, max_extensions=1)
    assert state.kept == "sft-01"
    assert claimed(state).label == "confirmed_better"


def test_a_run_whose_extension_fails_is_kept_and_confirmed(tmp_path: Path) -> None:
    there = world(falling=True, sft_02=0.2)
    there.endings = training(FAILED, "sft-01-x1")
    state = run(tmp_path, there, max_trials=2, max_extensions=1)
    assert state.kept == "sft-01"
    assert claimed(state).label == "confirmed_better"


def test_a_run_whose_extension_is_ended_as_futile_is_kept(tmp_path: Path) -> None:
    there = world(falling=True, sft_02=0.6)

    def ending(spec: JobSpec) -> Ending | None:
        if spec.run != "sft-02-x1-eval":
            return None
        whole = there._score(spec)
        part = dict(list(whole["outcomes"].items())[:60])
        partial = {"outcomes": part, "n": 60, "value": sum(part.values()) / 60, "planned_n": whole["n"]}
        return Ending(running_s=10, result={**whole, **partial, "futility": {"probability": 0.001}})

    there.endings = ending
    state = run(tmp_path, there, max_trials=2, max_extensions=1)
    assert state.kept == "sft-02"
    assert claimed(state).label == "confirmed_better"


def test_a_night_that_is_stopped_during_an_extension_does_not_say_that_nothing_was_gained(tmp_path: Path) -> None:
    there = world(falling=True)
    with at_desk(tmp_path / "night.jsonl", there, max_extensions=1) as desk:
        state = work(desk, mailbox=FakeMailbox(stop=lambda: "enough" if "sft-01-x1" in desk.state.runs else None))
    assert ended(state) == "stopped"
    assert (claimed(state).label, claimed(state).run) == ("promising", "sft-01")


@pytest.mark.parametrize("hours", [0.13, 0.15, 0.17, 0.19])
@pytest.mark.parametrize("broken", [False, True])
def test_an_extension_does_not_eat_the_confirmation_of_the_run_it_extends(
    tmp_path: Path, hours: float, broken: bool
) -> None:
    there = world(falling=True, sft_02=0.2)
    slow = Ending(running_s=140, stage="ERROR", exit_code=1, message="training diverged: NaN loss")
    late = Ending(running_s=2000)
    there.endings = lambda spec: (slow if broken else late) if "-x1" in spec.run and spec.kind == "train" else None
    state = run(tmp_path, there, max_trials=2, max_extensions=1, max_hours=hours)
    assert (claimed(state).label, claimed(state).run) == ("confirmed_better", "sft-01")


@pytest.mark.parametrize("max_trials", [1, 3])
def test_a_run_whose_extension_cannot_be_scored_is_kept_and_confirmed(tmp_path: Path, max_trials: int) -> None:
    there = world(falling=True, sft_02=0.2, sft_03=0.2)
    there.endings = lambda spec: FAILED if spec.run == "sft-01-x1-eval" else None
    state = run(tmp_path, there, max_trials=max_trials, max_extensions=1)
    assert (claimed(state).label, claimed(state).run) == ("confirmed_better", "sft-01")


@pytest.mark.parametrize("second", [FAILED, LOST])
def test_a_run_whose_extension_diverges_and_then_fails_is_kept_and_confirmed(tmp_path: Path, second: Ending) -> None:
    there = world(falling=True)
    there.endings = lambda spec: {"sft-01-x1": DIVERGED, "sft-01-x1-r1": second}.get(spec.run)
    state = run(tmp_path, there, max_extensions=1)
    assert (claimed(state).label, claimed(state).run) == ("confirmed_better", "sft-01")


def test_a_later_evaluation_that_fails_ends_neither_the_search_nor_the_confirmation(tmp_path: Path) -> None:
    there = world(falling=False)
    there.endings = lambda spec: FAILED if spec.run == "sft-02-eval" else None
    state = run(tmp_path, there, max_trials=3)
    assert (claimed(state).label, claimed(state).run) == ("confirmed_better", "sft-03")
    decision = state.decision_on("sft-02")
    assert decision is not None
    assert decision.rule == "dead-end"
    assert "No space left" in decision.reason


def test_evaluations_that_fail_again_and_again_end_the_search(tmp_path: Path) -> None:
    there = world(falling=False)
    there.endings = lambda spec: FAILED if spec.run not in ("baseline", "sft-01-eval") and "-eval" in spec.run else None
    state = run(tmp_path, there, max_trials=20)
    assert len(state.trials) == 1 + thresholds.MAX_FAILED_EVALUATIONS
    assert (claimed(state).label, claimed(state).run) == ("confirmed_better", "sft-01")


def test_a_baseline_that_cannot_be_scored_by_a_new_harness_ends_the_night(tmp_path: Path) -> None:
    there = world(falling=False)

    def change(spec: JobSpec) -> Ending | None:
        if spec.run == "sft-02-eval":
            there.harness = "other"
        return FAILED if spec.run == "baseline-e2" else None

    there.endings = change
    state = run(tmp_path, there, max_trials=3)
    assert ended(state) == "failed"
    assert claimed(state).label == "promising"


def test_a_restart_that_was_not_affordable_stays_so_once_the_confirmation_has_begun(tmp_path: Path) -> None:
    slow = Ending(running_s=60, stage="ERROR", exit_code=1, message="training diverged: NaN loss")
    for step in range(30):
        folder = tmp_path / str(step)
        folder.mkdir()
        there = world(falling=False)

        def ending(spec: JobSpec, there: World = there) -> Ending | None:
            if spec.kind == "train" and spec.run.startswith("sft-02"):
                return slow
            # the first evaluations are slow, so that the estimates fall later
            first = spec.run in ("baseline", "sft-01-eval")
            return Ending(running_s=90, result=there._score(spec)) if first else None

        there.endings = ending
        state = run(folder, there, max_trials=3, max_hours=0.15 + 0.004 * step)
        assert state.kept is None or claimed(state).label == "confirmed_better"


def test_what_costs_nothing_is_done_after_the_time_is_up(tmp_path: Path) -> None:
    there = world(falling=False)
    file = tmp_path / "night.jsonl"

    def confirming(event: Event) -> bool:
        return isinstance(event.fact, JobSubmitted) and "sft-01-confirm" in event.fact.key

    killed(file, there, confirming, max_hours=1.0)
    there.clock.advance(3600)  # the job ends in time, and hfagent is resumed too late
    state = night(file, there)
    assert ended(state) == "finished"
    assert claimed(state).label == "confirmed_better"


def test_the_baseline_is_not_repeated_before_the_search_is_over(tmp_path: Path) -> None:
    there = world(falling=False)
    with at_desk(tmp_path / "night.jsonl", there, max_trials=2) as desk:
        planner, refused = rule_planner(desk), []

        class Hasty:
            def wake(self) -> None:
                if desk.state.noise is None and not any(r.spec.repeat for r in desk.state.runs.values()):
                    due = next_move(desk.state, desk.now)
                    if due is not None and not due.args.get("repeat"):
                        refused.append(desk.launch(proposals.repeat_run("now")))
                planner.wake()

        state = work(desk, Hasty())
    assert refused
    assert all(isinstance(answer, Refusal) for answer in refused)
    assert len(state.trials) == 2
    assert claimed(state).label == "confirmed_better"


@pytest.mark.parametrize("hours", [0.12, 0.13, 0.14, 0.15, 0.16, 0.17])
def test_restarts_do_not_eat_the_time_kept_for_the_confirmation(tmp_path: Path, hours: float) -> None:
    there = world(falling=False, sft_02_r1=0.3)
    slow = Ending(running_s=110, stage="ERROR", exit_code=1, message="training diverged: NaN loss")
    there.endings = training(slow, "sft-02", "sft-02-r1", "sft-02-r2")
    state = run(tmp_path, there, max_trials=3, max_hours=hours)
    assert claimed(state).label == "confirmed_better"


def test_the_search_does_not_reopen_once_the_confirmation_has_begun(tmp_path: Path) -> None:
    for step in range(12):
        folder = tmp_path / str(step)
        folder.mkdir()
        there = world(falling=False, sft_04=0.5, sft_05=0.5, sft_06=0.5)
        run(folder, there, max_trials=6, max_hours=0.12 + 0.006 * step)
        keys = there.runner.submits
        repeat = next((i for i, key in enumerate(keys) if "repeat" in key), len(keys))
        assert not any("sft-" in key and "confirm" not in key for key in keys[repeat:])


def test_a_job_that_had_to_be_killed_is_not_out_of_memory(tmp_path: Path) -> None:
    there = world(falling=False)
    there.endings = training(Ending(running_s=900, stage="ERROR", exit_code=137, message="Job timeout"), "sft-01")
    state = run(tmp_path, there)
    assert list(configs(tmp_path / "night.jsonl")) == ["smoke", "sft-01"]
    assert "memory" not in str(state.ended)


def test_another_harness_at_an_extensions_evaluation_is_survived(tmp_path: Path) -> None:
    there = world(falling=True)

    def change(spec: JobSpec) -> Ending | None:
        if spec.run == "sft-01-x1":
            there.harness = "other"
        return None

    there.endings = change
    state = run(tmp_path, there, max_extensions=1)
    assert ended(state) == "finished"
    assert state.comparison("sft-01-x1", "sft-01", "search") is not None
    assert claimed(state).label == "confirmed_better"


def test_an_extension_of_a_restarted_run_can_be_restarted(tmp_path: Path) -> None:
    there = world(falling=True, sft_01_r1=0.4, sft_01_r1_x1=0.5, sft_01_r1_x1_r1=0.5)
    there.endings = training(DIVERGED, "sft-01", "sft-01-r1-x1")
    state = run(tmp_path, there, max_extensions=1)
    assert "sft-01-r1-x1-r1" in state.runs
    assert claimed(state).label == "confirmed_better"


def killed_at(path: Path, there: World, kind: type[Fact], nth: int = 1, **plan: Any) -> State:
    """A night killed right after the nth event of a kind, then resumed to its end."""
    count = iter(range(1, 1000))
    file = path / "night.jsonl"
    killed(file, there, lambda event: isinstance(event.fact, kind) and next(count) == nth, **plan)
    return night(file, there)


@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])
def test_a_kill_right_after_any_score_loses_nothing(tmp_path: Path, nth: int) -> None:
    state = killed_at(tmp_path, world(falling=False), Scored, nth)
    assert ended(state) == "finished"
    assert state.noise is not None
    assert claimed(state).label == "confirmed_better"


def test_a_kill_between_a_flag_and_the_cancel_still_cancels(tmp_path: Path) -> None:
    there = world(falling=False)
    there.endings = lambda spec: Ending(running_s=20_000) if spec.key.endswith("sft-01-a1") else None
    state = killed_at(tmp_path, there, Flagged)
    assert [a.stage for a in state.runs["sft-01"].attempts] == ["CANCELED", "COMPLETED"]


def test_a_kill_before_the_cleaned_copy_keeps_the_evidence(tmp_path: Path) -> None:
    there = world(falling=False)
    there.firewall = FakeFirewall(flagged=(3, 7))
    state = killed_at(tmp_path, there, ContaminationChecked)
    assert state.data_cleaned
    assert state.contamination is not None
    assert state.contamination.flagged == (3, 7)


def test_a_run_that_is_always_too_slow_is_given_up(tmp_path: Path) -> None:
    state = run(tmp_path, world(falling=False))
    runs = dict(state.runs)
    before: str | None = None
    for number in range(thresholds.MAX_RESTARTS + 1):
        name = f"slow-r{number}" if number else "slow"
        last = runs["sft-01"]
        flag = Flag(name="too_slow", step=5, reason="slow", numbers={"fits": 10.0})
        flagged = Flagged(
            run=name, key=last.last.job.key, flag=flag, response=Response(action="cancel", reason="too slow")
        )
        spec = last.spec.model_copy(update={"name": name, "instead_of": before})
        runs[name] = replace(
            last, spec=spec, flags=(flagged,), attempts=(replace(last.last, stage="CANCELED", cancel_why="slow"),)
        )
        decided = setback(replace(state, runs=runs, decisions=()), runs[name])
        assert decided is not None
        assert decided.action == ("change" if number < thresholds.MAX_RESTARTS else "discard")
        before = name


def test_a_futile_evaluation_does_not_shorten_the_next_timeout(tmp_path: Path) -> None:
    state = run(tmp_path, world(falling=False))
    spec = proposals.evaluate_run(state, "sft-01", "search", "x")
    whole = estimate.run_s(state, spec)
    evaluation = state.runs["sft-01-eval"]
    assert evaluation.score is not None
    score = evaluation.score.model_copy(update={"n": 50, "planned_n": 200})
    attempt = replace(evaluation.last, running_s=(evaluation.last.running_s or 0) / 4)
    partial = replace(evaluation, score=score, attempts=(attempt,))
    later = {name: one for name, one in state.runs.items() if name != "sft-01-eval" and one.spec.set != "confirm"}
    after = replace(state, runs={**later, "sft-02-eval": partial})
    assert estimate.run_s(after, spec) == pytest.approx(whole, rel=0.01)


def test_a_lost_machine_late_in_the_night_leaves_what_was_kept(tmp_path: Path) -> None:
    there = world(falling=False)
    there.endings = training(LOST, "sft-02")
    state = run(tmp_path, there, max_trials=3)
    assert state.kept is not None
    assert claimed(state).label == "confirmed_better"


def test_a_stop_starts_no_job_that_was_only_intended(tmp_path: Path) -> None:
    there, path = world(falling=False), tmp_path / "night.jsonl"
    killed(path, there, lambda event: isinstance(event.fact, JobIntended) and event.fact.run.name == "sft-01")
    with at_desk(path, there) as desk:
        stopped = work(desk, mailbox=FakeMailbox(stop=lambda: "enough"), resumed_by=1)
    assert ended(stopped) == "stopped"
    assert stopped.runs["sft-01"].last.stage == "REJECTED"
    assert "night-sft-01-a1" not in there.runner.submits


def test_a_parent_that_another_harness_cannot_score_costs_neither_extension_nor_confirmation(tmp_path: Path) -> None:
    there = world(falling=True)

    def ending(spec: JobSpec) -> Ending | None:
        if spec.run == "sft-01-x1":
            there.harness = "other"
        return FAILED if spec.run == "sft-01-eval-e2" else None

    there.endings = ending
    state = run(tmp_path, there, max_extensions=1)
    assert ended(state) == "finished"
    assert (claimed(state).label, claimed(state).run) == ("confirmed_better", "sft-01-x1")


def test_a_run_whose_extension_fails_is_judged_again_by_the_harness_that_counts(tmp_path: Path) -> None:
    there = world(falling=True)

    def ending(spec: JobSpec) -> Ending | None:
        if spec.run == "sft-02-eval":
            there.harness = "other"
        return FAILED if spec.kind == "train" and spec.run == "sft-02-x1" else None

    there.endings = ending
    state = run(tmp_path, there, max_extensions=1, max_trials=2)
    assert [item.harness for item in state.comparisons if item.fact.candidate == "sft-01-x1"][-1] == "other-32-evaluate"
    assert claimed(state).label == "confirmed_better"


@pytest.mark.parametrize("step", range(24))
def test_a_confirmation_that_takes_a_quarter_longer_than_expected_is_still_done(tmp_path: Path, step: int) -> None:
    there = world(falling=False, **{f"sft_{number:02d}": 0.4 for number in range(1, 9)})
    there.evaluation_s = lambda name: 150 if "confirm" in name or "repeat" in name else 120
    state = run(tmp_path, there, max_trials=8, max_hours=0.3 + 0.005 * step)
    assert claimed(state).label == "confirmed_better"
