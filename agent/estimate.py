"""How long a run takes and what it may cost: rough before anything ran, measured afterwards. Pure."""

import math
from typing import NamedTuple

from hfagent.agent.dataset_records import DatasetReport
from hfagent.agent.hardware import Gpu, gpus
from hfagent.agent.memory import KV_BYTES, WEIGHT_BYTES, checkpointed, depth_times_width
from hfagent.agent.records import (
    BenchmarkRef,
    Plan,
    ProblemSet,
    Record,
    RunSpec,
    TrainConfig,
)
from hfagent.agent.runs import Run
from hfagent.agent.state import State
from hfagent.agent.train_config import SAMPLING


class _Size(NamedTuple):
    """What an evaluation generates where the plan does not say it."""

    problems: int
    answer_tokens: int


START_S = 15.0
"""Start of a job script: imports and loading the model (8 to 15 s measured on 2 cores)."""
HF_START_S = 180.0
"""The same on Hugging Face Jobs, where the start of the container is billed, packages are installed and the model is
fetched (assumed; the pages say 30 to 90 s until the first log)."""
TRAIN_FLOP_PER_S = {"cpu": 2.0e11, "gpu": 3.0e13}
"""Sustained: 310 tokens/s of a 135M model on 2 cores with bf16 (measured); 30 % of a 24 GB card's peak (assumed)."""
EVAL_FLOP_PER_S = {"cpu": 6.0e10, "gpu": 3.0e12}
"""Sustained while generating; about 60 tokens an answer at batch 50 in 20 s for 200 problems (measured, cpu)."""
TRAIN_PEAK_SHARE = 0.3
"""Of a known GPU's peak that training sustains (assumed; 25 to 35 % is usual without fused kernels)."""
TOKEN_FLOP, TWICE_TOKEN_FLOP = 6, 8
"""Operations of a weight and token of training (Kaplan et al. 2020); with activations computed twice."""
REFERENCE_FLOP = 2
"""The same of a reference model, which computes forward alone: DPO and KTO have one, GRPO where it has a beta; and of
the teacher of a distillation."""
ROW_TEXTS = {"dpo": 2, "kto": 2}
"""Texts of a row, one elsewhere: a pair; KTO scores each prompt with another completion, too."""
GROUP = 8
"""Completions of a prompt where a GRPO plan does not say it: TRL's default."""
DECODE_STEP_S = 0.04
"""Of one token for a whole batch beside reading the memory: Python and the launch of each layer's kernels (assumed)."""
DECODE_BANDWIDTH_SHARE = 0.6
"""Of a GPU's peak bandwidth that generation sustains (assumed)."""
PROMPT_TOKENS = 200
"""Of an evaluation, on average; held beside the answer."""
BENCHMARK_SIZES = {
    "procedural_python": _Size(200, 60),
    "procedural_math": _Size(200, 90),
    "reasoning_gym": _Size(200, 256),
    "openai_humaneval": _Size(164, 512),
    "gsm8k": _Size(1319, 512),
    "mbpp": _Size(257, 512),
    "math_500": _Size(250, 1024),
    "ifeval": _Size(270, 1024),
}
"""Answers count at their limit: few models end all of a batch before; of the procedural ones the mean is measured."""
OTHER_BENCHMARK = _Size(500, 512)
EXPORT_S_PER_WEIGHT = 1.5e-7
"""Of the merged model or of a file; 5 to 20 s for 135 million weights on 2 cores (measured)."""
FILE_TOKENS_PER_S = 20.0
"""Of llama.cpp on a processor, where the export measured none."""
FILE_SLACK = 1.5
"""Prompts are read, too, and answers run: 2 to 4 minutes for 200 problems at 100 tokens/s (measured)."""
UPLOAD_BYTES_PER_S = 1e7
"""To the Hub; a guess."""
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
    each = (train.num_generations or GROUP) if train.method == "grpo" else 1
    per_epoch = math.ceil((rows - round(rows * train.eval_fraction)) * each / train.batch)
    return max(1, math.ceil(per_epoch * train.num_train_epochs))


def training_s(plan: Plan, train: TrainConfig, data: DataSize) -> float:
    """Seconds of a training job, by its tokens and weights, the teacher's too; with the time in which it writes its
    answers where it samples them."""
    steps = _steps(train, data)
    flop = _token_flop(plan, train) * _parameters(plan)
    if plan.teacher is not None:
        flop += REFERENCE_FLOP * (plan.teacher.parameters or DEFAULT_PARAMETERS)
    training = steps * _step_tokens(train, data) * flop / _train_flop_per_s(plan)
    if train.method not in SAMPLING:
        return start_s(plan) + training
    answer = train.max_completion_length or OTHER_BENCHMARK.answer_tokens
    return start_s(plan) + training + steps * _generation_s(plan, train.batch, answer, batch=train.batch)


def making_s(plan: Plan) -> float:
    """Seconds of the job by which a model makes its own training data."""
    how = plan.generation
    rows = 0 if how is None else min(how.n, plan.train.max_rows or how.n) * how.num_samples
    size = BENCHMARK_SIZES["procedural_python"] if plan.dataset.embedded else OTHER_BENCHMARK
    return start_s(plan) + _generation_s(plan, rows, size.answer_tokens, batch=plan.evaluation.batch_size)


def makes_data(plan: Plan) -> bool:
    """Whether the model makes its own training data, as far as that is known before the dataset is read."""
    return plan.dataset.embedded and plan.method in ("dpo", "kto")


def evaluation_s(plan: Plan, problems: BenchmarkRef) -> float:
    """Seconds of an evaluation job."""
    size = BENCHMARK_SIZES.get(problems.name, OTHER_BENCHMARK)
    answer = min(size.answer_tokens, plan.evaluation.max_new_tokens or size.answer_tokens)
    rows = (problems.n or size.problems) * plan.decoding(problems.set).num_samples
    return start_s(plan) + _generation_s(plan, rows, answer, batch=plan.evaluation.batch_size)


def _generation_s(plan: Plan, rows: int, answer: int, *, batch: int) -> float:
    """Seconds in which so many answers are written. FLOPs of generating are 2 x weights x tokens; a known GPU reads all
    weights and the batch's keys and values for each token instead."""
    gpu, batch = _gpu(plan), max(1, min(batch, rows))
    if gpu is None:
        return 2 * _parameters(plan) * rows * answer / EVAL_FLOP_PER_S[_device(plan)]
    cache = KV_BYTES * batch * (PROMPT_TOKENS + answer / 2) * depth_times_width(_parameters(plan))
    read_s = (WEIGHT_BYTES * _parameters(plan) + cache) / (DECODE_BANDWIDTH_SHARE * gpu.bandwidth_gb_s * 1e9)
    return math.ceil(rows / batch) * answer * (DECODE_STEP_S + read_s)


def smoke_s(plan: Plan) -> float:
    """Seconds of the smoke run: its start, and a few steps."""
    return start_s(plan) + START_S


def start_s(plan: Plan) -> float:
    """Seconds until a job works."""
    return HF_START_S if plan.backend == "hf" else START_S


def run_s(state: State, spec: RunSpec) -> float:
    """Seconds of a run about to be launched, from the last run of its kind where there is one."""
    if spec.kind == "evaluate":
        if spec.guard is not None:
            return evaluation_s(state.plan, next(guard for guard in state.plan.guards if guard.name == spec.guard))
        return _evaluation_run_s(state, spec.set or "search")
    if spec.kind == "smoke":
        return smoke_s(state.plan)
    if spec.kind == "generate":
        return making_s(state.plan)
    if spec.kind == "verify":
        return file_s(state, str(spec.exported), str(spec.quantization))
    if spec.kind == "publish":
        return start_s(state.plan) + WEIGHT_BYTES * _parameters(state.plan) / UPLOAD_BYTES_PER_S
    if spec.kind == "export":
        files = 1 + len(spec.export.quantize if spec.export is not None else ())
        return start_s(state.plan) + EXPORT_S_PER_WEIGHT * _parameters(state.plan) * files
    data, train = data_size(state.dataset), spec.train or state.plan.train
    last = _last_whole([run for run in state.runs.values() if run.spec.kind == spec.kind])
    expected = training_s(state.plan, train, data)
    if last is None or last.last.running_s is None:
        return _by_smoke(state, train, data) or expected
    return last.last.running_s * expected / training_s(state.plan, last.spec.train or state.plan.train, data)


def file_s(state: State, exported: str, quantization: str) -> float:
    """Seconds of an evaluation of an exported file: llama.cpp answers one prompt after the other."""
    plan, files = state.plan, state.runs[exported].result.get("files", ())
    speeds = {file["quantization"]: file.get("tokens_per_s") for file in files}
    size = BENCHMARK_SIZES.get(plan.confirm.name, OTHER_BENCHMARK)
    answer = min(size.answer_tokens, plan.evaluation.max_new_tokens or size.answer_tokens)
    tokens = (plan.confirm.n or size.problems) * plan.evaluation.num_samples * answer
    return start_s(plan) + FILE_SLACK * tokens / float(speeds.get(quantization) or FILE_TOKENS_PER_S)


def _by_smoke(state: State, train: TrainConfig, data: DataSize) -> float | None:
    """A training run at the speed that the smoke run measured; None where it measured none.

    Where the lengths of the rows are known, a step counts by its tokens: the smoke run's few rows may be short ones.
    """
    run = state.runs.get("smoke")
    if run is None or not run.done or run.last.running_s is None:
        return None
    steps, seconds = float(run.result.get("steps") or 0), float(run.result.get("seconds") or 0)
    if not steps or not seconds:
        return None
    before = run.spec.train or state.plan.train
    step_s = float(run.result.get("step_s") or seconds / steps)
    share = train.batch * train.max_length / (before.batch * before.max_length)
    if train.method == "sft" and data.mean_tokens is not None and (tokens := run.result.get("tokens")):
        share = _step_tokens(train, data) / (tokens / steps)
    return max(0.0, run.last.running_s - seconds) + _steps(train, data) * step_s * share


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
    """Seconds that all takes that a plan allows for, its limits aside."""
    beside = _trials_s(plan, data) * (1 - 1 / min(plan.max_jobs, plan.max_trials))
    return work_s(plan, data) - beside


def work_s(plan: Plan, data: DataSize) -> float:
    """Seconds of all jobs that a plan allows for: smoke, baseline and its repeat, every set of hyperparameters, one
    extension, the confirmation, and the guards."""
    search, confirm = evaluation_s(plan, plan.search), evaluation_s(plan, plan.confirm)
    made = making_s(plan) if makes_data(plan) else 0.0
    guards = sum(evaluation_s(plan, guard) for guard in plan.guards)
    return made + smoke_s(plan) + 2 * search + _trials_s(plan, data) + 2 * confirm + 2 * guards


def _trials_s(plan: Plan, data: DataSize) -> float:
    runs = plan.max_trials + (1 if plan.max_extensions else 0)
    return runs * (training_s(plan, plan.train, data) + evaluation_s(plan, plan.search))


def cost_micro_usd(plan: Plan, seconds: float) -> int:
    """What so many seconds cost on the plan's flavor, rounded up."""
    return math.ceil(plan.price_micro_usd_per_hour * seconds / 3600)


def _last_whole(runs: list[Run]) -> Run | None:
    """The last of these runs that did all of its work: a part tells nothing of the whole."""
    whole = [run for run in runs if run.done and run.spec.resume_from is None and run.spec.parent is None]
    return next((run for run in reversed(whole) if run.score is None or run.score.complete), None)


def _steps(train: TrainConfig, data: DataSize) -> int:
    return total_steps(train, int(min(data.rows or train.max_rows or DEFAULT_ROWS, train.max_rows or math.inf)))


def _step_tokens(train: TrainConfig, data: DataSize) -> float:
    mean = data.mean_tokens or train.max_length * MEAN_LENGTH_SHARE
    if train.method in SAMPLING:  # the dataset has the prompts alone
        mean = PROMPT_TOKENS + (train.max_completion_length or OTHER_BENCHMARK.answer_tokens)
    return train.batch * ROW_TEXTS.get(train.method, 1) * min(mean, train.max_length)


def _token_flop(plan: Plan, train: TrainConfig) -> int:
    twice = _gpu(plan) is not None and checkpointed(_parameters(plan), train.method)
    reference = train.method in ("dpo", "kto") or (train.method == "grpo" and bool(train.beta))
    return (TWICE_TOKEN_FLOP if twice else TOKEN_FLOP) + (REFERENCE_FLOP if reference else 0)


def _train_flop_per_s(plan: Plan) -> float:
    gpu = _gpu(plan)
    return TRAIN_FLOP_PER_S[_device(plan)] if gpu is None else TRAIN_PEAK_SHARE * gpu.tflops * 1e12


def _gpu(plan: Plan) -> Gpu | None:
    """The speeds of the plan's flavor; None where it is local, a processor, or a model that nobody measured."""
    return None if plan.accelerator is None else gpus().get(plan.accelerator)


def _parameters(plan: Plan) -> int:
    return plan.model.parameters or DEFAULT_PARAMETERS


def _device(plan: Plan) -> str:
    return "gpu" if plan.gpu else "cpu"
