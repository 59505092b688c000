"""How long a run takes and what it may cost: rough before anything ran, measured afterwards. Pure."""

import math

from hfagent.agent.records import BenchmarkRef, Plan, RunKind, RunSpec, TrainConfig
from hfagent.agent.state import State

START_S = 15.0
"""Start of a job script: imports and loading the model (8 to 15 s measured on 2 cores)."""
TRAIN_FLOP_PER_S = {"cpu": 2.0e11, "gpu": 3.0e13}
"""Sustained: 310 tokens/s of a 135M model on 2 cores with bf16 (measured); 30 % of a 24 GB card's peak (assumed)."""
EVAL_FLOP_PER_S = {"cpu": 6.0e10, "gpu": 3.0e12}
"""Sustained while generating; about 60 tokens an answer at batch 50 in 20 s for 200 problems (measured, cpu)."""
ANSWER_TOKENS = 60
MEAN_LENGTH_SHARE = 0.4
"""Mean row length as a share of `max_length`, until the dataset check has measured it."""
DEFAULT_PARAMETERS = 600_000_000
DEFAULT_ROWS = 10_000
DEFAULT_PROBLEMS = 200
MIN_TIMEOUT_S = 900


def total_steps(train: TrainConfig, rows: int) -> int:
    """Optimizer steps of a run over `rows` training rows."""
    if train.max_steps is not None:
        return train.max_steps
    batch = train.per_device_train_batch_size * train.gradient_accumulation_steps
    per_epoch = math.ceil((rows - round(rows * train.eval_fraction)) / batch)
    return max(1, math.ceil(per_epoch * train.num_train_epochs))


def training_s(plan: Plan, train: TrainConfig, *, rows: int | None, mean_tokens: float | None) -> float:
    """Seconds of a training job. FLOPs of training are 6 x weights x tokens (Kaplan et al. 2020)."""
    rows = min(rows or DEFAULT_ROWS, train.max_rows or DEFAULT_ROWS)
    batch = train.per_device_train_batch_size * train.gradient_accumulation_steps
    tokens = total_steps(train, rows) * batch * (mean_tokens or train.max_length * MEAN_LENGTH_SHARE)
    return START_S + 6 * _parameters(plan) * tokens / TRAIN_FLOP_PER_S[_device(plan)]


def evaluation_s(plan: Plan, problems: BenchmarkRef) -> float:
    """Seconds of an evaluation job. FLOPs of generating are 2 x weights x tokens."""
    tokens = (problems.n or DEFAULT_PROBLEMS) * plan.evaluation.num_samples * ANSWER_TOKENS
    return START_S + 2 * _parameters(plan) * tokens / EVAL_FLOP_PER_S[_device(plan)]


def run_s(state: State, spec: RunSpec) -> float:
    """Seconds of a run about to be launched, from the last run of its kind where there is one."""
    measured = _last_running_s(state, spec.kind)
    if spec.kind == "evaluate":
        problems = state.plan.search if spec.set == "search" else state.plan.confirm
        return measured or evaluation_s(state.plan, problems)
    if spec.kind == "smoke":
        return START_S * 2
    train = spec.train or state.plan.train
    if spec.parent is not None and measured is not None:
        before = state.runs[spec.parent].spec.train or train
        return measured * max(1.0, train.num_train_epochs / before.num_train_epochs)
    report = state.dataset
    mean = report.token_lengths["p50"] if report and report.token_lengths else None
    return measured or training_s(state.plan, train, rows=report.rows if report else None, mean_tokens=mean)


def timeout_s(estimated_s: float) -> int:
    """A job's timeout: three times the estimate plus ten minutes, in whole minutes, never under 15 minutes."""
    return max(MIN_TIMEOUT_S, math.ceil((3 * estimated_s + 600) / 60) * 60)


def night_s(plan: Plan) -> float:
    """Seconds of the whole plan with one extension: smoke, training, and five evaluations."""
    train = training_s(plan, plan.train, rows=None, mean_tokens=None)
    search, confirm = evaluation_s(plan, plan.search), evaluation_s(plan, plan.confirm)
    extension = train if plan.max_extensions else 0.0
    return START_S * 2 + train + extension + search * (3 if plan.max_extensions else 2) + 2 * confirm


def cost_micro_usd(plan: Plan, seconds: float) -> int:
    """What so many seconds cost on the plan's flavor, rounded up."""
    return math.ceil(plan.price_micro_usd_per_hour * seconds / 3600)


def _last_running_s(state: State, kind: RunKind) -> float | None:
    times = [run.last.running_s for run in state.runs.values() if run.spec.kind == kind and run.done]
    return times[-1] if times else None


def _parameters(plan: Plan) -> int:
    return plan.model.parameters or DEFAULT_PARAMETERS


def _device(plan: Plan) -> str:
    return "gpu" if plan.gpu else "cpu"
