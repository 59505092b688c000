"""Nights with several sets of hyperparameters, and nights in which something breaks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from world import (
    DIVERGED,
    FAILED,
    LOST,
    N,
    World,
    at_desk,
    claimed,
    configs,
    night,
    training,
    work,
)

from hfagent.agent import ledger, thresholds
from hfagent.agent.desk import Desk
from hfagent.agent.errors import PlanRejected
from hfagent.agent.events import EpochOpened, JobIntended, LookTaken, Proposed
from hfagent.agent.evidence import trials
from hfagent.agent.fakes import Ending, FakeFirewall, FakeSearcher
from hfagent.agent.findings import Trial
from hfagent.agent.records import JobSpec, Plan, Refusal
from hfagent.agent.report import render
from hfagent.agent.state import State

TRIALS = {"baseline": 0.1, "sft-01": 0.4, "sft-02": 0.6, "sft-03": 0.5}


def world(**skill: float) -> World:
    return World({**TRIALS, **{name.replace("_", "-"): value for name, value in skill.items()}}, falling=False)


def run(path: Path, there: World, **plan: Any) -> State:
    return night(path / "night.jsonl", there, **plan)


def test_the_best_of_three_sets_is_kept_and_confirmed(tmp_path: Path) -> None:
    there = world()
    state = run(tmp_path, there, max_trials=3)
    assert state.kept == "sft-02"
    assert [key for key in there.runner.submits if key.endswith("-confirm-a1")] == [
        "night-baseline-confirm-a1",
        "night-sft-02-confirm-a1",
    ]
    rates = {name: config.learning_rate for name, config in configs(tmp_path / "night.jsonl").items()}
    assert rates["sft-02"] == rates["sft-01"] / 2
    assert state.ended is not None
    assert "3 of 3 sets" in state.ended.reason
    claim = claimed(state)
    assert (claim.label, claim.run, claim.look, claim.tried) == ("confirmed_better", "sft-02", 1, 3)


def test_a_later_set_that_is_above_the_base_but_not_the_best_is_discarded(tmp_path: Path) -> None:
    state = run(tmp_path, world(), max_trials=3)
    decision = state.decision_on("sft-03")
    assert decision is not None
    assert (decision.action, decision.rule) == ("discard", "discard-not-best")
    assert decision.version == thresholds.VERSION
    assert decision.alternatives
    assert "sft-03-eval" in decision.inputs


def test_a_reached_target_ends_the_search(tmp_path: Path) -> None:
    state = run(tmp_path, world(), max_trials=3, target_delta=0.2)
    assert state.ended is not None
    assert [r.spec.name for r in state.trained] == ["sft-01"]
    assert "target" in state.ended.reason


def test_a_search_without_a_new_best_ends(tmp_path: Path) -> None:
    there = world(**{f"sft_{i:02d}": 0.3 for i in range(2, 30)})
    state = run(tmp_path, there, max_trials=29)
    assert state.ended is not None
    assert len(state.trials) == 1 + thresholds.MAX_STAGNATION
    assert "without a new best" in state.ended.reason


def test_time_for_the_confirmation_is_kept_back(tmp_path: Path) -> None:
    state = run(tmp_path, world(sft_04=0.5, sft_05=0.5, sft_06=0.5), max_trials=6, max_hours=0.17)
    assert state.ended is not None
    assert len(state.trials) < 6
    assert claimed(state).label == "confirmed_better"
    assert "no room for another run" in state.ended.reason


def test_a_run_that_diverges_is_begun_again_with_a_lower_rate(tmp_path: Path) -> None:
    there = world(sft_01_r1=0.5)
    there.endings = training(DIVERGED, "sft-01")
    state = run(tmp_path, there)
    rates = {name: config.learning_rate for name, config in configs(tmp_path / "night.jsonl").items()}
    assert rates["sft-01-r1"] == pytest.approx(0.3 * rates["sft-01"])
    assert state.kept == "sft-01-r1"
    decision = state.decision_on("sft-01")
    assert decision is not None
    assert (decision.action, decision.rule) == ("change", "restart-lower")


def test_a_set_that_diverges_again_and_again_is_given_up(tmp_path: Path) -> None:
    there = world()
    broken = [f"sft-01{end}" for end in ("", "-r1", "-r2", "-r3", "-r4")]
    there.endings = training(DIVERGED, *broken)
    state = run(tmp_path, there, max_trials=2)
    names = [r.spec.name for r in state.trained]
    assert names == ["sft-01", "sft-01-r1", "sft-01-r2", "sft-02"]
    assert state.kept == "sft-02"


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_effective_one(tmp_path: Path) -> None:
    there = world(sft_01_r1=0.5)
    there.endings = training(
        Ending(running_s=5, stage="ERROR", exit_code=1, message="torch.OutOfMemoryError: CUDA out of memory"),
        "sft-01",
    )
    run(tmp_path, there)
    found = configs(tmp_path / "night.jsonl")
    before, after = found["sft-01"], found["sft-01-r1"]
    assert after.per_device_train_batch_size == before.per_device_train_batch_size // 2
    assert after.gradient_accumulation_steps == before.gradient_accumulation_steps * 2
    assert after.learning_rate == before.learning_rate


def test_three_jobs_in_a_row_lost_by_their_machine_end_the_night(tmp_path: Path) -> None:
    there = world()
    there.endings = lambda spec: LOST if spec.kind == "train" else None
    state = run(tmp_path, there, max_trials=5)
    assert state.ended is not None
    assert state.ended.state == "failed"
    assert len([key for key in there.runner.submits if "sft-" in key]) <= 3


def test_another_harness_begins_a_new_epoch_with_a_new_baseline(tmp_path: Path) -> None:
    there = world()

    def change(spec: JobSpec) -> Ending | None:
        if spec.run == "sft-01":
            there.harness = "other"
        return None

    there.endings = change
    state = run(tmp_path, there)
    facts = [event.fact for event in ledger.read(tmp_path / "night.jsonl")]
    assert [f.set for f in facts if isinstance(f, EpochOpened)] == ["search"]
    assert "baseline-e2" in state.runs
    comparison = state.comparison("sft-01", None, "search")
    assert comparison is not None
    assert claimed(state).label == "confirmed_better"


def test_a_harness_that_changes_with_each_job_ends_the_night_and_says_so(tmp_path: Path) -> None:
    there = world()
    count = iter(range(100))

    def change(spec: JobSpec) -> Ending | None:
        there.harness = f"h{next(count)}"
        return None

    there.endings = change
    state = run(tmp_path, there)
    assert state.ended is not None
    assert state.ended.state == "failed"
    assert "4 different harnesses" in state.ended.reason
    assert claimed(state).label == "invalid"


def test_a_gain_within_the_noise_of_the_evaluation_is_no_claim(tmp_path: Path) -> None:
    there = world(sft_01=0.2)
    there.flips = 60
    state = run(tmp_path, there)
    claim = claimed(state)
    assert claim.noise is not None
    assert abs(claim.noise) > 0.1
    assert claim.label == "no_detectable_difference"
    assert "differs from itself" in claim.reason


def test_looks_are_counted_over_projects_and_each_spends_less(tmp_path: Path) -> None:
    there = world()
    run(tmp_path, there)
    second = world()
    second.looks = there.looks
    state = night(tmp_path / "again.jsonl", second, project="again")
    [look] = [e.fact for e in ledger.read(tmp_path / "again.jsonl") if isinstance(e.fact, LookTaken)]
    assert look.look == 2
    assert look.alpha < 0.01
    assert claimed(state).alpha == look.alpha


def test_nothing_kept_is_no_detectable_difference_and_spends_no_look(tmp_path: Path) -> None:
    there = world(sft_01=0.1, sft_02=0.05)
    state = run(tmp_path, there, max_trials=2)
    assert claimed(state).label == "no_detectable_difference"
    assert there.looks.taken == []


def test_rows_that_hold_benchmark_problems_are_left_out_before_anything_is_trained(tmp_path: Path) -> None:
    there = world()
    there.firewall = FakeFirewall(flagged=(3, 7))
    state = run(tmp_path, there)
    facts = [event.fact for event in ledger.read(tmp_path / "night.jsonl")]
    jobs = [fact.job for fact in facts if isinstance(fact, JobIntended) and "--dataset" in fact.job.args]
    assert {job.args[job.args.index("--dataset") + 1] for job in jobs} == {"org/data-clean"}
    assert claimed(state).label == "confirmed_better"
    assert "2 of 1000 rows" in render(state)


@pytest.mark.parametrize(
    ("firewall", "word"), [(FakeFirewall(flagged=(3,)), "1 of 1000"), (FakeFirewall(denied=True), "known")]
)
def test_nothing_is_trained_where_the_rows_may_not_be_left_out(
    tmp_path: Path, firewall: FakeFirewall, word: str
) -> None:
    there = world()
    there.firewall = firewall
    state = run(tmp_path, there, contaminated_rows="refuse")
    assert there.runner.submits == []
    assert state.ended is not None
    assert state.ended.state == "failed"
    assert word in state.ended.reason


def test_a_model_trained_from_another_base_is_never_evaluated(tmp_path: Path) -> None:
    there = world()
    there.trains = "org/stronger-model"
    state = run(tmp_path, there)
    assert state.ended is not None
    assert state.ended.state == "failed"
    assert "org/stronger-model" in state.ended.reason
    assert not any("sft-01-eval" in key for key in there.runner.submits)


def test_a_stuck_job_is_cancelled_and_started_once_more(tmp_path: Path) -> None:
    there = world()
    there.endings = lambda spec: Ending(running_s=20_000) if spec.key.endswith("sft-01-a1") else None
    state = run(tmp_path, there)
    assert [a.stage for a in state.runs["sft-01"].attempts] == ["CANCELED", "COMPLETED"]
    assert claimed(state).label == "confirmed_better"


def test_an_extension_that_never_ends_well_gives_way_to_its_parent_and_the_search_goes_on(tmp_path: Path) -> None:
    there = World({**TRIALS, "sft-01-x1": 0.5, "sft-02-x1": 0.6}, falling=True)

    def broken(spec: JobSpec) -> Ending | None:
        if spec.run != "sft-01-x1":
            return None
        return LOST if spec.key.endswith("a1") else Ending(running_s=20_000)

    there.endings = broken
    state = run(tmp_path, there, max_trials=2, max_extensions=1)
    assert state.ended is not None
    assert state.ended.state == "finished"
    assert [a.stage for a in state.runs["sft-01-x1"].attempts] == ["ERROR", "CANCELED"]
    assert "sft-02" in state.runs


def test_a_search_with_nothing_left_to_propose_ends_and_confirms_what_it_has(tmp_path: Path) -> None:
    there = world()

    class Exhausted(FakeSearcher):
        def propose(self, plan: Plan, past: Sequence[Trial]) -> Proposed:
            raise PlanRejected("no set of hyperparameters is left that fits in memory")

    there.searcher = Exhausted()
    state = run(tmp_path, there, max_trials=3)
    assert state.ended is not None
    assert "fits in memory" in state.ended.reason
    assert claimed(state).label == "confirmed_better"


def test_the_report_tells_proposals_looks_noise_and_what_was_not_done(tmp_path: Path) -> None:
    state = run(tmp_path, world(), max_trials=2)
    text = render(state)
    proposed = [e.fact for e in ledger.read(tmp_path / "night.jsonl") if isinstance(e.fact, Proposed)]
    assert proposed[0].why in text
    for words in ("confirmed better", "Not done:", "look 1 at the confirm set", f"0 of {N} outcomes changed"):
        assert words in text


def test_a_trial_is_known_by_the_run_that_reached_its_score(tmp_path: Path) -> None:
    there = world(sft_01_r1=0.5)
    there.endings = training(DIVERGED, "sft-01")
    state = run(tmp_path, there, max_trials=2)
    first, second = trials(state)
    assert (first.outcome, first.value) == ("scored", pytest.approx(0.5, abs=0.1))
    assert first.config == configs(tmp_path / "night.jsonl")["sft-01-r1"]
    assert second.config == configs(tmp_path / "night.jsonl")["sft-02"]


def test_scores_by_a_harness_that_counts_no_more_are_no_failures(tmp_path: Path) -> None:
    there = world(sft_02=0.2)

    def change(spec: JobSpec) -> Ending | None:
        if spec.run == "sft-03-eval":
            there.harness = "other"
        return None

    there.endings = change
    state = run(tmp_path, there, max_trials=3)
    assert state.kept == "sft-03"
    assert [trial.outcome for trial in trials(state)] == ["scored", "outdated", "scored"]


def test_a_night_in_which_nothing_was_compared_has_no_valid_result(tmp_path: Path) -> None:
    there = world()
    there.endings = training(FAILED, "sft-01")
    state = run(tmp_path, there)
    assert (claimed(state).label, claimed(state).tried) == ("invalid", 0)


class InventiveDesk(Desk):
    """Where the rules ask the search, a planner has ideas of its own."""

    def plan_run(self, why: str, lever: str | None = None, value: float | None = None) -> Refusal | Proposed:
        rate = self.state.plan.train.learning_rate
        for name, number in (("learning_rate", rate), ("seed", 3.0), ("lora_r", None)):
            assert isinstance(super().plan_run("not a new idea", name, number), Refusal)
        return super().plan_run("more room", "lora_r", 32)


def test_a_planners_own_idea_passes_the_same_checks_and_is_tried(tmp_path: Path) -> None:
    there = world()
    with at_desk(tmp_path / "night.jsonl", there, desk_class=InventiveDesk, max_trials=2) as desk:
        state = work(desk)
    assert configs(tmp_path / "night.jsonl")["sft-02"].lora_r == 32
    assert state.proposals[0].source == "planner"
    assert len(state.refusals) == 3
    assert "more room" in render(state)
