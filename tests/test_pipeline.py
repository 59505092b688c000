"""Stages one after the other with fakes: each a whole night by the real parts, the next on the last good model."""

from pathlib import Path
from typing import Any

import pytest
from stage_world import (
    QUIET,
    SKILL,
    DyingConsole,
    begin,
    facts,
    make_pipeline,
    paths_in,
    resume,
    settings_in,
    state_in,
    told,
)
from world import FAILED, MADE, KilledError, World, training

from hfagent.agent import ledger, night, pipeline
from hfagent.agent.chain import Head
from hfagent.agent.control import Request
from hfagent.agent.dataset_records import MethodCheck
from hfagent.agent.errors import DatasetError, JobError, UsageError
from hfagent.agent.fakes import FakeChecker
from hfagent.agent.folding import fold
from hfagent.agent.pipeline_facts import Pipeline, StageBegun
from hfagent.agent.pipeline_report import render
from hfagent.agent.pipeline_views import closing, summary
from hfagent.agent.records import BenchmarkRef, Export, Generation, JobSpec, Method, Plan
from hfagent.agent.report import head_in, last_line
from hfagent.agent.sequential import alpha_of_look
from hfagent.agent.state import State
from hfagent.agent.summary import published
from hfagent.agent.wiring import Paths, find_project

PAID = {"price_micro_usd_per_hour": 4_000_000, "flavor": "a10g-small"}


def stage_plans(folder: Path) -> list[Plan]:
    events = ledger.read(paths_in(folder).ledger)
    return [event.fact.plan for event in events if isinstance(event.fact, StageBegun)]


def stage_state(folder: Path, project: str) -> State:
    state = fold(ledger.read(Paths(settings_in(folder).reports_dir, project).ledger))
    assert state is not None
    return state


@pytest.mark.parametrize(
    ("methods", "names"),
    [
        (("sft", "dpo"), ["improve-1-sft", "improve-2-dpo"]),
        (("sft", "grpo"), ["improve-1-sft", "improve-2-grpo"]),
        (("sft", "dpo", "grpo"), ["improve-1-sft", "improve-2-dpo", "improve-3-grpo"]),
    ],
)
def test_each_stage_is_a_night_on_the_model_of_the_one_before(
    tmp_path: Path, methods: tuple[Method, ...], names: list[str]
) -> None:
    there = World(SKILL)
    state = begin(tmp_path, there, make_pipeline(*methods))
    assert state.ended is not None
    assert state.ended.state == "finished"
    plans = stage_plans(tmp_path)
    assert [plan.project for plan in plans] == names
    assert [plan.model.id for plan in plans] == ["org/model", *(f"/m/merged-{method}-01" for method in methods[:-1])]
    assert state.model.id == f"/m/merged-{methods[-1]}-01"
    assert [ended.kept for _, ended in state.closed] == [True] * len(methods)
    assert (state.verdict is not None, state.claim is not None) == (True, True)
    assert state.claim is not None
    assert state.claim.label == "confirmed_better"
    assert state.verdict is not None
    assert state.verdict.base_score == pytest.approx(0.1, abs=0.05)
    assert state.verdict.candidate_score == pytest.approx(SKILL[f"{methods[-1]}-01"], abs=0.07)
    last = stage_state(tmp_path, names[-1])
    assert last.plan.stage is not None
    assert (last.plan.stage.number, last.plan.stage.of, last.plan.stage.base.id) == (
        len(methods),
        len(methods),
        "org/model",
    )
    assert last.model_path == f"/m/merged-{methods[-2]}-01"
    assert "stage 1, sft: kept" in last.plan.stage.before[0]


def test_the_final_claim_spends_a_look_at_the_original_base_model(tmp_path: Path) -> None:
    there = World(SKILL)
    state = begin(tmp_path, there, make_pipeline("sft", "dpo"))
    assert [(look.run, look.look) for look in state.looks] == [("improve-1-sft/sft-01", 1), ("improve-2-dpo/dpo-01", 2)]
    assert state.claim is not None
    assert (state.claim.look, state.claim.alpha) == (2, alpha_of_look(2))
    # The first stage's own look is the same one; the second stage's own is at another base model.
    assert [key.model for key, _, _ in there.looks.taken] == ["org/model", "/m/merged-sft-01", "org/model"]


@pytest.mark.parametrize("dropped", ["sft", "dpo", "grpo"])
def test_a_stage_that_hurts_is_dropped_and_the_next_begins_on_the_last_good_model(tmp_path: Path, dropped: str) -> None:
    there = World({**SKILL, f"{dropped}-01": 0.05})
    state = begin(tmp_path, there, make_pipeline("sft", "dpo", "grpo"))
    kept = [method for method in ("sft", "dpo", "grpo") if method != dropped]
    assert [stage.plan.method for stage, _ in state.carried] == kept
    models = ["org/model", *(f"/m/merged-{method}-01" for method in kept)]
    at = ("sft", "dpo", "grpo").index(dropped)
    models.insert(at + 1, models[at])
    assert [plan.model.id for plan in stage_plans(tmp_path)] == models[:3]
    _, ended = state.closed[at]
    assert not ended.kept
    assert "no training run was kept" in ended.why
    assert state.ended is not None
    assert state.ended.reason == f"2 of 3 stages kept: {' then '.join(kept)}"
    assert f"dropped: {ended.why}" in render(state)


def test_a_gain_on_the_search_set_that_the_confirm_set_does_not_show_is_dropped(tmp_path: Path) -> None:
    class Lucky(World):
        def _score(self, spec: JobSpec) -> dict[str, Any]:
            args = dict(zip(spec.args[::2], spec.args[1::2], strict=False))
            lucky = args["--set"] == "confirm" and args.get("--adapter", "").endswith("/dpo-01")
            self.skill = {**SKILL, "dpo-01": 0.3} if lucky else SKILL
            return super()._score(spec)

    state = begin(tmp_path, Lucky(SKILL), make_pipeline("sft", "dpo"))
    _, ended = state.closed[1]
    assert (ended.kept, ended.run) == (False, "dpo-01")
    assert "dpo-01 is not above the model that it began with: -" in ended.why
    assert state.model.id == "/m/merged-sft-01"
    assert state.claim is not None
    assert (state.claim.run, state.claim.look) == ("improve-1-sft/sft-01", 1)


def test_what_the_last_model_lost_of_other_abilities_is_told_against_the_original_base(tmp_path: Path) -> None:
    there = World(SKILL)
    there.guard_skill = {"baseline": 0.6, "sft-01": 0.55, "dpo-01": 0.3}
    guard = BenchmarkRef(name="gsm8k", set="confirm", n=200)
    state = begin(tmp_path, there, make_pipeline("sft", "dpo", guards=(guard,)))
    [told_] = state.guards
    assert told_.guard == "gsm8k"
    assert told_.verdict.base_score == pytest.approx(0.6, abs=0.07)
    assert told_.verdict.label == "worse"
    text = render(state)
    assert "but worse than the base model by more than" in text
    assert "| Guard `gsm8k` |" in text
    _, ended = state.closed[1]
    assert "on gsm8k" in ended.warning
    shown = closing(state, paths_in(tmp_path), there.clock.now(), held=False, live=None)
    assert "but worse than the base model by more than 5 points on gsm8k" in shown
    assert "\nguard     gsm8k: " in shown


def test_a_guard_that_could_not_be_evaluated_is_told_as_that_everywhere(tmp_path: Path) -> None:
    there = World(SKILL)
    there.endings = lambda spec: FAILED if spec.run.endswith("-guard-gsm8k") else None
    guard = BenchmarkRef(name="gsm8k", set="confirm", n=200)
    asked = Export(push="ada/tuned")
    made = make_pipeline("sft", "dpo", guards=(guard,), export=asked, state_dir=str(tmp_path))
    state = begin(tmp_path, there, made)
    assert "| Guard `gsm8k` | not evaluated |" in render(state)
    paths = paths_in(tmp_path)
    assert "guard     gsm8k: not evaluated" in closing(state, paths, there.clock.now(), held=False, live=None)
    assert summary(state, paths, held=False, live=None)["guards"] == {"gsm8k": None}
    card = (tmp_path / "cards" / "improve-2-dpo-ab12-publish.md").read_text()
    assert "an ability to be kept: not evaluated." in card


def test_where_only_one_stage_is_kept_its_own_claim_is_the_pipelines(tmp_path: Path) -> None:
    state = begin(tmp_path, World({**SKILL, "dpo-01": 0.05}), make_pipeline("sft", "dpo"))
    own = stage_state(tmp_path, "improve-1-sft").claim
    assert own is not None
    assert state.claim is not None
    assert (state.claim.label, state.claim.gain, state.claim.alpha) == (own.label, own.gain, own.alpha)


def test_no_stage_kept_is_said_as_it_is(tmp_path: Path) -> None:
    there = World({**SKILL, "sft-01": 0.05, "dpo-01": 0.05})
    state = begin(tmp_path, there, make_pipeline("sft", "dpo", export=Export(push="ada/tuned")))
    assert state.claim is not None
    assert (state.claim.label, state.claim.reason) == ("no_detectable_difference", "no stage was kept")
    assert state.ended is not None
    assert (state.ended.state, state.ended.reason) == ("finished", "0 of 2 stages kept")
    assert state.exported is None
    assert there.looks.taken == []


def test_a_stage_that_fails_is_dropped_and_the_next_goes_on_from_the_base(tmp_path: Path) -> None:
    there = World(SKILL)
    there.endings = training(FAILED, "sft-01")
    state = begin(tmp_path, there, make_pipeline("sft", "dpo"))
    assert [(ended.state, ended.kept) for _, ended in state.closed] == [("failed", False), ("finished", True)]
    assert stage_plans(tmp_path)[1].model.id == "org/model"


def test_scores_of_two_harnesses_allow_no_claim(tmp_path: Path) -> None:
    class Updated(World):
        def _score(self, spec: JobSpec) -> dict[str, Any]:
            args = dict(zip(spec.args[::2], spec.args[1::2], strict=False))
            self.harness = "new" if args["--model"].startswith("/m/merged-") else "h"
            return super()._score(spec)

    state = begin(tmp_path, Updated(SKILL), make_pipeline("sft", "dpo"))
    assert state.claim is not None
    assert state.claim.label == "invalid"
    assert "scores of two harnesses are not compared" in state.claim.reason
    assert state.looks == ()


def test_export_and_push_happen_once_for_the_last_model_by_the_pipelines_claim(tmp_path: Path) -> None:
    there = World(SKILL)
    asked = Export(quantize=("Q4_K_M",), push="ada/tuned")
    state = begin(tmp_path, there, make_pipeline("sft", "dpo", export=asked, state_dir=str(tmp_path)))
    pushed = [key for key in there.runner.submits if "--push" in there.runner._jobs[key].spec.args]
    assert pushed == ["improve-2-dpo-ab12-publish-a1"]
    assert state.exported is not None
    assert state.exported.pushed == {name: f"https://hub/{name}" for name in ("ada/tuned", "ada/tuned-GGUF")}
    assert state.exported.files == ("/m/Q4_K_M",)
    card = (tmp_path / "cards" / "improve-2-dpo-ab12-publish.md").read_text()
    assert "base_model: org/model" in card
    assert "`org/model`, trained in 2 stages" in card
    assert "- stage 1, sft: kept" in card
    assert "**Better than the original base model, confirmed.** SFT then DPO" in card


@pytest.mark.parametrize(
    ("skill", "pushed", "words"),
    [
        ({"baseline": 0.04, "sft-01": 0.07, "dpo-01": 0.1, "Q4_K_M": 0.04}, False, "the gain is not in the file"),
        # No better than the model that the last stage began with.
        ({"baseline": 0.1, "sft-01": 0.4, "dpo-01": 0.55, "Q4_K_M": 0.4}, True, "keeps a part of the gain"),
    ],
)
def test_a_file_of_the_last_model_is_pushed_where_it_is_better_than_the_original_base(
    tmp_path: Path, skill: dict[str, float], *, pushed: bool, words: str
) -> None:
    there = World(skill)
    asked = Export(quantize=("Q4_K_M",), push="ada/tuned")
    state = begin(tmp_path, there, make_pipeline("sft", "dpo", export=asked, state_dir=str(tmp_path)))
    assert state.exported is not None
    assert set(state.exported.pushed) == {"ada/tuned", *(["ada/tuned-GGUF"] if pushed else [])}
    assert words in (settings_in(tmp_path).reports_dir / "improve-2-dpo.md").read_text()


def test_a_stage_is_not_published_by_its_own_claim(tmp_path: Path) -> None:
    there = World(SKILL)
    begin(tmp_path, there, make_pipeline("sft", "dpo", state_dir=str(tmp_path)))
    stage, settings = Paths(settings_in(tmp_path).reports_dir, "improve-2-dpo"), settings_in(tmp_path)
    for anyway in (False, True):
        with pytest.raises(UsageError, match=r"a stage of 'improve', .* `hfagent publish improve`"):
            night.export(stage, there.ports, settings, Export(push="ada/tuned", anyway=anyway), console=QUIET)
    state = pipeline.export(paths_in(tmp_path), there.ports, settings, Export(push="ada/tuned"), console=QUIET)
    assert published(state) == {"ada/tuned": "https://hub/ada/tuned"}


def test_a_gain_that_is_not_confirmed_over_the_original_base_is_not_pushed(tmp_path: Path) -> None:
    there = World({**SKILL, "baseline": 0.4, "sft-01": 0.41, "dpo-01": 0.05})
    asked = Export(push="ada/tuned")
    state = begin(tmp_path, there, make_pipeline("sft", "dpo", export=asked, state_dir=str(tmp_path)))
    assert state.claim is not None
    assert (state.claim.label, len(state.carried)) == ("no_detectable_difference", 1)
    assert state.exported is not None
    assert not state.exported.done
    assert "--publish-anyway" in (state.exported.message or "")


def test_money_is_shared_and_never_passes_the_cap_of_all_stages(tmp_path: Path) -> None:
    for cap in (1_000_000, 1_500_000, 3_000_000):
        folder = tmp_path / str(cap)
        there = World(SKILL)
        state = begin(folder, there, make_pipeline("sft", "dpo", "grpo", budget_micro_usd=cap, **PAID))
        assert state.spent_micro_usd is not None
        assert 0 < state.spent_micro_usd <= cap
        plans, spent = stage_plans(folder), 0
        for plan, (_, ended) in zip(plans, state.closed, strict=True):
            assert plan.budget_micro_usd is not None
            assert plan.budget_micro_usd <= cap - spent
            assert ended.charged_micro_usd <= plan.budget_micro_usd
            spent += ended.charged_micro_usd
        first, last = plans[0].budget_micro_usd, plans[-1].budget_micro_usd
        assert first is not None
        assert first <= cap / 2  # a fair share stays for the others
        assert last == cap - sum(ended.charged_micro_usd for _, ended in state.closed[:-1])


def test_the_deadline_is_over_all_stages(tmp_path: Path) -> None:
    there = World(SKILL)
    state = begin(tmp_path, there, make_pipeline("sft", "dpo", max_hours=0.5))
    plans = stage_plans(tmp_path)
    assert plans[0].max_hours is not None
    assert 0.1 < plans[0].max_hours < 0.3
    assert state.ended_at is not None
    assert (state.ended_at - state.started_at).total_seconds() <= 0.5 * 3600 + 60


def test_stages_that_no_time_is_left_for_are_not_begun(tmp_path: Path) -> None:
    there = World(SKILL)

    def slow(spec: JobSpec) -> Any:
        there.clock.advance(2000) if spec.kind == "smoke" else None
        return None

    there.endings = slow
    state = begin(tmp_path, there, make_pipeline("sft", "dpo", max_hours=0.5))
    assert state.ended is not None
    assert (state.ended.state, len(state.begun)) == ("stopped", 1)
    assert "the time limit of 0.5 h is reached, 1 stages were not begun" in state.ended.reason


ASKED = Export(quantize=("Q8_0",), push="ada/tuned")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What SFT then DPO concludes where nothing is killed."""
    folder = tmp_path_factory.mktemp("whole")
    return told(begin(folder, World(SKILL), exporting(folder)))


def exporting(folder: Path) -> Pipeline:
    return make_pipeline("sft", "dpo", export=ASKED, state_dir=str(folder))


@pytest.mark.parametrize("nth", [1, 2])
def test_a_pipeline_killed_before_anybody_agreed_leaves_nothing_to_go_on_with(tmp_path: Path, nth: int) -> None:
    there, made = World(SKILL), make_pipeline("sft", "dpo")
    with pytest.raises(KilledError):
        begin(tmp_path, there, made, console=DyingConsole(nth))
    with pytest.raises(UsageError, match="never confirmed"):
        resume(tmp_path, there)
    state = begin(tmp_path, there, made)
    assert len(state.carried) == 2


@pytest.mark.parametrize("lives", [6, 7, 8, 9, 11])
def test_a_pipeline_killed_after_every_few_events_goes_on_to_the_same_end(
    tmp_path: Path, undisturbed: list[Any], lives: int
) -> None:
    """Each process dies after so many events: two tell of its resume, and a stage begins anew before its yes, the
    fifth."""
    there = World(SKILL)
    with pytest.raises(KilledError):
        begin(tmp_path, there, exporting(tmp_path), console=DyingConsole(4))
    deaths = 1
    while True:
        try:
            state = resume(tmp_path, there, console=DyingConsole(lives))
        except KilledError:
            deaths += 1
        else:
            break
    assert deaths > 10
    assert told(state) == undisturbed
    assert len(there.runner.submits) == len(set(there.runner.submits))
    assert facts(tmp_path).count("stage_begun") == 2


def test_a_pipeline_killed_between_every_submit_and_its_record_finds_the_jobs_again(
    tmp_path: Path, undisturbed: list[Any]
) -> None:
    there = World(SKILL)
    submit = there.runner.submit

    def dying(spec: JobSpec) -> Any:
        known = spec.key in there.runner._jobs
        job = submit(spec)
        if not known:
            raise KilledError
        return job

    there.runner.submit = dying  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        begin(tmp_path, there, exporting(tmp_path))
    state = None
    while state is None:
        try:
            state = resume(tmp_path, there)
        except KilledError:
            continue
    assert told(state) == undisturbed
    assert len(there.runner.submits) == len(set(there.runner.submits))
    assert facts(tmp_path).count("stage_begun") == 2


def test_a_pipeline_resumed_after_its_end_is_left_as_it_is(tmp_path: Path) -> None:
    there = World(SKILL)
    before = begin(tmp_path, there, make_pipeline("sft", "dpo"))
    count = len(facts(tmp_path))
    assert told(resume(tmp_path, there)) == told(before)
    assert len(facts(tmp_path)) == count
    with pytest.raises(UsageError, match="hfagent resume improve"):
        begin(tmp_path, there, make_pipeline("sft", "dpo"))


def test_a_stage_resumed_by_itself_is_taken_over_by_the_pipeline(tmp_path: Path, undisturbed: list[Any]) -> None:
    there = World(SKILL)
    with pytest.raises(KilledError):
        begin(
            tmp_path,
            there,
            exporting(tmp_path),
            console=DyingConsole(20),
        )
    stage = Paths(settings_in(tmp_path).reports_dir, "improve-1-sft")
    night.resume(stage, there.ports, settings_in(tmp_path), console=QUIET)
    assert told(resume(tmp_path, there)) == undisturbed


def test_an_error_of_a_stage_is_recorded_and_can_be_gone_on_from(tmp_path: Path, undisturbed: list[Any]) -> None:
    there = World(SKILL)
    find = there.runner.inspect
    there.runner.inspect = _failing  # type: ignore[method-assign,assignment]
    with pytest.raises(JobError):
        begin(tmp_path, there, exporting(tmp_path))
    assert state_in(tmp_path).crash is not None
    there.runner.inspect = find  # type: ignore[method-assign]
    assert told(resume(tmp_path, there)) == undisturbed


def _failing(job_id: str) -> Any:
    raise JobError(f"no job {job_id!r}")


def test_a_stop_while_a_stage_runs_ends_the_pipeline_and_judges_what_was_won(tmp_path: Path) -> None:
    there = World(SKILL)
    paths, settings = paths_in(tmp_path), settings_in(tmp_path)

    def stopping(spec: JobSpec) -> Any:
        if spec.run == "dpo-01":
            asked = pipeline.ask(paths, there.ports, settings, Request(ask="stop", text="enough"))
            assert asked is True
        return None

    there.endings = stopping
    state = begin(tmp_path, there, make_pipeline("sft", "dpo", "grpo", export=ASKED, state_dir=str(tmp_path)))
    assert state.ended is not None
    assert (state.ended.state, state.ended.reason) == ("stopped", "enough; 1 of 3 stages kept: sft")
    assert [ended.state for _, ended in state.closed] == ["finished", "stopped"]
    assert state.claim is not None
    assert state.claim.run == "improve-1-sft/sft-01"
    assert state.exported is None
    assert paths.mailbox(settings.state_dir).stop_asked() is None


def test_a_pipeline_that_nobody_holds_is_stopped_at_once(tmp_path: Path) -> None:
    there = World(SKILL)
    with pytest.raises(KilledError):
        begin(tmp_path, there, make_pipeline("sft", "dpo"), console=DyingConsole(20))
    asked = pipeline.ask(paths_in(tmp_path), there.ports, settings_in(tmp_path), Request(ask="stop", text="enough"))
    assert asked is False
    state = state_in(tmp_path)
    assert state.ended is not None
    assert state.ended.state == "stopped"
    ended = stage_state(tmp_path, "improve-1-sft").ended
    assert ended is not None
    assert ended.state == "stopped"


def test_requests_reach_the_stage_that_runs(tmp_path: Path) -> None:
    there = World(SKILL)
    paths, settings = paths_in(tmp_path), settings_in(tmp_path)

    def steering(spec: JobSpec) -> Any:
        if spec.run == "dpo-01":
            pipeline.ask(paths, there.ports, settings, Request(ask="steer", text="lower rates"))
        return None

    there.endings = steering
    begin(tmp_path, there, make_pipeline("sft", "dpo"))
    notes = [event.fact for event in stage_state(tmp_path, "improve-2-dpo").incidents if event.fact.kind == "noted"]
    assert [note.text for note in notes] == ["lower rates"]


def test_data_that_cannot_train_a_later_stage_are_told_before_anything_starts(tmp_path: Path) -> None:
    there = World(SKILL)
    there.checker = FakeChecker(MethodCheck(verdict="INCOMPATIBLE", reason="no chosen"))
    with pytest.raises(DatasetError, match="stage 1: the dataset 'org/data' cannot train with sft: no chosen"):
        begin(tmp_path, there, make_pipeline("sft", "dpo"))
    assert list(settings_in(tmp_path).reports_dir.rglob("*")) == []


def test_a_later_stage_makes_its_data_with_the_model_that_it_begins_with(tmp_path: Path) -> None:
    there = World(SKILL)
    pairs = MethodCheck(verdict="INCOMPATIBLE", reason="no chosen")
    columns = {"prompt": "string", "tests": "string", "entry_point": "string"}
    there.checker = FakeChecker(by_method={"dpo": pairs}, columns=columns, ready=(MADE,))
    how = Generation(n=200, num_samples=4, temperature=0.8)
    state = begin(tmp_path, there, make_pipeline("sft", "dpo", generation=how))
    assert [ended.kept for _, ended in state.closed] == [True, True]
    args = there.runner._jobs["improve-2-dpo-ab12-data-a1"].spec.args
    assert args[args.index("--model") + 1] == "/m/merged-sft-01"
    assert "improve-1-sft-ab12-data-a1" not in there.runner.submits
    assert "INCOMPATIBLE: the model makes its own data of the prompts first" in render(state)


def test_no_leaves_nothing(tmp_path: Path) -> None:
    there = World(SKILL)
    made = make_pipeline("sft", "dpo")
    assert pipeline.begin(made, there.ports, settings_in(tmp_path), ask=lambda state: False, console=QUIET) is None
    assert list(settings_in(tmp_path).reports_dir.rglob("*")) == []


def test_a_name_that_a_stage_would_share_is_refused(tmp_path: Path) -> None:
    there = World(SKILL)
    begin(tmp_path, there, make_pipeline("sft", "dpo"))
    paths_in(tmp_path).ledger.unlink()
    with pytest.raises(UsageError, match="'improve-1-sft' exists, and a stage of 'improve' would have its name"):
        begin(tmp_path, there, make_pipeline("sft", "dpo"))


def test_the_newest_project_is_the_pipeline_and_not_its_stage(tmp_path: Path) -> None:
    there = World(SKILL)
    with pytest.raises(KilledError):
        begin(tmp_path, there, make_pipeline("sft", "dpo"), console=DyingConsole(30))
    assert find_project(settings_in(tmp_path).reports_dir, None).project == "improve"
    assert find_project(settings_in(tmp_path).reports_dir, "improve-1-sft").project == "improve-1-sft"


def test_the_report_is_a_table_of_stages_with_one_claim(tmp_path: Path) -> None:
    state = begin(tmp_path, World(SKILL), make_pipeline("sft", "dpo"))
    path = paths_in(tmp_path).report
    text = path.read_text()
    written = ledger.read_chain(paths_in(tmp_path).ledger)
    assert head_in(path) == Head(len(written.events), written.head)
    assert text == render(state) + last_line(head_in(path))
    assert "Better than the original base model, confirmed." in text
    assert "[improve-1-sft](improve-1-sft.md)" in text
    assert "[improve-2-dpo](improve-2-dpo.md)" in text
    header = next(line for line in text.splitlines() if line.startswith("| Stage | Method"))
    assert header.count("|") == 12
    stage = path.with_name("improve-2-dpo.md").read_text()
    assert "**Stage** 2 of 2 of the pipeline [improve](improve.md)" in stage
    path.write_text(text.replace("<!-- notes:start -->", "<!-- notes:start -->\nslept well\n"))
    there = World(SKILL)
    resume(tmp_path, there)
    assert "slept well" in path.read_text()
