"""A model that makes its own data on hf: its rows are fetched, checked here, and trained on there."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud import ROWS, Cloud, assert_paid_as_billed, facts, keys, night
from tests.emulator.jobs import Jobs
from tests.emulator.server import Emulator
from world import KilledError, ended

from hfagent.agent.dataset_records import DatasetReport, MethodCheck
from hfagent.agent.errors import DatasetError
from hfagent.agent.events import ContaminationChecked, Crashed, DataPrepared, Event, JobEnded, JobIntended
from hfagent.agent.fakes import FakeChecker
from hfagent.agent.records import DatasetRef, Generation, Method, ModelRef, TrainConfig
from hfagent.agent.report import render
from hfagent.agent.state import State
from hfagent.job_templates.remote import ARGS
from hfagent.tools.contamination import Firewall
from hfagent.tools.dataset_read import DatasetReader
from hfagent.tools.dataset_store import LocalDatasetStore
from hfagent.tools.hf_jobs import KEY

LABELLED = "".join(
    json.dumps({"prompt": f"w{i}", "completion": f"w{i + 1}", "label": i % 2 == 0}) + "\n" for i in range(120)
)
NOTHING = MethodCheck(verdict="INCOMPATIBLE", reason="no such columns")


class Checker(FakeChecker):
    """Prompts with tests on the Hub; what is on this machine is read."""

    def check(self, dataset: DatasetRef, *, model: ModelRef | None, max_length: int | None) -> DatasetReport:
        if not Path(dataset.id).is_absolute():
            return super().check(dataset, model=model, max_length=max_length)
        return DatasetReader().check(dataset, model=None, max_length=max_length)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    jobs = Jobs()
    with Emulator(tmp_path / "hub", extra=jobs.routes) as emulator:
        made = Cloud(emulator, jobs, emulator.hub.add_user("ada"))
        made.skill |= {"dpo-01": 0.4, "kto-01": 0.4}
        made.checker = Checker(
            by_method={"dpo": NOTHING, "kto": NOTHING}, columns={"prompt": "string", "answer": "string"}
        )
        made.datasets = LocalDatasetStore(tmp_path / "state" / "data")
        made.firewall = Firewall(tmp_path / "state" / "data")  # type: ignore[assignment]
        yield made
        jobs.close()


def made_night(path: Path, cloud: Cloud, method: Method = "dpo", **options: Any) -> State:
    train = TrainConfig(method=method, num_train_epochs=1, max_rows=160, eval_fraction=0)
    how = Generation(n=200, num_samples=4, temperature=0.8)
    return night(path, cloud, method=method, train=train, generation=how, max_extensions=0, **options)


def given(cloud: Cloud, run: str) -> list[str]:
    (job,) = cloud.jobs.keyed(KEY, f"night-{run}-a1")
    args: list[str] = json.loads(job.body["environment"][ARGS])
    return args


@pytest.mark.parametrize(("method", "rows"), [("dpo", ROWS), ("kto", LABELLED)])
def test_what_the_model_made_is_checked_here_and_trained_on_there(
    cloud: Cloud, tmp_path: Path, method: Method, rows: str
) -> None:
    cloud.rows = rows
    state = made_night(tmp_path / "n.jsonl", cloud, method)
    assert ended(state) == "finished"
    assert_paid_as_billed(state, cloud)
    assert [fact.run.name for fact in facts(tmp_path / "n.jsonl", JobIntended)][:4] == [
        "data", "smoke", "baseline", f"{method}-01",
    ]  # fmt: skip
    assert state.contamination is not None
    assert (state.contamination.verdict, state.contamination.rows) == ("clean", 120)
    assert state.dataset is not None
    assert state.dataset.methods[method].verdict == "READY"
    (made,) = [fact for fact in facts(tmp_path / "n.jsonl", DataPrepared) if fact.made]
    assert made.sha256 == state.runs["data"].result["sha256"] == state.data_sha256
    assert str(made.sha256) in render(state)
    for run in ("smoke", f"{method}-01"):
        args = given(cloud, run)
        mounted = Path(args[args.index("--dataset") + 1])
        assert mounted.is_relative_to(cloud.emulator.hub.bucket_folder("ada", "hfagent") / "data")
        assert (mounted / "train.jsonl").read_text() == rows


def test_rows_that_hold_a_benchmark_problem_do_not_reach_the_training(cloud: Cloud, tmp_path: Path) -> None:
    from hfagent.agent.records import BenchmarkRef
    from hfagent.tools.benchmarks import problems

    copied = problems(BenchmarkRef(name="procedural_python", set="confirm", n=200))[3]
    row = {"prompt": copied.prompt, "chosen": copied.solution, "rejected": "no"}
    cloud.rows = ROWS + json.dumps(row) + "\n"
    state = made_night(tmp_path / "n.jsonl", cloud)
    assert ended(state) == "finished"
    assert state.contamination is not None
    assert state.contamination.flagged == (120,)
    args = given(cloud, "dpo-01")
    assert Path(args[args.index("--dataset") + 1]).read_text() == ROWS


@pytest.mark.parametrize(
    ("arrives", "why"),
    [
        (lambda rows: None, "its dataset is not in the bucket ada/hfagent"),
        (lambda rows: rows[: len(rows) // 2], "are not what its job wrote"),
        (lambda rows: "".join(rows.splitlines(keepends=True)[:-1]), "are not what its job wrote"),
        (lambda rows: "", "are not what its job wrote"),
    ],
)
def test_rows_that_did_not_arrive_are_made_once_more_and_then_end_the_night(
    cloud: Cloud, tmp_path: Path, arrives: Callable[[str], str | None], why: str
) -> None:
    cloud.arrives = arrives
    state = made_night(tmp_path / "n.jsonl", cloud)
    assert state.ended is not None
    assert state.ended.state == "failed"
    assert state.ended.reason.startswith("data: 2 attempts failed: ")
    assert why in state.ended.reason
    assert keys(cloud) == ["night-data-a1", "night-data-a2"]
    assert_paid_as_billed(state, cloud)


def test_rows_that_arrive_the_second_time_are_enough(cloud: Cloud, tmp_path: Path) -> None:
    cloud.arrives = lambda rows: rows if cloud.jobs.keyed(KEY, "night-data-a1") else rows[:-9]
    state = made_night(tmp_path / "n.jsonl", cloud)
    assert ended(state) == "finished"
    assert [attempt.stage for attempt in state.runs["data"].attempts] == ["ERROR", "COMPLETED"]


def test_a_bucket_that_does_not_answer_is_waited_for(cloud: Cloud, tmp_path: Path) -> None:
    cloud.emulator.faults.plan(path="/api/buckets/ada/hfagent/tree", method="GET", skip=1, times=8, status=503)
    state = made_night(tmp_path / "n.jsonl", cloud)
    assert ended(state) == "finished"
    assert len(keys(cloud)) == len(set(keys(cloud)))
    assert_paid_as_billed(state, cloud)


def data_ended(event: Event) -> bool:
    return isinstance(event.fact, JobEnded) and event.fact.key == "night-data-a1"


def data_taken(event: Event) -> bool:
    return isinstance(event.fact, DataPrepared) and event.fact.made


def killed(path: Path, cloud: Cloud, at: Callable[[Event], bool]) -> None:
    def kill(event: Event) -> None:
        if at(event):
            raise KilledError

    with pytest.raises(KilledError):
        made_night(path, cloud, on_event=kill)


@pytest.mark.parametrize("at", [data_ended, data_taken])
def test_a_kill_between_the_making_and_the_use_makes_nothing_twice(
    cloud: Cloud, tmp_path: Path, at: Callable[[Event], bool]
) -> None:
    killed(tmp_path / "n.jsonl", cloud, at)
    state = made_night(tmp_path / "n.jsonl", cloud)
    assert ended(state) == "finished"
    assert keys(cloud) == sorted(f"night-{name}-a1" for name in state.runs)
    assert_paid_as_billed(state, cloud)


def rows_compared(event: Event) -> bool:
    return isinstance(event.fact, ContaminationChecked)


@pytest.mark.parametrize("at", [data_taken, rows_compared])
@pytest.mark.parametrize("lost", [lambda path: path.unlink(), lambda path: path.write_text(ROWS[:500])])
def test_rows_that_are_lost_here_after_a_kill_are_said_and_the_night_goes_on_once_they_are_back(
    cloud: Cloud, tmp_path: Path, lost: Callable[[Path], Any], at: Callable[[Event], bool]
) -> None:
    path = tmp_path / "n.jsonl"
    killed(path, cloud, at)
    (made,) = [fact for fact in facts(path, DataPrepared) if fact.made]
    rows = Path(made.path) / "train.jsonl"
    lost(rows)
    with pytest.raises(DatasetError, match="the rows that the model made") as raised:
        made_night(path, cloud)
    assert str(rows) in str(raised.value)
    assert [fact.error for fact in facts(path, Crashed)] == [str(raised.value)]
    assert keys(cloud) == ["night-data-a1"]
    rows.write_text(ROWS)
    assert ended(made_night(path, cloud)) == "finished"
