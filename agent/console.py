"""What a terminal shows: one live table on a terminal, one line an event elsewhere. Progress goes to stderr."""

import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from hfagent.agent import data_rules, estimate, guards, lines
from hfagent.agent.dataset_records import FIRST_ONLY, DatasetReport
from hfagent.agent.events import Event
from hfagent.agent.live_screen import LiveScreen
from hfagent.agent.loading import kept_adapter
from hfagent.agent.records import (
    BenchmarkRef,
    Plan,
)
from hfagent.agent.runs import Run
from hfagent.agent.state import State
from hfagent.agent.summary import headline, phase, published
from hfagent.agent.verdict import sentence
from hfagent.agent.wiring import Paths

THEME = Theme({"name": "bold", "detail": "dim", "keep": "green", "extend": "yellow", "fail": "red"})
HEARTBEAT_S = 60.0
"""Without events, a line at least this often."""
STAGE_STYLE = {"COMPLETED": "keep", "ERROR": "fail", "REJECTED": "fail", "CANCELED": "fail", "RUNNING": "name"}
MAPPED = "a run rewrites the rows so by itself, your files stay as they are"
"""What becomes of the verdict `NEEDS_MAPPING`."""
RECENT = 6
PIPE_WIDTH = 200
"""Columns where nobody looks on: lines are for grep, not for a window."""


def stderr_console() -> Console:
    """The console for progress and errors."""
    return Console(stderr=True, highlight=False, markup=False, theme=THEME, soft_wrap=not sys.stderr.isatty())


class Progress:
    """Shows a night as it goes. A context manager; `follow` is a ledger listener."""

    def __init__(self, console: Console, state: State):
        self._console = console
        self._state = state
        self._recent: deque[str] = deque(maxlen=RECENT)
        self._warned: set[str] = set()
        self._shown = time.monotonic()
        self._live = LiveScreen(console, self._render)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to a question."""
        if not self._console.is_terminal:
            yield
            return
        self._live.stop()
        try:
            yield
        finally:
            self._live.start()

    def follow(self, event: Event, state: State) -> None:
        """Show an event."""
        self._state = state
        text = lines.line(event, state)
        if text is None:
            return
        if self._console.is_terminal:
            if event.fact.kind != "metrics_logged":
                self._recent.append(text)
            return
        self._say(text)

    def tick(self, state: State) -> None:
        """Show that the night is alive, also when nothing happens."""
        self._state = state
        if self._console.is_terminal or time.monotonic() - self._shown < HEARTBEAT_S:
            return
        for attempt in state.open_attempts:
            run = state.runs[attempt.job.run]
            since = attempt.started_at or attempt.intended_at
            now = datetime.now(UTC)
            waited = time_text(max((now - since).total_seconds(), 0.0))
            said = f"{now:%H:%M:%SZ} waiting run={run.spec.name} for={waited!r} {lines.progress(run, state)}"
            self._say(said.rstrip())

    def warn(self, text: str) -> None:
        """Show something that went wrong and does not stop the night; once, however often it comes."""
        if text not in self._warned:
            self._warned.add(text)
            self._console.print(f"warning: {text}", style="fail")

    def _say(self, text: str) -> None:
        self._shown = time.monotonic()
        self._console.print(Text(text))

    def _render(self) -> Group:
        state = self._state
        cost = f"{money_text(state.spent_micro_usd)} spent, {money_text(state.held_micro_usd)} held"
        title = Text.assemble((state.plan.project, "name"), ("  " + state.plan.goal.splitlines()[0][:80], "detail"))
        footer = Text("\n".join(text[: self._console.width - 1] for text in self._recent), style="detail")
        fitting = max(self._console.height - RECENT - 4, 1)
        return Group(title, run_table(state, datetime.now(UTC), rows=fitting), Text(cost, style="detail"), footer)


def run_table(state: State, now: datetime, *, rows: int | None = None) -> Table:
    """The runs of a project, or the last of them; what runs counts its time to now."""
    runs = list(state.runs.values())
    earlier = 0 if rows is None else max(len(runs) - rows, 0)
    table = Table(box=None, pad_edge=False, header_style="detail")
    for name in ("run", "kind", "stage", "progress", "score", "vs baseline", "time", "decision"):
        table.add_column(name)
    if earlier:
        table.add_row(Text(f"{earlier} earlier", style="detail"))
    for run in runs[earlier:]:
        table.add_row(*_row(run, state, now))
    return table


def _row(run: Run, state: State, now: datetime) -> list[Text | str]:
    decision = state.decision_on(run.spec.name)
    action = decision.action if decision else ""
    style = {"keep": "keep", "extend": "extend", "discard": "fail"}.get(action, "")
    took, started = run.last.running_s, run.last.started_at
    if run.last.stage == "RUNNING" and started is not None:
        took = max((now - started).total_seconds(), 0.0)
    return [
        Text(run.spec.name, style="name"),
        run.spec.kind,
        Text(run.last.stage, style=STAGE_STYLE.get(run.last.stage, "")),
        lines.progress_words(run, state),
        f"{run.score.value:.3f} (n={run.score.n})" if run.score else "",
        _versus(run, state),
        "" if took is None else time_text(took),
        Text(action, style=style),
    ]


def _versus(run: Run, state: State) -> str:
    subject, problems = run.spec.subject, run.spec.set
    comparison = state.comparison(subject, None, problems) if subject and problems else None
    return f"{comparison.fact.verdict.delta:+.3f}" if comparison else ""


def time_text(seconds: float) -> str:
    """Seconds for people: `45 s`, `6 min 12 s`, `7 h 03 min`."""
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"


def money_text(micro_usd: int | None) -> str:
    """Money for people; unknown is never zero."""
    return "unknown" if micro_usd is None else f"${micro_usd / 1e6:.2f}"


def stdout_console() -> Console:
    """The console for results."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(highlight=False, markup=False, theme=THEME, width=width)


def print_json(value: dict[str, Any]) -> None:
    """A result for a program: one object on stdout."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None))  # noqa: T201 - the result


def plan_text(plan: Plan, dataset: DatasetReport | None, *, data: estimate.DataSize) -> str:
    """What a person confirms; `data` is for the estimate of the whole night."""
    price = f"${plan.price_micro_usd_per_hour / 1e6:.2f}/h"
    train = plan.train
    epochs = "1 epoch" if train.num_train_epochs == 1 else f"{train.num_train_epochs:g} epochs"
    length = epochs if train.max_steps is None else f"{train.max_steps} steps"
    batch = train.per_device_train_batch_size * train.gradient_accumulation_steps
    cap = "no cap" if plan.budget_micro_usd is None else f"cap {money_text(plan.budget_micro_usd)}"
    limit = "no limit" if plan.max_hours is None else f"limit {plan.max_hours:g} h"
    limit += "" if plan.max_gpu_hours is None else f", {plan.max_gpu_hours:g} GPU hours"
    beside = f", up to {plan.max_jobs} jobs at a time" if plan.max_jobs > 1 else ""
    rows = [
        ("goal", plan.goal.splitlines()[0]),
        ("model", plan.model.id),
        *([] if plan.teacher is None else [("teacher", plan.teacher.id)]),
        ("dataset", _dataset_text(plan, dataset)),
        (
            "method",
            f"{plan.method} with LoRA r={train.lora_r}, {length}, batch {batch}, learning rate {train.learning_rate:g}",
        ),
        (
            "rows",
            f"{'all' if train.max_rows is None else f'at most {train.max_rows}'}, up to {train.max_length} tokens each",
        ),
        ("search set", _benchmark_text(plan.search)),
        ("confirm set", _benchmark_text(plan.confirm)),
        *(("guard", _benchmark_text(guard)) for guard in plan.guards),
        ("hardware", f"{plan.backend}, flavor {plan.flavor}, {price}{beside}"),
        ("time", f"about {time_text(estimate.night_s(plan, data))} ({limit})"),
        ("cost", f"about {money_text(estimate.cost_micro_usd(plan, estimate.work_s(plan, data)))} ({cap})"),
        ("output", _output_text(plan)),
        *(("note", note) for note in plan.notes),
    ]
    return "\n".join(f"{name:<12}{text}" for name, text in rows)


def _output_text(plan: Plan) -> str:
    told = f"report {plan.project}.md and a LoRA adapter, {'in the bucket' if plan.backend == 'hf' else 'both local'}"
    asked = plan.export
    if asked is None:
        return told
    files = f"GGUF {', '.join(asked.quantize)}" if asked.quantize else "the merged model"
    if asked.push is None:
        return f"{told}; then {files}"
    who = "public" if asked.public else "private"
    when = "whatever the verdict" if asked.anyway else "if it is better"
    return f"{told}; then {files} to {asked.push} ({who}), {when}"


def _dataset_text(plan: Plan, dataset: DatasetReport | None) -> str:
    name = f"{plan.dataset.id}{f' ({plan.dataset.config})' if plan.dataset.config else ''}"
    if dataset is None:
        return name
    check = dataset.methods[plan.method]
    rows = "unknown number of" if dataset.rows is None else dataset.rows
    applied = f" ({MAPPED})" if check.verdict == "NEEDS_MAPPING" else ""
    if data_rules.to_make(plan, dataset):
        applied = " (the model makes its own first, of its answers to the prompts)"
    rows_read = f" ({dataset.sampled} read, {FIRST_ONLY})" if dataset.first_only else ""
    return f"{name}, {rows} rows{rows_read}, {check.verdict.replace('_', ' ')}: {check.reason}{applied}"


def _benchmark_text(benchmark: BenchmarkRef) -> str:
    return f"{benchmark.name}, {benchmark.n or 'all'} problems"


def closing(state: State, paths: Paths, now: datetime, *, held: bool) -> str:
    """The last block of a run: verdict, numbers, time (to now while unfinished), cost, report, and how to go on."""
    rows = [("verdict", _verdict_text(state)), ("state", _phase_text(state, held=held))]
    if headline(state) is not None:
        rows += [("guard", f"{name}: {guards.words(found)}") for name, found in guards.verdicts(state).items()]
    end = state.ended_at or now
    held_text = f", {money_text(state.held_micro_usd)} held" if state.held_micro_usd else ""
    rows += [
        ("time", time_text(max((end - state.started_at).total_seconds(), 0.0))),
        ("cost", money_text(state.spent_micro_usd) + held_text),
        ("report", from_here(paths.report)),
    ]
    rows += [("pushed", url) for url in published(state).values()]
    kept = kept_adapter(state)
    if kept is not None and kept.fetch is not None:
        rows += [("model", f"the adapter of {kept.run}; the report tells how it is loaded"), ("fetch", kept.fetch)]
    elif kept is not None:
        shown = from_here(Path(kept.folder))
        # The path has a line of its own, so that a narrow terminal does not break it; the lines are one statement.
        rows += [("model", shown), ("load", "AutoPeftModelForCausalLM.from_pretrained(  # from peft")]
        rows += [("", f'    "{shown}"'), ("", ")")]
    if state.ended is None and not held:
        rows.append(("go on", f"hfagent resume {paths.project}"))
    if state.outlived and not held:
        rows.append(("running", f"jobs of it may still run: hfagent resume {paths.project} ends them"))
    return "\n".join(f"{name:<10}{text}" for name, text in rows)


def from_here(path: Path) -> str:
    """The path as a person in this folder would type it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _verdict_text(state: State) -> str:
    verdict = headline(state)
    if verdict is not None:
        return f"{sentence(verdict)} ({state.plan.confirm.name}, confirm set)"
    found = [item for item in state.comparisons if item.fact.set == "search" and item.fact.reference is None]
    if found:
        return f"not confirmed; on the search set: {sentence(found[-1].fact.verdict)}"
    return "none yet"


def _phase_text(state: State, *, held: bool) -> str:
    reason = state.ended.reason if state.ended is not None else state.crash
    return phase(state, held=held) + (f": {reason}" if reason else "")


def dataset_view(found: DatasetReport) -> Group:
    """The dataset check for people."""
    rows = "unknown number of" if found.rows is None else found.rows
    head = Text.assemble((found.dataset, "name"), f"  {rows} rows, columns: {', '.join(found.columns)}")
    table = Table(box=None, pad_edge=False, header_style="detail")
    for name in ("method", "verdict", "reason"):
        table.add_column(name)
    notes: list[Text] = []
    for method, check in found.methods.items():
        style = {"READY": "keep", "NEEDS_MAPPING": "extend", "INCOMPATIBLE": "fail"}[check.verdict]
        table.add_row(method, Text(check.verdict.replace("_", " "), style=style), check.reason)
        if check.mapping is not None:
            notes.append(
                Text(f"{method} mapping: {check.mapping.model_dump_json(exclude_defaults=True)}", style="detail")
            )
        notes += [Text(f"{method} warning: {warning}") for warning in check.warnings]
    if found.first_only:
        notes.insert(0, Text(f"{found.sampled} rows were read, {FIRST_ONLY}"))
    if any(check.verdict == "NEEDS_MAPPING" for check in found.methods.values()):
        notes.append(Text(f"NEEDS MAPPING: {MAPPED}", style="detail"))
    return Group(head, table, *notes)
