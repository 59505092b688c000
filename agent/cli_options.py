"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Project = Annotated[str | None, typer.Argument(help="Project; the newest one when left out.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Head = Annotated[str | None, typer.Option(help="A hash that a report or an earlier verify told: a line must have it.")]
ReportsDir = Annotated[Path | None, typer.Option(help="Folder of ledgers and reports.")]
PlannerOption = Annotated[
    str | None,
    typer.Option("--planner", help="Who plans: rules, openai:<model>, hf:<model>, or an OpenAI-compatible base url."),
]
BackendOption = Annotated[
    str | None,
    typer.Option("--backend", help="Where jobs run: local, hf for Hugging Face Jobs, slurm or ray for a cluster."),
]
TeacherOption = Annotated[
    str | None, typer.Option("--teacher", help="Model to learn from by distillation: Hub id or folder.")
]
StateDir = Annotated[Path | None, typer.Option(help="Folder of jobs and data.")]
