"""The firewall before a training: is anything of the benchmarks inside the training rows? Fails closed.

What cannot be read is an error and never clean. A paraphrase of a problem with another solution under another name is
not found: that needs judgement, not comparison.
"""

import hashlib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from hfagent.agent.errors import DatasetError, UsageError
from hfagent.agent.integrity import ContaminationReport, Hit, Layer
from hfagent.agent.records import BenchmarkRef, DatasetRef
from hfagent.tools import benchmarks as registry
from hfagent.tools.contamination_index import ProblemIndex
from hfagent.tools.contamination_text import snippet, texts
from hfagent.tools.dataset_files import write_text
from hfagent.tools.dataset_read import load_rows
from hfagent.tools.problem import Problem

MAX_HITS = 100
"""Hits that a report lists; it counts all and flags every row."""
EVIDENCE_CHARS = 200

Row = Mapping[str, Any]


class Firewall:
    """Checks datasets where they are read, and writes cleaned copies into a folder."""

    def __init__(self, folder: Path):
        self._folder = folder

    def check(
        self, dataset: DatasetRef, *, name: str, benchmarks: Sequence[BenchmarkRef], max_rows: int | None = None
    ) -> ContaminationReport:
        """Check the rows that a training would read.

        Args:
            dataset: where the rows are: a prepared path, or a Hub id.
            name: the dataset's own id, for the deny-list and the report.
            benchmarks: every set that the night scores.
            max_rows: limit of the training; None reads all.

        Raises:
            DatasetError: the rows cannot be read, or not be vouched for.
            UsageError: a benchmark is unknown.
        """
        problems = [problem for benchmark in benchmarks for problem in registry.problems(benchmark)]
        rows = load_rows(dataset, limit=max_rows).rows
        return check(rows, problems, dataset_id=name, split=dataset.split, benchmarks=benchmarks)

    def clean(self, dataset: DatasetRef, report: ContaminationReport, *, max_rows: int | None = None) -> DatasetRef:
        """Write the rows that are not flagged as JSON lines; returns the copy.

        Raises:
            DatasetError: the rows changed since the report, none is left, or the folder cannot be written.
        """
        rows = load_rows(dataset, limit=max_rows).rows
        lines = [json.dumps(row, default=str) for row in cleaned(rows, report)]
        if not lines:
            raise DatasetError(f"every row of {report.dataset!r} holds a benchmark problem: choose other data")
        text = "\n".join(lines) + "\n"
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        target = self._folder.resolve() / f"{Path(report.dataset).stem or 'data'}-clean-{digest}.jsonl"
        write_text(target, text)
        return DatasetRef(id=str(target))


def check(
    rows: Iterable[Row],
    problems: Sequence[Problem],
    *,
    dataset_id: str,
    benchmarks: Sequence[BenchmarkRef],
    split: str = "train",
) -> ContaminationReport:
    """Compare every row with every problem, in one pass over the rows.

    Args:
        rows: of the training data, unmapped: every text in them counts, also nested and in chats.
        problems: those of the search and confirm sets.
        dataset_id: the dataset's id, or the path of a local one.
        benchmarks: where the problems come from.
        split: which split the rows are.

    Raises:
        DatasetError: no rows, or one that holds no text although it holds something.
        UsageError: no problems.
    """
    if not problems or not benchmarks:
        raise UsageError("there are no benchmark problems to compare the training data with: name a benchmark")
    index = ProblemIndex(problems)
    hits = [
        Hit(row=None, problem=name, layer="dataset_id", evidence=dataset_id[:EVIDENCE_CHARS])
        for name in _denied(dataset_id, split, benchmarks)
    ]
    denied, counts, flagged = bool(hits), Counter[Layer](hit.layer for hit in hits), []
    weak: Counter[str] = Counter()
    number = -1
    for number, row in enumerate(rows):
        look = index.look(texts(row, where=f"row {number} of {dataset_id!r}"))
        weak += look.weak
        found = {(finding.problem, finding.layer): finding for finding in look.findings}
        counts.update(layer for _, layer in found)
        if found:
            flagged.append(number)
        hits += [
            Hit(row=number, problem=problem, layer=layer, evidence=snippet(finding.text, EVIDENCE_CHARS))
            for (problem, layer), finding in found.items()
            if len(hits) < MAX_HITS
        ]
    if number < 0:
        raise DatasetError(f"{dataset_id!r} has no rows: nothing could be checked")
    return ContaminationReport(
        dataset=dataset_id,
        rows=number + 1,
        problems=len(problems),
        benchmarks=tuple(f"{benchmark.name}/{benchmark.set}" for benchmark in benchmarks),
        hits=tuple(hits[:MAX_HITS]),
        hit_counts=dict(counts),
        flagged=tuple(flagged),
        verdict="denied" if denied else "contaminated" if flagged else "clean",
        ignored=dict(weak),
    )


def cleaned(rows: Iterable[Row], report: ContaminationReport) -> Iterator[Row]:
    """The rows that are not flagged, in order.

    Raises:
        DatasetError: the dataset is denied as a whole, or has not as many rows as were checked.
    """
    if report.verdict == "denied":
        raise DatasetError(
            f"{report.dataset!r} is a benchmark by its name, so cleaning is not enough: choose other data"
        )
    flagged, count = frozenset(report.flagged), 0
    for count, row in enumerate(rows, start=1):
        if count - 1 not in flagged:
            yield row
    if count != report.rows:
        raise DatasetError(f"{report.dataset!r} has {count} rows, and {report.rows} were checked: check it again")


def _denied(dataset_id: str, split: str, benchmarks: Sequence[BenchmarkRef]) -> list[str]:
    """The benchmarks that the dataset holds by its name."""
    listed = resources.files("hfagent.tools").joinpath("contamination_deny.toml").read_text(encoding="utf-8")
    plain = re.sub(r"[\W_]", "", "".join(dataset_id.replace("\\", "/").split("/")[-2:]).lower())
    held = {
        name
        for entry in tomllib.loads(listed)["dataset"]
        if any(name in plain for name in entry["names"]) and split in entry.get("splits", [split])
        for name in entry["contains"]
    }
    return sorted(held & {benchmark.name for benchmark in benchmarks})
