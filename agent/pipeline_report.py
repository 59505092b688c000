"""The report of a pipeline: one table of its stages, one claim. Markdown as a pure function of the state."""

from pathlib import Path

from hfagent.agent.chain import Head
from hfagent.agent.data_rules import to_make
from hfagent.agent.guards import loss_words
from hfagent.agent.guards import words as guard_words
from hfagent.agent.markdown import NONE, TBD, code, dollars, duration, link, path, plain, prose, table, utc, value
from hfagent.agent.model_card import guard_lines
from hfagent.agent.pipeline_state import PipelineState, Stage
from hfagent.agent.records import Plan
from hfagent.agent.report import EMPTY_NOTES, NOTES_END, NOTES_START, head_in, joined, kept_notes, last_line, rewrite
from hfagent.agent.report_verdict import TITLE_CHARACTERS
from hfagent.agent.report_words import data_words, model_words, points, problems
from hfagent.agent.verdict import Verdict, sentence

STAGES = (
    "Stage", "Method", "Data", "Base score", "Score", "Gain (interval)", "Verdict", "Model", "Time", "Cost", "Report",
)  # fmt: skip
_CLAIM_WORDS = {
    "confirmed_better": "Better than the original base model, confirmed.",
    "promising": "Promising, not confirmed.",
    "no_detectable_difference": "No detectable difference from the original base model.",
    "worse": "Worse than the original base model: this model is not to be used.",
    "invalid": "No claim can be made.",
}


def render(state: PipelineState, *, notes: str = EMPTY_NOTES) -> str:
    """The report. The same state gives the same text.

    Args:
        state: the pipeline, at any time after its plan was made.
        notes: what people wrote between the two markers.
    """
    parts = [
        _title(state),
        [f"> {final_sentence(state)}", "", *table(("Fact", "Value"), _facts(state))],
        _model(state),
        ["## Stages", "", *table(STAGES, _rows(state)), "", _reading(state)],
        _used(state),
        _datasets(state),
        ["## Notes", "", "Text between the two markers in the source of this file is kept."],
    ]
    return f"{joined(parts)}\n{NOTES_START}{notes}{NOTES_END}\n"


def current(state: PipelineState, path: Path) -> str:
    """The report with the notes and the last line that lie at its path; nothing is written."""
    return render(state, notes=kept_notes(path)) + last_line(head_in(path))


def write(state: PipelineState, path: Path, head: Head | None = None) -> None:
    """Bring the report's file up to date, with how far the ledger went.

    Raises:
        ReportError: the folder cannot be written.
    """
    rewrite(path, lambda notes: render(state, notes=notes), head)


def final_sentence(state: PipelineState) -> str:
    """The one claim, about the last good model against the original base model."""
    claim = state.claim
    if claim is None:
        return f"**No verdict{'' if state.ended is not None else ' yet'}.**"
    words = f"**{_CLAIM_WORDS[claim.label]}**"
    methods = " then ".join(stage.plan.method.upper() for stage, _ in state.carried)
    if state.verdict is None:
        return f"{words} {prose(claim.reason[:1].upper() + claim.reason[1:])}."
    lost = loss_words(state.guarded)
    told = f", {prose(lost)}" if lost else ""
    text = f"{methods} on {model_words(state.base)}: {prose(sentence(state.verdict))}{told}"
    return f"{words} {text}. {prose(claim.reason)}."


def card_text(state: PipelineState) -> str:
    """What the card of the last good model says of it."""
    return "\n\n".join([final_sentence(state), *guard_lines(state.guarded)])


def _title(state: PipelineState) -> list[str]:
    pipeline = state.pipeline
    lines = [f"# {prose(pipeline.goal, limit=TITLE_CHARACTERS)}", "", f"**State:** {_state(state)}"]
    if len(plain(pipeline.goal)) > TITLE_CHARACTERS:
        lines += ["", f"**Goal:** {prose(pipeline.goal, limit=4000)}"]
    return lines


def _state(state: PipelineState) -> str:
    if state.ended is not None:
        return f"{state.ended.state}: {prose(state.ended.reason)}"
    resume, as_of = code(f"hfagent resume {state.pipeline.project}"), f"as of {utc(state.updated_at)}"
    if state.crash is not None:
        return f"crashed {as_of}: {prose(state.crash)}; {resume} goes on from here"
    if not state.confirmed:
        return f"planned {as_of}; nothing starts before somebody agrees"
    at = state.current
    stage = "" if at is None else f": stage {at.number} of {len(state.pipeline.stages)}, {at.plan.method}"
    return f"running {as_of}{stage}; if it was interrupted, {resume} goes on"


def _facts(state: PipelineState) -> list[list[str]]:
    pipeline, claim, found = state.pipeline, state.claim, state.verdict
    rows = []
    if found is not None:
        interval = f"{100 * (1 - found.alpha):.4g} % interval {points(found.ci_low)} to {points(found.ci_high)}"
        rows.append(["Gain over the original base model, in points", f"{points(found.delta)} ({interval})"])
    if claim is not None:
        rows.append(["Claim", f"**{claim.label.replace('_', ' ')}**: {prose(claim.reason)}"])
        if claim.gain is not None:
            gain = f"{points(claim.gain)} points: corrected for being claimed only when significant"
            rows.append(["Gain to expect", gain])
        if claim.look is not None and claim.alpha is not None:
            look = f"look {claim.look} with the original base model, all projects counted; alpha {claim.alpha:.4f}"
            rows.append(["Look at the confirm set", look])
        rows.append(["Training runs judged", str(claim.tried)])
    rows += [[f"Guard {code(guard)}", prose(guard_words(found))] for guard, found in state.guarded.items()]
    taken = ((state.ended_at or state.updated_at) - state.started_at).total_seconds()
    hours = "no limit" if pipeline.max_hours is None else f"limit {value(pipeline.max_hours)} h"
    hours += "" if pipeline.max_gpu_hours is None else f", {value(pipeline.max_gpu_hours)} GPU hours"
    tokens = state.planner_tokens
    most = "" if pipeline.max_planner_tokens is None else f", limit {pipeline.max_planner_tokens} for all"
    cap = "no cap" if pipeline.budget_micro_usd is None else f"cap {dollars(pipeline.budget_micro_usd)}"
    return [
        *rows,
        ["Started", utc(state.started_at)],
        ["Ended", utc(state.ended_at)],
        ["Duration", f"{duration(taken)}{'' if state.ended_at else ' so far'}, {hours} for all stages"],
        ["Cost", f"{dollars(state.spent_micro_usd)} by ended stages, {cap} for all"],
        *([] if tokens is None else [["Planner", f"{tokens} tokens by ended stages{most}"]]),
    ]


def _model(state: PipelineState) -> list[str]:
    """Where the last good model is."""
    if not state.carried:
        return []
    items = [f"Merged: {code(state.model.id)}"]
    made = state.exported
    if made is not None:
        items += [f"GGUF: {code(file)}" for file in made.files]
        items += [f"Published: {link(code(repo), url)}" for repo, url in made.pushed.items()]
        items += [] if made.done else [f"Not all was exported: {prose(made.message or 'the job failed')}"]
    return ["## The model", "", *(f"- {item}" for item in items)]


def _rows(state: PipelineState) -> list[list[str]]:
    begun = {stage.number: stage for stage in state.begun}
    return [
        _row(number, begun.get(number), plan, over=state.ended is not None)
        for number, plan in enumerate(state.pipeline.stages, start=1)
    ]


def _row(number: int, stage: Stage | None, plan: Plan, *, over: bool) -> list[str]:
    head = [str(number), plan.method.upper(), data_words(plan.dataset)]
    ended = None if stage is None else stage.ended
    if stage is None or ended is None:
        words = "not begun" if stage is None else "not ended" if over else "in progress"
        return [*head, *[NONE if over else TBD] * 4, words, NONE, NONE, NONE if stage is None else _report(stage)]
    return [
        *head,
        *_scores(ended.verdict),
        NONE if ended.claim is None else ended.claim.label.replace("_", " "),
        f"{'kept' if ended.kept else 'dropped'}: {prose(', '.join(filter(None, (ended.why, ended.warning))))}",
        duration(ended.seconds),
        dollars(ended.spent_micro_usd),
        _report(stage),
    ]


def _scores(found: Verdict | None) -> list[str]:
    if found is None:
        return [NONE] * 3
    gain = f"{points(found.delta)} [{points(found.ci_low)}, {points(found.ci_high)}]"
    return [f"{found.base_score:.3f}", f"{found.candidate_score:.3f}", gain]


def _report(stage: Stage) -> str:
    return f"[{plain(stage.plan.project)}]({path(f'{stage.plan.project}.md')})"


def _reading(state: PipelineState) -> str:
    return (
        f"Scores are on the confirm set ({problems(state.pipeline.stages[0].confirm)}). The base of a stage is the "
        "last model that was kept before it; a stage is kept where its model is above that base, whether significantly "
        "or not. The claim above compares the last kept model with the original base model, and each model that the "
        "set was asked about takes a look."
    )


def _used(state: PipelineState) -> list[str]:
    pipeline = state.pipeline
    first = pipeline.stages[0]
    items = [
        f"Original base model: {model_words(state.base)}",
        f"Search set: {problems(first.search)}; used freely, to choose",
        f"Confirm set: {problems(first.confirm)}",
        f"Jobs: {code(first.backend)}, flavor {code(first.flavor)}, {dollars(first.price_micro_usd_per_hour)} an hour",
        *(prose(note) for note in pipeline.notes),
    ]
    if state.versions:
        items.append("Packages: " + ", ".join(prose(f"{name} {v}") for name, v in sorted(state.versions.items())))
    return ["## What this pipeline used", "", *(f"- {item}" for item in items)]


def _datasets(state: PipelineState) -> list[str]:
    rows = []
    for number, (plan, report) in enumerate(zip(state.pipeline.stages, state.datasets, strict=False), start=1):
        check = report.methods[plan.method]
        counted = TBD if report.rows is None else str(report.rows)
        verdict = check.verdict.replace("_", " ")
        if to_make(plan, report):
            verdict += ": the model makes its own data of the prompts first"
        rows.append([str(number), data_words(plan.dataset), counted, verdict, prose(check.reason)])
    if not rows:
        return []
    return ["## Dataset checks", "", *table(("Stage", "Data", "Rows", "Verdict", "Reason"), rows)]
