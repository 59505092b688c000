"""Limits that come near, and jobs that nobody owns: every one of them is told, and none goes on for ever."""

import io
from collections import defaultdict
from pathlib import Path

import pytest
from rich.console import Console
from world import SKILL, World, at_desk, claimed, killed, night, work

from hfagent.agent import ledger
from hfagent.agent.console import THEME, Progress
from hfagent.agent.events import JobEnded, JobIntended
from hfagent.agent.folding import fold
from hfagent.agent.records import JobSpec
from hfagent.agent.report import render
from hfagent.agent.upkeep_facts import LimitNear, OrphanFound

PAID = {"price_micro_usd_per_hour": 4_000_000, "budget_micro_usd": 1_100_000, "flavor": "a10g-small"}


def warnings(path: Path) -> list[LimitNear]:
    return [event.fact for event in ledger.read(path) if isinstance(event.fact, LimitNear)]


def test_a_budget_of_which_most_is_used_is_told_once(tmp_path: Path) -> None:
    """Budget: 80 % of it is used."""
    path = tmp_path / "night.jsonl"
    shown = Console(file=io.StringIO(), theme=THEME, width=200)
    with at_desk(path, World(SKILL), **PAID) as desk:
        progress = Progress(shown, desk.state)
        desk.ledger.subscribe(lambda event: progress.follow(event, desk.state))
        state = work(desk)
    [warning] = warnings(path)
    assert (warning.limit, 0.8 <= warning.share <= 1) == ("budget", True)
    assert f"{warning.share:.0%} of the budget is spent or held" in render(state)
    assert f"limit_near limit=budget used={warning.share:.0%}" in shown.file.getvalue()  # type: ignore[attr-defined]


def test_a_time_limit_of_which_most_is_used_is_told_once_also_after_a_resume(tmp_path: Path) -> None:
    """Time: 80 % of it is used, and hfagent is killed as it says so."""
    path, world = tmp_path / "night.jsonl", World(SKILL)
    killed(path, world, lambda event: event.seq == 40, max_hours=2)
    world.clock.advance(0.82 * 7200)
    killed(path, world, lambda event: isinstance(event.fact, LimitNear))
    night(path, world)
    [warning] = warnings(path)
    assert (warning.limit, 0.8 <= warning.share < 1) == ("time", True)


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("hours", [0.05, 0.1, 0.2, 0.35, 0.6])
def test_gpu_hours_are_reserved_before_a_job_starts_and_never_pass_their_limit(
    tmp_path: Path, hours: float, jobs: int
) -> None:
    """Two GPUs a job, and no price: only the hours are a limit."""
    path = tmp_path / "night.jsonl"
    there = World(defaultdict(lambda: 0.4, baseline=0.1))
    state = night(path, there, max_gpu_hours=hours, gpus=2, max_trials=4, max_jobs=jobs)
    facts = [event.fact for event in ledger.read(path)]
    timeouts = {fact.job.key: fact.job.timeout_s for fact in facts if isinstance(fact, JobIntended)}
    used_s = 0.0
    for fact in facts:
        if isinstance(fact, JobIntended):
            used_s += 2 * fact.job.timeout_s
        if isinstance(fact, JobEnded):
            used_s -= 2 * (timeouts[fact.key] - (fact.running_s or 0.0))
        assert used_s <= 3600 * hours
    assert state.ended is not None
    if hours <= 0.2:
        assert "GPU hours" in state.ended.reason
    else:
        assert claimed(state).label == "confirmed_better"


def test_gpu_hours_of_which_most_are_used_are_told_once(tmp_path: Path) -> None:
    state = night(tmp_path / "night.jsonl", World(SKILL), max_gpu_hours=0.13)
    [warning] = warnings(tmp_path / "night.jsonl")
    assert (warning.limit, 0.8 <= warning.share <= 1) == ("GPU hours", True)
    assert f"{warning.share:.0%} of the GPU hours are spent or held" in render(state)
    assert "0.13 GPU hours" in render(state)


def test_a_night_without_limits_warns_of_none(tmp_path: Path) -> None:
    night(tmp_path / "night.jsonl", World(SKILL))
    assert warnings(tmp_path / "night.jsonl") == []


def job_of(path: Path, run: str) -> JobSpec:
    [job] = [f.job for e in ledger.read(path) if isinstance(f := e.fact, JobIntended) and f.run.name == run]
    return job


@pytest.mark.parametrize("token", ["abc123", ""])
def test_a_job_that_an_older_copy_of_the_ledger_knows_nothing_of_is_ended(tmp_path: Path, token: str) -> None:
    """Orphan: the ledger was put back from a copy that is older than the job."""
    path, world = tmp_path / "night.jsonl", World(SKILL)
    killed(path, world, lambda event: event.fact.kind == "job_submitted" and "sft-01-a1" in event.fact.key, token=token)
    training = job_of(path, "sft-01")
    whole = path.read_bytes().splitlines(keepends=True)
    cut = next(n for n, line in enumerate(whole) if b'"job_intended"' in line and b'"name":"sft-01"' in line)
    path.write_bytes(b"".join(whole[:cut]))
    with at_desk(path, world) as desk:
        desk.observe()
    job = world.runner.find(training.key)
    assert job is not None
    orphans = [event.fact for event in ledger.read(path) if isinstance(event.fact, OrphanFound)]
    if not token:  # the jobs of a project of the same name would look the same
        assert (job.ended, orphans) == (False, [])
        return
    assert (job.stage, [orphan.key for orphan in orphans]) == ("CANCELED", [training.key])
    state = fold(ledger.read(path))
    assert state is not None
    assert "of this project that its ledger knows nothing of was ended" in render(state)


def test_every_job_carries_an_end_by_which_it_dies_alone(tmp_path: Path) -> None:
    """Lease: the time limit of each job of a night."""
    path = tmp_path / "night.jsonl"
    state = night(path, World(SKILL), max_hours=2)
    for event in ledger.read(path):
        if isinstance(event.fact, JobIntended):
            left_s = 2 * 3600 - (event.at - state.started_at).total_seconds()
            assert 0 < event.fact.job.timeout_s <= left_s
