"""What a pipeline does next, what a stage may spend, and whether its model is built upon. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from hfagent.agent import envelope, estimate, guards
from hfagent.agent.claim import judged
from hfagent.agent.estimate import DataSize
from hfagent.agent.events import LookTaken, ProjectEnded
from hfagent.agent.pipeline_facts import ModelExported, Pipeline, StageEnded
from hfagent.agent.pipeline_state import PipelineState, Stage
from hfagent.agent.records import Claim, Export, Plan, Score, StageOf
from hfagent.agent.shipping import newest
from hfagent.agent.state import State
from hfagent.agent.summary import headline, published
from hfagent.agent.upkeep_facts import Allotted
from hfagent.agent.verdict import Verdict


class Begin(NamedTuple):
    """A stage is due."""

    number: int
    plan: Plan


class GoOn(NamedTuple):
    """A stage was begun and has not ended."""

    stage: Stage
    plan: Plan
    """With what is left of its time: it may have been begun long ago and never confirmed."""


class Judge(NamedTuple):
    """No stage is due any more: the last good model is held against the original base model."""


class Publish(NamedTuple):
    """The last good model is converted and pushed."""

    stage: Stage
    export: Export


class End(NamedTuple):
    """All is done."""

    fact: ProjectEnded


Due = Begin | GoOn | Judge | Publish | End


def due(state: PipelineState, now: datetime, *, stop: str | None = None) -> Due:
    """What is to be done.

    Args:
        state: of the pipeline, confirmed and not ended.
        now: the time.
        stop: why a person wants it stopped; what was won until then is judged all the same.
    """
    current = state.current
    if current is not None:
        return GoOn(current, _with_time_left(current, now))
    number = len(state.begun) + 1
    short = stop or _no_room(state, now)
    if number <= len(state.pipeline.stages) and short is None:
        return Begin(number, stage_plan(state, now))
    if state.claim is None:
        return Judge()
    asked = state.pipeline.export
    if asked is not None and state.carried and state.exported is None and stop is None:
        return Publish(state.carried[-1][0], asked)
    return End(_end(state, stop, short))


def stage_plan(state: PipelineState, now: datetime) -> Plan:
    """The plan of the next stage: on the last good model, with its share of what is left."""
    number = len(state.begun) + 1
    rest = state.pipeline.stages[number - 1 :]
    weights = [estimate.night_s(plan, DataSize()) for plan in rest]
    gpu_weights = [plan.gpus * weight for plan, weight in zip(rest, weights, strict=True)]
    money, seconds = state.money_left_micro_usd, state.time_left_s(now)
    gpu_s, tokens = state.gpu_s_left, state.planner_tokens_left
    planned, model = rest[0], state.model
    return planned.model_copy(
        update={
            "model": model.model_copy(update={"parameters": state.base.parameters}),
            "budget_micro_usd": None if money is None else int(share(max(money, 0), weights)),
            "max_hours": None if seconds is None else share(seconds, weights) / 3600,
            "max_gpu_hours": None if gpu_s is None else share(gpu_s, gpu_weights) / 3600,
            "max_planner_tokens": None if tokens is None else int(share(max(tokens, 0), weights)),
            "stage": StageOf(
                pipeline=state.pipeline.project,
                number=number,
                of=len(state.pipeline.stages),
                base=state.base,
                before=tuple(story(stage, ended) for stage, ended in state.closed),
                export=state.pipeline.export,
            ),
        }
    )


def allotted(state: PipelineState, stage: Stage) -> Allotted:
    """What an ended stage may use in all, once its model is exported: what the other stages have left."""
    own, money, gpu_s = stage.ended, state.money_left_micro_usd, state.gpu_s_left
    assert own is not None
    return Allotted(
        budget_micro_usd=None if money is None else max(money, 0) + own.charged_micro_usd,
        max_gpu_hours=None if gpu_s is None else (max(gpu_s, 0) + (own.charged_gpu_s or 0)) / 3600,
    )


def share(left: float, weights: Sequence[float]) -> float:
    """What the first of several stages may use of what is left for all: in proportion to how long each is estimated.

    A stage that needs less leaves the rest to those after it; the last one may use all that is left.
    """
    return left * weights[0] / sum(weights)


def stage_names(pipeline: str, plans: Sequence[Plan]) -> list[str]:
    """The projects of the stages."""
    return [f"{pipeline}-{number}-{plan.method}" for number, plan in enumerate(plans, start=1)]


def named(pipeline: Pipeline) -> Pipeline:
    """The pipeline with its stages' projects, whose models are merged at their ends."""
    names = stage_names(pipeline.project, pipeline.stages)
    stages = tuple(
        plan.model_copy(update={"project": name, "token": pipeline.token, "export": Export()})
        for name, plan in zip(names, pipeline.stages, strict=True)
    )
    return pipeline.model_copy(update={"stages": stages})


def story(stage: Stage, ended: StageEnded) -> str:
    """What came of a stage, in a sentence."""
    lost = f", {ended.warning}" if ended.warning else ""
    return f"stage {stage.number}, {stage.plan.method}: {'kept' if ended.kept else 'dropped'}, {ended.why}{lost}"


def outcome(number: int, state: State) -> StageEnded:
    """What an ended stage came to. Its model is carried on where one was kept, is above the model that the stage began
    with on the confirm set, and was merged; otherwise the stage is dropped.

    Raises:
        ValueError: it has not ended.
    """
    if state.ended is None or state.ended_at is None:
        raise ValueError(f"the stage {state.plan.project} has not ended")
    verdict, merged = headline(state), _merged(state)
    if state.kept is None:
        why = state.claim.reason if state.ended.state == "finished" and state.claim is not None else state.ended.reason
    elif verdict is None:
        why = f"{state.kept} was not confirmed: {state.ended.reason}"
    elif verdict.delta <= 0:
        why = f"{state.kept} is not above the model that it began with: {_points(verdict.delta)} on the confirm set"
    elif merged is None:
        why = f"{state.kept} could not be merged: {state.ended.reason}"
    else:
        why = f"{_points(verdict.delta)} on the confirm set"
    kept = verdict is not None and verdict.delta > 0 and merged is not None
    return StageEnded(
        number=number,
        state=state.ended.state,
        kept=kept,
        why=why,
        warning=guards.warning(state),
        run=state.kept,
        model=state.plan.model.model_copy(update={"id": merged, "revision": None}) if kept and merged else None,
        verdict=verdict,
        claim=state.claim,
        seconds=max((state.ended_at - state.started_at).total_seconds(), 0.0),
        spent_micro_usd=state.spent_micro_usd,
        charged_micro_usd=envelope.charged_micro_usd(state) + state.held_micro_usd,
        charged_gpu_s=envelope.charged_gpu_s(state),
        planner_tokens=state.tokens,
    )


def allowed(export: Export, claim: Claim, sentence: str, first: State) -> Export | str:
    """The export by the pipeline's claim, or why it may not be: that of the stage is about another base model.

    Args:
        export: as it is asked for.
        claim: of the pipeline.
        sentence: what is said of the model.
        first: the first stage that was carried on, which began with the original base model.
    """
    base = first.scored(None, "confirm")
    export = export.model_copy(update={"original": None if base is None or base.score is None else base.score.outcomes})
    if claim.label == "confirmed_better" or export.push is None:
        return export.model_copy(update={"judged": sentence})
    if export.anyway:
        return export.model_copy(update={"judged": f"**Published without a confirmed gain.** {sentence}"})
    return (
        f"the gain over the original base model is not confirmed ({claim.label.replace('_', ' ')}: {claim.reason}), "
        "and nothing is published that the claim does not carry; --publish-anyway publishes it with a card that says so"
    )


def exported(number: int, state: State, asked: Export, before: int | None) -> ModelExported:
    """What became of the release of a stage's model; its jobs have ended.

    Args:
        number: of the stage.
        state: of its project, afterwards.
        asked: what was to be made.
        before: what the stage had cost until then; None where nobody knows.
    """
    last = newest(state)
    made = [run for run in state.runs.values() if run.spec.kind == "export" and run.done]
    files = made[-1].result.get("files", ()) if made else ()
    spent, pushed = state.spent_micro_usd, published(state)
    done = last is not None and last.done and (asked.push is None or asked.push in pushed)
    refused = state.refusals[-1].why if state.refusals else None
    return ModelExported(
        number=number,
        run=None if last is None else last.spec.name,
        done=done,
        message=None if done else (last.last.message if last is not None and not last.done else None) or refused,
        pushed=pushed,
        files=tuple(str(file["path"]) for file in files),
        spent_micro_usd=None if spent is None or before is None else spent - before,
    )


def final_scores(first: State, last: State) -> tuple[Score, Score] | str:
    """The confirm scores of the original base model and of the last good model, or why they cannot be compared.

    Args:
        first: of the first stage that was carried on, which began with the original base model.
        last: of the last one.
    """
    base, ours = first.scored(None, "confirm"), last.scored(last.kept, "confirm")
    if base is None or base.score is None or ours is None or ours.score is None:
        return "the confirm scores of the original base model and of the last model are not both there"
    if base.score.harness != ours.score.harness:
        return (
            f"the original base model was scored by the harness {base.score.harness} and the last model by "
            f"{ours.score.harness}: scores of two harnesses are not compared"
        )
    if base.score.outcomes.keys() != ours.score.outcomes.keys():
        return "the original base model and the last model answered different problems"
    return base.score, ours.score


def final_claim(verdict: Verdict, look: LookTaken, stages: Sequence[State], planned: int) -> Claim:
    """The claim about the last good model against the original base model.

    Args:
        verdict: on the confirm set.
        look: at it.
        stages: all that were worked on; the noise is that of the first that measured it.
        planned: problems of the set.
    """
    noises = [state.noise.delta for state in stages if state.noise is not None]
    known = {"gain": None, "run": look.run, "tried": _tried(stages), "noise": noises[0] if noises else None}
    return judged(verdict, planned, look.look, look.alpha, known)


def no_claim(stages: Sequence[State], why: str | None) -> Claim:
    """The claim where the last good model cannot be held against the original base model, or there is none.

    Args:
        stages: all that were worked on.
        why: it cannot be; None where no stage was carried on.
    """
    tried = _tried(stages)
    label = "no_detectable_difference" if why is None and tried else "invalid"
    nothing = "no stage was kept" if tried else "no training run was compared with the base model"
    return Claim.model_validate(
        {
            "label": label, "reason": why or nothing, "run": None, "gain": None, "look": None, "alpha": None,
            "tried": tried, "noise": None,
        }
    )  # fmt: skip


def _tried(stages: Sequence[State]) -> int:
    return sum(state.claim.tried for state in stages if state.claim is not None)


def _merged(state: State) -> str | None:
    for run in state.runs.values():
        if run.spec.kind == "export" and run.done and run.spec.subject == state.kept and run.result.get("merged"):
            return str(run.result["merged"])
    return None


def _with_time_left(stage: Stage, now: datetime) -> Plan:
    hours = stage.plan.max_hours
    if hours is None:
        return stage.plan
    left = hours - (now - stage.begun_at).total_seconds() / 3600
    return stage.plan.model_copy(update={"max_hours": max(left, 1 / 3600)})


def _no_room(state: PipelineState, now: datetime) -> str | None:
    seconds, money = state.time_left_s(now), state.money_left_micro_usd
    if seconds is not None and seconds <= 0:
        return f"the time limit of {state.pipeline.max_hours} h is reached"
    priced = any(plan.price_micro_usd_per_hour for plan in state.pipeline.stages)
    if money is not None and money <= 0 and priced:
        return f"the budget of ${(state.pipeline.budget_micro_usd or 0) / 1e6:.2f} is spent"
    if state.gpu_s_left is not None and state.gpu_s_left <= 0:
        return f"the limit of {state.pipeline.max_gpu_hours} GPU hours is reached"
    return None


def _end(state: PipelineState, stop: str | None, short: str | None) -> ProjectEnded:
    stages, kept = state.pipeline.stages, [stage.plan.method for stage, _ in state.carried]
    left = len(stages) - len(state.begun)
    found = f"{len(kept)} of {len(stages)} stages kept" + (f": {' then '.join(kept)}" if kept else "")
    if stop is not None:
        return ProjectEnded(state="stopped", reason=f"{stop}; {found}")
    if left:
        return ProjectEnded(state="stopped", reason=f"{short}, {left} stages were not begun; {found}")
    ends = {ended.state for _, ended in state.closed}
    if "finished" in ends:
        return ProjectEnded(state="finished", reason=found)
    _, last = state.closed[-1]
    return ProjectEnded(state="stopped" if "stopped" in ends else "failed", reason=f"{found}; {last.why}")


def _points(delta: float) -> str:
    return f"{100 * delta:+.1f} points"
