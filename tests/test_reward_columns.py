"""GRPO is planned only on data whose answers can be judged: the rewards follow from its columns."""

from pathlib import Path

import pytest
from test_plan import OFFLINE, plan

from hfagent.agent import data_rules
from hfagent.agent.dataset_records import DatasetReport, MethodCheck
from hfagent.agent.planning import check_data
from hfagent.agent.records import Plan
from hfagent.agent.settings import load
from hfagent.tools import rewards


@pytest.mark.parametrize(
    ("goal", "reward"), [("improve math with GRPO", "number_equal:1"), ("improve code with GRPO", "tests_pass:1")]
)
def test_grpo_on_an_embedded_task_is_judged_by_what_its_rows_hold(tmp_path: Path, goal: str, reward: str) -> None:
    made = plan(goal, here=OFFLINE.model_copy(update={"benchmarks": ("procedural_python", "procedural_math")}))
    report = check_data(made.dataset, load({}, cwd=tmp_path, env={}))
    assert data_rules.data_flaw(made, report) is None
    asked = made.train.reward_funcs or data_rules.judges(report)
    assert asked == reward
    (named,) = rewards.load(asked)
    assert set(named.columns) <= report.columns.keys()


def named(reward_funcs: str) -> Plan:
    made = plan("improve code with GRPO")
    return made.model_copy(update={"train": made.train.model_copy(update={"reward_funcs": reward_funcs})})


def test_named_rewards_whose_columns_are_missing_are_refused_before_any_job() -> None:
    ready = MethodCheck(verdict="READY", reason="found 'prompt'")
    report = DatasetReport(dataset="d", rows=9, columns={"prompt": "list", "answer": "string"}, methods={"grpo": ready})
    why = data_rules.data_flaw(named("length:0.5,tests_pass:1"), report)
    assert why is not None
    assert "the reward tests_pass needs the columns tests and entry_point" in why
    assert data_rules.data_flaw(named("number_equal:1, my.own:reward:2"), report) is None


def test_what_the_rules_know_of_rewards_is_what_the_rewards_need() -> None:
    needs = {name: known.columns for name, known in rewards.NAMES.items() if known.columns}
    assert needs == data_rules.REWARD_COLUMNS
