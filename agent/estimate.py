"""How long a run takes and what it may cost: rough before anything ran, measured afterwards. Pure."""

import math
from typing import NamedTuple

from hfagent.agent.records import BenchmarkRef, DatasetReport, Plan, ProblemSet, Record, RunSpec, TrainConfig
from hfagent.agent.runs import Run
from hfagent.agent.state import State


class _Size(NamedTuple):
    """What an evaluation generates where the plan does not say it."""

    problems: int
    answer_tokens: int


START_S = 15.0
"""Start of a job script: imports and loading the model (8 to 15 s measured on 2 cores)."""
TRAIN_FLOP_PER_S = {"cpu": 2.0e11, "gpu": 3.0e13}
"""Sustained: 310 tokens/s of a 135M model on 2 cores with bf16 (measured); 30 % of a 24 GB card's peak (assumed)."""
EVAL_FLOP_PER_S = {"cpu": 6.0e10, "gpu": 3.0e12}
"""Sustained while generating; about 60 tokens an answer at batch 50 in 20 s for 200 problems (measured, cpu)."""
BENCHMARK_SIZES = {"procedural_python": _Size(200, 60), "openai_humaneval": _Size(164, 512)}
"""Answers to HumanEval count at their limit: few models end all of a batch before."""
OTHER_BENCHMARK = _Size(500, 512)
MEAN_LENGTH_SHARE = 0.4
"""Mean row length as a share of `max_length`, where nothing is known of the rows."""
DEFAULT_PARAMETERS = 600_000_000
DEFAULT_ROWS = 10_000
MIN_TIMEOUT_S = 900


class DataSize(Record):
    """How much there is to train on; None while unknown."""

    rows: int | None = None
    mean_tokens: float | None = None
    """Of a row, not cut."""


def data_size(report: DatasetReport | None) -> DataSize:
    """What the dataset check found."""
    if report is None:
        return DataSize()
    lengths = report.token_lengths
    return DataSize(rows=report.rows, mean_tokens=lengths["p50"] if lengths else None)


def total_steps(train: TrainConfig, rows: int) -> int:
    """Optimizer steps of a run over `rows` training rows."""
    if train.max_steps is not None:
        return train.max_steps
    batch = train.per_device_train_batch_size * train.gradient_accumulation_steps
    per_epoch = math.ceil((rows - round(rows * train.eval_fraction)) / batch)
    return max(1, math.ceil(per_epoch * train.num_train_epochs))


def training_s(plan: Plan, train: TrainConfig, data: DataSize) -> float:
    """Seconds of a training job. FLOPs of training are 6 x weights x tokens (Kaplan et al. 2020)."""
    rows = min(data.rows or train.max_rows or DEFAULT_ROWS, train.max_rows or math.inf)
    batch = train.per_device_train_batch_size * train.gradient_accumulation_steps
    length = min(data.mean_tokens or train.max_length * MEAN_LENGTH_SHARE, train.max_length)
    tokens = total_steps(train, int(rows)) * batch * length
    return START_S + 6 * _parameters(plan) * tokens / TRAIN_FLOP_PER_S[_device(plan)]


def evaluation_s(plan: Plan, problems: BenchmarkRef) -> float:
    """Seconds of an evaluation job. FLOPs of generating are 2 x weights x tokens."""
    size = BENCHMARK_SIZES.get(problems.name, OTHER_BENCHMARK)
    answer = min(size.answer_tokens, plan.evaluation.max_new_tokens or size.answer_tokens)
    tokens = (problems.n or size.problems) * plan.decoding(problems.set).num_samples * answer
    return START_S + 2 * _parameters(plan) * tokens / EVAL_FLOP_PER_S[_device(plan)]


def run_s(state: State, spec: RunSpec) -> float:
    """Seconds of a run about to be launched, from the last run of its kind where there is one."""
    if spec.kind == "evaluate":
        return _evaluation_run_s(state, spec.set or "search")
    if spec.kind == "smoke":
        return START_S * 2
    data, train = data_size(state.dataset), spec.train or state.plan.train
    last = _last_whole([run for run in state.runs.values() if run.spec.kind == spec.kind])
    expected = training_s(state.plan, train, data)
    if last is None or last.last.running_s is None:
        return expected
    return last.last.running_s * expected / training_s(state.plan, last.spec.train or state.plan.train, data)


def _evaluation_run_s(state: State, problems: ProblemSet) -> float:
    """From the last evaluation on these problems, else from the last one on the others, by the work that there is."""
    sets: dict[ProblemSet, BenchmarkRef] = {"search": state.plan.search, "confirm": state.plan.confirm}
    other: ProblemSet = "confirm" if problems == "search" else "search"
    expected = evaluation_s(state.plan, sets[problems])
    for name in (problems, other):
        last = _last_whole([run for run in state.runs.values() if run.spec.set == name and not run.spec.repeat])
        if last is not None and last.last.running_s is not None:
            return last.last.running_s * expected / evaluation_s(state.plan, sets[name])
    return expected


def timeout_s(estimated_s: float) -> int:
    """A job's timeout: three times the estimate plus ten minutes, in whole minutes, never under 15 minutes."""
    return max(MIN_TIMEOUT_S, math.ceil((3 * estimated_s + 600) / 60) * 60)


def night_s(plan: Plan, data: DataSize) -> float:
    """Seconds of all that a plan allows for, its limits aside: smoke, baseline and its repeat, every set of
    hyperparameters, one extension, and the confirmation."""
    train = training_s(plan, plan.train, data)
    search, confirm = evaluation_s(plan, plan.search), evaluation_s(plan, plan.confirm)
    runs = plan.max_trials + (1 if plan.max_extensions else 0)
    return START_S * 2 + 2 * search + runs * (train + search) + 2 * confirm


def cost_micro_usd(plan: Plan, seconds: float) -> int:
    """What so many seconds cost on the plan's flavor, rounded up."""
    return math.ceil(plan.price_micro_usd_per_hour * seconds / 3600)


def _last_whole(runs: list[Run]) -> Run | None:
    """The last of these runs that did all of its work: a part tells nothing of the whole."""
    whole = [run for run in runs if run.done and run.spec.resume_from is None and run.spec.parent is None]
    return next((run for run in reversed(whole) if run.score is None or run.score.complete), None)


def _parameters(plan: Plan) -> int:
    return plan.model.parameters or DEFAULT_PARAMETERS


def _device(plan: Plan) -> str:
    return "gpu" if plan.gpu else "cpu"
