"""Nights on Hugging Face Jobs: the real loop, runner and client against the emulator, with every fault that is planned.

The jobs are processes that leave what the templates leave; tests/test_hf_main_job.py has the real templates.
"""

import contextlib
import json
import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.emulator.jobs import Behavior, Jobs
from tests.emulator.server import Emulator
from world import SKILL, KilledError, World, at_desk, ended, work

import hfagent
from hfagent.agent import ledger
from hfagent.agent.backend_facts import BackendLost, StrayFound, SubmitRetried
from hfagent.agent.clock import SystemClock
from hfagent.agent.errors import AccountRefused, OutOfCredit
from hfagent.agent.events import Event, JobIntended
from hfagent.agent.folding import fold
from hfagent.agent.night import resume
from hfagent.agent.ports import Ports
from hfagent.agent.records import JobSpec
from hfagent.agent.settings import Settings
from hfagent.agent.state import State
from hfagent.agent.wiring import Paths
from hfagent.job_templates.remote import ARGS
from hfagent.tools.hf_jobs import KEY, HfJobRunner
from hfagent.tools.hub_calls import api
from hfagent.tools.job_bucket import JobBucket

PRICE = 167 * 60
"""cpu-basic of the emulator, millionths of a dollar an hour."""
SETTLE_S = 1.0
LEAVE = """
import json, pathlib
home, left = pathlib.Path({home!r}), json.loads({left!r})
for name in ("adapter", "stable_checkpoint"):
    if left.get(name):
        folder = pathlib.Path(left[name]); folder.mkdir(parents=True, exist_ok=True); (folder / "x").write_text("x")
home.mkdir(parents=True, exist_ok=True)
(home / "result.json").write_text(json.dumps(left))
(home / "exit.json").write_text('{{"exit_code": 0}}')
print("RESULT " + json.dumps(left))
"""
FAIL = """
import pathlib, sys
home = pathlib.Path({home!r}); home.mkdir(parents=True, exist_ok=True)
(home / "exit.json").write_text('{{"exit_code": 1}}')
print({text!r}); sys.exit(1)
"""


def small_package(root: Path) -> Path:
    """What the jobs here need of hfagent: the whole of it takes the emulator 15 s to store."""
    package = root / "package" / "hfagent"
    if not package.exists():
        (package / "job_templates").mkdir(parents=True)
        for name in ("train_sft.py", "evaluate.py", "export.py"):
            shutil.copy(Path(hfagent.__file__).parent / "job_templates" / name, package / "job_templates" / name)
    return package


@dataclass
class Cloud(World):
    """The world of fakes with its jobs on the emulator."""

    emulator: Emulator
    jobs: Jobs
    token: str
    special: Callable[[str], Behavior | str | None] = field(default=lambda key: None)
    """Key -> how this job goes; a text is printed by a script that fails; None is well."""

    def __post_init__(self) -> None:
        super().__init__({**SKILL, "sft-01-r1": 0.4, "sft-01-r1-x1": 0.6})
        self.jobs.behave = self.behavior

    def behavior(self, body: Mapping[str, Any]) -> Behavior:
        key, home = body["labels"][KEY], body["command"][-2]
        special = self.special(key)
        if isinstance(special, Behavior) and (special.script or special.end or special.stuck):
            return special
        if isinstance(special, str):
            return Behavior(script=FAIL.format(home=home, text=special))
        run = key.removeprefix("night-").rpartition("-a")[0]
        args = tuple(json.loads(body["environment"][ARGS]))
        kind = "evaluate" if "--benchmark" in args else "smoke" if "--smoke" in args else "train"
        spec = JobSpec(
            key=key, project="night", run=run, kind=kind, template="x.py", args=args, flavor="cpu-basic",
            timeout_s=1, price_micro_usd_per_hour=0,
        )  # fmt: skip
        left = dict(self.behave(spec).result or {})
        if kind != "evaluate":
            left |= {"adapter": f"{home}/out/{run}", "stable_checkpoint": f"{home}/out/checkpoint-1"}
        script = LEAVE.format(home=home, left=json.dumps(left))
        return (
            Behavior(script=script, accept_s=special.accept_s, hidden_s=special.hidden_s)
            if special
            else Behavior(script=script)
        )

    @property
    def ports(self) -> Ports:
        client = api(self.emulator.endpoint, self.token)
        bucket = JobBucket(client, "ada/hfagent", mount=str(self.emulator.hub.bucket_folder("ada", "hfagent")))
        runner = HfJobRunner(
            client,
            "ada",
            bucket,
            environment={},
            secrets={"HF_TOKEN": self.token},
            poll_s=0.1,
            settle_s=SETTLE_S,
            package=small_package(self.emulator.hub.root),
        )
        return Ports(**{**vars(super().ports), "runner": runner, "clock": SystemClock()})


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    jobs = Jobs()
    with Emulator(tmp_path / "hub", extra=jobs.routes) as emulator:
        yield Cloud(emulator, jobs, emulator.hub.add_user("ada"))
        jobs.close()


def night(path: Path, cloud: Cloud, *, on_event: Callable[[Event], None] = lambda event: None, **changes: Any) -> State:
    resumed = path.exists()
    plan = {"backend": "hf", "flavor": "cpu-basic", "price_micro_usd_per_hour": PRICE, "budget_micro_usd": 5_000_000}
    with at_desk(path, cloud, **plan, **changes) as desk:
        desk.ledger.subscribe(on_event)
        return work(desk, poll_s=0.2, resumed_by=1 if resumed else None)


def facts(path: Path, kind: type) -> list[Any]:
    return [event.fact for event in ledger.read(path) if isinstance(event.fact, kind)]


def assert_paid_as_billed(state: State, cloud: Cloud) -> None:
    assert state.held_micro_usd == 0
    assert state.spent_micro_usd == sum(job.billed_micro_usd for job in cloud.jobs.all)


def keys(cloud: Cloud) -> list[str]:
    return sorted(job.labels[KEY] for job in cloud.jobs.all)


def test_a_night_costs_what_is_billed_and_asks_little(cloud: Cloud, tmp_path: Path) -> None:
    state = night(tmp_path / "n.jsonl", cloud)
    assert ended(state) == "finished"
    assert_paid_as_billed(state, cloud)
    assert len(keys(cloud)) == len(set(keys(cloud)))
    body = cloud.jobs.all[0].body
    assert body["timeoutSeconds"] >= 900
    assert cloud.token not in json.dumps({**body, "secrets": None})
    assert cloud.token not in (tmp_path / "n.jsonl").read_text()


@pytest.mark.parametrize(
    ("when", "status"), [("after", None), ("after", 502), ("before", None), ("before", 500), ("before", 429)]
)
def test_a_launch_whose_answer_is_lost_is_one_job(cloud: Cloud, tmp_path: Path, when: Any, status: int | None) -> None:
    cloud.emulator.faults.plan(
        path=r"^/api/jobs/ada$", method="POST", skip=2, times=1, when=when, status=status, headers={"retry-after": "1"}
    )
    state = night(tmp_path / "n.jsonl", cloud)
    assert ended(state) == "finished"
    assert len(keys(cloud)) == len(set(keys(cloud)))
    assert len(facts(tmp_path / "n.jsonl", SubmitRetried)) == (0 if when == "after" else 1)
    assert_paid_as_billed(state, cloud)


@pytest.mark.parametrize("when", ["after", "before", None])
def test_sets_that_are_tried_at_a_time_are_one_job_each_also_where_answers_are_lost(
    cloud: Cloud, tmp_path: Path, when: Any
) -> None:
    cloud.skill = defaultdict(lambda: 0.4, baseline=0.1)
    if when is not None:
        cloud.emulator.faults.plan(path=r"^/api/jobs/ada$", method="POST", skip=3, times=3, when=when, status=502)
    state = night(tmp_path / "n.jsonl", cloud, max_trials=4, max_jobs=3, max_extensions=0)
    assert (ended(state), len(state.trials)) == ("finished", 4)
    assert len(keys(cloud)) == len(set(keys(cloud)))
    assert_paid_as_billed(state, cloud)
    spans = [(a.started_at, a.finished_at) for run in state.trials for a in run.attempts]
    assert any(a[0] < b[0] < a[1] for a in spans for b in spans if None not in (*a, *b))


def test_a_launch_that_is_taken_after_the_settle_time_is_a_stray_and_paid(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    cloud.emulator.faults.plan(path=r"^/api/jobs/ada$", method="POST", skip=1, times=1, when="after")

    def special(key: str) -> Behavior | None:
        """The first baseline is in no list before the second one is asked for."""
        if "baseline-a1" not in key:
            return None
        earlier = cloud.jobs.keyed(KEY, key)
        for job in earlier:
            job.behavior = replace(job.behavior, hidden_s=0.0)
        return None if earlier else Behavior(hidden_s=60.0)

    cloud.special = special
    state = night(path, cloud)
    assert ended(state) == "finished"
    assert [fact.key for fact in facts(path, StrayFound)] == ["night-baseline-a1"]
    assert len(cloud.jobs.keyed(KEY, "night-baseline-a1")) == 2
    assert_paid_as_billed(state, cloud)


def test_a_job_that_is_taken_after_the_end_is_ended_by_a_resume_and_paid(cloud: Cloud, tmp_path: Path) -> None:
    cloud.emulator.faults.plan(path=r"^/api/jobs/ada$", method="POST", times=1, when="after")
    late = Behavior(script="import time; time.sleep(600)", hidden_s=600.0)
    cloud.special = lambda key: late if "smoke-a1" in key and not cloud.jobs.keyed(KEY, key) else None
    before = night(tmp_path / "n.jsonl", cloud)
    assert ended(before) == "finished"
    (job,) = [job for job in cloud.jobs.all if job.behavior == late]
    job.behavior = replace(late, hidden_s=0.0)
    settings = Settings(reports_dir=tmp_path, state_dir=tmp_path / "state")
    state = resume(Paths(tmp_path, "n"), cloud.ports, settings, console=Console(quiet=True))
    assert job.stage == "CANCELED"
    assert_paid_as_billed(state, cloud)
    assert state.spent_micro_usd != before.spent_micro_usd
    assert "hf_" not in (tmp_path / "n.md").read_text()


def test_a_service_that_stumbles_is_asked_again(cloud: Cloud, tmp_path: Path) -> None:
    cloud.emulator.faults.plan(path=r"^/api/jobs/ada", method="GET", skip=4, times=1, status=500)
    cloud.emulator.faults.plan(
        path=r"^/api/jobs/ada", method="GET", skip=9, times=1, status=429, headers={"retry-after": "1"}
    )
    cloud.emulator.faults.plan(path="/logs$", times=5)
    assert ended(night(tmp_path / "n.jsonl", cloud)) == "finished"


def test_a_service_that_is_away_for_a_while_is_waited_for(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    cloud.emulator.faults.plan(path=r"^/api/jobs/ada", method="GET", skip=6, times=6, status=503)
    state = night(path, cloud)
    assert ended(state) == "finished"
    assert len(facts(path, BackendLost)) == 1
    assert_paid_as_billed(state, cloud)


def test_out_of_memory_halves_the_micro_batch(cloud: Cloud, tmp_path: Path) -> None:
    cloud.special = lambda key: "torch.OutOfMemoryError: CUDA out of memory" if "sft-01-a1" in key else None
    state = night(tmp_path / "n.jsonl", cloud)
    assert ended(state) == "finished"
    assert state.decisions[0].decision.rule == "halve-micro-batch"
    assert_paid_as_billed(state, cloud)


def test_completed_without_its_files_is_a_failure_that_is_tried_again(cloud: Cloud, tmp_path: Path) -> None:
    cloud.special = lambda key: Behavior(script="print('done')") if "sft-01-a1" in key else None
    state = night(tmp_path / "n.jsonl", cloud)
    assert ended(state) == "finished"
    first, second = state.runs["sft-01"].attempts
    assert (first.stage, first.message) == ("ERROR", "ended without a RESULT line")
    assert second.stage == "COMPLETED"


def test_a_job_past_its_time_is_not_started_again_as_it_was(cloud: Cloud, tmp_path: Path) -> None:
    cloud.special = lambda key: Behavior(end=("ERROR", "Job timeout")) if "sft-01-a1" in key else None
    state = night(tmp_path / "n.jsonl", cloud)
    assert len(state.runs["sft-01"].attempts) == 1
    assert (state.runs["sft-01"].last.message or "").startswith("Job timeout")
    assert_paid_as_billed(state, cloud)


def test_a_token_that_expires_stops_the_process_and_a_new_one_goes_on(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    old, cloud.token = cloud.token, cloud.emulator.hub.add_user("ada")
    cloud.token, new = old, cloud.token

    def expire(event: Event) -> None:
        if event.fact.kind == "job_submitted" and "sft-01" in event.fact.key:
            cloud.emulator.hub.expire(old)

    with pytest.raises(AccountRefused, match="expired"):
        night(path, cloud, on_event=expire)
    cloud.token = new
    state = night(path, cloud)
    assert ended(state) == "finished"
    assert len(keys(cloud)) == len(set(keys(cloud)))
    assert_paid_as_billed(state, cloud)


def test_an_account_without_credit_stops_with_the_exit_code_of_the_budget(cloud: Cloud, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    for user in cloud.emulator.hub.users.values():
        user.can_pay = False
    with pytest.raises(OutOfCredit) as raised:
        night(path, cloud)
    assert raised.value.exit_code == 3
    state = fold(ledger.read(path))
    assert state is not None
    assert (state.held_micro_usd, cloud.jobs.all) == (0, [])
    for user in cloud.emulator.hub.users.values():
        user.can_pay = True
    assert ended(night(path, cloud)) == "finished"


def test_a_list_that_lags_behind_starts_nothing_twice(cloud: Cloud, tmp_path: Path) -> None:
    cloud.special = lambda key: Behavior(hidden_s=0.5)
    state = night(tmp_path / "n.jsonl", cloud)
    assert ended(state) == "finished"
    assert len(keys(cloud)) == len(set(keys(cloud)))


def test_a_hundred_running_jobs_are_one_request_a_look(cloud: Cloud) -> None:
    cloud.jobs.behave = lambda body: Behavior(idle_s=60)
    runner = cloud.ports.runner
    ids = []
    for number in range(100):
        spec = JobSpec(
            key=f"night-r{number}-a1", project="night", run=f"r{number}", kind="export", template="export.py", args=(),
            flavor="cpu-basic", timeout_s=600, price_micro_usd_per_hour=PRICE,
        )  # fmt: skip
        ids.append(runner.submit(spec).id)
    runner.wait([], timeout_s=2.5)
    before = len(cloud.emulator.requests)
    assert {runner.inspect(job_id).stage for job_id in ids} == {"RUNNING"}
    assert len(cloud.emulator.requests) - before <= math.ceil(100 / 100)


def test_a_night_killed_after_every_event_is_the_same_night(cloud: Cloud, tmp_path: Path) -> None:
    path, seen = tmp_path / "n.jsonl", set[str]()

    def kill(event: Event) -> None:
        fact = event.fact.model_dump_json()
        if event.fact.kind != "resumed" and fact not in seen:
            seen.add(fact)
            raise KilledError

    while True:
        with contextlib.suppress(KilledError):
            state = night(path, cloud, on_event=kill)
            break
    told = [event.fact for event in ledger.read(path)]
    assert len(seen) > 50
    assert sum(fact.kind == "claimed" for fact in told) == 1
    assert ended(state) == "finished"
    assert keys(cloud) == [f"night-{name}-a1" for name in sorted(state.runs)]
    assert [fact.run.name for fact in told if isinstance(fact, JobIntended)] == list(state.runs)
    assert_paid_as_billed(state, cloud)
    undisturbed = night(tmp_path / "other.jsonl", cloud)
    assert undisturbed.claim == state.claim
    assert list(undisturbed.runs) == list(state.runs)
