"""An event of a pipeline as one line for a log: time, kind, key=value. Pure."""

from hfagent.agent.events import (
    Claimed,
    Compared,
    Crashed,
    DatasetChecked,
    Event,
    LookTaken,
    PlanConfirmed,
    ProjectEnded,
    Resumed,
)
from hfagent.agent.guard_facts import GuardCompared
from hfagent.agent.pipeline_facts import ModelExported, PipelineMade, StageBegun, StageEnded


def line(event: Event) -> str | None:
    """The event for people and grep; None for a fact that no pipeline has."""
    text = _text(event)
    return None if text is None else f"{event.at:%H:%M:%SZ} {event.fact.kind} {text}"


def _text(event: Event) -> str | None:  # noqa: C901 - one flat arm a fact
    match event.fact:
        case PipelineMade(pipeline=pipeline):
            return f"project={pipeline.project} stages={pipeline.words!r} model={pipeline.stages[0].model.id}"
        case DatasetChecked(report=report):
            return f"dataset={report.dataset} rows={report.rows}"
        case PlanConfirmed(by=by):
            return f"by={by}"
        case StageBegun(number=number, plan=plan):
            return f"stage={number} project={plan.project} method={plan.method} model={plan.model.id}"
        case StageEnded() as fact:
            return f"stage={fact.number} kept={'yes' if fact.kept else 'no'} why={fact.why!r}"
        case LookTaken(run=name, look=look, alpha=alpha):
            return f"run={name} look={look} alpha={alpha:.4f}"
        case Compared(candidate=candidate, verdict=v):
            interval = f"[{v.ci_low:+.3f},{v.ci_high:+.3f}]"
            return f"run={candidate} against=base label={v.label} delta={v.delta:+.3f} ci={interval}"
        case GuardCompared(guard=guard, candidate=candidate, verdict=v):
            return f"guard={guard} run={candidate} against=base label={v.label} delta={v.delta:+.3f}"
        case Claimed(claim=claim):
            return f"label={claim.label} run={claim.run} reason={claim.reason!r}"
        case ModelExported() as fact:
            return f"stage={fact.number} done={'yes' if fact.done else 'no'}" + (
                f" message={fact.message!r}" if fact.message else ""
            )
        case ProjectEnded(state=ended, reason=reason):
            return f"state={ended} reason={reason!r}"
        case Resumed(pid=pid):
            return f"pid={pid}"
        case Crashed(error=error):
            return f"error={error!r}"
    return None
