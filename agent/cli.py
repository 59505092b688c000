"""The command line: parse, wire, call, print. stdout is the result, stderr is progress."""

import json
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hfagent import __version__
from hfagent.agent.cli_options import (
    AsJson,
    BackendOption,
    Head,
    PlannerOption,
    Project,
    ReportsDir,
    StateDir,
    TeacherOption,
)

EXIT_FAILED, EXIT_USAGE, EXIT_STOPPED, EXIT_INTERRUPTED = 1, 2, 3, 130
COMMANDS = (
    "run", "estimate", "resume", "status", "report", "logs", "cancel", "publish", "check", "rehearse", "doctor", "mcp",
    "chat", "watch", "verify",
)  # fmt: skip


class GoalFirst(TyperGroup):
    """`hfagent "goal"` is `hfagent run "goal"`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `run` before a first word that is no command."""
        if not args and sys.stdin.isatty() and sys.stdout.isatty():
            args = ["chat"]
        if args and args[0] not in COMMANDS and args[0] not in ("--help", "--version"):
            guess = get_close_matches(args[0], COMMANDS, n=1)
            if guess and " " not in args[0]:
                ctx.fail(f"unknown command {args[0]!r}: did you mean {guess[0]!r}? A goal is a sentence in quotes")
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=GoalFirst,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help='Post-training that runs overnight: hfagent "improve code solving with SFT"',
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hfagent {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Post-training that runs overnight: plan, train, evaluate, decide, and prove the gain."""


@app.command()
def run(
    goal: Annotated[str, typer.Argument(help="What to achieve, in a sentence.")],
    model: Annotated[str | None, typer.Option(help="Base model: Hub id or folder.")] = None,
    teacher: TeacherOption = None,
    dataset: Annotated[
        str | None, typer.Option(help="Training data: Hub id, file or folder; one for each stage with commas.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of the dataset.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of the dataset.")] = None,
    method: Annotated[
        str | None,
        typer.Option(help="sft, dpo, grpo, kto or distillation; several with commas run one after the other."),
    ] = None,
    benchmark: Annotated[str | None, typer.Option(help="Benchmark of the confirm set, e.g. openai_humaneval.")] = None,
    guard: Annotated[list[str] | None, typer.Option(help="Benchmark that must not get worse; may be repeated.")] = None,
    backend: BackendOption = None,
    flavor: Annotated[str | None, typer.Option(help="Hardware of a job on hf, e.g. l4x1.")] = None,
    budget_usd: Annotated[float | None, typer.Option(help="Cap on the whole project, in dollars.")] = None,
    max_hours: Annotated[float | None, typer.Option(help="Time limit of the whole project.")] = None,
    max_trials: Annotated[int | None, typer.Option(help="Sets of hyperparameters to try.")] = None,
    max_jobs: Annotated[int | None, typer.Option(help="Jobs at a time while they are tried.")] = None,
    target_points: Annotated[float | None, typer.Option(help="Gain on the search set that ends the search.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A test: 100 examples, few steps.")] = False,
    push: Annotated[str | None, typer.Option(help="Repo for the model, if it is better: user/name. Private.")] = None,
    gguf: Annotated[str | None, typer.Option(help="GGUF files to make of it, e.g. Q4_K_M,Q8_0.")] = None,
    public: Annotated[bool, typer.Option("--public", help="The repo may be seen by all.")] = False,
    publish_anyway: Annotated[bool, typer.Option("--publish-anyway", help="Push also without a gain.")] = False,
    project: Annotated[str | None, typer.Option(help="Name of the project.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of data, training and problems.")] = None,
    planner: PlannerOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before starting.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print plan and cost, launch nothing.")] = False,
    unsafe_exec: Annotated[bool, typer.Option("--unsafe-exec", help="Run generated code without a sandbox.")] = False,
    reports_dir: ReportsDir = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Reach a goal: check, smoke, baseline, train, evaluate, decide, confirm, report."""
    from hfagent.agent import commands
    from hfagent.agent.plan import Flags

    settings = _settings(
        backend=backend, flavor=flavor, budget_usd=budget_usd, max_hours=max_hours, seed=seed,
        max_trials=max_trials, max_jobs=max_jobs, target_points=target_points, planner=planner, confirm_yes=yes or None,
        unsafe_exec=unsafe_exec or None, reports_dir=reports_dir, state_dir=state_dir,
    )  # fmt: skip
    flags = Flags(
        model=model, teacher=teacher, dataset=dataset, config=config, split=split, method=method, benchmark=benchmark,
        guards=tuple(guard or ()),
        project=project, quick=quick, push=push, gguf=gguf, public=public, publish_anyway=publish_anyway,
    )  # fmt: skip
    _exit(commands.run(goal, flags, settings, dry_run=dry_run, as_json=as_json))


@app.command()
def estimate(
    goal: Annotated[str, typer.Argument(help="What to achieve, in a sentence.")],
    model: Annotated[str | None, typer.Option(help="Base model: Hub id or folder.")] = None,
    teacher: TeacherOption = None,
    dataset: Annotated[str | None, typer.Option(help="Training data: Hub id, file or folder.")] = None,
    backend: BackendOption = None,
    flavor: Annotated[str | None, typer.Option(help="Hardware of a job on hf, e.g. l4x1.")] = None,
    budget_usd: Annotated[float | None, typer.Option(help="Cap on the whole project, in dollars.")] = None,
    max_trials: Annotated[int | None, typer.Option(help="Sets of hyperparameters to try.")] = None,
    max_jobs: Annotated[int | None, typer.Option(help="Jobs at a time while they are tried.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A test: 100 examples, few steps.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a goal would need, take and cost, and on which hardware; launches nothing."""
    from hfagent.agent import questions
    from hfagent.agent.plan import Flags

    settings = _settings(
        backend=backend, flavor=flavor, budget_usd=budget_usd, max_trials=max_trials, max_jobs=max_jobs
    )
    flags = Flags(model=model, teacher=teacher, dataset=dataset, quick=quick)
    _exit(questions.estimate_goal(goal, flags, settings, as_json=as_json))


@app.command()
def resume(
    project: Project = None,
    planner: PlannerOption = None,
    reports_dir: ReportsDir = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a project after an interruption; running jobs are attached again."""
    from hfagent.agent import commands

    settings = _settings(planner=planner, reports_dir=reports_dir, state_dir=state_dir)
    _exit(commands.resume(project, settings, as_json=as_json))


@app.command()
def status(project: Project = None, reports_dir: ReportsDir = None, as_json: AsJson = False) -> None:
    """Show where a project stands."""
    from hfagent.agent import commands

    _exit(commands.status(project, _settings(reports_dir=reports_dir), as_json=as_json))


@app.command()
def report(
    project: Project = None,
    reports_dir: ReportsDir = None,
    show: Annotated[bool, typer.Option("--print", help="Render it in the terminal.")] = False,
    as_html: Annotated[bool, typer.Option("--html", help="Write it as one HTML file, and print that path.")] = False,
) -> None:
    """Print the path of the report, or the report itself."""
    from hfagent.agent import commands

    _exit(commands.report(project, _settings(reports_dir=reports_dir), show=show, as_html=as_html))


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="Run, as in `hfagent status` (its newest job), or a job's id.")],
    project: Annotated[str | None, typer.Option(help="Project of the run; the newest one when left out.")] = None,
    tail: Annotated[int, typer.Option(min=1, help="Number of lines.")] = 100,
    reports_dir: ReportsDir = None,
    state_dir: StateDir = None,
) -> None:
    """Print the last lines of a run's log."""
    from hfagent.agent import commands

    _exit(commands.logs(name, project, _settings(reports_dir=reports_dir, state_dir=state_dir), tail=tail))


@app.command()
def publish(
    project: Project = None,
    push: Annotated[str | None, typer.Option(help="Repo of the merged model: user/name. Private.")] = None,
    gguf: Annotated[str | None, typer.Option(help="GGUF files to make, e.g. Q4_K_M,Q8_0.")] = None,
    public: Annotated[bool, typer.Option("--public", help="The repo may be seen by all.")] = False,
    anyway: Annotated[bool, typer.Option("--publish-anyway", help="Also without a confirmed gain.")] = False,
    reports_dir: ReportsDir = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Merge the model of a finished project, convert it to GGUF, push it."""
    from hfagent.agent import commands
    from hfagent.agent.goal_export import quantizations
    from hfagent.agent.records import Export

    quantize = quantizations(gguf or "")
    export = Export(quantize=quantize, push=push, public=public, anyway=anyway)
    settings = _settings(reports_dir=reports_dir, state_dir=state_dir)
    _exit(commands.publish(project, export, settings, as_json=as_json))


@app.command()
def cancel(project: Project = None, reports_dir: ReportsDir = None, state_dir: StateDir = None) -> None:
    """Stop a project and the job that it runs."""
    from hfagent.agent import commands

    _exit(commands.cancel(project, _settings(reports_dir=reports_dir, state_dir=state_dir)))


@app.command()
def check(
    dataset: Annotated[str, typer.Argument(help="Hub id, file or folder.")],
    method: Annotated[str | None, typer.Option(help="sft, dpo, grpo, kto or distillation; all when left out.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of the dataset.")] = None,
    split: Annotated[str, typer.Option(help="Split of the dataset.")] = "train",
    model: Annotated[str | None, typer.Option(help="Model whose tokenizer measures lengths: Hub id or folder.")] = None,
    max_length: Annotated[
        int | None, typer.Option(min=8, help="Tokens of a row, against which lengths are held.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge a dataset for each training method, before any money is spent."""
    from hfagent.agent import questions

    settings = _settings()
    _exit(questions.check(dataset, settings, method=method, config=config, split=split, model=model,
                         max_length=max_length, as_json=as_json))  # fmt: skip


@app.command()
def rehearse(
    goal: Annotated[str, typer.Argument(help="What to achieve, in a sentence.")],
    scenario: Annotated[
        str,
        typer.Option(
            help="What happens: null, mixed, divergence, oom, stuck_queue, flaky, leak, contaminated.",
        ),
    ] = "mixed",
    nights: Annotated[int, typer.Option(min=1, help="Number of nights.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of all nights.")] = 0,
    planner: Annotated[str, typer.Option(help="Who plans: rules.")] = "rules",
    as_json: AsJson = False,
) -> None:
    """Simulate whole nights by the real rules, and count what their claims are worth."""
    from hfagent.agent import questions

    _exit(questions.rehearse(goal, scenario=scenario, nights=nights, seed=seed, planner=planner, as_json=as_json))


@app.command()
def doctor(
    backend: BackendOption = None,
    flavor: Annotated[str | None, typer.Option(help="Hardware of a job on hf, e.g. l4x1.")] = None,
    model: Annotated[str | None, typer.Option(help="Base model that jobs on hf must find.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Training data that jobs on hf must find.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at this machine, or at the account or cluster of --backend: what works, and what to do about the rest."""
    from hfagent.agent import commands

    settings = _settings(backend=backend, flavor=flavor)
    _exit(commands.doctor(settings, model=model, dataset=dataset, as_json=as_json))


@app.command()
def verify(project: Project = None, head: Head = None, reports_dir: ReportsDir = None, as_json: AsJson = False) -> None:
    """Check that a project's ledger holds what was written, line by line, and all that its report was rendered of."""
    from hfagent.agent import verify as verifying

    _exit(verifying.verify(project, _settings(reports_dir=reports_dir), head=head, as_json=as_json))


@app.command()
def watch(
    project: Project = None,
    web: Annotated[bool, typer.Option("--web", help="As a page on this machine, for a browser.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 takes a free one.")] = 8765,
    reports_dir: ReportsDir = None,
) -> None:
    """Follow a night: its runs, losses, budget and decisions."""
    from hfagent.agent import doors

    _exit(doors.watch(project, _settings(reports_dir=reports_dir), web=web, port=port))


@app.command()
def chat(planner: PlannerOption = None, reports_dir: ReportsDir = None, state_dir: StateDir = None) -> None:
    """Talk about projects, start one, and steer one that runs; also what `hfagent` alone does at a terminal."""
    from hfagent.agent import doors

    _exit(doors.chat(_settings(planner=planner, reports_dir=reports_dir, state_dir=state_dir)))


@app.command()
def mcp(reports_dir: ReportsDir = None, state_dir: StateDir = None) -> None:
    """Let another agent work a project: a server of the Model Context Protocol on stdin and stdout."""
    from hfagent.agent import doors

    _exit(doors.mcp(_settings(reports_dir=reports_dir, state_dir=state_dir)))


def _settings(**flags: Any) -> Any:
    from hfagent.agent.settings import load

    return load(flags, cwd=Path.cwd(), env=os.environ)


def _exit(code: int) -> None:
    if code:
        raise typer.Exit(code)


def main(args: Sequence[str] | None = None) -> None:
    """Run the program; errors meant for people are one line and an exit code."""
    from hfagent.agent.errors import HfagentError

    try:
        app(args=list(args) if args is not None else None)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except HfagentError as error:
        if "--json" in (args if args is not None else sys.argv):
            typer.echo(json.dumps({"error": str(error)}))
        typer.echo(f"hfagent: {error}", err=True)
        sys.exit(error.exit_code)
