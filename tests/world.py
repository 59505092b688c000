"""A world of fakes in which a whole night runs in milliseconds: the real loop, policy, planner, ledger and verdict."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hfagent.agent import ledger
from hfagent.agent.control import Request
from hfagent.agent.desk import Desk
from hfagent.agent.events import Event, JobIntended, PlanConfirmed, PlanMade
from hfagent.agent.fakes import (
    Ending,
    FakeChecker,
    FakeClock,
    FakeFirewall,
    FakeJobRunner,
    FakeLooks,
    FakeSearcher,
    FakeStore,
    FakeTracker,
    fake_outcomes,
)
from hfagent.agent.loop import run_night
from hfagent.agent.planner import rule_planner
from hfagent.agent.ports import DatasetStore, Planner, Ports
from hfagent.agent.records import (
    BenchmarkRef,
    Claim,
    DatasetRef,
    EvalConfig,
    JobSpec,
    MetricPoint,
    ModelRef,
    Plan,
    TrainConfig,
)
from hfagent.agent.state import State

SKILL = {"baseline": 0.1, "sft-01": 0.4, "sft-01-x1": 0.6, "sft-01-x2": 0.6}
N = 200
MADE = "/made/data"
"""Where the data lie that a model made."""
MERGED = "/m/merged-"
"""Where the merged model of a run lies, before the run's name."""
LOST = Ending(running_s=5, stage="ERROR", exit_code=None, message="the machine is gone")
DIVERGED = Ending(running_s=5, stage="ERROR", exit_code=1, message="training diverged: NaN loss")
FAILED = Ending(running_s=5, stage="ERROR", exit_code=1, message="No space left on device")


def make_plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "project": "night",
        "goal": "improve code solving with SFT",
        "task_area": "code",
        "method": "sft",
        "model": ModelRef(id="org/model", parameters=135_000_000),
        "dataset": DatasetRef(id="org/data"),
        "search": BenchmarkRef(name="procedural_python", set="search", n=N),
        "confirm": BenchmarkRef(name="procedural_python", set="confirm", n=N),
        "train": TrainConfig(num_train_epochs=1, max_rows=160, eval_fraction=0),
        "evaluation": EvalConfig(),
        "backend": "fake",
        "flavor": "local",
        "price_micro_usd_per_hour": 0,
        "max_extensions": 1,
    }
    return Plan.model_validate({**values, **changes})


class World:
    """Fakes for every seam, and the skill that each training run gives a model."""

    def __init__(self, skill: dict[str, float], *, falling: bool = True):
        self.clock = FakeClock()
        self.tracker = FakeTracker()
        self.skill = skill
        self.falling = falling
        self.endings: Callable[[JobSpec], Ending | None] = lambda spec: None
        self.runner = FakeJobRunner(self.clock, self.behave)
        self.checker = FakeChecker()
        self.firewall = FakeFirewall()
        self.datasets: DatasetStore = FakeStore()
        self.looks = FakeLooks()
        self.searcher = FakeSearcher()
        self.guard_skill: dict[str, float] = {}
        """Of each model on another benchmark than the night's own."""
        self.harness = "h"
        self.trains = "org/model"
        """The base model that the training job really takes."""
        self.evaluation_s: Callable[[str], float] = lambda run: 30
        """Seconds that the evaluation of this name takes."""
        self.tokens_per_s = 100.0
        """Of llama.cpp on an exported file."""
        self.flips = 0
        """Problems on which the repeated baseline differs."""

    @property
    def ports(self) -> Ports:
        return Ports(
            runner=self.runner,
            tracker=self.tracker,
            checker=self.checker,
            models=FakeStore(),
            datasets=self.datasets,
            clock=self.clock,
            firewall=self.firewall,
            searcher=self.searcher,
            looks=self.looks,
        )

    def behave(self, spec: JobSpec) -> Ending:
        special = self.endings(spec)
        if special is not None:
            return special
        if spec.kind == "generate":
            made = {"dataset": MADE, "prompts": 200, "samples": 800, "passed": 90, "rows": 120, "equal": 80,
                    "from_solutions": 60, "mean_reward": 0.11, "sha256": "0" * 64, "recipe": "/made/r"}  # fmt: skip
            return Ending(running_s=90, result=made)
        if spec.kind in ("export", "publish"):
            return Ending(running_s=20, result=self._exported(spec) if spec.kind == "export" else self._pushed(spec))
        if spec.kind in ("evaluate", "verify"):
            return Ending(running_s=self.evaluation_s(spec.run), result=self._score(spec))
        steps = 3 if spec.kind == "smoke" else 20 * (1 + spec.run.count("-x"))
        slope = -0.05 if self.falling else 0.0
        self.tracker.rows[spec.project, spec.run] = [
            MetricPoint(step=i, values={"train/loss": 2.0 + slope * i + 0.001 * (-1) ** i, "train/learning_rate": 1e-3})
            for i in range(1, steps + 1)
        ]
        model = spec.args[spec.args.index("--model") + 1]
        model = model if model.startswith(MERGED) else self.trains
        result = {
            "adapter": f"/models/{spec.run}",
            "stable_checkpoint": f"/models/{spec.run}/ck",
            "steps": steps,
            "base_model": model,
            "adapter_base_model": model,
            "base_fingerprint": "b",
            "weight_change": 0.1,
        }
        return Ending(running_s=60, result=result)

    def _exported(self, spec: JobSpec) -> dict[str, Any]:
        args = dict(zip(spec.args[::2], spec.args[1::2], strict=False))
        names = args.get("--quantize", "").split(",") if "--quantize" in args else []
        file = {"size_bytes": 100_000_000, "bits_per_weight": 6.2, "tokens_per_s": self.tokens_per_s}
        files = [{"name": f"m-{q}.gguf", "path": f"/m/{q}", "quantization": q, **file} for q in names]
        return {"merged": f"{MERGED}{args['--adapter'].rpartition('/')[2]}", "files": files}

    def _pushed(self, spec: JobSpec) -> dict[str, Any]:
        repo = spec.args[spec.args.index("--push") + 1]
        repos = [repo, *([f"{repo}-GGUF"] if "--gguf" in spec.args else [])]
        return {"pushed": {name: {"url": f"https://hub/{name}", "revision": "r", "private": True} for name in repos}}

    def _score(self, spec: JobSpec) -> dict[str, Any]:
        args = dict(zip(spec.args[::2], spec.args[1::2], strict=False))
        model = args["--model"] if args.get("--model", "").startswith(MERGED) else "baseline"
        source = args.get("--adapter") or args.get("--gguf") or model
        subject = source.removeprefix(MERGED).rpartition("/")[2]
        problems = args["--set"]
        skill = self.skill if args["--benchmark"] == "procedural_python" else self.guard_skill
        outcomes = fake_outcomes(N, skill[subject], salt=problems)
        if args["--seed"] != "0":  # the repeated baseline
            outcomes = {
                name: 1 - value if i < self.flips else value for i, (name, value) in enumerate(outcomes.items())
            }
        return {
            "benchmark": {"name": args["--benchmark"], "set": problems, "n": N},
            "metric": "pass@1",
            "value": sum(outcomes.values()) / N,
            "n": N,
            "outcomes": outcomes,
            "harness": f"{self.harness}-{args['--batch-size']}-{spec.kind}",
            "sandbox": "fake",
            "device": "cpu",
        }


class FakeMailbox:
    """Requests as a test makes them: `asks` is looked at again and again."""

    def __init__(self, *, stop: Callable[[], str | None] = lambda: None, asks: Callable[[], list[Request]] = list):
        self.stop_asked = stop
        self.take = asks

    def clear(self) -> None:
        pass


class KilledError(BaseException):
    """Stands for kill -9: nothing of the process runs after it."""


@contextmanager
def at_desk(path: Path, there: World, *, desk_class: type[Desk] = Desk, **plan: Any) -> Iterator[Desk]:
    """The desk of the project in this file; a new one has its plan confirmed."""
    with ledger.open_ledger(path, there.clock) as book:
        fresh = not book.events
        if fresh:
            book.append(PlanMade(plan=make_plan(**plan), versions={}))
        desk = desk_class(book, there.ports)
        if fresh:
            desk.append(PlanConfirmed(by="--yes"))
        yield desk


def work(desk: Desk, planner: Planner | None = None, **options: Any) -> State:
    """The night to its end."""
    return run_night(desk, planner or rule_planner(desk), on_tick=lambda state: None, **options)


def night(path: Path, there: World, **plan: Any) -> State:
    """A night, begun or resumed, to its end."""
    resumed = path.exists()
    with at_desk(path, there, **plan) as desk:
        return work(desk, resumed_by=1 if resumed else None)


def killed(path: Path, there: World, at: Callable[[Event], bool], **plan: Any) -> None:
    """A night of which nothing runs after the first event that `at` is true of."""

    def kill(event: Event) -> None:
        if at(event):
            raise KilledError

    with at_desk(path, there, **plan) as desk:
        desk.ledger.subscribe(kill)
        with pytest.raises(KilledError):
            work(desk)


def training(ending: Ending, *runs: str) -> Callable[[JobSpec], Ending | None]:
    """What `World.endings` may be: these training runs end so."""
    return lambda spec: ending if spec.kind == "train" and spec.run in runs else None


def configs(path: Path) -> dict[str, TrainConfig]:
    """The configuration of each training and smoke run, by name in order of launch."""
    facts = [event.fact for event in ledger.read(path)]
    return {f.run.name: f.run.train for f in facts if isinstance(f, JobIntended) and f.run.train is not None}


def ended(state: State) -> str:
    """How the night ended."""
    assert state.ended is not None
    return state.ended.state


def claimed(state: State) -> Claim:
    """What the night claims."""
    assert state.claim is not None
    return state.claim
