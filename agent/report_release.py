"""What became of the kept model, for the report, its card and the terminal: its files, what each keeps, where it is.

Pure.
"""

from collections.abc import Collection, Mapping
from typing import Any

from hfagent.agent import thresholds
from hfagent.agent.markdown import NONE, TBD, code, link, prose, table
from hfagent.agent.release import file_check, too_slow
from hfagent.agent.runs import Run
from hfagent.agent.shipping import newest
from hfagent.agent.state import State
from hfagent.agent.summary import published

HEADER = ("File", "Size", "Bits a weight", "Tokens/s", "Score", "Change (interval)", "Verdict")


def export_section(state: State) -> list[str]:
    """The section; nothing where nothing was exported."""
    runs = [run for run in state.runs.values() if run.spec.kind == "export"]
    if not runs:
        return []
    lines = ["## Export", ""]
    for run in runs:
        if not run.done:
            how = TBD if run.last.open else prose(run.last.message or run.last.stage)
            lines += [f"{code(run.spec.name)}: {how}", ""]
            continue
        where = code(str(run.result.get("merged")))
        lines += [f"{code(run.spec.name)} merged {code(str(run.spec.subject))}: {where}.", ""]
        lines += [*files_table(state, run), ""] if run.result.get("files") else []
    pushed = ", ".join(link(code(repo), url) for repo, url in published(state).items())
    return [*lines, f"Pushed: {pushed}."] if pushed else lines[:-1]


def files_table(state: State, exported: Run, *, only: Collection[str] | None = None) -> list[str]:
    """One row a file, its size, speed and score; `only` these quantizations."""
    files = exported.result.get("files", ())
    rows = [_row(state, exported, file) for file in files if only is None or file["quantization"] in only]
    original = "" if state.plan.stage is None else "original "
    note = (
        "Scores are of the confirm set, answered through llama.cpp; the change is against the merged model, which "
        "answered through transformers. A file keeps the gain if it is still significantly better than the "
        f"{original}base model (alpha {thresholds.ALPHA:g}). Tokens/s: one answer at a time, where the file was made."
    )
    return [*table(HEADER, rows), "", note]


def _row(state: State, exported: Run, file: Mapping[str, Any]) -> list[str]:
    name, quantization = exported.spec.name, str(file["quantization"])
    found = file_check(state, name, quantization)
    score, change, verdict = TBD if state.ended is None else NONE, NONE, NONE
    if found is not None:
        low, high = 100 * found.loss.ci_low, 100 * found.loss.ci_high
        score = f"{found.score:.3f}"
        change = f"{100 * found.loss.delta:+.1f} points ({low:+.1f} to {high:+.1f})"
        verdict = prose(found.words)
    elif (why := too_slow(state, name, quantization)) is not None:
        verdict = prose(why)
    return [
        code(str(file["name"])),
        f"{file['size_bytes'] / 1e6:,.1f} MB",
        f"{file['bits_per_weight']:.2f}",
        f"{file['tokens_per_s']:.0f}" if file.get("tokens_per_s") else NONE,
        score,
        change,
        verdict,
    ]


def export_text(state: State) -> str:
    """Where an exported model is, what its files keep, and how it is used."""
    last = newest(state)
    if last is None or not last.done:
        arrived = [f"pushed    {url}" for url in published(state).values()]
        why = "no run was kept" if last is None else f"{last.spec.name}: {_why(last)}"
        return "\n".join([f"not exported: {why}", *arrived])
    made = last if last.spec.exported is None else state.runs[last.spec.exported]
    lines = [f"merged    {made.result.get('merged')}"]
    for file in made.result.get("files", ()):
        found = file_check(state, made.spec.name, file["quantization"])
        lines.append(f"gguf      {file['path']}  ({file['size_bytes'] / 1e6:,.0f} MB)")
        if found is not None:
            lines.append(f"          {found.score:.3f}: {found.words}")
        elif (slow := too_slow(state, made.spec.name, file["quantization"])) is not None:
            lines.append(f"          {slow}")
    pushed = last.result.get("pushed", {})
    lines += [f"pushed    {where['url']}" for where in pushed.values()]
    gguf = next((repo for repo in pushed if repo.endswith("-GGUF")), None)
    if gguf is not None and last.spec.export is not None:
        lines.append(f"run it    llama-server -hf {gguf}:{last.spec.export.quantize[0]}")
    return "\n".join(lines)


def _why(run: Run) -> str:
    return run.last.message or run.last.stage
