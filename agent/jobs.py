"""A run of the plan as a job: spec and arguments, one pure function each template."""

from datetime import datetime
from pathlib import Path

from hfagent.agent import data_rules, envelope, guards
from hfagent.agent.records import BenchmarkRef, EvalConfig, Export, JobSpec, Method, RunSpec, Score, TrainConfig
from hfagent.agent.state import State

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
TEMPLATES = {
    "train": "train_{method}.py",
    "smoke": "train_{method}.py",
    "generate": "make_data.py",
    "evaluate": "evaluate.py",
    "export": "export.py",
    "verify": "evaluate.py",
    "publish": "publish.py",
}


def job_spec(state: State, run: RunSpec, now: datetime) -> JobSpec:
    """The job of the run's next attempt."""
    plan = state.plan
    attempt = len(state.runs[run.name].attempts) + 1 if run.name in state.runs else 1
    make = {
        "generate": data_args, "evaluate": evaluate_args, "export": export_args, "verify": verify_args,
        "publish": publish_args,
    }  # fmt: skip
    args = make[run.kind](state, run) if run.kind in make else train_args(state, run, attempt)
    return JobSpec(
        key=f"{plan.label}-{run.name}-a{attempt}",
        project=plan.project,
        run=run.name,
        kind=run.kind,
        template=TEMPLATES[run.kind].format(method=plan.method),
        args=args,
        flavor=plan.flavor,
        timeout_s=envelope.job_timeout_s(state, run, now),
        price_micro_usd_per_hour=plan.price_micro_usd_per_hour,
    )


def tracker_run(run: RunSpec, attempt: int) -> str:
    """The run's name in Trackio: one for each attempt, since Trackio would mix rows of equal names."""
    return run.name if attempt == 1 else f"{run.name}-a{attempt}"


def train_args(state: State, run: RunSpec, attempt: int) -> tuple[str, ...]:
    """Arguments of a training template."""
    plan, train = state.plan, run.train or state.plan.train
    args = ["--model", _model_path(state)]
    if plan.model.revision:
        args += ["--revision", plan.model.revision]
    if plan.teacher is not None:
        args += ["--teacher", state.teacher_path or plan.teacher.id]
        args += ["--teacher-revision", plan.teacher.revision] if plan.teacher.revision else []
    args += ["--dataset", *_data_args(state, plan.method)]
    if train.method == "grpo":
        if train.reward_funcs is None and state.dataset is not None and (reward := data_rules.judges(state.dataset)):
            train = train.model_copy(update={"reward_funcs": reward})
        args += ["--unsafe-exec"] if plan.unsafe_exec else []
    args += hyperparameter_args(train)
    args += ["--project", plan.label, "--run-name", tracker_run(run, attempt)]
    checkpoint = run.resume_from
    if checkpoint is None and run.parent is not None:
        checkpoint = str(state.runs[run.parent].result["stable_checkpoint"])
    checkpoint = _left_behind(state, run) or checkpoint
    if checkpoint is not None:
        args += ["--resume-from-checkpoint", checkpoint]
    if run.kind == "smoke":
        args += ["--smoke"]
    return tuple(args)


def data_args(state: State, run: RunSpec) -> tuple[str, ...]:
    """Arguments of the template that makes training data: the embedded tasks, or the prompts of the plan's dataset."""
    plan = state.plan
    how = plan.generation
    if how is None:
        raise ValueError(f"the plan {plan.project!r} has no generation: no training data is made")
    args = ["--model", _model_path(state)]
    if plan.model.revision:
        args += ["--revision", plan.model.revision]
    args += ["--method", plan.method, "--prompts"]
    args += [plan.dataset.id] if plan.dataset.embedded else _data_args(state, "grpo")
    args += ["--n", str(min(how.n, plan.train.max_rows or how.n)), "--num-samples", str(how.num_samples)]
    args += ["--temperature", str(how.temperature), "--seed", str(plan.train.seed)]
    args += ["--batch-size", str(plan.evaluation.batch_size)]
    return (*args, *(["--unsafe-exec"] if plan.unsafe_exec else []))


def _data_args(state: State, method: Method) -> list[str]:
    data = state.data
    args = [data.id, "--split", data.split]
    if data.config:
        args += ["--config", data.config]
    if state.dataset and (mapping := state.dataset.methods[method].mapping):
        args += ["--mapping", mapping.model_dump_json(exclude_defaults=True)]
    return args


def _left_behind(state: State, run: RunSpec) -> str | None:
    """The newest checkpoint of the run's earlier jobs from before their last logged step.

    One at that step may be the end of the training, from which there is nothing left to train.
    """
    known = state.runs.get(run.name)
    if known is None or not known.points:
        return None
    for attempt in reversed(known.attempts):
        checkpoints = (attempt.result or {}).get("checkpoints")
        left = checkpoints if isinstance(checkpoints, dict) else {}
        steps = [int(step) for step in left if int(step) < known.points[-1].step]
        if steps:
            return str(left[str(max(steps))])
    return None


def hyperparameter_args(train: TrainConfig) -> list[str]:
    """Each field of the record as a flag of the same name."""
    args: list[str] = []
    for name, value in train.model_dump(exclude={"method"}, exclude_none=True).items():
        args += [f"--{name.replace('_', '-')}", str(value)]
    return args


def evaluate_args(state: State, run: RunSpec) -> tuple[str, ...]:
    """Arguments of the evaluation template."""
    plan = state.plan
    problems = guards.benchmark(plan, run)
    evaluation = guards.decoding(plan, run)
    if run.repeat:
        # Other batches, and other draws where answers are drawn: what moves then is no merit of a model.
        changes = {"batch_size": max(1, evaluation.batch_size // 2), "seed": evaluation.seed + 1}
        evaluation = evaluation.model_copy(update=changes)
    args = ["--model", _model_path(state)]
    if plan.model.revision:
        args += ["--revision", plan.model.revision]
    if run.subject is not None:
        args += ["--adapter", str(state.runs[run.subject].result["adapter"])]
    args += _problem_args(state, problems, evaluation)
    if run.subject is not None and run.set == "search" and evaluation.num_samples < len(DIGITS):
        # Once it cannot beat the best run of its length, the rest of the problems would tell nothing that counts.
        rung = state.rung(run.subject)
        best = state.scored(max(rung, key=lambda name: rung[name], default=None), "search")
        if best is not None:
            args += ["--reference", reference(best.score, evaluation.num_samples), "--futility-goal", "any_gain"]
    return tuple(args)


def _problem_args(state: State, problems: BenchmarkRef, evaluation: EvalConfig) -> list[str]:
    args = problem_args(problems)
    for name, value in evaluation.model_dump(exclude_none=True).items():
        args += [f"--{name.replace('_', '-')}", str(value)]
    return [*args, *(["--unsafe-exec"] if state.plan.unsafe_exec else [])]


def problem_args(problems: BenchmarkRef) -> list[str]:
    """What an evaluation asks."""
    args = ["--benchmark", problems.name, "--set", problems.set, "--benchmark-seed", str(problems.seed)]
    for name, value in (("file", problems.path), ("revision", problems.revision)):
        args += [] if value is None else [f"--benchmark-{name}", value]
    return args if problems.n is None else [*args, "--n", str(problems.n)]


def export_args(state: State, run: RunSpec) -> tuple[str, ...]:
    """Arguments of the export template."""
    plan, export = state.plan, run.export or Export()
    args = ["--model", _model_path(state)]
    if plan.model.revision:
        args += ["--revision", plan.model.revision]
    args += ["--adapter", str(state.runs[str(run.subject)].result["adapter"])]
    if export.quantize:
        args += ["--quantize", ",".join(export.quantize)]
    return (*args, "--name", plan.project if export.push is None else export.push.rpartition("/")[2])


def verify_args(state: State, run: RunSpec) -> tuple[str, ...]:
    """Arguments of the evaluation template for an exported file: what the model itself was asked."""
    model = str(state.runs[str(run.exported)].result["merged"])
    file = exported_files(state, run)[str(run.quantization)]
    return ("--model", model, "--gguf", file, *_problem_args(state, state.plan.confirm, state.plan.evaluation))


def publish_args(state: State, run: RunSpec) -> tuple[str, ...]:
    """Arguments of the publishing template."""
    export, files = run.export or Export(), exported_files(state, run)
    args = ["--model", str(state.runs[str(run.exported)].result["merged"]), "--push", str(export.push)]
    args += ["--card", str(card_path(state, run))]
    for name in export.quantize:
        args += ["--gguf", files[name]]
    if export.quantize:
        args += ["--gguf-card", str(card_path(state, run, gguf=True))]
    return (*args, *(["--public"] if export.public else []))


def exported_files(state: State, run: RunSpec) -> dict[str, str]:
    """Quantization -> path of the file, of the export that a run uses."""
    files = state.runs[str(run.exported)].result.get("files", ())
    return {str(file["quantization"]): str(file["path"]) for file in files}


def card_path(state: State, run: RunSpec, *, gguf: bool = False) -> Path:
    """Where the card of a push lies before its job is started."""
    name = f"{state.plan.label}-{run.name}{'-gguf' if gguf else ''}.md"
    return Path(state.plan.state_dir or ".hfagent") / "cards" / name


def reference(score: Score | None, num_samples: int) -> str:
    """The passes of each problem in the benchmark's order, one character a problem: a digit in base 36."""
    return "".join(DIGITS[round(share * num_samples)] for share in score.outcomes.values()) if score else ""


def _model_path(state: State) -> str:
    return state.model_path or state.plan.model.id
