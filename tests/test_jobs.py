"""What a plan asks for is what the template's own parser reads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from world import SKILL, World, night

from hfagent.agent import jobs, proposals
from hfagent.agent.dataset_records import ColumnMapping, MethodCheck
from hfagent.agent.fakes import FakeChecker
from hfagent.agent.folding import fold
from hfagent.agent.ledger import read
from hfagent.agent.records import (
    ModelRef,
    RunSpec,
    TrainConfig,
)
from hfagent.agent.state import State
from hfagent.job_templates import evaluate, train_distillation, train_sft


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    path = tmp_path_factory.mktemp("jobs") / "night.jsonl"
    world = World(SKILL)
    mapping = ColumnMapping(columns={"prompt": ("question",), "completion": ("answer",)})
    world.checker = FakeChecker(MethodCheck(verdict="NEEDS_MAPPING", reason="rename", mapping=mapping))
    night(path, world)
    found = fold(read(path))
    assert found is not None
    return found


def parsed(module: Any, spec: Any, tmp_path: Path) -> Any:
    return module.parse_args([*spec.args, "--output-dir", str(tmp_path)])


def test_every_hyperparameter_reaches_the_training_script(state: State, tmp_path: Path) -> None:
    train = state.plan.train.model_copy(update={"learning_rate": 3e-4, "max_steps": 7, "lora_dropout": 0.1})
    run = RunSpec(name="sft-09", kind="train", why="x", train=train)
    spec = jobs.job_spec(state, run, state.updated_at)
    job = parsed(train_sft, spec, tmp_path)
    assert isinstance(job.config, TrainConfig)
    assert job.config == run.train


def test_an_extension_resumes_from_before_the_decay(state: State, tmp_path: Path) -> None:
    run = proposals.extend_run(state, "sft-01", "x")
    spec = jobs.job_spec(state, run, state.updated_at)
    assert "/models/sft-01/ck" in spec.args
    assert spec.args[spec.args.index("--num-train-epochs") + 1] == "2.0"


def test_an_evaluation_names_problems_decoding_and_adapter(state: State, tmp_path: Path) -> None:
    run = proposals.evaluate_run(state, "sft-01", "search", "x")
    args = parsed(evaluate, jobs.job_spec(state, run, state.updated_at), tmp_path)
    plan = state.plan
    assert (args.benchmark, args.set, args.n) == (plan.search.name, "search", plan.search.n)
    assert (args.benchmark_seed, args.num_samples, args.temperature) == (plan.search.seed, 1, 0.0)
    assert Path(args.adapter) == Path("/models/sft-01")


def test_the_teacher_reaches_the_training_script_as_it_was_prepared(state: State, tmp_path: Path) -> None:
    train = TrainConfig(method="distillation", max_completion_length=64)
    teacher = ModelRef(id="org/big", revision="abc")
    plan = state.plan.model_copy(update={"method": "distillation", "teacher": teacher, "train": train})
    dataset = state.dataset and state.dataset.model_copy(
        update={"methods": {"distillation": MethodCheck(verdict="READY", reason="")}}
    )
    run = RunSpec(name="distillation-01", kind="train", why="x", train=train)
    found = []
    for path in (None, "/models/big"):
        spec = jobs.job_spec(replace(state, plan=plan, dataset=dataset, teacher_path=path), run, state.updated_at)
        assert spec.template == "train_distillation.py"
        job = parsed(train_distillation, spec, tmp_path)
        found.append((job.teacher, job.teacher_revision, job.config))
    assert found == [("org/big", "abc", train), ("/models/big", "abc", train)]


def test_a_night_of_distillation_prepares_its_teacher_and_says_what_it_hopes_for(tmp_path: Path) -> None:
    path, skill = tmp_path / "n.jsonl", {"baseline": 0.1, "distillation-01": 0.4, "distillation-01-x1": 0.6}
    train = TrainConfig(method="distillation", max_rows=160, eval_fraction=0)
    world = World(skill)
    night(path, world, method="distillation", teacher=ModelRef(id="org/big"), train=train)
    found = fold(read(path))
    assert found is not None
    assert (found.teacher_path, found.ended and found.ended.state, found.kept) == (
        "org/big", "finished", "distillation-01-x1",
    )  # fmt: skip
    spec = found.runs["distillation-01"].last.job
    assert spec.template == "train_distillation.py"
    assert spec.args[spec.args.index("--teacher") + 1] == "org/big"
    assert "closer to its teacher" in str(found.runs["distillation-01-x1"].spec.hypothesis)


def test_keys_are_fit_for_labels_and_new_for_each_attempt(state: State) -> None:
    run = proposals.evaluate_run(state, None, "search", "x")
    assert jobs.job_spec(state, run, state.updated_at).key == "night-baseline-a2"
    fresh = proposals.evaluate_run(state, "sft-01-x1", "confirm", "x").model_copy(update={"name": "new"})
    assert jobs.job_spec(state, fresh, state.updated_at).key == "night-new-a1"
