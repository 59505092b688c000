"""Data on the spot: where the dataset has none for the method, the model makes its own of the prompts."""

import importlib
from pathlib import Path
from typing import Any

import pytest
from world import LOST, MADE, World, at_desk, ended, killed, make_plan, night, work

from hfagent.agent import ledger
from hfagent.agent.dataset_records import ColumnMapping, MethodCheck
from hfagent.agent.events import ContaminationChecked, DataPrepared, DatasetChecked, JobIntended
from hfagent.agent.fakes import Ending, FakeChecker
from hfagent.agent.method_defaults import defaults
from hfagent.agent.proposals import data_run, smoke_run
from hfagent.agent.records import DatasetRef, Generation, Method, Refusal, TrainConfig
from hfagent.agent.report import render
from hfagent.agent.summary import summary

NO_PAIRS = MethodCheck(verdict="INCOMPATIBLE", reason="no pair of columns such as chosen | rejected")
PROMPTS = MethodCheck(
    verdict="NEEDS_MAPPING", reason="prompt is there", mapping=ColumnMapping(columns={"prompt": ("question",)})
)
SKILL = {"baseline": 0.1, "dpo-01": 0.4, "kto-01": 0.4, "grpo-01": 0.4}
TESTED = {"question": "string", "tests": "string", "entry_point": "string"}


def with_prompts(columns: dict[str, str] = TESTED, **checks: MethodCheck) -> World:
    there = World(SKILL)
    by_method: dict[Method, MethodCheck] = {"dpo": NO_PAIRS, "kto": NO_PAIRS, "grpo": PROMPTS}
    there.checker = FakeChecker(by_method=by_method | checks, columns=columns, ready=(MADE,))  # type: ignore[operator]
    return there


def plan_of(method: Method, **changes: Any) -> dict[str, Any]:
    return {
        "method": method,
        "train": TrainConfig(method=method, num_train_epochs=1, max_rows=160, eval_fraction=0),
        "generation": Generation(n=200, num_samples=4, temperature=0.8),
        "max_extensions": 0,
        **changes,
    }


def dpo_night(path: Path, there: World, **changes: Any) -> Any:
    return night(path, there, **plan_of("dpo", **changes))


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_the_model_makes_its_data_before_they_are_checked_and_trained_on(tmp_path: Path, method: Method) -> None:
    there, path = with_prompts(), tmp_path / "night.jsonl"
    state = night(path, there, **plan_of(method))
    assert ended(state) == "finished"
    assert [key.removeprefix("night-") for key in there.runner.submits][:4] == [
        "data-a1", "smoke-a1", "baseline-a1", f"{method}-01-a1",
    ]  # fmt: skip
    facts = [event.fact for event in ledger.read(path)]
    kinds = [f.kind for f in facts if isinstance(f, DatasetChecked | DataPrepared | ContaminationChecked | JobIntended)]
    assert kinds[:6] == [
        "data_prepared", "dataset_checked", "job_intended", "data_prepared", "dataset_checked", "contamination_checked",
    ]  # fmt: skip
    assert (state.data_made, state.data) == (True, DatasetRef(id=MADE))
    made = there.runner._jobs["night-data-a1"].spec
    assert made.template == "make_data.py"
    args = dict(zip(made.args[::2], made.args[1::2], strict=False))
    assert (args["--method"], args["--prompts"], args["--n"], args["--num-samples"]) == (method, "org/data", "160", "4")
    assert args["--mapping"] == '{"columns":{"prompt":["question"]}}'
    trained = there.runner._jobs[f"night-{method}-01-a1"].spec.args
    assert trained[trained.index("--dataset") + 1] == MADE
    assert "--mapping" not in trained


def test_the_embedded_tasks_are_asked_by_their_name(tmp_path: Path) -> None:
    there = with_prompts()
    dataset = DatasetRef(id="embedded:procedural-python", config="grpo")
    dpo_night(tmp_path / "night.jsonl", there, dataset=dataset)
    args = there.runner._jobs["night-data-a1"].spec.args
    assert args[args.index("--prompts") + 1] == "embedded:procedural-python"
    assert "--config" not in args


def test_contamination_is_looked_for_in_what_is_trained_on(tmp_path: Path) -> None:
    there, seen = with_prompts(), []
    check = there.firewall.check

    def spying(dataset: DatasetRef, **options: Any) -> Any:
        seen.append(dataset)
        return check(dataset, **options)

    there.firewall.check = spying  # type: ignore[method-assign,assignment]
    there.firewall.flagged = (3,)
    state = dpo_night(tmp_path / "night.jsonl", there)
    assert seen == [DatasetRef(id=MADE)]
    assert state.data == DatasetRef(id=f"{MADE}-clean")
    trained = there.runner._jobs["night-dpo-01-a1"].spec.args
    assert trained[trained.index("--dataset") + 1] == f"{MADE}-clean"


def test_the_report_tells_of_both_datasets(tmp_path: Path) -> None:
    text = render(dpo_night(tmp_path / "night.jsonl", with_prompts()))
    assert "has nothing to train DPO on: no pair of columns such as chosen" in text
    assert "90 of 800 answers to 200 prompts passed" in text
    assert "| Answers that pass | 90 |" in text
    assert "| DPO | READY |" in text


@pytest.mark.parametrize(
    ("columns", "checks", "why"),
    [
        ({"question": "string"}, {}, "they need columns tests and entry_point, or answer"),
        (TESTED, {"grpo": MethodCheck(verdict="INCOMPATIBLE", reason="no prompt")}, "it has no prompts either"),
    ],
)
def test_where_no_data_can_be_made_the_refusal_says_what_is_missing(
    tmp_path: Path, columns: dict[str, str], checks: dict[str, MethodCheck], why: str
) -> None:
    there = with_prompts(columns, **checks)
    state = dpo_night(tmp_path / "night.jsonl", there)
    assert ended(state) == "failed"
    assert state.ended is not None
    for part in ("no pair of columns such as chosen | rejected", why, "its columns are question", "hfagent check"):
        assert part in state.ended.reason
    assert there.runner.submits == []


def test_data_that_are_no_better_than_before_end_the_night(tmp_path: Path) -> None:
    there = with_prompts()
    there.checker.ready = ()
    state = dpo_night(tmp_path / "night.jsonl", there)
    assert state.ended is not None
    assert state.ended.reason == f"the data that the model made cannot train with dpo: {NO_PAIRS.reason}"
    assert there.runner.submits == ["night-data-a1"]


def test_prompts_that_nothing_judges_cannot_train_by_rewards(tmp_path: Path) -> None:
    there = with_prompts({"question": "string"})
    state = night(tmp_path / "night.jsonl", there, **plan_of("grpo"))
    assert state.ended is not None
    assert "nothing can judge the answers: it needs columns tests and entry_point, or answer" in state.ended.reason


@pytest.mark.parametrize(("columns", "reward"), [(TESTED, "tests_pass:1"), ({"answer": "string"}, "number_equal:1")])
def test_rewards_follow_from_the_columns_where_the_plan_names_none(
    tmp_path: Path, columns: dict[str, str], reward: str
) -> None:
    there = with_prompts(columns)
    state = night(tmp_path / "night.jsonl", there, **plan_of("grpo"))
    assert ended(state) == "finished"
    assert "night-data-a1" not in there.runner.submits  # prompts are what GRPO trains on
    trained = there.runner._jobs["night-grpo-01-a1"].spec.args
    assert trained[trained.index("--reward-funcs") + 1] == reward


def test_nothing_is_smoked_before_the_data_are_there_and_data_are_made_once(tmp_path: Path) -> None:
    there = with_prompts()
    with at_desk(tmp_path / "night.jsonl", there, **plan_of("dpo")) as desk:
        desk.check_dataset()
        smoked = desk.launch(smoke_run(desk.state, "too early"))
        assert isinstance(smoked, Refusal)
        assert "launch data first" in smoked.why
        checked = desk.check_contamination()
        assert isinstance(checked, Refusal)
        assert "to be made first" in checked.why
        work(desk)
        again = desk.launch(data_run("again"))
        assert isinstance(again, Refusal)


def test_a_night_with_data_of_its_own_makes_none(tmp_path: Path) -> None:
    there = World({**SKILL, "sft-01": 0.4})
    night(tmp_path / "night.jsonl", there, max_extensions=0)
    with at_desk(tmp_path / "other.jsonl", World(SKILL)) as desk:
        desk.check_dataset()
        refused = desk.launch(data_run("for fun"))
        assert isinstance(refused, Refusal)
        assert "the data is there" in refused.why


def test_a_lost_job_makes_the_data_once_more_and_a_failed_one_ends_the_night(tmp_path: Path) -> None:
    there = with_prompts()
    there.endings = lambda spec: LOST if spec.key.endswith("data-a1") else None
    assert ended(dpo_night(tmp_path / "lost.jsonl", there)) == "finished"
    there = with_prompts()
    broken = Ending(running_s=5, stage="ERROR", exit_code=2, message="nothing is left to train dpo on")
    there.endings = lambda spec: broken if spec.kind == "generate" else None
    state = dpo_night(tmp_path / "failed.jsonl", there)
    assert state.ended is not None
    assert state.ended.reason == "data: its job failed: nothing is left to train dpo on"
    there = with_prompts()
    there.endings = lambda spec: Ending(running_s=5, result={"rows": 3}) if spec.kind == "generate" else None
    state = dpo_night(tmp_path / "bad.jsonl", there)
    assert state.ended is not None
    assert "the result names no dataset" in state.ended.reason


def test_money_and_time_hold_for_the_data_too(tmp_path: Path) -> None:
    paid: dict[str, Any] = {"price_micro_usd_per_hour": 4_000_000, "budget_micro_usd": 10_000, "flavor": "a10g-small"}
    there = with_prompts()
    state = dpo_night(tmp_path / "night.jsonl", there, **paid)
    assert ended(state) == "stopped"
    assert there.runner.submits == []


@pytest.mark.parametrize("survived", range(3, 20))
def test_a_night_that_makes_its_data_killed_after_any_event_goes_on_to_the_same_end(
    tmp_path: Path, survived: int
) -> None:
    path, there = tmp_path / "night.jsonl", with_prompts()
    killed(path, there, lambda event: event.seq == survived, **plan_of("dpo"))
    state = dpo_night(path, there)
    assert len(there.runner.submits) == len(set(there.runner.submits)) == 8
    whole = dpo_night(tmp_path / "whole.jsonl", with_prompts())
    told = [summary(one, report=path, ledger=path, held=False) for one in (state, whole)]
    for name in ("state", "verdict", "runs"):
        assert told[0][name] == told[1][name]


@pytest.mark.parametrize("method", ["sft", "dpo", "kto", "grpo"])
def test_the_scripts_read_what_they_are_launched_with(tmp_path: Path, method: Method) -> None:
    there = with_prompts() if method != "sft" else World(SKILL)
    there.skill = {**SKILL, "sft-01": 0.4}
    train = TrainConfig.model_validate(
        {**make_plan().train.model_dump(), **defaults(method, 600_000_000, embedded=False), "method": method}
    )
    night(tmp_path / "night.jsonl", there, **plan_of(method, train=train, unsafe_exec=True))
    for job in there.runner._jobs.values():
        spec = job.spec
        if spec.template.startswith(("train_", "make_data")):
            script = importlib.import_module(f"hfagent.job_templates.{spec.template.removesuffix('.py')}")
            script.parse_args([*spec.args, "--output-dir", str(tmp_path / "out")])
