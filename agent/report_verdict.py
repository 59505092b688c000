"""The top of the report: title and state, the verdict with what it rests on, how to load the model. Pure."""

import json

from hfagent.agent import guards
from hfagent.agent import report_facts as facts
from hfagent.agent.loading import kept_adapter
from hfagent.agent.markdown import (
    NONE,
    code,
    dollars,
    duration,
    fenced,
    link,
    path,
    plain,
    prose,
    table,
    times,
    utc,
    value,
)
from hfagent.agent.report_words import STAGE_WORDS, points, score
from hfagent.agent.runs import Comparison
from hfagent.agent.state import State
from hfagent.agent.summary import headline, published
from hfagent.agent.verdict import Verdict, sentence

TITLE_CHARACTERS = 80

_VERDICT_WORDS = {
    "better": "Better than the base model, confirmed on problems that no decision had used.",
    "no_detectable_difference": "No detectable difference from the base model on problems that no decision had used.",
    "worse": "Worse than the base model on problems that no decision had used: this model is not to be used.",
}


def title(state: State) -> list[str]:
    """The goal in short, and the project's state in one line."""
    lines = [f"# {prose(state.plan.goal, limit=TITLE_CHARACTERS)}", "", f"**State:** {_state(state)}"]
    if len(plain(state.plan.goal)) > TITLE_CHARACTERS:
        lines += ["", f"**Goal:** {prose(state.plan.goal, limit=4000)}"]
    stage = state.plan.stage
    if stage is not None:
        pipeline = f"[{plain(stage.pipeline)}]({path(f'{stage.pipeline}.md')})"
        lines += ["", f"**Stage** {stage.number} of {stage.of} of the pipeline {pipeline}"]
        lines += [f"- {prose(line)}" for line in stage.before]
    return lines


def verdict(state: State) -> list[str]:
    """What a reader needs in the morning: the verdict, what it rests on, time, cost, and how to load the model."""
    return [f"> {_verdict(state)}", "", *table(("Fact", "Value"), _verdict_facts(state)), *_loading(state)]


def _state(state: State) -> str:
    if state.ended is not None:
        return f"{state.ended.state}: {prose(state.ended.reason)}"
    resume = code(f"hfagent resume {state.plan.project}")
    as_of = f"as of {utc(state.updated_at)}"
    if state.crash is not None:
        return f"crashed {as_of}: {prose(state.crash)}; {resume} goes on from here"
    if not state.confirmed:
        return f"planned {as_of}; nothing starts before somebody agrees"
    names = ", ".join(f"{code(job.job.run)} ({STAGE_WORDS[job.stage].lower()})" for job in state.open_attempts)
    return f"running {as_of}{names and f': {names}'}; if it was interrupted, {resume} goes on"


def _verdict(state: State) -> str:
    confirmed = headline(state)
    if confirmed is not None:
        run, lost = code(state.kept or ""), guards.warning(state)
        said = prose(sentence(confirmed, metric=facts.metric(state)))
        return f"**{_VERDICT_WORDS[confirmed.label]}** {run}: {said}" + (f"; **{prose(lost)}**" if lost else "")
    best = _best_on_search(state)
    if best is not None:
        found = best.fact.verdict
        words = "No verdict yet."
        if found.label == "better":
            words = "Promising, not confirmed."
        elif state.ended is not None:
            words = "No gain was confirmed."
        text = prose(sentence(found, metric=facts.metric(state)))
        return (
            f"**{words}** {code(best.fact.candidate)} on the search set: {text}. "
            "The search set chooses between runs, so gains on it are biased upwards."
        )
    base = state.scored(None, "search")
    known = f" The base model scores {score(base)} on the search set." if base is not None else ""
    return f"**No verdict{'' if state.ended is not None else ' yet'}.**{known}"


def _best_on_search(state: State) -> Comparison | None:
    """The kept run's verdict against the base model, else the one with the largest gain."""
    found = [c for c in state.comparisons if c.fact.set == "search" and c.fact.reference is None]
    kept = state.kept
    return max(found, key=lambda c: (c.fact.candidate == kept, c.fact.verdict.delta), default=None)


def _verdict_facts(state: State) -> list[list[str]]:
    plan, trained = state.plan, state.trained
    extended = sum(run.spec.parent is not None for run in trained)
    end = state.ended_at or state.updated_at
    tokens = "" if state.tokens is None else f", {state.tokens} tokens"
    cap = "no cap" if plan.budget_micro_usd is None else f"cap {dollars(plan.budget_micro_usd)}"
    hours = "no limit" if plan.max_hours is None else f"limit {value(plan.max_hours)} h"
    hours += "" if plan.max_gpu_hours is None else f", {value(plan.max_gpu_hours)} GPU hours"
    taken = duration(max((end - state.started_at).total_seconds(), 0.0))
    return [
        *_interval_facts(headline(state)),
        *_claim_facts(state),
        *_guard_facts(state),
        ["Training runs tried", f"{len(trained)}" + (f", {extended} of them an extension" if extended else "")],
        ["Looks at the confirm set", _looks(state)],
        ["Started", utc(state.started_at)],
        ["Ended", utc(state.ended_at)],
        ["Duration", f"{taken}{'' if state.ended_at else ' so far'}, {hours}"],
        ["Cost", f"{dollars(state.spent_micro_usd)} spent, {dollars(state.held_micro_usd)} held for open jobs, {cap}"],
        ["Planner", f"woke {times(state.wakes)}{tokens}{_planner_cost(state)}"],
    ]


def _planner_cost(state: State) -> str:
    cost = f", {dollars(state.planner_micro_usd)}" if state.planner_micro_usd else ""
    return f"{cost}; the rules plan in its place: {prose(state.stand_in)}" if state.stand_in is not None else cost


def _claim_facts(state: State) -> list[list[str]]:
    """The claim, and what was paid for it."""
    claim, noise = state.claim, state.noise
    rows = []
    if claim is not None:
        rows.append(["Claim", f"**{claim.label.replace('_', ' ')}**: {prose(claim.reason)}"])
    if claim is not None and claim.gain is not None:
        rows.append(
            ["Gain to expect", f"{points(claim.gain)} points: corrected for being claimed only when significant"]
        )
    if noise is not None:
        rows.append(
            [
                "Noise",
                f"the base model twice: {noise.flips} of {noise.n} outcomes changed, {points(noise.delta)} points",
            ]
        )
    return rows


def _guard_facts(state: State) -> list[list[str]]:
    """What was found on each ability that must not be lost; nothing before there is a model to ask."""
    if headline(state) is None:
        return []
    return [[f"Guard {code(name)}", prose(guards.words(found))] for name, found in guards.verdicts(state).items()]


def _looks(state: State) -> str:
    """How many this project took, and which of all projects' the claim rests on."""
    claim, count = state.claim, str(facts.looks(state))
    if claim is None or claim.alpha is None:
        return count
    return f"{count}: look {claim.look} with this base model, all projects counted; alpha {claim.alpha:.4f}"


def _interval_facts(found: Verdict | None) -> list[list[str]]:
    if found is None:
        return []
    interval = f"{100 * (1 - found.alpha):.4g} % interval {points(found.ci_low)} to {points(found.ci_high)}"
    changed = f"{found.wins + found.losses} of {found.n} changed outcomes"
    mde = NONE if found.mde is None else f"{100 * found.mde:.1f} points, with {changed}; smaller ones could be missed"
    return [
        ["Gain, in points", f"{points(found.delta)} ({interval})"],
        ["Smallest gain found with 80 % power", mde],
    ]


def _loading(state: State) -> list[str]:
    kept, confirmed = kept_adapter(state), headline(state)
    if kept is None or (confirmed is not None and confirmed.label == "worse"):
        return []
    pushed = published(state)
    if pushed:
        return _published(pushed)
    name = code(kept.run)
    load = ["", f"The adapter of {name} is loaded with its base model by", "", *fenced(kept.code, language="python")]
    if kept.fetch is None:
        return load
    return [
        "",
        f"The adapter of {name} is in the jobs' bucket, and fetched by",
        "",
        *fenced(kept.fetch, language="sh"),
        *load,
    ]


def _published(pushed: dict[str, str]) -> list[str]:
    repo = json.dumps(next(iter(pushed)))
    text = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({repo})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({repo})"
    )
    where = ", ".join(link(code(name), url) for name, url in pushed.items())
    return ["", f"Published: {where}. The model is loaded by", "", *fenced(text, language="python")]
