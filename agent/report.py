"""The report of a project: Markdown as a pure function of the state, and its file with the plots beside it."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hfagent.agent import plots as drawings
from hfagent.agent import report_sections as sections
from hfagent.agent.chain import Head
from hfagent.agent.errors import ReportError
from hfagent.agent.markdown import path as quoted
from hfagent.agent.report_release import export_section
from hfagent.agent.report_runs import TrackerUrl, section
from hfagent.agent.report_verdict import title, verdict
from hfagent.agent.state import State
from hfagent.agent.trackio_links import run_link

NOTES_START = "<!-- notes:start -->"
NOTES_END = "<!-- notes:end -->"
EMPTY_NOTES = "\n\n"
_HEAD = re.compile(r"\nLedger: ([0-9]+) lines, the last one has the hash `([0-9a-f]+)`\.\n\Z")

_ALT = {
    "loss.svg": "Training loss against optimizer step, one curve a training run",
    "scores.svg": "Scores of the base model and of the trained ones with 95 % intervals, by set of problems",
}


def render(
    state: State, *, plots: Sequence[str] = (), notes: str = EMPTY_NOTES, tracker_url: TrackerUrl | None = None
) -> str:
    """The report. The same state gives the same text: no clock, no disk.

    Args:
        state: the project, at any time after its plan was made.
        plots: links of the plots, relative to the report.
        notes: what people wrote between the two markers, kept as it is.
        tracker_url: Trackio's project and run -> the address or command that shows the run's metrics; None is the
            command for jobs on this machine.
    """
    shown = tracker_url or partial(run_link, state.plan)
    parts = [
        title(state),
        verdict(state),
        export_section(state),
        sections.runs(state),
        sections.used(state),
        _plots(plots),
        sections.dataset_check(state),
        sections.firewall(state),
        sections.decision_log(state),
        ["## Notes", "", "Text between the two markers in the source of this file is kept."],
    ]
    rest = [*(section(state, run, shown) for run in state.runs.values()), sections.experiment_evaluations(state)]
    return f"{joined(parts)}\n{NOTES_START}{notes}{NOTES_END}\n\n{joined(rest)}"


def current(state: State, path: Path) -> str:
    """The report with the plots, the notes and the last line that lie at its path; nothing is written."""
    folder = path.with_suffix("")
    drawn = [name for name in _ALT if (folder / name).is_file()]
    return render(state, plots=_links(folder, drawn), notes=kept_notes(path)) + last_line(head_in(path))


def write(state: State, path: Path, head: Head | None = None) -> None:
    """Bring the report's file and its plots up to date.

    The plots lie in the folder of the file's name without its suffix. The notes in the file stay, byte for byte; a file
    without both markers is put aside as `<name>.bak` first.

    Args:
        state: the project.
        path: the file.
        head: how far the ledger went, which the last line tells.

    Raises:
        ReportError: the folder cannot be written.
    """
    folder = path.with_suffix("")

    def rendered(notes: str) -> str:
        return render(state, plots=_links(folder, drawings.update(state, folder)), notes=notes)

    rewrite(path, rendered, head)


def rewrite(path: Path, rendered: Callable[[str], str], head: Head | None) -> None:
    """Bring a report's file up to date, its notes kept.

    Args:
        path: the file.
        rendered: the text around these notes.
        head: how far the ledger went.

    Raises:
        ReportError: the folder cannot be written.
    """
    try:
        old = path.read_bytes() if path.exists() else b""
        notes = _notes(old)
        if notes is None and old:
            path.replace(path.with_name(f"{path.name}.bak"))
        # Notes in another encoding than UTF-8 pass through unchanged.
        text = EMPTY_NOTES if notes is None else notes.decode(errors="surrogateescape")
        new = (rendered(text) + last_line(head)).encode(errors="surrogateescape")
        if new != old:
            drawings.replace_file(path, new)
    except OSError as error:
        why = error.strerror or error
        raise ReportError(
            f"cannot write the report {str(path)!r}: {why}; free the disk or choose another --reports-dir"
        ) from error


def kept_notes(path: Path) -> str:
    """What people wrote into a report."""
    notes = _notes(path.read_bytes()) if path.is_file() else None
    return EMPTY_NOTES if notes is None else notes.decode(errors="replace")


def last_line(head: Head | None) -> str:
    """By which a report, wherever it was copied, tells how far the ledger went."""
    return "" if head is None else f"\nLedger: {head.lines} lines, the last one has the hash `{head.hash}`.\n"


def head_in(path: Path) -> Head | None:
    """How far the ledger went when a report was written; None where no report tells."""
    told = _HEAD.search(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None
    return None if told is None else Head(int(told[1]), told[2])


def _links(folder: Path, names: Sequence[str]) -> list[str]:
    return [quoted(f"{folder.name}/{name}") for name in names]


def _plots(links: Sequence[str]) -> list[str]:
    lines = ["## Plots", ""]
    for link in links:
        name = link.rsplit("/", 1)[-1]
        lines += [f"![{_ALT.get(name, name)}]({link})", ""]
    return lines[:-1] if links else [*lines, "Nothing to draw yet."]


def _notes(content: bytes) -> bytes | None:
    """What stands between the first start marker and the last end marker; None without both."""
    start, end = content.find(NOTES_START.encode()), content.rfind(NOTES_END.encode())
    if start < 0 or end < start:
        return None
    return content[start + len(NOTES_START) : end]


def joined(parts: Sequence[Sequence[str]]) -> str:
    """Sections one blank line apart; sections without lines left out."""
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"
