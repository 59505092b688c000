"""The command line of a training script, and the rows that it names."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hfagent.agent.dataset_records import ColumnMapping
from hfagent.agent.errors import UsageError
from hfagent.agent.records import (
    DatasetRef,
    Method,
    TrainConfig,
)

Row = dict[str, Any]
SMOKE_ROWS = 16
CONTENT = ("prompt", "completion", "chosen", "rejected", "messages", "conversations", "text")
"""Columns that hold texts or chats; a format names some of them."""


@dataclass(frozen=True)
class Args:
    """The parsed command line."""

    model: str
    revision: str | None
    dataset: DatasetRef
    mapping: ColumnMapping | None
    config: TrainConfig
    project: str
    run_name: str
    output_dir: Path
    resume_from_checkpoint: Path | None
    unsafe_exec: bool = False
    teacher: str | None = None
    teacher_revision: str | None = None
    smoke: bool = False


def parse_args(argv: Sequence[str] | None, *, method: Method, description: str | None) -> Args:
    """Parse; ends the process with exit code 2 on a wrong argument."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", required=True, help="Hub id or folder")
    parser.add_argument("--revision", help="commit or branch of the model")
    parser.add_argument("--dataset", required=True, help="Hub id, file or folder")
    parser.add_argument("--config", help="config of the dataset")
    parser.add_argument("--split", default="train")
    parser.add_argument("--mapping", help="ColumnMapping as JSON: how rows are rewritten")
    parser.add_argument("--project", default="hfagent", help="Trackio project")
    parser.add_argument("--run-name", help="Trackio run (default: the name of the output folder)")
    parser.add_argument("--output-dir", required=True, type=Path)
    parser.add_argument("--resume-from-checkpoint", type=Path, help="a folder checkpoint-N")
    parser.add_argument("--smoke", action="store_true", help=f"3 steps, on {SMOKE_ROWS} rows or a batch")
    if method == "grpo":
        parser.add_argument("--unsafe-exec", action="store_true", help="run answers even where no sandbox works")
    if method == "distillation":
        parser.add_argument("--teacher", required=True, help="Hub id or folder of the model to learn from")
        parser.add_argument("--teacher-revision", help="commit or branch of the teacher")
    add_hyperparameters(parser)
    args = parser.parse_args(argv)
    config = hyperparameters(parser, args, method=method)
    if config.method != method:
        parser.error(f"argument --method: this script trains by {method!r}, not {config.method!r}")
    try:
        mapping = ColumnMapping.model_validate_json(args.mapping) if args.mapping else None
    except ValidationError as error:
        parser.error(f"argument --mapping: {args.mapping!r}: {error.errors()[0]['msg']}")
    return Args(
        model=args.model,
        revision=args.revision,
        dataset=DatasetRef(id=args.dataset, config=args.config, split=args.split),
        mapping=mapping,
        config=for_smoke(config) if args.smoke else config,
        project=args.project,
        run_name=args.run_name or args.output_dir.name,
        output_dir=args.output_dir,
        resume_from_checkpoint=args.resume_from_checkpoint,
        unsafe_exec=getattr(args, "unsafe_exec", False),
        teacher=getattr(args, "teacher", None),
        teacher_revision=getattr(args, "teacher_revision", None),
        smoke=args.smoke,
    )


def add_hyperparameters(parser: argparse.ArgumentParser) -> None:
    """One flag for each field of `TrainConfig`, named as the field."""
    group = parser.add_argument_group("hyperparameters (defaults: TrainConfig's)")
    for name, info in TrainConfig.model_fields.items():
        group.add_argument(
            f"--{name.replace('_', '-')}", default=None, help=(info.description or "").replace("%", "%%")
        )


def hyperparameters(parser: argparse.ArgumentParser, args: argparse.Namespace, *, method: Method) -> TrainConfig:
    """The record that the flags spell; ends the process with exit code 2 where one cannot be used."""
    given = {name: value for name in TrainConfig.model_fields if (value := getattr(args, name)) is not None}
    try:
        return TrainConfig.model_validate({"method": method} | given)
    except ValidationError as error:
        first = error.errors()[0]
        flag = str(first["loc"][0]).replace("_", "-")
        parser.error(f"argument --{flag}: {first['input']!r}: {first['msg'].lower()}")


def for_smoke(config: TrainConfig) -> TrainConfig:
    """The same run cut to 3 steps on the rows of one, without evaluation."""
    least = max(SMOKE_ROWS, config.batch)
    rows = min(least, config.max_rows or least)
    return config.model_copy(update={"max_steps": 3, "max_rows": rows, "eval_fraction": 0.0})


def read_rows(args: Args, formats: Sequence[tuple[str, ...]], *, all_columns: bool = False) -> list[Row]:
    """The rows, rewritten by the mapping, with only the columns of the first format that they have.

    Any further column can break TRL, which guesses the format by names; with `all_columns` those are kept that hold
    no texts or chats of another format.

    Raises:
        DatasetError: they cannot be read.
        UsageError: none or not all of them can be trained on.
    """
    from hfagent.tools.dataset_mapping import flaw, map_rows
    from hfagent.tools.dataset_read import load_rows

    # The rows may be sorted: a smoke run sees some of all their parts.
    rows = load_rows(args.dataset, limit=args.config.max_rows, spread=args.smoke).rows
    if args.mapping is not None:
        rows = map_rows(rows, args.mapping)
    if not rows:
        raise UsageError(f"{args.dataset.id!r} has no rows to train on: the mapping dropped them all")
    columns = next((columns for columns in formats if set(columns) <= rows[0].keys()), None)
    if columns is None:
        raise UsageError(
            f"{args.dataset.id!r} has columns {sorted(rows[0])}, and {args.config.method} trains on "
            f"{' or '.join('+'.join(columns) for columns in formats)}: give a --mapping, as hfagent check proposes"
        )
    if all_columns:
        columns += tuple(name for name in rows[0] if name not in {*columns, *CONTENT})
    kept = [{column: row.get(column) for column in columns} for row in rows]
    flaws = [(index, problem) for index, row in enumerate(kept) if (problem := flaw(row))]
    if flaws:
        index, problem = flaws[0]
        raise UsageError(
            f"{len(flaws)} of {len(kept)} rows cannot be trained on, the first is row {index}: {problem}; "
            "repair them, or give a --mapping with drop_rows"
        )
    return kept
