"""Where jobs run elsewhere: answers that get lost, jobs that appear late, a backend that is away for a while."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from world import SKILL, FakeMailbox, World, at_desk, ended, killed, night, work

from hfagent.agent import ledger
from hfagent.agent.backend_facts import BackendFound, BackendLost, StrayEnded, StrayFound, SubmitRetried
from hfagent.agent.console import closing
from hfagent.agent.control import Request
from hfagent.agent.errors import AccountRefused, BackendAway, JobError, NothingSent, OutOfCredit
from hfagent.agent.events import Crashed, Event, JobIntended, JobRejected
from hfagent.agent.fakes import Ending, FakeClock, FakeJobRunner
from hfagent.agent.folding import fold
from hfagent.agent.records import Export, Job, JobSpec, MetricPoint, RunSpec
from hfagent.agent.state import State
from hfagent.agent.upkeep_facts import OrphanFound
from hfagent.agent.wiring import Paths

PRICE = {"price_micro_usd_per_hour": 3_600_000}  # a dollar is 1000 seconds
SETTLE_S = 60.0


class Service(FakeJobRunner):
    """A service that refuses no second job of a key and may take requests late or lose its answers."""

    settle_s = SETTLE_S

    def __init__(self, clock: FakeClock, behave: Callable[..., object]):
        super().__init__(clock, behave)  # type: ignore[arg-type]
        self.clock = clock
        self.fate: Callable[[str, int], float | str | None] = lambda key, nth: None
        """Of the nth request for a key: None is an answer, "lost" no effect, a number the delay of an effect without
        an answer, an error is raised."""
        self.requests: list[str] = []
        self.late: list[tuple[float, JobSpec]] = []
        self.away_until = float("-inf")
        self.upload_s = 0.0
        """What a submit needs before it asks for the job."""
        self.unknown: Callable[[str], bool] = lambda job_id: False
        """Job id -> whether it is answered that there is no such job."""
        self.listing = False

    @property
    def seconds(self) -> float:
        return self.clock.now().timestamp()

    def submit(self, spec: JobSpec) -> Job:
        self._answer()
        self.requests.append(spec.key)
        nth = self.requests.count(spec.key)
        self.clock.advance(self.upload_s)
        fate = self.fate(spec.key, nth)
        if isinstance(fate, Exception):
            raise fate
        if fate is not None:
            if isinstance(fate, float):
                self.late.append((self.seconds + fate, spec))
            raise BackendAway("no answer")
        return self._take(spec)

    def _take(self, spec: JobSpec) -> Job:
        number = sum(key.startswith(spec.key) for key in self._jobs)
        name = spec.key if number == 0 else f"{spec.key}.{number}"
        self._jobs[name] = self._new(spec)
        return super().inspect(f"fake-{name}")

    def _new(self, spec: JobSpec) -> object:
        made = FakeJobRunner(self.clock, self._behave)
        made.submit(spec)
        return made._jobs[spec.key]

    def _answer(self) -> None:
        if self.seconds < self.away_until:
            raise BackendAway("away")
        due = [item for item in self.late if item[0] <= self.seconds]
        self.late = [item for item in self.late if item not in due]
        for _, spec in due:
            self._take(spec)

    def find(self, key: str) -> Job | None:
        self._answer()
        return None if self.unknown(f"fake-{key}") else super().find(key)

    def jobs(self, label: str, *, ended: bool = False) -> Sequence[Job]:
        self._answer()
        self.listing = True
        found = super().jobs(label, ended=ended)
        self.listing = False
        return found

    def inspect(self, job_id: str) -> Job:
        self._answer()
        if self.unknown(job_id) and not self.listing:
            raise JobError(f"no job {job_id!r}")
        return super().inspect(job_id)

    def wait(self, job_ids: Sequence[str], *, timeout_s: float) -> None:
        try:
            super().wait([job_id for job_id in job_ids if not self.unknown(job_id)], timeout_s=timeout_s)
        except BackendAway:
            self.clock.advance(timeout_s)


@pytest.fixture
def there() -> World:
    world = World(SKILL)
    world.runner = Service(world.clock, world.behave)
    return world


def service(there: World) -> Service:
    assert isinstance(there.runner, Service)
    return there.runner


def facts(path: Path, kind: type) -> list[object]:
    return [event.fact for event in ledger.read(path) if isinstance(event.fact, kind)]


def keys_with_jobs(there: World) -> list[str]:
    return sorted(job.spec.key for job in there.runner._jobs.values())


def refolded(path: Path) -> State:
    state = fold(ledger.read(path))
    assert state is not None
    return state


def test_a_job_that_was_taken_without_an_answer_is_adopted(there: World, tmp_path: Path) -> None:
    service(there).fate = lambda key, nth: 10.0 if nth == 1 else None
    state = night(tmp_path / "n.jsonl", there, **PRICE)
    assert ended(state) == "finished"
    assert len(keys_with_jobs(there)) == len(set(keys_with_jobs(there)))
    assert facts(tmp_path / "n.jsonl", SubmitRetried) == []


def test_a_request_that_got_lost_is_repeated_after_the_settle_time(there: World, tmp_path: Path) -> None:
    service(there).fate = lambda key, nth: "lost" if nth == 1 else None
    path = tmp_path / "n.jsonl"
    state = night(path, there, **PRICE)
    assert ended(state) == "finished"
    told = [event.fact.kind for event in ledger.read(path) if isinstance(event.fact, BackendLost | SubmitRetried)]
    assert told == ["backend_lost", "submit_retried"] * len(state.runs)
    assert len(keys_with_jobs(there)) == len(set(keys_with_jobs(there)))
    retried = {event.fact.key: event.at for event in ledger.read(path) if isinstance(event.fact, SubmitRetried)}
    for attempt in (a for run in state.runs.values() for a in run.attempts):
        assert attempt.tries == 2
        assert (retried[attempt.job.key] - attempt.intended_at).total_seconds() >= SETTLE_S


def test_a_job_taken_later_than_believed_is_cancelled_and_paid(there: World, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    service(there).fate = lambda key, nth: SETTLE_S + 5.0 if nth == 1 and "smoke" in key else None
    state = night(path, there, **PRICE, budget_micro_usd=1_000_000_000)
    assert ended(state) == "finished"
    assert [fact.key.split("-")[1] for fact in facts(path, StrayFound)] == ["smoke"]  # type: ignore[attr-defined]
    (stray,) = state.strays.values()
    assert not stray.open
    ran = [service(there).inspect(f"fake-{name}").running_s for name in service(there)._jobs]
    assert state.spent_micro_usd == sum(round(seconds * 1000) for seconds in ran if seconds)
    assert state.held_micro_usd == 0


def test_a_service_that_never_answers_a_request_ends_in_rejections_and_nothing_is_held(
    there: World, tmp_path: Path
) -> None:
    service(there).fate = lambda key, nth: "lost"
    state = night(tmp_path / "n.jsonl", there, **PRICE)
    assert ended(state) == "failed"
    assert (state.held_micro_usd, state.spent_micro_usd) == (0, 0)


def test_a_backend_that_is_away_is_waited_for_and_the_report_knows_when(there: World, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    away = service(there)

    def leave(key: str, nth: int) -> None:
        if key.endswith("sft-01-a1"):
            away.away_until = away.seconds + 3600

    away.fate = leave
    state = night(path, there, **PRICE)
    assert ended(state) == "finished"
    lost, found = [
        [event.at for event in ledger.read(path) if isinstance(event.fact, kind)]
        for kind in (BackendLost, BackendFound)
    ]
    assert len(lost) == len(found) == 1
    assert 3000 < (found[0] - lost[0]).total_seconds() < 4000
    assert len(keys_with_jobs(there)) == len(set(keys_with_jobs(there)))


def test_the_settle_time_begins_once_a_submit_is_over(there: World, tmp_path: Path) -> None:
    service(there).upload_s = 5 * SETTLE_S
    service(there).fate = lambda key, nth: SETTLE_S / 2 if nth == 1 and "smoke" in key else None
    path = tmp_path / "n.jsonl"
    assert ended(night(path, there, **PRICE)) == "finished"
    assert len(keys_with_jobs(there)) == len(set(keys_with_jobs(there)))
    assert facts(path, SubmitRetried) == []


def test_a_killed_submit_may_be_taken_until_the_settle_time_after_the_next_start(there: World, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    killed(path, there, lambda event: isinstance(event.fact, JobIntended) and "smoke" in event.fact.job.key, **PRICE)
    there.clock.advance(10 * SETTLE_S)  # it uploaded for so long, asked, and was killed just now
    (intended,) = facts(path, JobIntended)
    service(there).late.append((service(there).seconds + SETTLE_S / 2, intended.job))  # type: ignore[attr-defined]
    assert ended(night(path, there)) == "finished"
    assert len(keys_with_jobs(there)) == len(set(keys_with_jobs(there)))


def test_a_clock_that_was_set_back_while_hfagent_was_dead_holds_no_job_up(there: World, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    killed(path, there, lambda event: isinstance(event.fact, JobIntended) and "smoke" in event.fact.job.key, **PRICE)
    there.clock.jump(-3600)
    begun_at = there.clock.now()
    assert ended(night(path, there)) == "finished"
    [retried_at] = [event.at for event in ledger.read(path) if isinstance(event.fact, SubmitRetried)]
    assert SETTLE_S <= (retried_at - begun_at).total_seconds() < SETTLE_S + 10


def test_a_clock_that_is_set_back_while_an_answer_is_waited_for_holds_no_job_up(there: World, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    service(there).fate = lambda key, nth: "lost" if "smoke" in key and nth == 1 else None
    times: list[float] = []

    def heard(event: Event) -> None:
        if isinstance(event.fact, BackendLost | SubmitRetried):
            times.append(there.clock.monotonic())
        if isinstance(event.fact, BackendLost):
            there.clock.jump(-3600)

    with at_desk(path, there, **PRICE) as desk:
        desk.ledger.subscribe(heard)
        assert ended(work(desk)) == "finished"
    assert SETTLE_S <= times[1] - times[0] < SETTLE_S + 10


def test_a_place_for_files_that_is_away_rejects_no_job(there: World, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    service(there).fate = lambda key, nth: NothingSent("no upload") if nth <= 8 and "smoke" in key else None  # type: ignore[return-value]
    assert ended(night(path, there, **PRICE)) == "finished"
    assert facts(path, JobRejected) == []


def test_a_job_that_the_service_does_not_know_yet_is_not_lost(there: World, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    asked: list[float] = []

    def unknown(job_id: str) -> bool:
        if "smoke" not in job_id or job_id not in {f"fake-{name}" for name in there.runner._jobs}:
            return False
        asked.append(service(there).seconds)
        return service(there).seconds - asked[0] < SETTLE_S / 2

    service(there).fate = lambda key, nth: service(there).unknown(f"fake-{key}") or None  # type: ignore[return-value]
    service(there).unknown = unknown
    state = night(path, there, **PRICE)
    assert ended(state) == "finished"
    assert [attempt.stage for attempt in state.runs["smoke"].attempts] == ["COMPLETED"]


def test_what_is_vetoed_before_its_answer_came_is_not_asked_for_again(there: World, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    service(there).fate = lambda key, nth: "lost" if "sft-01-a" in key else None

    def veto() -> list[Request]:
        waits = any(attempt.job.run == "sft-01" and attempt.cancel_why is None for attempt in desk.state.open_attempts)
        return [Request(ask="veto", text="no")] if waits else []

    with at_desk(path, there, **PRICE) as desk:
        work(desk, mailbox=FakeMailbox(asks=veto))
    assert service(there).requests.count("night-sft-01-a1") == 1
    assert refolded(path).held_micro_usd == 0


# --- after the end ---------------------------------------------------------------------------------------------------


def cleared_up(path: Path, there: World) -> State:
    with at_desk(path, there) as desk:
        desk.clear_up()
        return desk.state


def test_a_job_that_is_taken_after_the_end_is_found_ended_and_paid(there: World, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    service(there).fate = lambda key, nth: 50_000.0 if "smoke" in key and nth == 1 else None
    before = night(path, there, **PRICE)
    assert ended(before) == "finished"
    assert before.spent_micro_usd is not None
    there.clock.advance(50_000.0)
    service(there).jobs("night")  # taken now
    there.clock.advance(7.0)
    state = cleared_up(path, there)
    (stray,) = state.strays.values()
    assert (stray.stage, state.held_micro_usd) == ("CANCELED", 0)
    assert state.spent_micro_usd == before.spent_micro_usd + 7_000
    assert cleared_up(path, there).strays == state.strays
    assert sum(isinstance(event.fact, StrayEnded) for event in ledger.read(path)) == 1


def test_a_night_that_was_stopped_while_the_backend_was_away_is_ended_later(there: World, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"

    def stop() -> str | None:
        if not any(attempt.job.run == "sft-01" for attempt in desk.state.open_attempts):
            return None
        service(there).away_until = service(there).seconds + 3600
        return "enough"

    with at_desk(path, there, **PRICE) as desk:
        state = work(desk, mailbox=FakeMailbox(stop=stop))
    assert ended(state) == "stopped"
    assert state.held_micro_usd > 0
    shown = closing(state, Paths(tmp_path, "night"), state.updated_at, held=False)
    assert "hfagent resume night ends them" in shown
    there.clock.advance(3600)
    state = cleared_up(path, there)
    assert (state.held_micro_usd, state.open_attempts) == (0, ())
    assert state.spent_micro_usd is not None
    assert "hfagent resume" not in closing(state, Paths(tmp_path, "night"), state.updated_at, held=False)


def test_an_export_that_was_asked_for_after_the_end_goes_on(there: World, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    night(path, there, **PRICE)
    there.clock.advance(60)
    there.endings = lambda spec: Ending(running_s=100, result={}) if spec.kind == "export" else None
    with at_desk(path, there) as desk:
        assert isinstance(desk.ship(Export()), JobSpec)
    assert [attempt.cancel_why for attempt in cleared_up(path, there).open_attempts] == [None]


def test_a_stray_that_is_gone_ends_and_stops_nobody(there: World, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    service(there).fate = lambda key, nth: SETTLE_S + 5.0 if nth == 1 and "smoke" in key else None
    service(there).unknown = lambda job_id: job_id.endswith("a1.1")
    state = night(path, there, **PRICE, budget_micro_usd=1_000_000_000)
    assert ended(state) == "finished"
    assert [stray.stage for stray in state.strays.values()] == ["DELETED"]


@pytest.mark.parametrize("error", [AccountRefused("the token is expired"), OutOfCredit("no credit")])
def test_an_account_that_may_not_ends_the_process_and_the_night_goes_on_once_it_may(
    there: World, tmp_path: Path, error: AccountRefused
) -> None:
    path = tmp_path / "n.jsonl"
    service(there).fate = lambda key, nth: error if "sft-01-a1" in key else None  # type: ignore[return-value]
    with pytest.raises(AccountRefused) as raised:
        night(path, there, **PRICE)
    assert raised.value.exit_code == (3 if isinstance(error, OutOfCredit) else 1)
    assert refolded(path).held_micro_usd == 0
    assert [type(fact) for fact in facts(path, JobRejected) + facts(path, Crashed)] == [JobRejected, Crashed]
    service(there).fate = lambda key, nth: None
    assert ended(night(path, there)) == "finished"


@pytest.mark.parametrize(("logged", "resumed"), [(12, "/ck/10"), (10, "/ck/5"), (0, None)])
def test_a_lost_training_goes_on_from_before_its_last_logged_step(
    tmp_path: Path, logged: int, resumed: str | None
) -> None:
    there, path = World(SKILL), tmp_path / "n.jsonl"
    lost = Ending(running_s=5, stage="ERROR", exit_code=None, result={"checkpoints": {"5": "/ck/5", "10": "/ck/10"}})

    def endings(spec: JobSpec) -> Ending | None:
        if not spec.key.endswith("sft-01-a1"):
            return None
        rows = [MetricPoint(step=step, values={"train/loss": 2.0 - 0.05 * step}) for step in range(1, logged + 1)]
        there.tracker.rows[spec.project, spec.run] = rows
        return lost

    there.endings = endings
    assert ended(night(path, there)) == "finished"
    (again,) = [fact.job for fact in facts(path, JobIntended) if fact.job.key.endswith("sft-01-a2")]  # type: ignore[attr-defined]
    args = dict(pairwise(again.args))
    assert args.get("--resume-from-checkpoint") == resumed


def orphaned(path: Path, there: World) -> JobSpec:
    """A project whose ledger knows nothing of one of its jobs, which runs."""
    with at_desk(path, there, token="abc123", **PRICE) as desk:
        label = desk.state.plan.label
    spec = JobSpec(
        key=f"{label}-sft-09-a1", project="night", run="sft-09", kind="train", template="train_sft.py", args=(),
        flavor="local", timeout_s=9000, price_micro_usd_per_hour=PRICE["price_micro_usd_per_hour"],
    )  # fmt: skip
    there.endings = lambda job: Ending(running_s=9000, result={}) if job == spec else None
    there.runner.submit(spec)
    there.clock.advance(100)
    return spec


def test_an_orphan_is_looked_for_until_the_backend_answers_and_is_cancelled_and_paid(
    there: World, tmp_path: Path
) -> None:
    path = tmp_path / "n.jsonl"
    spec = orphaned(path, there)
    service(there).away_until = service(there).seconds + 50
    with at_desk(path, there) as desk:
        desk.observe()
        assert facts(path, OrphanFound) == []
        there.clock.advance(50)
        desk.observe()
        [found] = facts(path, OrphanFound)
        assert isinstance(found, OrphanFound)
        assert found.key == spec.key
        assert desk.state.held_micro_usd >= 150_000
        desk.observe()
        assert (desk.state.held_micro_usd, desk.state.spent_micro_usd) == (0, 150_000)
    assert refolded(path) == desk.state


def test_an_orphan_of_a_project_that_is_over_is_ended_too(there: World, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    with at_desk(path, there, token="abc123", **PRICE) as desk:
        desk.stop("enough")
    spec = orphaned(path, there)
    state = cleared_up(path, there)
    assert [(stray.job.key, stray.stage) for stray in state.strays.values()] == [(spec.key, "CANCELED")]
    assert (state.held_micro_usd, state.spent_micro_usd) == (0, 100_000)


def test_a_cancel_of_an_orphan_that_failed_is_repeated(
    there: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "n.jsonl"
    orphaned(path, there)
    cancel = there.runner.cancel
    with at_desk(path, there) as desk:

        def away(job_id: str) -> None:
            raise BackendAway("away")

        monkeypatch.setattr(there.runner, "cancel", away)
        desk.observe()
        monkeypatch.setattr(there.runner, "cancel", cancel)
        desk.observe()
        desk.observe()
    assert [stray.stage for stray in refolded(path).strays.values()] == ["CANCELED"]


def test_an_orphan_that_an_attempt_takes_over_is_paid_once(there: World, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    spec = orphaned(path, there)
    run = RunSpec(name="sft-09", kind="train", hypothesis="h", why="w")
    with at_desk(path, there) as desk:
        desk.observe()
        desk.append(JobIntended(run=run, job=spec))
        desk.reconcile()
        desk.observe()
        assert desk.state.spent_micro_usd == 100_000
