"""Nights on Hugging Face Jobs: the real loop, runner and client against the emulator, with every fault that is planned.

The jobs are processes that leave what the templates leave; tests/test_hf_main_job.py has the real templates.
"""

import contextlib
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cloud import PRICE, Cloud, assert_paid_as_billed, facts, keys, night
from rich.console import Console
from tests.emulator.jobs import Behavior, Jobs
from tests.emulator.server import Emulator
from world import KilledError, ended

from hfagent.agent import ledger
from hfagent.agent.backend_facts import BackendLost, StrayFound, SubmitRetried
from hfagent.agent.errors import AccountRefused, OutOfCredit
from hfagent.agent.events import Event, JobIntended
from hfagent.agent.folding import fold
from hfagent.agent.night import resume
from hfagent.agent.records import JobSpec
from hfagent.agent.settings import Settings
from hfagent.agent.wiring import Paths
from hfagent.tools.hf_jobs import KEY


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    jobs = Jobs()
    with Emulator(tmp_path / "hub", extra=jobs.routes) as emulator:
        yield Cloud(emulator, jobs, emulator.hub.add_user("ada"))
        jobs.close()


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
