"""The report's section of a run: parameters, planned against launched, status, logs, evaluations. Pure."""

from collections.abc import Callable

from hfagent.agent import jobs
from hfagent.agent import report_facts as facts
from hfagent.agent.lines import progress, steps_planned
from hfagent.agent.markdown import NONE, TBD, code, dollars, duration, link, prose, table, utc, value
from hfagent.agent.report_words import (
    STAGE_WORDS,
    base_model,
    dataset,
    decision_words,
    gain,
    heading,
    problems,
    score,
)
from hfagent.agent.state import Attempt, Run, State

TrackerUrl = Callable[[str, str], str]
"""Project and run -> the address, or the command, that shows the run's metrics."""

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


def section(state: State, run: Run, tracker_url: TrackerUrl) -> list[str]:
    """A run's whole section; short for smoke and evaluation runs."""
    lines = [f"## {prose(heading(run))}", "", prose(run.spec.why), ""]
    if run.spec.kind == "train":
        lines += ["### Training Parameters", "", *table(("Parameter", "Value"), _parameters(state, run)), ""]
        lines += ["### Planned against launched", "", *_deviations(state, run), ""]
    elif run.spec.kind == "evaluate":
        lines += [
            "### Evaluation Parameters",
            "",
            *table(("Parameter", "Value"), _evaluation_parameters(state, run)),
            "",
        ]
    lines += ["### Run Status", "", *_status(state, run), "", "### Run Logs", "", *_logs(run), ""]
    if run.spec.kind in ("train", "smoke"):
        lines += ["### Trackio Logs", "", _tracker(state, run, tracker_url), ""]
    if run.spec.kind == "train":
        lines += ["### Run Evaluations", "", *_evaluations(state, run), ""]
    elif run.spec.kind == "evaluate":
        lines += ["### Result", "", *_scores(state, [run]), ""]
    return lines[:-1]


# --- parameters ------------------------------------------------------------------------------------------------------


def _parameters(state: State, run: Run) -> list[list[str]]:
    plan, real = state.plan, facts.launched(run)
    asked = run.spec.train or plan.train
    train = {**asked.model_dump(), **real}
    batch, accumulation = train["per_device_train_batch_size"], train["gradient_accumulation_steps"]
    effective = value(batch * accumulation) if isinstance(batch, int) and isinstance(accumulation, int) else NONE
    rows = [
        ["Method", f"{prose(str(train['method'])).upper()} with LoRA"],
        ["Model", base_model(state)],
        ["Dataset (split)", dataset(state)],
        ["Rows at most", "all" if train["max_rows"] is None else value(train["max_rows"])],
        ["Rows held out", f"{100 * asked.eval_fraction:.3g} %"],
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
        ["Timeout", duration(run.last.job.timeout_s)],
        ["Trackio project / run", f"{code(plan.project)} / {code(_tracker_run(run))}"],
    ]
    return rows + [[prose(name), value(thing)] for name, thing in train.items() if name not in _SHOWN]


def _epochs(state: State, run: Run, epochs: object) -> str:
    extension = facts.extension_of(state, run.spec.name)
    words = value(epochs)
    if run.spec.parent is not None and run.spec.parent in state.runs:
        before = state.runs[run.spec.parent].spec.train or state.plan.train
        words += f", {value(before.num_train_epochs)} of them in {code(run.spec.parent)}"
    if extension is None or extension.spec.train is None:
        return words
    name, depth = run.spec.name, 0
    while (parent := state.runs[name].spec.parent) is not None and parent in state.runs:
        name, depth = parent, depth + 1
    check = _CHECKS[depth] if depth < len(_CHECKS) else f"check {depth + 1}"
    return f"{words}, extended to {value(extension.spec.train.num_train_epochs)} after the {check} check"


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


def _evaluation_parameters(state: State, run: Run) -> list[list[str]]:
    evaluation = state.plan.evaluation
    subject = run.spec.subject
    return [
        ["Model", f"the base model, {base_model(state)}" if subject is None else f"adapter of {code(subject)}"],
        ["Benchmark (set)", f"{problems(facts.benchmark(state, run))} ({run.spec.set})"],
        ["Samples a problem", value(evaluation.num_samples)],
        ["Temperature", value(evaluation.temperature)],
        ["New tokens at most", value(evaluation.max_new_tokens)],
        ["Batch size", value(evaluation.batch_size)],
        ["Seed", value(evaluation.seed)],
        ["Timeout", duration(run.last.job.timeout_s)],
    ]


# --- status and logs -------------------------------------------------------------------------------------------------


def _status(state: State, run: Run) -> list[str]:
    seconds = facts.running_s(run)
    rows = [
        ["Stage", STAGE_WORDS[run.last.stage]],
        ["Started", utc(facts.started(run))],
        ["Time", duration(seconds) if seconds is not None else _missing(run)],
        ["Cost", dollars(facts.cost_micro_usd(run)) if not run.last.open else TBD],
        ["Device", f"{_reported(run, 'device')}, {_reported(run, 'dtype')}"],
    ]
    if run.last.open and run.points:
        rows.append(["Progress", prose(progress(run, state))])
    if run.spec.kind in ("train", "smoke"):
        rows += [[label, _reported(run, name)] for label, name in _TRAIN_RESULTS]
    if run.spec.kind == "train":
        rows.append(["Decision", decision_words(state, run.spec.name)])
    lines = table(("Status", "Value"), rows)
    if len(run.attempts) > 1 or run.last.message or run.last.cancel_why or run.last.exit_code:
        header = ("Attempt", "Stage", "Started", "Time", "Exit code", "Reason")
        lines += ["", *table(header, (_attempt_row(number, a) for number, a in enumerate(run.attempts, start=1)))]
    return lines


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
    shown = tracker_url(state.plan.project, name)
    where = link("open the dashboard", shown) if shown.startswith(("http://", "https://")) else code(shown)
    return f"{where}, run {code(name)}"


def _tracker_run(run: Run) -> str:
    return jobs.tracker_run(run.spec, len(run.attempts))


# --- evaluations -----------------------------------------------------------------------------------------------------


def _evaluations(state: State, run: Run) -> list[str]:
    found = facts.evaluations(state, run.spec.name)
    if not found:
        return [_missing(run) if state.ended is None else "None: the project ended before."]
    return _scores(state, found)


def _scores(state: State, found: list[Run]) -> list[str]:
    header = (
        "Benchmark (set)",
        "Score (95 % interval)",
        "n",
        "vs baseline",
        "Failures, base → candidate",
        "Sandbox",
        "Harness",
    )
    return table(header, (_score_row(state, run) for run in found))


def _score_row(state: State, run: Run) -> list[str]:
    where = f"{code(facts.benchmark(state, run).name)} ({run.spec.set})"
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
