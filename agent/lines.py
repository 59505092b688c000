"""An event as one line for a log: time, kind, key=value. Pure."""

from hfagent.agent import estimate
from hfagent.agent.backend_facts import BackendFound, BackendLost, StrayEnded, StrayFound, SubmitRetried
from hfagent.agent.events import (
    CancelRequested,
    Claimed,
    Compared,
    ContaminationChecked,
    Crashed,
    DataPrepared,
    DatasetChecked,
    Decided,
    EpochOpened,
    Event,
    Flagged,
    JobEnded,
    JobIntended,
    JobRejected,
    JobStarted,
    JobSubmitted,
    LookTaken,
    MetricsLogged,
    ModelPrepared,
    NoiseMeasured,
    PlanConfirmed,
    PlanMade,
    ProjectEnded,
    Proposed,
    Refused,
    Resumed,
    Scored,
    SearchEnded,
)
from hfagent.agent.guard_facts import GuardCompared
from hfagent.agent.planner_facts import ApprovalAsked, Approved, Noted, Paused, PlannerSwitched, Unpaused, Vetoed
from hfagent.agent.records import Method
from hfagent.agent.runs import Run
from hfagent.agent.state import State
from hfagent.agent.upkeep_facts import ClockJumped, LimitNear, LineTorn, OrphanFound

SMOKE_STEPS = 3
"""Optimizer steps of a smoke run, as the training templates cut it."""


def line(event: Event, state: State) -> str | None:
    """The event for people and grep; None for what only bookkeeping needs.

    Args:
        event: the event.
        state: the state after it.
    """
    text = _text(event, state)
    return None if text is None else f"{event.at:%H:%M:%SZ} {event.fact.kind} {text}"


def _text(event: Event, state: State) -> str | None:  # noqa: C901 - one flat arm a fact
    match event.fact:
        case PlanMade(plan=plan):
            return f"project={plan.project} method={plan.method} model={plan.model.id} dataset={plan.dataset.id}"
        case PlanConfirmed(by=by):
            return f"by={by}"
        case Resumed(pid=pid):
            return f"pid={pid}"
        case ModelPrepared(path=path) | DataPrepared(path=path):
            return f"path={path}"
        case DatasetChecked(report=report):
            check = report.methods[state.plan.method]
            return f"rows={report.rows} {state.plan.method}={check.verdict} reason={check.reason!r}"
        case ContaminationChecked(report=found):
            return f"verdict={found.verdict} rows={found.rows} flagged={len(found.flagged)} problems={found.problems}"
        case JobIntended(run=run, job=job):
            return f"run={run.name} flavor={job.flavor} timeout={job.timeout_s}s why={run.why!r}"
        case JobSubmitted(job_id=job_id):
            return f"job={job_id}"
        case JobRejected(key=key, message=message):
            return f"key={key} message={message!r}"
        case JobStarted(key=key):
            return f"key={key}"
        case MetricsLogged(run=name):
            return f"run={name} {progress(state.runs[name], state)}"
        case JobEnded() as fact:
            took = "" if fact.running_s is None else f" took={fact.running_s:.0f}s"
            return f"key={fact.key} stage={fact.stage}{took}" + (f" message={fact.message!r}" if fact.message else "")
        case Scored(run=name, score=score):
            return f"run={name} {score.metric}={score.value:.3f} n={score.n} sandbox={score.sandbox}"
        case Compared(candidate=candidate, reference=reference, set=problems, verdict=v):
            return (
                f"run={candidate} against={reference or 'base'} set={problems} label={v.label}"
                f" delta={v.delta:+.3f} ci=[{v.ci_low:+.3f},{v.ci_high:+.3f}] p={v.p_value:.2g}"
            )
        case GuardCompared(guard=guard, candidate=candidate, verdict=v):
            return f"guard={guard} run={candidate} label={v.label} delta={v.delta:+.3f} margin={v.margin:+.3f}"
        case Decided(about=about, decision=decision):
            return f"about={about} action={decision.action} run={decision.run} reason={decision.reason!r}"
        case Proposed(number=number, why=why, source=source):
            return f"set={number} by={source} why={why!r}"
        case Flagged(run=name, flag=flag, response=response):
            return f"run={name} flag={flag.name} step={flag.step} action={response.action} reason={flag.reason!r}"
        case SearchEnded(reason=reason):
            return f"reason={reason!r}"
        case EpochOpened(set=problems, harness=harness, before=before):
            return f"set={problems} harness={harness} before={before}"
        case NoiseMeasured(n=n, flips=flips, delta=delta):
            return f"n={n} flips={flips} delta={delta:+.3f}"
        case LookTaken(run=name, look=look, alpha=alpha):
            return f"run={name} look={look} alpha={alpha:.4f}"
        case Claimed(claim=made):
            return f"label={made.label} run={made.run} reason={made.reason!r}"
        case Refused(refusal=refusal):
            return f"what={refusal.what!r} why={refusal.why!r}"
        case CancelRequested(key=key, why=why):
            return f"key={key} why={why!r}"
        case ProjectEnded(state=ended, reason=reason):
            return f"state={ended} reason={reason!r}"
        case PlannerSwitched(planner=planner, why=why):
            return f"planner={planner} why={why!r}"
        case Noted(text=text, by=by):
            return f"by={by} text={text!r}"
        case Paused(why=why):
            return f"why={why!r}"
        case ApprovalAsked(run=name) | Approved(run=name):
            return f"run={name}"
        case Vetoed(run=name, why=why):
            return f"run={name} why={why!r}"
        case Unpaused():
            return "jobs are launched again"
        case SubmitRetried(key=key):
            return f"key={key}"
        case LimitNear(limit=limit, share=share):
            return f"limit={limit} used={share:.0%}"
        case StrayFound(key=key, job_id=job_id) | OrphanFound(key=key, job_id=job_id):
            return f"key={key} job={job_id}"
        case StrayEnded(job_id=job_id, stage=stage):
            return f"job={job_id} stage={stage}"
        case BackendFound():
            return "it answers again"
        case ClockJumped(seconds=seconds):
            return f"seconds={seconds:+.0f}"
        case LineTorn(kept=kept, bytes=size):
            return f"bytes={size} kept={kept}"
        case Crashed(error=error) | BackendLost(error=error):
            return f"error={error!r}"
    return None


def curve(method: Method) -> str:
    """The metric that shows how a training goes: the loss, but that of GRPO has no level."""
    return "train/reward" if method == "grpo" else "train/loss"


def progress_words(run: Run, state: State) -> str:
    """The progress for a table: `12/20, loss 0.531`."""
    return progress(run, state).replace("step=", "").replace(" loss=", ", loss ").replace(" reward=", ", reward ")


def progress(run: Run, state: State) -> str:
    """Step, total and newest loss of a training run, e.g. `step=12/20 loss=0.531`; of GRPO the reward."""
    if not run.points:
        return ""
    step = run.points[-1].step
    total = SMOKE_STEPS if run.spec.kind == "smoke" else steps_planned(run, state)
    metric = curve(state.plan.method)
    values = [p.values[metric] for p in run.points if p.values.get(metric) is not None]
    newest = f" {metric.removeprefix('train/')}={values[-1]:.3f}" if values else ""
    return f"step={step}{f'/{total}' if total else ''}{newest}"


def steps_planned(run: Run, state: State) -> int | None:
    """Optimizer steps that a training run will take; None while the number of rows is unknown."""
    train = run.spec.train
    if train is None or run.spec.kind == "smoke":
        return None
    rows = state.dataset.rows if state.dataset else None
    if train.max_steps is None and rows is None:
        return None
    return estimate.total_steps(train, min(rows or 0, train.max_rows or rows or 0))
