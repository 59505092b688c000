"""The steps from a kept model to what was asked for: merged and converted, each file judged, pushed. Pure."""

from datetime import datetime

from hfagent.agent import policy
from hfagent.agent.records import RELEASE, Export, RunSpec
from hfagent.agent.release import confirmed_scores, may_leave, too_slow
from hfagent.agent.runs import Run
from hfagent.agent.state import State


def next_run(state: State, export: Export, now: datetime, *, since: datetime | None = None) -> RunSpec | None:
    """The next run of the release; None once all is done.

    Args:
        state: of the project; a run was kept.
        export: what is asked for.
        now: the time.
        since: a person asked anew at this time: what failed before then is done again, and a push repeated. None for
            what the plan asks for.
    """
    exported = _exported(state, export, since)
    if exported is None or not exported.done:
        return exported.spec if exported is not None else _export(state, export)
    for quantization in export.quantize if None not in confirmed_scores(state) else ():
        if too_slow(state, exported.spec.name, quantization):
            continue
        spec = _verify(state, exported, quantization, export)
        known = state.runs.get(spec.name)
        if known is None or (not known.done and policy.check_duplicate(state, spec, now) is None):
            return spec
    if export.push is None:
        return None
    pushes = [run for run in _of_kind(state, "publish") if since is None or run.last.intended_at >= since]
    for run in pushes:
        if run.spec.export is not None and run.spec.export.push == export.push:
            return None if run.done else run.spec
    return _publish(state, exported, export)


def newest(state: State) -> Run | None:
    """The run of the release that was begun last."""
    runs = [run for run in state.runs.values() if run.spec.kind in RELEASE]
    return max(runs, key=lambda run: run.last.intended_at, default=None)


def _exported(state: State, export: Export, since: datetime | None) -> Run | None:
    """The run that made, or is to make, all the files that are asked for."""
    for run in reversed(_of_kind(state, "export")):
        has = run.spec.export
        fits = run.spec.subject == state.kept and has is not None and set(export.quantize) <= set(has.quantize)
        if fits and (since is None or run.last.intended_at >= since or (run.done and not _unusable(state, run))):
            return run
    return None


def _unusable(state: State, exported: Run) -> bool:
    """Whether a run that needed these files failed: they may be gone."""
    users = [run for run in state.runs.values() if run.spec.exported == exported.spec.name]
    return any(not run.last.open and not run.done for run in users)


def _export(state: State, export: Export) -> RunSpec:
    what = f", GGUF {', '.join(export.quantize)}" if export.quantize else ""
    return RunSpec(
        name=_name("export", len(_of_kind(state, "export"))),
        kind="export",
        why=f"what was asked for: the merged model{what}",
        subject=state.kept,
        export=export,
    )


def _verify(state: State, exported: Run, quantization: str, export: Export) -> RunSpec:
    return RunSpec(
        name=f"{exported.spec.name}-{quantization.lower().replace('_', '-')}",
        kind="verify",
        why=f"whether the file {quantization} keeps the gain: it is asked the same problems",
        subject=state.kept,
        exported=exported.spec.name,
        quantization=quantization,
        export=export,
    )


def _publish(state: State, exported: Run, export: Export) -> RunSpec:
    carried = tuple(name for name in export.quantize if export.anyway or may_leave(state, exported.spec.name, name))
    left = [name for name in export.quantize if name not in carried]
    kept_back = f"; not {', '.join(left)}, which is not known to keep the gain" if left else ""
    return RunSpec(
        name=_name("publish", len(_of_kind(state, "publish"))),
        kind="publish",
        why=f"pushed to {export.push}, as asked for{kept_back}",
        subject=state.kept,
        exported=exported.spec.name,
        export=export.model_copy(update={"quantize": carried}),
    )


def _of_kind(state: State, kind: str) -> list[Run]:
    return [run for run in state.runs.values() if run.spec.kind == kind]


def _name(what: str, earlier: int) -> str:
    return what if earlier == 0 else f"{what}-{earlier + 1}"
