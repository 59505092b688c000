"""What the chat answers with: tables with intervals, from the ledger. Nothing is computed anew."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hfagent.agent import envelope, estimate
from hfagent.agent.console import money_text, run_table, time_text
from hfagent.agent.lines import curve
from hfagent.agent.runs import Comparison
from hfagent.agent.state import State
from hfagent.agent.summary import headline, phase
from hfagent.agent.verdict import numbers, sentence

PLOT_WIDTH, PLOT_HEIGHT = 72, 16
LABEL_STYLE = {"better": "keep", "worse": "fail"}


def status_view(state: State, now: datetime, *, held: bool) -> Group:
    """Where a project stands, in a few lines."""
    lines = [Text.assemble((state.plan.project, "name"), f"  {phase(state, held=held)}")]
    reason = state.ended.reason if state.ended is not None else state.crash or state.wishes.paused
    if reason:
        lines.append(Text(reason))
    waiting = "waits for your approval: /approve or /veto"
    lines += [Text(f"{name} {waiting}", style="extend") for name in state.wishes.waiting]
    if state.stand_in is not None:
        lines.append(Text(f"the rules plan in the model's place: {state.stand_in}", style="extend"))
    if not held and state.ended is None and state.confirmed:
        lines.append(Text(f"nobody works on it: hfagent resume {state.plan.project}", style="extend"))
    return Group(*lines, run_table(state, now))


def comparisons_view(state: State) -> RenderableType:
    """Every trained model against the base model, on both sets, and what may be claimed."""
    found = [item for item in state.comparisons if item.fact.reference is None]
    if not found:
        base = state.scored(None, "search")
        known = f" The base model scores {base.score.value:.3f} on the search set." if base and base.score else ""
        return Text(f"No trained model was compared with the base model yet.{known}")
    table = Table(box=None, pad_edge=False, header_style="detail")
    for name in ("model", "set", "problems", "base", "model", "difference", "interval", "p", "verdict"):
        table.add_column(name)
    for item in _newest(found):
        verdict = item.fact.verdict
        table.add_row(
            Text(item.fact.candidate, style="name"),
            item.fact.set,
            str(verdict.n),
            f"{verdict.base_score:.3f}",
            f"{verdict.candidate_score:.3f}",
            f"{100 * verdict.delta:+.1f} points",
            f"{100 * verdict.ci_low:+.1f} to {100 * verdict.ci_high:+.1f}",
            f"{verdict.p_value:.2g}",
            Text(verdict.label.replace("_", " "), style=LABEL_STYLE.get(verdict.label, "")),
        )
    return Group(Text(_answer(state)), table, Text(_caveat(state), style="detail"))


def why_view(state: State, run: str | None) -> RenderableType:
    """The decisions about a run, or all of them, with rule and numbers."""
    taken = [item for item in state.decisions if run in (None, item.about, item.decision.run)]
    if not taken:
        return Text("Nothing was decided yet." if run is None else f"Nothing was decided about {run!r}.")
    parts: list[RenderableType] = []
    for item in taken:
        decision = item.decision
        head = Text.assemble((f"{item.about}: {decision.action}", "name"), f"  by the rule {decision.rule}")
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in decision.numbers.items() if value is not None)
        parts += [head, Text(f"  {decision.reason}")]
        if numbers:
            parts.append(Text(f"  {numbers}", style="detail"))
        parts += [Text(f"  not {other}", style="detail") for other in decision.alternatives]
    return Group(*parts)


def budget_view(state: State, now: datetime) -> Table:
    """Money and time: spent, held, left."""
    table = Table(box=None, pad_edge=False, show_header=False)
    left, left_s = envelope.money_left_micro_usd(state), envelope.time_left_s(state, now)
    table.add_row("spent", money_text(state.spent_micro_usd))
    table.add_row("of it for the planner", money_text(state.planner_micro_usd))
    table.add_row("held for open jobs", money_text(state.held_micro_usd))
    table.add_row("left", "no cap" if left is None else money_text(left))
    table.add_row("taken", time_text(max(((state.ended_at or now) - state.started_at).total_seconds(), 0.0)))
    table.add_row("time left", "no limit" if left_s is None else time_text(max(left_s, 0)))
    table.add_row("planned for", time_text(planned_s(state)))
    if state.tokens is not None:
        table.add_row("planner's tokens", f"{state.tokens:,}")
    return table


def planned_s(state: State) -> float:
    """Seconds that all of the plan takes, by what is known of its data."""
    return estimate.night_s(state.plan, estimate.data_size(state.dataset))


def losses_view(state: State, run: str | None) -> RenderableType:
    """Loss curves as characters: of one run, or of the newest ones."""
    import plotext

    runs = [r for r in state.trained if r.points and run in (None, r.spec.name)][-3:]
    if not runs:
        return Text("No losses are logged yet." if run is None else f"No losses of {run!r} are logged.")
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(PLOT_WIDTH, PLOT_HEIGHT)
    metric = curve(state.plan.method)
    for item in runs:
        logged = [(point.step, point.values.get(metric)) for point in item.points]
        pairs = [(step, loss) for step, loss in logged if loss is not None]
        if pairs:
            plotext.plot(*zip(*pairs, strict=True), label=item.spec.name)
    plotext.xlabel("step")
    plotext.title(metric)
    return Text.from_ansi(plotext.build())


def _newest(found: Sequence[Comparison]) -> list[Comparison]:
    """One for each model and set: a new harness gives a new one."""
    last = {(item.fact.candidate, item.fact.set): item for item in found}
    return list(last.values())


def _answer(state: State) -> str:
    verdict = headline(state)
    if state.claim is not None:
        label = state.claim.label.replace("_", " ")
        return f"{label[0].upper()}{label[1:]}: {numbers(verdict) if verdict is not None else state.claim.reason}"
    if verdict is not None:
        return sentence(verdict)
    return "Not confirmed yet: only the search set has been asked."


def _caveat(state: State) -> str:
    tried = len(state.trained)
    return (
        f"{tried} training run{'' if tried == 1 else 's'} tried. The search set chooses between runs, so gains on it "
        "are biased upwards; the confirm set is asked once, by the kept run."
    )
