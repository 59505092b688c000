"""What `hfagent estimate` shows: the flavor and why, the jobs of the night, the same night elsewhere. Pure."""

from collections.abc import Sequence
from typing import Any

from hfagent.agent import memory
from hfagent.agent.estimate import DEFAULT_ROWS, DataSize, night_s
from hfagent.agent.hardware import VRAM_SHARE, Choice, Need, Table, choose, fitting
from hfagent.agent.night_jobs import Elsewhere, NightJob, elsewhere, night_jobs
from hfagent.agent.placement import needed
from hfagent.agent.records import Plan, Record

SUMMED = ("expected_s", "expected_micro_usd", "reserved_micro_usd")
"""Over the stages of a pipeline."""
SHOWN = 6
"""Other flavors in the text; all are in the JSON."""


class Estimate(Record):
    """A plan with its price. The form of `hfagent estimate --json`."""

    plan: Plan
    data: DataSize
    need: Need | None
    """None where jobs run here, or nobody knows how large the model is."""
    terms: dict[str, float]
    """Of a training step's memory, in GB."""
    choice: Choice | None
    prices: str | None
    """How old they are; None where jobs cost nothing."""
    jobs: tuple[NightJob, ...]
    expected_s: float
    expected_micro_usd: int
    reserved_micro_usd: int
    """If every job ran to its timeout; the night holds only that of the job that runs."""
    others: tuple[Elsewhere, ...] = ()


def price(plan: Plan, data: DataSize, table: Table | None, *, vocab_size: int | None = None) -> Estimate:
    """The estimate for a plan; on rented hardware by the table it was made with."""
    jobs, count = night_jobs(plan, data), plan.model.parameters
    need: Need | None = None
    choice: Choice | None = None
    terms: dict[str, float] = {}
    others: tuple[Elsewhere, ...] = ()
    teacher = plan.teacher
    if table is not None and count is not None and (teacher is None or teacher.parameters is not None):
        need = needed(
            count, plan.method, train=plan.train, evaluation=plan.evaluation, vocab_size=vocab_size, teacher=teacher
        )
        weights = None if teacher is None else teacher.parameters
        terms = memory.terms(count, plan.method, lora=True, train=plan.train, vocab_size=vocab_size, teacher=weights)
        chosen = choose(table, need)
        named = choose(table, need, among=tuple(f for f in table.flavors if f.name == plan.flavor))
        found = chosen if isinstance(chosen, Choice) and chosen.flavor.name == plan.flavor else named
        choice = found if isinstance(found, Choice) else None
        others = elsewhere(plan, data, fitting(table, need))
    return Estimate(
        plan=plan,
        data=data,
        need=need,
        terms=terms,
        choice=choice,
        prices=None if table is None else prices_text(table),
        jobs=jobs,
        expected_s=sum(job.count * job.expected_s for job in jobs),
        expected_micro_usd=sum(job.expected_micro_usd for job in jobs),
        reserved_micro_usd=sum(job.reserved_micro_usd for job in jobs),
        others=others,
    )


def prices_text(table: Table) -> str:
    """Where the prices come from."""
    source = "from the Hub" if table.source == "live" else "from the dated file"
    return f"{source}, {table.as_of.isoformat()}"


def as_json(found: Estimate) -> dict[str, Any]:
    """One object."""
    return found.model_dump(mode="json")


def stages_json(found: Sequence[Estimate]) -> dict[str, Any]:
    """One object: the estimate, or those of all stages with their sums."""
    if len(found) == 1:
        return as_json(found[0])
    sums = {name: sum(getattr(stage, name) for stage in found) for name in SUMMED}
    return {"stages": [as_json(stage) for stage in found], **sums}


def stages_text(found: Sequence[Estimate]) -> str:
    """For a terminal; of several stages one after the other, and the sum."""
    if len(found) == 1:
        return text(found[0])
    parts = [f"stage {n} of {len(found)}: {stage.plan.method}\n{text(stage)}" for n, stage in enumerate(found, 1)]
    expected, worst = sum(e.expected_micro_usd for e in found), sum(e.reserved_micro_usd for e in found)
    seconds = duration(sum(e.expected_s for e in found))
    return "\n\n".join([*parts, f"all stages: {seconds}, {dollars(expected)} expected, {dollars(worst)} at worst"])


def text(found: Estimate) -> str:
    """For a terminal."""
    plan = found.plan
    lines = [*_heading(found), ""]
    rows = [(job.name, str(job.count), *_times(job.expected_s, job.timeout_s), *_costs(job)) for job in found.jobs]
    rows.append(("total", str(sum(job.count for job in found.jobs)), duration(found.expected_s), "", *_costs(found)))
    lines += _table(("job", "count", "each", "timeout", "expected", "at worst"), rows)
    if found.others:
        others = [_elsewhere(other) for other in found.others[:SHOWN]]
        lines += ["", *_table(("elsewhere", "price", "time", "expected"), others)]
    lines += ["", *_notes(found)]
    lines += [f"note: {note}" for note in plan.notes]
    return "\n".join(line.rstrip() for line in lines).rstrip()


def duration(seconds: float) -> str:
    """`45 s`, `12 min` or `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def dollars(micro_usd: int) -> str:
    """To the cent, never less than it is."""
    return f"${-(-micro_usd // 10_000) / 100:.2f}"


def _times(*seconds: float) -> tuple[str, ...]:
    return tuple(map(duration, seconds))


def _costs(item: NightJob | Estimate) -> tuple[str, str]:
    return dollars(item.expected_micro_usd), dollars(item.reserved_micro_usd)


def _elsewhere(other: Elsewhere) -> tuple[str, ...]:
    price_text = f"{dollars(other.price_micro_usd_per_hour)}/h"
    return other.flavor, price_text, duration(other.expected_s), dollars(other.expected_micro_usd)


def _heading(found: Estimate) -> list[str]:
    plan, size = found.plan, found.plan.model.parameters
    known = "an unknown number of weights" if size is None else f"{size:,} weights"
    lines = [f"model     {plan.model.id}, {known}"]
    if plan.teacher is not None:
        weights = plan.teacher.parameters
        lines.append(f"teacher   {plan.teacher.id}" + ("" if weights is None else f", {weights:,} weights"))
    lines.append(f"data      {plan.dataset.id}, {_rows(found)}")
    lines.append(f"flavor    {plan.flavor}{'' if found.choice is None else f': {found.choice.why}'}")
    if found.choice is not None:
        lines += [f"          not {short}" for short in found.choice.passed_over]
    if found.need is not None:
        each = None if found.choice is None else found.choice.flavor.vram_each_gb
        of = "" if each is None else f" of {VRAM_SHARE * each:.1f} usable"
        parts = ", ".join(f"{name} {value:.1f}" for name, value in found.terms.items() if value >= 0.05)
        lines.append(f"memory    {found.need.vram_gb:.1f} GB{of} (a step: {parts}), ")
        lines[-1] += f"host {found.need.ram_gb:.0f} GB, disk {found.need.disk_gb:.0f} GB"
    if found.prices is not None:
        lines.append(f"prices    {found.prices}")
    return lines


def _rows(found: Estimate) -> str:
    rows, limit = found.data.rows, found.plan.train.max_rows
    if rows is None:
        return f"rows not counted yet: {DEFAULT_ROWS:,} are assumed" if limit is None else f"at most {limit:,} rows"
    return f"{rows if limit is None else min(rows, limit):,} rows"


def _notes(found: Estimate) -> list[str]:
    lines = ["All by sizes, before anything ran: once the smoke run has measured the speed, that counts instead."]
    cap, plan = found.plan.budget_micro_usd, found.plan
    if plan.max_jobs > 1:
        night = duration(night_s(plan, found.data))
        lines.append(f"Up to {plan.max_jobs} jobs at a time: the night takes about {night}.")
    if found.plan.price_micro_usd_per_hour == 0:
        return lines
    if cap is None:
        lines.append("There is no budget yet: `hfagent run` asks for --budget-usd.")
    elif cap < found.expected_micro_usd:
        lines.append(f"The budget of {dollars(cap)} ends the search earlier: jobs are refused that it does not cover.")
    best = found.others[0] if found.others else None
    if best and best.expected_s < found.expected_s and best.expected_micro_usd < found.expected_micro_usd:
        lines.append(
            f"{best.flavor} costs more an hour and less in all: {duration(best.expected_s)}, "
            f"{dollars(best.expected_micro_usd)}; --flavor {best.flavor} takes it."
        )
    return lines


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    first, *widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    return [
        "  ".join((row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], widths, strict=True))))
        for row in (heads, *rows)
    ]
