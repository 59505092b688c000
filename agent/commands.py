"""What each command does. Every function returns the exit code and prints its result on stdout."""

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from hfagent.agent import console as terminal
from hfagent.agent import estimate, planning, wiring
from hfagent.agent.console import print_json
from hfagent.agent.errors import HfagentError, JobError, UsageError
from hfagent.agent.ledger import is_held
from hfagent.agent.pipeline_facts import Pipeline
from hfagent.agent.pipeline_state import PipelineState
from hfagent.agent.pipeline_views import expected_s, pipeline_text
from hfagent.agent.plan import Flags
from hfagent.agent.project import PipelineProject, known
from hfagent.agent.records import Export, Plan
from hfagent.agent.redact import redact
from hfagent.agent.report_release import export_text
from hfagent.agent.settings import Settings
from hfagent.agent.shipping import newest
from hfagent.agent.signals import Terminated, exit_code, terminable
from hfagent.agent.state import State
from hfagent.agent.wiring import Paths

EXIT = {"finished": 0, "running": 0, "waiting": 0, "failed": 1, "stopped": 3}
IMAGE = re.compile(r"^!\[(.*)\]\((.*)\)$", re.MULTILINE)


def run(goal: str, flags: Flags, settings: Settings, *, dry_run: bool, as_json: bool) -> int:
    """Plan a goal and reach it."""
    plan = planning.plan_goal(goal, flags, settings)
    first = plan.stages[0] if isinstance(plan, Pipeline) else plan
    if dry_run:
        _show(plan, as_json=as_json)
        return 0
    settings = wiring.as_planned(settings, first)
    if not settings.confirm_yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("there is no terminal to ask on: add --yes to start, or --dry-run to see plan and cost")
    for stage in plan.stages if isinstance(plan, Pipeline) else (plan,):
        wiring.preflight(settings, stage)
    if settings.planner != "rules":
        from hfagent.agent.planners import require_planner

        require_planner(settings)
    console = terminal.stderr_console()
    for note in plan.notes if settings.confirm_yes else ():  # the question shows them with the plan
        console.print(f"note: {note}")

    def night() -> object:
        ports = wiring.night_ports(settings)
        if isinstance(plan, Pipeline):
            from hfagent.agent import pipeline

            agreed = None if settings.confirm_yes else _pipeline_agreed
            return pipeline.begin(plan, ports, settings, ask=agreed, console=console)
        from hfagent.agent.night import begin

        return begin(plan, ports, settings, ask=None if settings.confirm_yes else _agreed, console=console)

    return _worked(night, Paths(settings.reports_dir, plan.project), as_json=as_json)


def publish(project: str | None, export: Export, settings: Settings, *, as_json: bool) -> int:
    """Export the kept model of a project that has ended, and wait for it."""
    from hfagent.agent import night, pipeline

    if not planning.hub_answers() and export.push is not None:
        raise UsageError(f"the Hub does not answer, so nothing can be pushed to {export.push!r}: leave --push out")
    found = known(paths := wiring.find_project(settings.reports_dir, project))
    settings = wiring.as_planned(settings, found.plan)
    wiring.preflight(settings)
    planning.require_export(export, found.plan, settings)
    make = pipeline.export if isinstance(found, PipelineProject) else night.export
    state = make(paths, wiring.night_ports(settings), settings, export, console=terminal.stderr_console())
    run = newest(state)
    if as_json and run is not None:
        result = {**run.result, "run": run.spec.name, "stage": run.last.stage, "message": run.last.message}
        print_json(result)
    else:
        print(export_text(state))  # noqa: T201 - the result
    return int(run is None or not run.done)


def resume(project: str | None, settings: Settings, *, as_json: bool) -> int:
    """Go on with a project."""
    planning.hub_answers()
    from hfagent.agent import night, pipeline

    found = known(paths := wiring.find_project(settings.reports_dir, project))
    settings = wiring.as_planned(settings, found.plan)
    wiring.preflight(settings)
    console = terminal.stderr_console()
    go_on: Callable[..., object] = pipeline.resume if isinstance(found, PipelineProject) else night.resume
    return _worked(
        lambda: go_on(paths, wiring.night_ports(settings), settings, console=console), paths, as_json=as_json
    )


def status(project: str | None, settings: Settings, *, as_json: bool) -> int:
    """Show a project."""
    found = known(paths := wiring.find_project(settings.reports_dir, project))
    held = is_held(paths.ledger)
    if as_json:
        print_json(found.summary(held=held))
        return 0
    console = terminal.stdout_console()
    console.print(f"{paths.project}  {found.phase(held=held)}", style="name")
    now = datetime.now(UTC)
    console.print(found.table(now))
    if isinstance(found, PipelineProject) and found.live is not None and found.over is None:
        console.print(terminal.run_table(found.live, now))
    console.print(found.closing(now, held=held), soft_wrap=True)
    return 0


def report(project: str | None, settings: Settings, *, show: bool, as_html: bool = False) -> int:
    """Print the report's path, or the report; or write it as a page and print that path."""
    paths = wiring.find_project(settings.reports_dir, project)
    if as_html:
        from hfagent.agent.report_html import write

        print(write(known(paths).report(), paths.report))  # noqa: T201 - the result
        return 0
    if not show:
        print(paths.report)  # noqa: T201 - the result
        return 0
    from rich.markdown import Markdown

    # A terminal shows no pictures: their files are named instead.
    text = IMAGE.sub(lambda found: f"{found[1]}: `{paths.reports / found[2]}`", known(paths).report())
    terminal.stdout_console().print(Markdown(text))
    return 0


def logs(name: str, project: str | None, settings: Settings, *, tail: int) -> int:
    """Print the end of a log: of the newest job of a run, or of the job with this id.

    Raises:
        UsageError: no such run and no such job; the message lists the runs.
    """
    paths = wiring.find_project(settings.reports_dir, project)
    found = known(paths)
    runs = found.runs()
    job = runs[name].last.job_id if name in runs else name
    if job is None:
        raise UsageError(f"the run {name!r} has no job yet; see `hfagent status {paths.project}`")
    try:
        lines = wiring.job_runner(wiring.as_planned(settings, found.plan)).logs(job, tail=tail)
    except JobError as error:
        if name in runs:
            raise
        names = ", ".join(runs) or "none yet"
        raise UsageError(
            f"no run and no job {name!r} in the project {paths.project!r}: its runs are {names}; "
            "another project is chosen with --project"
        ) from error
    for line in lines:
        print(redact(line))  # noqa: T201 - the result
    return 0


def cancel(project: str | None, settings: Settings) -> int:
    """Stop a project."""
    from hfagent.agent import night, pipeline
    from hfagent.agent.control import Request

    found = known(paths := wiring.find_project(settings.reports_dir, project))
    settings = wiring.as_planned(settings, found.plan)
    if found.over is not None:
        outlived = found.live is not None and found.live.outlived
        more = f"; `hfagent resume {paths.project}` ends the jobs that still run" if outlived else ""
        raise UsageError(f"the project {paths.project!r} is already {found.over}{more}")
    request = Request(ask="stop", text="on request, by hfagent cancel")
    ask = pipeline.ask if isinstance(found, PipelineProject) else night.ask
    elsewhere = ask(paths, wiring.night_ports(settings), settings, request)
    print(f"{paths.project}: {'will stop within seconds' if elsewhere else 'stopped'}")  # noqa: T201 - the result
    return 0


def doctor(settings: Settings, *, model: str | None, dataset: str | None, as_json: bool) -> int:
    """Examine the machine, and the account where jobs run on hf."""
    from hfagent.tools.doctor import examine

    checks = examine(settings, model=model, dataset=dataset)
    if as_json:
        print_json({"checks": [item.model_dump() for item in checks]})
    else:
        console = terminal.stdout_console()
        for item in checks:
            mark = {"ok": "ok    ", "note": "note  ", "broken": "BROKEN"}[item.status]
            console.print(f"{mark} {item.name}: {item.detail}", style={"broken": "fail"}.get(item.status, ""))
            if item.mend is not None:
                console.print(f"       {item.mend}", style="detail", soft_wrap=True)  # an address stays whole
    return int(any(item.status == "broken" for item in checks))


def _agreed(state: State) -> Plan | bool:
    """The question before a launch."""
    from hfagent.agent.confirm import ask
    from hfagent.tools.sources import context_length

    _say(terminal.plan_text(state.plan, state.dataset, data=estimate.data_size(state.dataset)))
    return ask(state.plan, sys.stdin, sys.stderr, context=context_length(state.model_path or state.plan.model.id))


def _pipeline_agreed(state: PipelineState) -> bool:
    """The same question about all stages."""
    from hfagent.agent.confirm import yes

    _say(pipeline_text(state.pipeline, state))
    return yes(sys.stdin, sys.stderr)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _show(plan: Plan | Pipeline, *, as_json: bool) -> None:
    """A plan and its cost before anything is fetched."""
    from hfagent.tools.sources import rough_size

    if isinstance(plan, Pipeline):
        if as_json:
            print_json({"pipeline": plan.model_dump(mode="json"), "estimate_s": round(expected_s(plan, None))})
        else:
            print(pipeline_text(plan, None))  # noqa: T201 - the result
        return
    data = rough_size(plan.dataset)
    if as_json:
        cost, seconds = estimate.cost_micro_usd(plan, estimate.work_s(plan, data)) / 1e6, estimate.night_s(plan, data)
        print_json({"plan": plan.model_dump(mode="json"), "estimate_s": round(seconds), "estimate_usd": cost})
    else:
        print(terminal.plan_text(plan, None, data=data))  # noqa: T201 - the result


def _worked(night: Callable[[], object], paths: Paths, *, as_json: bool) -> int:
    """Run a night and print what came of it, also when it was interrupted or crashed."""
    with terminable():
        return _closed(night, paths, as_json=as_json)


def _closed(night: Callable[[], object], paths: Paths, *, as_json: bool) -> int:
    console = terminal.stderr_console()
    try:
        ended = night()
    except KeyboardInterrupt as signaled:
        said = "terminated" if isinstance(signaled, Terminated) else "interrupted"
        if not paths.ledger.exists():
            console.print(f"{said}; nothing was started")
        else:
            console.print(f"{said}; a running job goes on: take it up with `hfagent resume {paths.project}`")
            console.print(f"or stop it with `hfagent cancel {paths.project}`")
            if as_json:
                _close(paths, as_json=True)
        return exit_code(signaled)
    except HfagentError as error:
        # Held by another process now: the error is about this attempt, and that process tells how the project stands.
        if not paths.ledger.exists() or is_held(paths.ledger):
            raise
        console.print(f"hfagent: {error}")
        _close(paths, as_json=as_json)
        return error.exit_code
    if ended is None:
        console.print("nothing was started")
        return 0
    return _close(paths, as_json=as_json)


def _close(paths: Paths, *, as_json: bool) -> int:
    found = known(paths)
    if as_json:
        print_json(found.summary(held=False))
    else:
        print(found.closing(datetime.now(UTC), held=False))  # noqa: T201 - the result
    return EXIT[found.phase(held=False)]
