"""What each command does. Every function returns the exit code and prints its result on stdout."""

import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from hfagent.agent import console as terminal
from hfagent.agent import estimate, planning, wiring
from hfagent.agent.dataset_records import DatasetReport
from hfagent.agent.errors import HfagentError, JobError, UsageError
from hfagent.agent.folding import fold
from hfagent.agent.ledger import is_held, read
from hfagent.agent.plan import Flags
from hfagent.agent.records import (
    DatasetRef,
    Export,
    Plan,
)
from hfagent.agent.report_release import export_text
from hfagent.agent.settings import Settings
from hfagent.agent.shipping import newest
from hfagent.agent.signals import Terminated, exit_code, terminable
from hfagent.agent.state import State
from hfagent.agent.summary import phase, summary
from hfagent.agent.wiring import Paths

EXIT = {"finished": 0, "running": 0, "waiting": 0, "failed": 1, "stopped": 3}
IMAGE = re.compile(r"^!\[(.*)\]\((.*)\)$", re.MULTILINE)


def run(goal: str, flags: Flags, settings: Settings, *, dry_run: bool, as_json: bool) -> int:
    """Plan a goal and reach it."""
    plan = planning.plan_goal(goal, flags, settings)
    if dry_run:
        from hfagent.tools.sources import rough_size

        _show_plan(plan, None, rough_size(plan.dataset), as_json=as_json)
        return 0
    settings = wiring.as_planned(settings, plan)
    ask = None if settings.confirm_yes else _asker(as_json=as_json)
    wiring.preflight(settings, plan)
    from hfagent.agent.night import begin

    if settings.planner != "rules":
        from hfagent.agent.planners import require_planner

        require_planner(settings)
    console = terminal.stderr_console()
    for note in plan.notes if ask is None else ():  # the question shows them with the plan
        console.print(f"note: {note}")
    paths = Paths(settings.reports_dir, plan.project)
    return _worked(
        lambda: begin(plan, wiring.night_ports(settings), settings, ask=ask, console=console), paths, as_json=as_json
    )


def publish(project: str | None, export: Export, settings: Settings, *, as_json: bool) -> int:
    """Export the kept model of a project that has ended, and wait for it."""
    from hfagent.agent.night import export as run_export

    if not planning.hub_answers() and export.push is not None:
        raise UsageError(f"the Hub does not answer, so nothing can be pushed to {export.push!r}: leave --push out")
    paths = wiring.find_project(settings.reports_dir, project)
    settings = wiring.as_planned(settings, _state(paths).plan)
    wiring.preflight(settings)
    console = terminal.stderr_console()
    state = run_export(paths, wiring.night_ports(settings), settings, export, console=console)
    run = newest(state)
    if as_json and run is not None:
        result = {**run.result, "run": run.spec.name, "stage": run.last.stage, "message": run.last.message}
        _print_json(result)
    else:
        print(export_text(state))  # noqa: T201 - the result
    return int(run is None or not run.done)


def estimate_goal(goal: str, flags: Flags, settings: Settings, *, as_json: bool) -> int:
    """What a goal would take and cost."""
    from hfagent.agent import estimate_view

    found = planning.estimate_goal(goal, flags, settings)
    if as_json:
        _print_json(estimate_view.as_json(found))
    else:
        print(estimate_view.text(found))  # noqa: T201 - the result
    return 0


def resume(project: str | None, settings: Settings, *, as_json: bool) -> int:
    """Go on with a project."""
    planning.hub_answers()
    from hfagent.agent.night import resume as take_over

    paths = wiring.find_project(settings.reports_dir, project)
    settings = wiring.as_planned(settings, _state(paths).plan)
    wiring.preflight(settings)
    console = terminal.stderr_console()
    return _worked(
        lambda: take_over(paths, wiring.night_ports(settings), settings, console=console), paths, as_json=as_json
    )


def status(project: str | None, settings: Settings, *, as_json: bool) -> int:
    """Show a project."""
    paths = wiring.find_project(settings.reports_dir, project)
    state = _state(paths)
    held = is_held(paths.ledger)
    if as_json:
        _print_json(summary(state, report=paths.report, ledger=paths.ledger, held=held))
        return 0
    console = terminal.stdout_console()
    console.print(f"{state.plan.project}  {phase(state, held=held)}", style="name")
    now = datetime.now(UTC)
    console.print(terminal.run_table(state, now))
    console.print(terminal.closing(state, paths, now, held=held), soft_wrap=True)
    return 0


def report(project: str | None, settings: Settings, *, show: bool, as_html: bool = False) -> int:
    """Print the report's path, or the report; or write it as a page and print that path."""
    paths = wiring.find_project(settings.reports_dir, project)
    if as_html:
        from hfagent.agent.report import current
        from hfagent.agent.report_html import write

        print(write(current(_state(paths), paths.report), paths.report))  # noqa: T201 - the result
        return 0
    if not show:
        print(paths.report)  # noqa: T201 - the result
        return 0
    from rich.markdown import Markdown

    from hfagent.agent.report import current

    # A terminal shows no pictures: their files are named instead.
    text = IMAGE.sub(lambda found: f"{found[1]}: `{paths.reports / found[2]}`", current(_state(paths), paths.report))
    terminal.stdout_console().print(Markdown(text))
    return 0


def logs(name: str, project: str | None, settings: Settings, *, tail: int) -> int:
    """Print the end of a log: of the newest job of a run, or of the job with this id.

    Raises:
        UsageError: no such run and no such job; the message lists the runs.
    """
    paths = wiring.find_project(settings.reports_dir, project)
    runs = _state(paths).runs
    job = runs[name].last.job_id if name in runs else name
    if job is None:
        raise UsageError(f"the run {name!r} has no job yet; see `hfagent status {paths.project}`")
    try:
        lines = wiring.job_runner(wiring.as_planned(settings, _state(paths).plan)).logs(job, tail=tail)
    except JobError as error:
        if name in runs:
            raise
        known = ", ".join(runs) or "none yet"
        raise UsageError(
            f"no run and no job {name!r} in the project {paths.project!r}: its runs are {known}; "
            "another project is chosen with --project"
        ) from error
    for line in lines:
        print(line)  # noqa: T201 - the result
    return 0


def cancel(project: str | None, settings: Settings) -> int:
    """Stop a project."""
    from hfagent.agent.control import Request
    from hfagent.agent.night import ask

    paths = wiring.find_project(settings.reports_dir, project)
    settings = wiring.as_planned(settings, _state(paths).plan)
    state = _state(paths)
    if state.ended is not None:
        raise UsageError(f"the project {paths.project!r} is already {state.ended.state}")
    request = Request(ask="stop", text="on request, by hfagent cancel")
    elsewhere = ask(paths, wiring.night_ports(settings), settings, request)
    print(f"{paths.project}: {'will stop within seconds' if elsewhere else 'stopped'}")  # noqa: T201 - the result
    return 0


def check(
    dataset: str,
    settings: Settings,
    *,
    method: str | None,
    config: str | None,
    split: str,
    model: str | None,
    max_length: int | None,
    as_json: bool,
) -> int:
    """Judge a dataset; exit code 1 where no method that was asked about can train on it."""
    if max_length is not None and model is None:
        terminal.stderr_console().print("note: --max-length has no effect without --model, whose tokenizer counts")
    ref = DatasetRef(id=dataset, config=config, split=split)
    found = planning.check_data(ref, settings, method=method, model=model, max_length=max_length)
    if as_json:
        _print_json(found.model_dump(mode="json"))
    else:
        terminal.stdout_console().print(terminal.dataset_view(found))
    return int(all(item.verdict == "INCOMPATIBLE" for item in found.methods.values()))


def rehearse(goal: str, *, scenario: str, nights: int, seed: int, planner: str, as_json: bool) -> int:
    """Simulate nights."""
    from rich.progress import Progress

    from hfagent.agent import rehearse as rehearsals

    with Progress(console=terminal.stderr_console(), transient=True) as progress:
        task = progress.add_task("nights", total=nights)
        found = rehearsals.rehearse(
            goal,
            scenario=scenario,
            nights=nights,
            seed=seed,
            planner=planner,
            progress=lambda done: progress.update(task, completed=done),
        )
    if as_json:
        _print_json(found.model_dump())
    else:
        print(rehearsals.text(found))  # noqa: T201 - the result
    return 0


def doctor(settings: Settings, *, model: str | None, dataset: str | None, as_json: bool) -> int:
    """Examine the machine, and the account where jobs run on hf."""
    from hfagent.tools.doctor import examine

    checks = examine(settings, model=model, dataset=dataset)
    if as_json:
        _print_json({"checks": [item.model_dump() for item in checks]})
    else:
        console = terminal.stdout_console()
        for item in checks:
            mark = {"ok": "ok    ", "note": "note  ", "broken": "BROKEN"}[item.status]
            console.print(f"{mark} {item.name}: {item.detail}", style={"broken": "fail"}.get(item.status, ""))
            if item.mend is not None:
                console.print(f"       {item.mend}", style="detail", soft_wrap=True)  # an address stays whole
    return int(any(item.status == "broken" for item in checks))


def _asker(*, as_json: bool) -> Callable[[State], Plan | bool]:
    """The question before a launch.

    Raises:
        UsageError: there is no terminal to ask.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("there is no terminal to ask on: add --yes to start, or --dry-run to see plan and cost")
    from hfagent.agent.confirm import ask
    from hfagent.tools.sources import context_length

    def asked(state: State) -> Plan | bool:
        _show_plan(state.plan, state.dataset, estimate.data_size(state.dataset), as_json=False, to=sys.stderr)
        return ask(state.plan, sys.stdin, sys.stderr, context=context_length(state.model_path or state.plan.model.id))

    return asked


def _show_plan(
    plan: Plan, dataset: DatasetReport | None, size: estimate.DataSize, *, as_json: bool, to: Any = None
) -> None:
    seconds = estimate.night_s(plan, size)
    if as_json:
        cost = estimate.cost_micro_usd(plan, seconds) / 1e6
        _print_json({"plan": plan.model_dump(mode="json"), "estimate_s": round(seconds), "estimate_usd": cost})
        return
    print(terminal.plan_text(plan, dataset, seconds=seconds), file=to or sys.stdout)


def _worked(night: Callable[[], State | None], paths: Paths, *, as_json: bool) -> int:
    """Run a night and print what came of it, also when it was interrupted or crashed."""
    with terminable():
        return _closed(night, paths, as_json=as_json)


def _closed(night: Callable[[], State | None], paths: Paths, *, as_json: bool) -> int:
    console = terminal.stderr_console()
    try:
        state = night()
    except KeyboardInterrupt as signaled:
        said = "terminated" if isinstance(signaled, Terminated) else "interrupted"
        if not paths.ledger.exists():
            console.print(f"{said}; nothing was started")
        else:
            console.print(f"{said}; a running job goes on: take it up with `hfagent resume {paths.project}`")
            console.print(f"or stop it with `hfagent cancel {paths.project}`")
            if as_json:
                _close(_state(paths), paths, as_json=True)
        return exit_code(signaled)
    except HfagentError as error:
        # Held by another process now: the error is about this attempt, and that process tells how the project stands.
        if not paths.ledger.exists() or is_held(paths.ledger):
            raise
        console.print(f"hfagent: {error}")
        _close(_state(paths), paths, as_json=as_json)
        return error.exit_code
    if state is None:
        console.print("nothing was started")
        return 0
    return _close(state, paths, as_json=as_json)


def _close(state: State, paths: Paths, *, as_json: bool) -> int:
    if as_json:
        _print_json(summary(state, report=paths.report, ledger=paths.ledger, held=False))
    else:
        print(terminal.closing(state, paths, datetime.now(UTC), held=False))  # noqa: T201 - the result
    return EXIT[phase(state, held=False)]


def _state(paths: Paths) -> State:
    state = fold(read(paths.ledger))
    if state is None:
        raise UsageError(f"the ledger {str(paths.ledger)!r} has no plan yet")
    return state


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None))  # noqa: T201 - the result
