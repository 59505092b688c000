"""The report's sections about the project as a whole: verdict, runs, what was used, dataset check, decisions. Pure."""

import json
from datetime import datetime

from hfagent.agent import policy
from hfagent.agent import report_facts as facts
from hfagent.agent.markdown import (
    NONE,
    TBD,
    anchor,
    code,
    dollars,
    duration,
    fenced,
    link,
    path,
    plain,
    prose,
    table,
    utc,
    value,
)
from hfagent.agent.report_words import (
    STAGE_WORDS,
    base_model,
    dataset,
    decision_words,
    gain,
    heading,
    model_of,
    points,
    problems,
    score,
)
from hfagent.agent.state import Comparison, Run, State, Taken
from hfagent.agent.summary import headline
from hfagent.agent.verdict import Verdict, sentence

TITLE_CHARACTERS = 80

_VERDICT_WORDS = {
    "better": "Better than the base model, confirmed on problems that no decision had used.",
    "no_detectable_difference": "No detectable difference from the base model on problems that no decision had used.",
    "worse": "Worse than the base model on problems that no decision had used: this model is not to be used.",
}


def title(state: State) -> list[str]:
    """The goal in short, and the project's state in one line."""
    lines = [f"# {prose(state.plan.goal, limit=TITLE_CHARACTERS)}", "", f"**State:** {_state(state)}"]
    if len(plain(state.plan.goal)) > TITLE_CHARACTERS:
        lines += ["", f"**Goal:** {prose(state.plan.goal, limit=4000)}"]
    return lines


def verdict(state: State) -> list[str]:
    """What a reader needs in the morning: the verdict, what it rests on, time, cost, and how to load the model."""
    return [f"> {_verdict(state)}", "", *table(("Fact", "Value"), _verdict_facts(state)), *_loading(state)]


def runs(state: State) -> list[str]:
    """One row a run, failed and discarded ones too."""
    header = ("Run", "Kind", "Benchmark (set)", "Score (95 % interval)", "n", "vs baseline", "Cost", "Time", "Decision")
    rows = [_run_row(state, run) for run in state.runs.values()]
    return ["## Runs", "", *(table(header, rows) if rows else ["No run was started yet."])]


def used(state: State) -> list[str]:
    """Model, data, problems and place, and the notes of the plan."""
    plan = state.plan
    items = [
        f"Base model: {base_model(state)}",
        f"Dataset: {dataset(state)}",
        f"Search set: {problems(plan.search)}; used freely, to choose",
        f"Confirm set: {problems(plan.confirm)}; for the kept run alone, to claim",
        f"Jobs: {code(plan.backend)}, flavor {code(plan.flavor)}, {dollars(plan.price_micro_usd_per_hour)} an hour",
        *(prose(note) for note in plan.notes),
    ]
    if state.versions:
        items.append("Packages: " + ", ".join(prose(f"{name} {v}") for name, v in sorted(state.versions.items())))
    return ["## What this run used", "", *(f"- {item}" for item in items)]


def dataset_check(state: State) -> list[str]:
    """What the dataset check found, and the mapping where one was applied."""
    lines = ["## Dataset check", ""]
    report = state.dataset
    if report is None:
        return [*lines, TBD]
    rows = [(name.upper(), check.verdict, prose(check.reason)) for name, check in report.methods.items()]
    lines += [_dataset_counts(state), "", *table(("Method", "Verdict", "Reason"), rows)]
    check = report.methods.get(state.plan.method)
    if check is None:
        return lines
    if check.warnings:
        lines += ["", *(f"- Warning: {prose(warning)}" for warning in check.warnings)]
    if check.mapping is not None:
        mapping = check.mapping.model_dump(mode="json", exclude_defaults=True)
        text = json.dumps(mapping, indent=2, ensure_ascii=False)
        lines += [
            "",
            f"Rows are rewritten for {state.plan.method.upper()} by this mapping:",
            "",
            *fenced(text, language="json"),
        ]
    return lines


def decision_log(state: State) -> list[str]:
    """Verdicts and decisions in order of time; then what policy refused, and what interrupted the night."""
    rows: list[tuple[datetime, list[str]]] = [(item.at, _compared_row(item)) for item in state.comparisons]
    rows += [(taken.at, _decided_row(taken)) for taken in state.decisions]
    if state.ended is not None and state.ended_at is not None:
        rows.append((state.ended_at, [state.ended.state, NONE, NONE, prose(state.ended.reason), NONE]))
    rows.sort(key=lambda row: row[0])
    lines = ["## Decision log", ""]
    header = ("Time", "Action", "Run", "Rule", "Reason", "Numbers")
    lines += table(header, ([utc(at), *cells] for at, cells in rows)) if rows else ["Nothing was decided yet."]
    if state.refusals:
        refused = ((prose(fact.refusal.what), prose(fact.refusal.why)) for fact in state.refusals)
        lines += ["", "Refused by policy:", "", *table(("Proposed", "Why not"), refused)]
    if state.resumes:
        lines += ["", f"The project was taken over by a new hfagent process {_times(state.resumes)}."]
    if state.crash is not None:
        lines += ["", f"hfagent crashed: {prose(state.crash)}"]
    return lines


def experiment_evaluations(state: State) -> list[str]:
    """The closing table: every evaluation with its job and its model, the base model first."""
    done = [run for run in state.runs.values() if run.spec.kind == "evaluate"]
    done.sort(key=lambda run: run.spec.subject is not None)
    rows = [_evaluation_row(state, run) for run in done]
    if not any(run.spec.subject is None for run in done):
        rows.insert(0, ["Base model", f"{problems(state.plan.search)} (search)", TBD, TBD, base_model(state)])
    header = ("Run Title", "Benchmark", "Score", "Evaluation Job Link", "Model Link")
    return ["## Experiment Evaluations", "", *table(header, rows)]


# --- inside ----------------------------------------------------------------------------------------------------------


def _state(state: State) -> str:
    if state.ended is not None:
        return f"{state.ended.state}: {prose(state.ended.reason)}"
    resume = code(f"hfagent resume {state.plan.project}")
    as_of = f"as of {utc(state.updated_at)}"
    if state.crash is not None:
        return f"crashed {as_of}: {prose(state.crash)}; {resume} goes on from here"
    if not state.confirmed:
        return f"planned {as_of}; nothing starts before somebody agrees"
    names = [f"{code(attempt.job.run)} ({STAGE_WORDS[attempt.stage].lower()})" for attempt in state.open_attempts]
    return (
        f"running {as_of}" + (f": {', '.join(names)}" if names else "") + f"; if it was interrupted, {resume} goes on"
    )


def _verdict(state: State) -> str:
    confirmed = headline(state)
    if confirmed is not None:
        run = code(policy.kept(state) or "")
        return f"**{_VERDICT_WORDS[confirmed.label]}** {run}: {prose(sentence(confirmed, metric=_metric(state)))}"
    best = _best_on_search(state)
    if best is not None:
        found = best.fact.verdict
        words = "No verdict yet."
        if found.label == "better":
            words = "Promising, not confirmed."
        elif state.ended is not None:
            words = "No gain was found."
        text = prose(sentence(found, metric=_metric(state)))
        return (
            f"**{words}** {code(best.fact.candidate)} on the search set: {text}. "
            "The search set chooses between runs, so gains on it are biased upwards."
        )
    base = state.scored(None, "search")
    known = f" The base model scores {score(base)} on the search set." if base is not None else ""
    return f"**No verdict{'' if state.ended is not None else ' yet'}.**{known}"


def _metric(state: State) -> str:
    return next((run.score.metric for run in state.runs.values() if run.score is not None), "")


def _best_on_search(state: State) -> Comparison | None:
    """The kept run's verdict against the base model, else the one with the largest gain."""
    found = [c for c in state.comparisons if c.fact.set == "search" and c.fact.reference is None]
    kept = policy.kept(state)
    return max(found, key=lambda c: (c.fact.candidate == kept, c.fact.verdict.delta), default=None)


def _verdict_facts(state: State) -> list[list[str]]:
    plan, trained = state.plan, policy.trained(state)
    extended = sum(run.spec.parent is not None for run in trained)
    end = state.ended_at or state.updated_at
    tokens = "" if state.tokens is None else f", {state.tokens} tokens"
    cap = "no cap" if plan.budget_micro_usd is None else f"cap {dollars(plan.budget_micro_usd)}"
    hours = "no limit" if plan.max_hours is None else f"limit {value(plan.max_hours)} h"
    return [
        *_interval_facts(headline(state)),
        ["Training runs tried", f"{len(trained)}" + (f", {extended} of them an extension" if extended else "")],
        ["Looks at the confirm set", str(facts.looks(state))],
        ["Started", utc(state.started_at)],
        ["Ended", utc(state.ended_at)],
        [
            "Duration",
            f"{duration((end - state.started_at).total_seconds())}{'' if state.ended_at else ' so far'}, {hours}",
        ],
        ["Cost", f"{dollars(state.spent_micro_usd)} spent, {dollars(state.held_micro_usd)} held for open jobs, {cap}"],
        ["Planner", f"woke {_times(state.wakes)}{tokens}"],
    ]


def _interval_facts(found: Verdict | None) -> list[list[str]]:
    if found is None:
        return []
    level = f"{100 * (1 - found.alpha):.4g} %"
    mde = NONE if found.mde is None else f"{100 * found.mde:.1f} points; smaller ones could have been missed"
    return [
        [
            "Gain, in points",
            f"{points(found.delta)} ({level} interval {points(found.ci_low)} to {points(found.ci_high)})",
        ],
        ["Smallest gain found with 80 % power", mde],
    ]


def _loading(state: State) -> list[str]:
    kept, confirmed = policy.kept(state), headline(state)
    adapter = state.runs[kept].result.get("adapter") if kept is not None and kept in state.runs else None
    if not isinstance(adapter, str) or (confirmed is not None and confirmed.label == "worse"):
        return []
    text = (
        "from peft import AutoPeftModelForCausalLM\n"
        "from transformers import AutoTokenizer\n\n"
        f"model = AutoPeftModelForCausalLM.from_pretrained({json.dumps(adapter)})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(adapter)})"
    )
    return [
        "",
        f"The adapter of {code(str(kept))} is loaded with its base model by",
        "",
        *fenced(text, language="python"),
    ]


def _run_row(state: State, run: Run) -> list[str]:
    name = f"[{code(run.spec.name)}](#{path(anchor(heading(run)))})"
    seconds = facts.running_s(run)
    end = [
        dollars(facts.cost_micro_usd(run)) if not run.last.open else f"{dollars(run.last.job.reserve_micro_usd)} held",
        duration(seconds) if seconds is not None else TBD if run.last.open else NONE,
        decision_words(state, run.spec.name) if run.spec.kind == "train" else NONE,
    ]
    if run.spec.kind != "evaluate":
        return [name, run.spec.kind, NONE, NONE, NONE, NONE, *end]
    problem_set = f"{code(facts.benchmark(state, run).name)} ({run.spec.set})"
    number = str(run.score.n) if run.score is not None else NONE
    return [name, run.spec.kind, problem_set, score(run), number, gain(state, run), *end]


def _evaluation_row(state: State, run: Run) -> list[str]:
    subject = run.spec.subject
    who = "Base model" if subject is None else code(subject)
    job = link(code(run.last.job_id or run.spec.name), run.last.url) if run.last.url else TBD
    where = f"{problems(facts.benchmark(state, run))} ({run.spec.set})"
    return [who, where, score(run), job, model_of(state, subject)]


def _compared_row(item: Comparison) -> list[str]:
    fact = item.fact
    against = "the base model" if fact.reference is None else code(fact.reference)
    reason = f"against {against} on the {fact.set} set: {prose(sentence(fact.verdict))}"
    return [
        "verdict",
        code(fact.candidate),
        code(fact.verdict.test),
        reason,
        f"{fact.verdict.wins} won, {fact.verdict.losses} lost",
    ]


def _decided_row(taken: Taken) -> list[str]:
    decision = taken.decision
    action = decision.action if decision.run in (None, taken.about) else f"{decision.action} {code(str(decision.run))}"
    numbers = ", ".join(
        f"{prose(name)} {value(number)}" for name, number in decision.numbers.items() if number is not None
    )
    return [action, code(taken.about), code(decision.rule), prose(decision.reason), numbers or NONE]


def _dataset_counts(state: State) -> str:
    report = state.dataset
    if report is None:
        return TBD
    parts = [f"{'unknown number of' if report.rows is None else report.rows} rows"]
    if report.sampled is not None:
        parts.append(f"{report.sampled} read")
    if report.duplicates is not None:
        parts.append(f"{report.duplicates} exact repeats")
    if report.token_lengths:
        lengths = ", ".join(f"{prose(name)} {tokens}" for name, tokens in report.token_lengths.items())
        parts.append(f"tokens a row: {lengths}")
    columns = ", ".join(code(column) for column in report.columns)
    return f"{'; '.join(parts)}; columns {columns or NONE}."


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
