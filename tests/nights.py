"""Ledgers of whole nights, fact by fact, with fixed times: for tests of whatever reads a ledger or a state."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from hfagent.agent.dataset_records import ColumnMapping, DatasetReport, MethodCheck
from hfagent.agent.events import (
    Claimed,
    Compared,
    ContaminationChecked,
    DataPrepared,
    DatasetChecked,
    Decided,
    Event,
    Fact,
    JobEnded,
    JobIntended,
    JobStarted,
    JobSubmitted,
    LookTaken,
    MetricsLogged,
    ModelPrepared,
    NoiseMeasured,
    PlanConfirmed,
    PlanMade,
    ProjectEnded,
    Refused,
    Resumed,
    Scored,
)
from hfagent.agent.folding import fold
from hfagent.agent.integrity import ContaminationReport
from hfagent.agent.planner_facts import PlannerWoke
from hfagent.agent.records import (
    Action,
    BenchmarkRef,
    Claim,
    DatasetRef,
    Decision,
    EvalConfig,
    JobSpec,
    JobStage,
    MetricPoint,
    ModelRef,
    Plan,
    Refusal,
    RunSpec,
    Score,
    TrainConfig,
)
from hfagent.agent.state import State
from hfagent.agent.verdict import Verdict, compare

START = datetime(2026, 3, 2, 21, 30, tzinfo=UTC)
N = 200
"""Problems of either set."""
BASE, FIRST, EXTENDED = 19, 107, 136
"""Problems solved on the search set by the base model, the first run and its extension."""

PLAN = Plan(
    project="improve-code-sft",
    goal="Improve code solving abilities with SFT",
    task_area="code",
    method="sft",
    model=ModelRef(id="embedded:SmolLM2-135M-Instruct", parameters=134_515_008),
    dataset=DatasetRef(id="embedded:procedural-python"),
    search=BenchmarkRef(name="procedural_python", set="search", n=N, seed=0),
    confirm=BenchmarkRef(name="procedural_python", set="confirm", n=N, seed=0),
    train=TrainConfig(learning_rate=1e-3, max_length=256, max_rows=168),
    evaluation=EvalConfig(max_new_tokens=256, batch_size=50),
    backend="local",
    flavor="local",
    price_micro_usd_per_hour=0,
    max_hours=8,
    notes=("There is no network, so the embedded model and data replace Qwen/Qwen3-0.6B and open-r1/codeforces-cots.",),
)


CONTAMINATION = ContaminationReport(
    dataset="embedded:procedural-python",
    rows=168,
    problems=2 * N,
    benchmarks=("procedural_python/search", "procedural_python/confirm"),
    hits=(),
    hit_counts={},
    flagged=(),
    verdict="clean",
    ignored={"ngram": 3},
)


class Night:
    """Facts appended one after the other; time passes by `wait`."""

    def __init__(self, plan: Plan = PLAN) -> None:
        self.plan = plan
        self.events: list[Event] = []
        self.at = START

    def wait(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)

    def add(self, fact: Fact) -> None:
        self.events.append(Event(seq=len(self.events) + 1, at=self.at, fact=fact))

    def prepare(self) -> None:
        """From the plan to the dataset check."""
        self.add(PlanMade(plan=self.plan, versions={"hfagent": "0.1.0", "trl": "1.16.0", "transformers": "5.23.0"}))
        self.add(PlanConfirmed(by="--yes"))
        self.wait(9)
        teacher = None if self.plan.teacher is None else self.plan.teacher.id
        self.add(ModelPrepared(path="models/SmolLM2-135M-Instruct", teacher=teacher))
        self.add(DataPrepared(path="data/procedural-python.jsonl"))
        self.wait(2)
        self.add(DatasetChecked(report=DATASET))
        self.add(ContaminationChecked(report=CONTAMINATION))
        self.add(PlannerWoke(planner="rules", calls=2, input_tokens=None, output_tokens=None))

    def begin(self, run: RunSpec, *, attempt: int = 1) -> str:
        """Intent, submission and start of a job; its key."""
        key = f"{self.plan.project}-{run.name}-a{attempt}"
        job = JobSpec(
            key=key,
            project=self.plan.project,
            run=run.name,
            kind=run.kind,
            template="evaluate.py" if run.kind == "evaluate" else "train_sft.py",
            args=(),
            flavor=self.plan.flavor,
            timeout_s=900,
            price_micro_usd_per_hour=self.plan.price_micro_usd_per_hour,
        )
        self.add(JobIntended(run=run, job=job))
        self.add(JobSubmitted(key=key, job_id=f"local-{key}", url=f"file:///jobs/{key}/log.txt"))
        self.wait(1)
        self.add(JobStarted(key=key, started_at=self.at))
        return key

    def end(
        self,
        key: str,
        *,
        seconds: float,
        stage: JobStage = "COMPLETED",
        exit_code: int = 0,
        message: str | None = None,
        result: Mapping[str, Any] | None = None,
    ) -> None:
        """The job's end, `seconds` after its start; metrics in between are the caller's."""
        self.add(
            JobEnded(
                key=key,
                stage=stage,
                finished_at=self.at,
                running_s=seconds,
                cost_micro_usd=math.ceil(self.plan.price_micro_usd_per_hour * seconds / 3600),
                exit_code=exit_code,
                message=message,
                result=None if result is None else dict(result),
            )
        )

    def train(self, run: RunSpec, *, first_step: int, last_step: int, seconds: float, eval_loss: float) -> None:
        """A training run that completes."""
        key = self.begin(run)
        half = (first_step + last_step) // 2
        for low, high in ((first_step, half), (half + 1, last_step)):
            self.wait(seconds / 2)
            self.add(MetricsLogged(run=run.name, points=tuple(_loss_point(step) for step in range(low, high + 1))))
        self.add(MetricsLogged(run=run.name, points=(MetricPoint(step=last_step, values={"eval/loss": eval_loss}),)))
        self.end(
            key, seconds=seconds, result=_train_result(run, last_step=last_step, seconds=seconds, eval_loss=eval_loss)
        )

    def evaluate(self, run: RunSpec, solved: int, *, attempt: int = 1) -> Score:
        """An evaluation that completes."""
        key = self.begin(run, attempt=attempt)
        self.wait(25)
        score = score_of(self.plan.search if run.set == "search" else self.plan.confirm, solved)
        result = {**score.model_dump(mode="json"), "device": "cpu", "dtype": "bfloat16", "seconds": 24.1}
        self.end(key, seconds=25, result=result)
        self.add(Scored(run=run.name, score=score))
        return score

    def compare(self, candidate: str, scores: tuple[Score, Score], *, reference: str | None = None) -> Verdict:
        """A verdict from the scores of the reference and of the candidate."""
        base, ours = scores
        verdict = compare(base.outcomes, ours.outcomes)
        self.add(Compared(candidate=candidate, reference=reference, set=ours.benchmark.set, verdict=verdict))
        return verdict

    def decide(self, action: Action, run: str, rule: str, reason: str, **numbers: float) -> None:
        """A decision about a run."""
        decision = Decision(action=action, run=run, rule=rule, reason=reason, numbers=numbers)
        self.add(Decided(about=run, decision=decision))
        self.add(PlannerWoke(planner="rules", calls=3, input_tokens=None, output_tokens=None))


DATASET = DatasetReport(
    dataset="embedded:procedural-python",
    rows=168,
    columns={"prompt": "string", "completion": "string"},
    methods={
        "sft": MethodCheck(
            verdict="NEEDS_MAPPING",
            reason="prompt and completion are plain text; an instruct model trains on chat turns",
            mapping=ColumnMapping(
                columns={"prompt": ("prompt",), "completion": ("completion",)},
                turns={"prompt": "user", "completion": "assistant"},
            ),
            warnings=("2 of 168 rows are exact repeats",),
        ),
        "dpo": MethodCheck(verdict="INCOMPATIBLE", reason="no pair of columns such as chosen | rejected"),
        "grpo": MethodCheck(verdict="READY", reason="prompt is there; a reward must be given"),
        "kto": MethodCheck(verdict="INCOMPATIBLE", reason="no label column"),
    },
    sampled=168,
    duplicates=2,
    token_lengths={"p50": 82, "p95": 118, "max": 140},
)


def score_of(benchmark: BenchmarkRef, solved: int) -> Score:
    """A score with one sample a problem; a model that solves more also loses some of what a lesser one solves."""
    passed = range(solved // 10, solved // 10 + solved)
    outcomes = {f"{benchmark.set}-{number:03d}": float(number in passed) for number in range(N)}
    failed = N - solved
    return Score(
        benchmark=benchmark,
        metric="pass@1",
        value=solved / N,
        n=N,
        outcomes=outcomes,
        harness="5b1f0c9a7d3e2468",
        sandbox="unshare+rlimits",
        errors={"assertion": failed - failed // 4, "exception": failed // 4 - 1, "timeout": 1},
    )


def finished_night() -> list[Event]:
    """A local night to its end: a lost job, a resume, an extension, two evaluations on the confirm set."""
    night = Night()
    night.prepare()
    smoke = RunSpec(
        name="smoke",
        kind="smoke",
        why="a configuration that cannot start must not reach the long run",
        train=PLAN.train,
    )
    night.end(
        night.begin(smoke), seconds=18, result={"device": "cpu", "dtype": "bfloat16", "steps": 3, "train_loss": 1.61}
    )
    night.wait(18)
    base = night.evaluate(
        RunSpec(name="baseline", kind="evaluate", why="the baseline: every gain is measured against it", set="search"),
        BASE,
    )
    first = RunSpec(
        name="sft-01", kind="train", why="first sft run with the recipe's hyperparameters", train=PLAN.train
    )
    night.train(first, first_step=1, last_step=20, seconds=63, eval_loss=0.402)
    scored = _first_evaluation(night)
    verdict = night.compare("sft-01", (base, scored))
    night.decide(
        "extend", "sft-01", "extend-while-falling", "+44.0 points on 200 search problems, and the loss still falls",
        delta=verdict.delta, p_value=verdict.p_value, loss_slope_high=-0.31, forecast_gain=0.18,
    )  # fmt: skip
    extended = _extension(night, (base, scored))
    night.decide(
        "keep", "sft-01-x1", "keep-any-gain", "+58.5 points on 200 search problems; not extended: the loss is flat",
        delta=extended.delta, p_value=extended.p_value, loss_slope_high=0.02,
    )  # fmt: skip
    _confirmation(night)
    return night.events


def _first_evaluation(night: Night) -> Score:
    """The machine loses the first job; another process of hfagent goes on."""
    run = RunSpec(
        name="sft-01-eval",
        kind="evaluate",
        why="the score of sft-01 beside the baseline's",
        subject="sft-01",
        set="search",
    )
    key = night.begin(run)
    night.wait(7)
    night.add(Resumed(pid=4711))
    night.end(key, seconds=7, stage="ERROR", exit_code=137, message="killed by signal 9: out of memory?")
    night.add(Refused(refusal=Refusal(what="finish", why="sft-01-eval is open")))
    return night.evaluate(run, FIRST, attempt=2)


def _extension(night: Night, before: tuple[Score, Score]) -> Verdict:
    base, parent = before
    longer = PLAN.train.model_copy(update={"num_train_epochs": 2.0})
    run = RunSpec(name="sft-01-x1", kind="train", why="the loss still falls", parent="sft-01", train=longer)
    night.train(run, first_step=17, last_step=40, seconds=71, eval_loss=0.214)
    evaluation = RunSpec(
        name="sft-01-x1-eval",
        kind="evaluate",
        why="the score of sft-01-x1 beside the baseline's",
        subject="sft-01-x1",
        set="search",
    )
    scored = night.evaluate(evaluation, EXTENDED)
    verdict = night.compare("sft-01-x1", (base, scored))
    night.compare("sft-01-x1", (parent, scored), reference="sft-01")
    return verdict


def _confirmation(night: Night) -> None:
    night.add(NoiseMeasured(n=N, flips=3, delta=-0.005))
    base = night.evaluate(
        RunSpec(name="baseline-confirm", kind="evaluate", why="the base model on fresh problems", set="confirm"), 18
    )
    why = "sft-01-x1 on the same fresh problems: the one look that the headline rests on"
    run = RunSpec(name="sft-01-x1-confirm", kind="evaluate", why=why, subject="sft-01-x1", set="confirm")
    scored = night.evaluate(run, 131)
    night.add(LookTaken(run="sft-01-x1", look=1, alpha=0.0304))
    night.compare("sft-01-x1", (base, scored))
    claim = Claim(
        label="confirmed_better",
        reason="one-sided p = 1e-30 on the confirm set, below 0.0304 for look 1",
        gain=0.56,
        run="sft-01-x1",
        look=1,
        alpha=0.0304,
        tried=2,
        noise=-0.005,
    )
    night.add(Claimed(claim=claim))
    night.add(ProjectEnded(state="finished", reason="sft-01-x1 on the confirm set: better"))


def _loss_point(step: int) -> MetricPoint:
    """A loss that falls and flattens, with a wave in place of noise."""
    loss = 0.2 + 1.4 * math.exp(-step / 9) + 0.03 * math.sin(2.1 * step)
    return MetricPoint(step=step, values={"train/loss": round(loss, 4), "train/grad_norm": 0.8})


def _train_result(run: RunSpec, *, last_step: int, seconds: float, eval_loss: float) -> dict[str, Any]:
    train = run.train or PLAN.train
    # The job rounds warm-up to what its scheduler took: the one value that differs from what was asked for.
    launched = {**train.model_dump(), "warmup_steps": 3, "max_steps": last_step}
    return {
        "adapter": f"jobs/{PLAN.project}-{run.name}-a1/output/adapter",
        "checkpoint": f"jobs/{PLAN.project}-{run.name}-a1/output/checkpoint-{last_step}",
        "stable_checkpoint": f"jobs/{PLAN.project}-{run.name}-a1/output/checkpoint-{last_step * 4 // 5}",
        "steps": last_step,
        "epochs": train.num_train_epochs,
        "train_loss": 0.512,
        "eval_loss": eval_loss,
        "rows": 160,
        "eval_rows": 8,
        "tokens": 840 * last_step,
        "seconds": seconds,
        "tokens_per_s": round(840 * last_step / seconds, 1),
        "device": "cpu",
        "dtype": "bfloat16",
        "hardware": "CPU AVX512 bf16",
        "launched": launched,
        "trackio_project": PLAN.project,
        "trackio_run": run.name,
    }


def state_of(events: list[Event]) -> State:
    """The state after these events."""
    state = fold(events)
    assert state is not None
    return state
