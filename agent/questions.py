"""The commands that ask and start nothing. Each returns the exit code and prints its result on stdout."""

from hfagent.agent import console as terminal
from hfagent.agent import planning
from hfagent.agent.console import print_json
from hfagent.agent.plan import Flags
from hfagent.agent.records import DatasetRef
from hfagent.agent.settings import Settings


def estimate_goal(goal: str, flags: Flags, settings: Settings, *, as_json: bool) -> int:
    """What a goal would take and cost."""
    from hfagent.agent import estimate_view

    found = planning.estimate_goal(goal, flags, settings)
    if as_json:
        print_json(estimate_view.stages_json(found))
    else:
        print(estimate_view.stages_text(found))  # noqa: T201 - the result
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
        print_json(found.model_dump(mode="json"))
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
        print_json(found.model_dump())
    else:
        print(rehearsals.text(found))  # noqa: T201 - the result
    return 0
