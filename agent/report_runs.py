"""The report's section of a run: parameters, planned against launched, status, logs, evaluations. Pure."""

from collections.abc import Callable

from hfagent.agent import guards, jobs
from hfagent.agent import report_facts as facts
from hfagent.agent.lines import progress, steps_planned
from hfagent.agent.markdown import NONE, TBD, code, dollars, duration, link, prose, table, utc, value
from hfagent.agent.records import TrainConfig
from hfagent.agent.report_words import (
    STAGE_WORDS,
    base_model,
    dataset,
    decision_words,
    gain,
    heading,
    model_of,
    problems,
    score,
    teacher,
)
from hfagent.agent.runs import Attempt, Run
from hfagent.agent.state import State

TrackerUrl = Callable[[str, str], str]
"""Trackio's project and run -> the address, or the command, that shows the run's metrics."""

_CHECKS = ("first", "second", "third", "fourth", "fifth")
_SHOWN = frozenset(
    {
        "method", "max_length", "num_train_epochs", "max_steps", "per_device_train_batch_size",
        "gradient_accumulation_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "decay_fraction",
        "weight_decay", "lora_r", "lora_alpha", "lora_dropout", "max_rows", "eval_fraction", "logging_steps",
        "save_steps", "seed",
    }
)  # fmt: skip
"""Hyperparameters in rows that are worded; any other one gets a plain row."""
_TRAIN_RESULTS = (
    ("Steps", "steps"),
    ("Tokens", "tokens"),
    ("Tokens a second", "tokens_per_s"),
    ("Training loss", "train_loss"),
    ("Evaluation loss", "eval_loss"),
    ("Adapter", "adapter"),
    ("Last checkpoint", "checkpoint"),
    ("Checkpoint before the decay", "stable_checkpoint"),
)
"""What a training job reports: label, name in its result."""
_MADE_RESULTS = (
    ("Prompts", "prompts"),
    ("Answers", "samples"),
    ("Answers that pass", "passed"),
    ("Rows", "rows"),
    ("Rows from the dataset's own solutions", "from_solutions"),
    ("Prompts whose answers are worth the same", "equal"),
    ("Mean reward", "mean_reward"),
    ("Dataset", "dataset"),
    ("SHA-256", "sha256"),
    ("Recipe", "recipe"),
)
"""What a job reports that made training data."""


def section(state: State, run: Run, tracker_url: TrackerUrl) -> list[str]:
    """A run's whole section; short for smoke and evaluation runs."""
    lines = [f"## {prose(heading(run))}", "", f"Why: {prose(run.spec.why)}", ""]
    if run.spec.hypothesis is not None:
        lines += [f"Hypothesis: {prose(run.spec.hypothesis)}", ""]
    if run.spec.kind == "train":
        lines += ["### Training Parameters", "", *table(("Parameter", "Value"), _parameters(state, run)), ""]
        lines += ["### Planned against launched", "", *_deviations(state, run), ""]
    lines += ["### Run Status", "", *_status(state, run), "", "### Run Logs", "", *_logs(run), ""]
    if run.spec.kind in ("train", "smoke"):
        lines += ["### Trackio Logs", "", _tracker(state, run, tracker_url), ""]
    if run.spec.kind in ("train", "evaluate"):
        lines += ["### Run Evaluations", "", *_evaluations(state, run), ""]
    return lines[:-1]


# --- parameters ------------------------------------------------------------------------------------------------------


def _parameters(state: State, run: Run) -> list[list[str]]:
    plan, real = state.plan, facts.launched(run)
    asked = run.spec.train or plan.train
    train = {**asked.model_dump(), **real}
    batch, accumulation = train["per_device_train_batch_size"], train["gradient_accumulation_steps"]
    effective = value(batch * accumulation) if isinstance(batch, int) and isinstance(accumulation, int) else NONE
    rows = [
        ["Method", f"{asked.method.upper()} with LoRA"],
        ["Model", base_model(state)],
        *([] if plan.teacher is None else [["Teacher", str(teacher(state))]]),
        ["Dataset (split)", dataset(state)],
        ["Rows", _rows(run, asked)],
        ["Max Length", f"{value(train['max_length'])} tokens"],
        ["Epochs", _epochs(state, run, train["num_train_epochs"])],
        ["Steps", _steps(state, run)],
        ["Per-device batch size", value(batch)],
        ["Gradient accumulation", value(accumulation)],
        ["Effective batch size", effective],
        ["Learning rate", f"{value(train['learning_rate'])}, {code(str(train['lr_scheduler_type']))}"],
        ["Warm-up", f"{value(train['warmup_steps'])} steps"],
        ["Decay", f"last {100 * asked.decay_fraction:.3g} % of the steps"],
        ["Weight decay", value(train["weight_decay"])],
        [
            "LoRA r / alpha / dropout",
            f"{value(train['lora_r'])} / {value(train['lora_alpha'])} / {value(train['lora_dropout'])}",
        ],
        ["Log / save every", f"{value(train['logging_steps'])} / {value(train['save_steps'])} steps"],
        ["Seed", value(train["seed"])],
        ["Precision", _reported(run, "dtype")],
        ["Hardware", f"flavor {code(run.last.job.flavor)}, {_reported(run, 'hardware')}"],
        ["Trackio project / run", f"{code(plan.label)} / {code(_tracker_run(run))}"],
    ]
    others = {name: thing for name, thing in train.items() if name not in _SHOWN and thing is not None}
    return rows + [[prose(name), value(thing)] for name, thing in others.items()]


def _epochs(state: State, run: Run, epochs: object) -> str:
    extension = facts.extension_of(state, run.spec.name)
    asked = run.spec.train or state.plan.train
    words = value(epochs) if asked.max_steps is None else _length(asked)
    if run.spec.parent is not None and run.spec.parent in state.runs:
        before = state.runs[run.spec.parent].spec.train or state.plan.train
        words += f", {_length(before)} of them in {code(run.spec.parent)}"
    if extension is None or extension.spec.train is None:
        return words
    name, depth = run.spec.name, 0
    while (parent := state.runs[name].spec.parent) is not None and parent in state.runs:
        name, depth = parent, depth + 1
    check = _CHECKS[depth] if depth < len(_CHECKS) else f"check {depth + 1}"
    return f"{words}, extended to {_length(extension.spec.train)} after the {check} check"


def _length(train: TrainConfig) -> str:
    return value(train.num_train_epochs) if train.max_steps is None else f"{train.max_steps} steps"


def _rows(run: Run, asked: TrainConfig) -> str:
    if "rows" in run.result:
        return f"{_reported(run, 'rows')} to train on, {_reported(run, 'eval_rows')} held out"
    most = "all" if asked.max_rows is None else f"at most {asked.max_rows}"
    return f"{most}, {100 * asked.eval_fraction:.3g} % held out"


def _steps(state: State, run: Run) -> str:
    steps = run.result.get("steps")
    return value(steps if steps is not None else steps_planned(run, state) or TBD)


def _deviations(state: State, run: Run) -> list[str]:
    plan, asked, real = state.plan.train, run.spec.train or state.plan.train, facts.launched(run)
    found = facts.deviations(plan, asked, real)
    missing = "" if real else f"Launched values: {_missing(run)}."
    if not found:
        return ["As planned." if real else missing]
    rows = [
        [code(d.name), value(d.plan), value(d.asked), value(d.launched) if d.name in real else _missing(run)]
        for d in found
    ]
    return table(("Parameter", "Plan", "Asked for", "Launched"), rows)


# --- status and logs -------------------------------------------------------------------------------------------------


def _status(state: State, run: Run) -> list[str]:
    seconds = facts.running_s(run)
    took = _missing(run) if seconds is None else duration(seconds)
    rows = [
        *(_evaluated(state, run) if run.spec.kind == "evaluate" else []),
        ["Stage", STAGE_WORDS[run.last.stage]],
        ["Started", utc(facts.started(run))],
        ["Time", f"{took}, timeout {duration(run.last.job.timeout_s)}"],
        ["Cost", TBD if run.last.open else dollars(facts.cost_micro_usd(run))],
        ["Device", f"{_reported(run, 'device')}, {_reported(run, 'dtype')}"],
    ]
    if run.last.open and run.points:
        rows.append(["Progress", prose(progress(run, state))])
    due = run.spec.kind == "train"
    rows += [[label, _reported(run, name)] for label, name in _TRAIN_RESULTS if due or name in run.result]
    if run.spec.kind == "generate":
        rows += [[label, _reported(run, name)] for label, name in _MADE_RESULTS]
    measures = run.result.get("measures")
    for name, number in measures.items() if isinstance(measures, dict) else ():
        rows.append([prose(str(name)), value(number)])
    if due:
        rows.append(["Decision", decision_words(state, run.spec.name)])
    lines = table(("Status", "Value"), rows)
    if len(run.attempts) > 1 or run.last.message or run.last.cancel_why or run.last.exit_code:
        header = ("Attempt", "Stage", "Started", "Time", "Exit code", "Reason")
        lines += ["", *table(header, (_attempt_row(number, a) for number, a in enumerate(run.attempts, start=1)))]
    return lines


def _evaluated(state: State, run: Run) -> list[list[str]]:
    how = guards.decoding(state.plan, run.spec)
    answers = [
        f"{how.num_samples} a problem",
        f"temperature {value(how.temperature)}",
        "as many tokens as a problem needs" if how.max_new_tokens is None else f"up to {how.max_new_tokens} tokens",
        f"batch size {how.batch_size}",
        f"seed {how.seed}",
    ]
    return [
        ["Model", model_of(state, run.spec.subject)],
        ["Benchmark (set)", f"{problems(facts.benchmark(state, run))} ({facts.asked(run)})"],
        ["Answers", ", ".join(answers)],
    ]


def _attempt_row(number: int, attempt: Attempt) -> list[str]:
    reasons = [reason for reason in (attempt.cancel_why, attempt.message) if reason]
    return [
        str(number),
        STAGE_WORDS[attempt.stage],
        utc(attempt.started_at) if attempt.started_at or attempt.open else NONE,
        TBD if attempt.open else NONE if attempt.running_s is None else duration(attempt.running_s),
        TBD if attempt.open else NONE if attempt.exit_code is None else str(attempt.exit_code),
        prose("; ".join(reasons)) or NONE,
    ]


def _logs(run: Run) -> list[str]:
    lines = []
    for attempt in run.attempts:
        if attempt.job_id is None:
            lines.append(f"- {code(attempt.job.key)}: {TBD if attempt.open else 'never started'}")
            continue
        log = link(code(attempt.job_id), attempt.url or "")
        lines.append(f"- {log}, or {code(f'hfagent logs {attempt.job_id}')}")
    return lines


def _tracker(state: State, run: Run, tracker_url: TrackerUrl) -> str:
    name = _tracker_run(run)
    shown = tracker_url(state.plan.label, name)
    where = link("open the dashboard", shown) if shown.startswith(("http://", "https://")) else code(shown)
    return f"{where}, run {code(name)}"


def _tracker_run(run: Run) -> str:
    return jobs.tracker_run(run.spec, len(run.attempts))


# --- evaluations -----------------------------------------------------------------------------------------------------


def _evaluations(state: State, run: Run) -> list[str]:
    """The scores of a training run's model, or of one evaluation."""
    found = [run] if run.spec.kind == "evaluate" else facts.evaluations(state, run.spec.name)
    if not found:
        return [TBD if state.ended is None else "None: the project ended before."]
    header = (
        "Benchmark (set)",
        "Score (95 % interval)",
        "n",
        "vs baseline",
        "Failures, base → candidate",
        "Sandbox",
        "Harness",
    )
    return table(header, (_score_row(state, evaluation) for evaluation in found))


def _score_row(state: State, run: Run) -> list[str]:
    where = f"{code(facts.benchmark(state, run).name)} ({facts.asked(run)})"
    if run.score is None:
        return [where, score(run), NONE, gain(state, run), NONE, NONE, NONE]
    return [
        where,
        score(run),
        str(run.score.n),
        gain(state, run),
        _failures(state, run),
        code(run.score.sandbox),
        code(run.score.harness),
    ]


def _failures(state: State, run: Run) -> str:
    """Samples that failed, by kind; beside the base model's where there are both."""
    ours = run.score.errors if run.score is not None else {}
    base = facts.base_score(state, run) if run.spec.subject is not None else None
    if base is None:
        return ", ".join(f"{prose(kind)} {count}" for kind, count in sorted(ours.items())) or "none"
    kinds = sorted({*ours, *base.errors})
    return ", ".join(f"{prose(kind)} {base.errors.get(kind, 0)} → {ours.get(kind, 0)}" for kind in kinds) or "none"


# --- inside ----------------------------------------------------------------------------------------------------------


def _reported(run: Run, name: str) -> str:
    """A value out of the job's own report; names of files as code."""
    if name not in run.result:
        return _missing(run)
    thing = run.result[name]
    if thing is None:
        return NONE
    return code(thing) if isinstance(thing, str) else value(thing)


def _missing(run: Run) -> str:
    """A fact that the job may still report, or that will not come."""
    return TBD if run.last.open else NONE
