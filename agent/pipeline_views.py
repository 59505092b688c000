"""What a terminal and a program are told of a pipeline: the plan before it starts, a table, the last block, JSON."""

from datetime import datetime
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from hfagent.agent import estimate, guards
from hfagent.agent.console import from_here, money_text, plan_text, time_text
from hfagent.agent.pipeline_facts import Pipeline
from hfagent.agent.pipeline_state import PipelineState, Stage
from hfagent.agent.records import Plan
from hfagent.agent.state import State
from hfagent.agent.summary import VERDICT_FIELDS, iso, usd
from hfagent.agent.verdict import Verdict, sentence
from hfagent.agent.wiring import Paths


def phase(state: PipelineState, *, held: bool) -> str:
    """running, waiting, finished, failed or stopped; as of a night."""
    if state.ended is not None:
        return state.ended.state
    if held:
        return "running"
    return "failed" if state.crash is not None else "waiting"


def pipeline_text(pipeline: Pipeline, state: PipelineState | None) -> str:
    """What a person confirms: each stage as the plan of a night."""
    reports = () if state is None else state.datasets
    parts = []
    for number, plan in enumerate(pipeline.stages, start=1):
        report = reports[number - 1] if number <= len(reports) else None
        shown = plan.model_copy(update={"notes": ()})
        head = f"stage {number} of {len(pipeline.stages)}: {plan.method}"
        parts.append(f"{head}\n{plan_text(shown, report, data=estimate.data_size(report))}")
    cap = "no cap" if pipeline.budget_micro_usd is None else money_text(pipeline.budget_micro_usd)
    limit = "no limit" if pipeline.max_hours is None else f"{pipeline.max_hours:g} h"
    limit += "" if pipeline.max_gpu_hours is None else f", {pipeline.max_gpu_hours:g} GPU hours"
    rows = [
        ("all stages", f"{pipeline.words}, each on the model of the last stage that was kept"),
        ("budget", f"{cap} for all, time {limit} for all: each stage gets its share of what is left"),
        ("time", f"about {time_text(expected_s(pipeline, state))}"),
        ("report", f"{pipeline.project}.md"),
        *(("note", note) for note in pipeline.notes),
    ]
    return "\n\n".join([*parts, "\n".join(f"{name:<12}{text}" for name, text in rows)])


def expected_s(pipeline: Pipeline, state: PipelineState | None) -> float:
    """Seconds of all that the stages allow for, limits aside."""
    reports = [*(() if state is None else state.datasets), *[None] * len(pipeline.stages)]
    return sum(
        estimate.night_s(plan, estimate.data_size(report))
        for plan, report in zip(pipeline.stages, reports, strict=False)
    )


def stage_table(state: PipelineState) -> Table:
    """One row a stage."""
    table = Table(box=None, pad_edge=False, header_style="detail")
    for name in ("stage", "project", "state", "base", "score", "gain", "model", "time"):
        table.add_column(name)
    begun = {stage.number: stage for stage in state.begun}
    for number, plan in enumerate(state.pipeline.stages, start=1):
        table.add_row(*_row(number, plan, begun.get(number)))
    return table


def _row(number: int, plan: Plan, stage: Stage | None) -> list[str | Text]:
    ended = None if stage is None else stage.ended
    head: list[str | Text] = [f"{number} {plan.method}", Text(plan.project, style="name")]
    if ended is None:
        return [*head, "not begun" if stage is None else "in progress", "", "", "", "", ""]
    found = ended.verdict
    scores = ["", "", ""]
    if found is not None:
        scores = [f"{found.base_score:.3f}", f"{found.candidate_score:.3f}", f"{100 * found.delta:+.1f} points"]
    kept = Text("kept" if ended.kept else "dropped", style="keep" if ended.kept else "fail")
    return [*head, ended.state, *scores, kept, time_text(ended.seconds)]


def closing(state: PipelineState, paths: Paths, now: datetime, *, held: bool, live: State | None) -> str:
    """The last block: verdict, state, time, cost, report, model, and how to go on.

    Args:
        state: the pipeline.
        paths: where it lives.
        now: the time.
        held: whether an hfagent process works on it.
        live: the stage that is worked on, by its own ledger.
    """
    end = state.ended_at or now
    reason = state.ended.reason if state.ended is not None else state.crash
    rows = [
        ("verdict", _verdict_text(state)),
        ("state", phase(state, held=held) + (f": {reason}" if reason else "")),
        *(("guard", f"{guard}: {guards.words(found)}") for guard, found in state.guarded.items()),
        ("time", time_text((end - state.started_at).total_seconds())),
        ("cost", money_text(spent_micro_usd(state, live))),
        ("report", from_here(paths.report)),
    ]
    if state.carried:
        rows.append(("model", from_here(Path(state.model.id))))
    made = state.exported
    if made is not None:
        rows += [("gguf", file) for file in made.files]
        rows += [("pushed", url) for url in made.pushed.values()]
        if not made.done:
            rows.append(("not made", made.message or "the export's job failed"))
    if state.ended is None and not held:
        rows.append(("go on", f"hfagent resume {paths.project}"))
    return "\n".join(f"{name:<10}{text}" for name, text in rows)


def summary(state: PipelineState, paths: Paths, *, held: bool, live: State | None) -> dict[str, Any]:
    """What `--json` prints: the fields of a night, and its stages. Unknown is None, never 0."""
    begun = {stage.number: stage for stage in state.begun}
    pipeline, made = state.pipeline, state.exported
    return {
        "project": pipeline.project,
        "goal": pipeline.goal,
        "state": phase(state, held=held),
        "stop_reason": state.ended.reason if state.ended is not None else state.crash,
        "verdict": verdict_fields(state.verdict),
        "claim": None if state.claim is None else state.claim.model_dump(),
        "guards": {guard: verdict_fields(found) for guard, found in state.guarded.items()},
        "stages": [
            _stage(number, plan, begun.get(number), paths) for number, plan in enumerate(pipeline.stages, start=1)
        ],
        "model": state.model.id if state.carried else None,
        "export": None if made is None else made.model_dump(exclude={"kind"}),
        "spent_usd": usd(spent_micro_usd(state, live)),
        "held_usd": 0.0 if live is None else usd(live.held_micro_usd),
        "started_at": iso(state.started_at),
        "report": str(paths.report),
        "ledger": str(paths.ledger),
    }


def spent_micro_usd(state: PipelineState, live: State | None) -> int | None:
    """By ended stages, and by the one that is worked on."""
    parts = [state.spent_micro_usd, *([live.spent_micro_usd] if live is not None and state.current else [])]
    return None if None in parts else sum(part for part in parts if part is not None)


def verdict_fields(found: Verdict | None) -> dict[str, Any] | None:
    """A verdict as JSON."""
    return None if found is None else {name: getattr(found, name) for name in VERDICT_FIELDS}


def _stage(number: int, plan: Plan, stage: Stage | None, paths: Paths) -> dict[str, Any]:
    ended = None if stage is None else stage.ended
    return {
        "number": number,
        "method": plan.method,
        "project": plan.project,
        "state": "not begun" if stage is None else "begun" if ended is None else ended.state,
        "kept": None if ended is None else ended.kept,
        "why": None if ended is None else ended.why,
        "run": None if ended is None else ended.run,
        "verdict": None if ended is None else verdict_fields(ended.verdict),
        "claim": None if ended is None or ended.claim is None else ended.claim.label,
        "model": None if ended is None or ended.model is None else ended.model.id,
        "seconds": None if ended is None else ended.seconds,
        "spent_usd": None if ended is None else usd(ended.spent_micro_usd),
        "report": str(Paths(paths.reports, plan.project).report),
    }


def _verdict_text(state: PipelineState) -> str:
    if state.verdict is not None:
        lost = guards.loss_words(state.guarded)
        told = f", {lost}" if lost else ""
        return f"{sentence(state.verdict)}{told} (against the original base model, confirm set)"
    return state.claim.reason if state.claim is not None else "none yet"
