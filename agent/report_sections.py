"""The report's sections about the project as a whole: verdict, runs, what was used, dataset check, decisions. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from hfagent.agent import report_facts as facts
from hfagent.agent.backend_facts import BackendFound, BackendLost, StrayFound, SubmitRetried
from hfagent.agent.dataset_records import FIRST_ONLY, DatasetReport
from hfagent.agent.events import (
    Crashed,
    EpochOpened,
    Event,
    Flagged,
    LookTaken,
    NoiseMeasured,
    Proposed,
    Refused,
    Resumed,
    SearchEnded,
)
from hfagent.agent.integrity import Hit
from hfagent.agent.markdown import (
    NONE,
    TBD,
    anchor,
    code,
    dollars,
    duration,
    fenced,
    link,
    path,
    prose,
    table,
    utc,
    value,
)
from hfagent.agent.planner_facts import ApprovalAsked, Approved, Noted, Paused, PlannerSwitched, Unpaused, Vetoed
from hfagent.agent.records import (
    TrainConfig,
)
from hfagent.agent.report_words import (
    base_model,
    dataset,
    decision_words,
    embedded_words,
    gain,
    heading,
    model_of,
    points,
    problems,
    score,
    teacher,
)
from hfagent.agent.runs import Comparison, Run, Taken
from hfagent.agent.state import State, root_name
from hfagent.agent.upkeep_facts import ClockJumped, LimitNear, LineTorn, OrphanFound
from hfagent.agent.verdict import sentence

SHOWN_ROWS = 20
"""Rows of the training data that the report names; all of them are in the ledger."""


def runs(state: State) -> list[str]:
    """One row a run, failed and discarded ones too."""
    header = ("Run", "Kind", "Benchmark (set)", "Score (95 % interval)", "n", "vs baseline", "Cost", "Time", "Decision")
    rows = [_run_row(state, run) for run in state.runs.values()]
    return ["## Runs", "", *(table(header, rows) if rows else ["No run was started yet."])]


def used(state: State) -> list[str]:
    """Model, data, problems and place, and the notes of the plan."""
    plan = state.plan
    about_model, about_data = embedded_words(state)
    price = dollars(plan.price_micro_usd_per_hour)
    beside = f", up to {plan.max_jobs} at a time while sets of hyperparameters are tried" if plan.max_jobs > 1 else ""
    items = [
        f"Base model: {base_model(state)}{about_model and f': {about_model}'}",
        *([] if plan.teacher is None else [f"Teacher: {teacher(state)}"]),
        f"Dataset: {dataset(state)}{about_data and f': {about_data}'}",
        f"Search set: {problems(plan.search)}; used freely, to choose",
        f"Confirm set: {problems(plan.confirm)}; for the kept run alone, to claim",
        f"Jobs: {code(plan.backend)}, flavor {code(plan.flavor)}, {price} an hour{beside}",
        *(prose(note) for note in plan.notes),
    ]
    if state.versions:
        items.append("Packages: " + ", ".join(prose(f"{name} {v}") for name, v in sorted(state.versions.items())))
    return ["## What this run used", "", *(f"- {item}" for item in items)]


def dataset_check(state: State) -> list[str]:
    """What the dataset check found, and the mapping where one was applied."""
    lines = ["## Dataset check", ""]
    lines += _made(state)
    report = state.dataset
    if report is None:
        return [*lines, TBD if state.ended is None else "The dataset was not checked."]
    rows = [(name.upper(), check.verdict, prose(check.reason)) for name, check in report.methods.items()]
    lines += [_dataset_counts(report), "", *table(("Method", "Verdict", "Reason"), rows)]
    check = report.methods.get(state.plan.method)
    if check is None:
        return lines
    if check.warnings:
        lines += ["", *(f"- Warning: {prose(warning)}" for warning in check.warnings)]
    if check.mapping is not None:
        mapping = fenced(check.mapping.model_dump_json(exclude_defaults=True), language="json")
        lines += ["", f"Rows are rewritten for {state.plan.method.upper()} by this mapping:", "", *mapping]
    return lines


def _made(state: State) -> list[str]:
    """Where the model has made the data itself: why, and of what."""
    if state.source is None:
        return []
    check, run = state.source.methods[state.plan.method], state.runs["data"]
    return [
        f"{dataset(state)} has nothing to train {state.plan.method.upper()} on: {prose(check.reason)}. So the base "
        f"model answered its prompts, and the data were made of what the answers are worth (run {code('data')}): "
        f"{value(run.result.get('passed'))} of {value(run.result.get('samples'))} answers to "
        f"{value(run.result.get('prompts'))} prompts passed. What follows is about the data that were made.",
        "",
    ]


def firewall(state: State) -> list[str]:
    """What the comparison of the training rows with the benchmark problems found, with its evidence."""
    report = state.contamination
    if report is None:
        return ["## Contamination check", "", TBD if state.ended is None else "The training rows were not checked."]
    sets = ", ".join(map(code, report.benchmarks))
    lines = [
        "## Contamination check",
        "",
        f"**{report.verdict}**: {len(report.flagged)} of {report.rows} rows hold one of {report.problems} problems "
        f"of {sets}{'; they are left out' if state.data_cleaned else ''}.",
    ]
    named = list(dict.fromkeys(hit.row for hit in report.hits))[:SHOWN_ROWS]
    if named:
        rows = [_contaminated_row([hit for hit in report.hits if hit.row == row]) for row in named]
        lines += ["", *table(("Row", "Problem", "Found by", "Text of the row"), rows)]
    if len(report.flagged) > len(named):
        lines += ["", f"{len(named)} of the {len(report.flagged)} rows are shown; the ledger has all their numbers."]
    if report.ignored:
        weak = ", ".join(f"{prose(name)} {number} times" for name, number in report.ignored.items())
        lines += ["", f"Too weak to count: {weak}."]
    return lines


def _contaminated_row(hits: Sequence[Hit]) -> tuple[str, str, str, str]:
    """All signs of one row of the training data."""
    problems_held = ", ".join(code(problem) for problem in dict.fromkeys(hit.problem for hit in hits))
    layers = ", ".join(dict.fromkeys(hit.layer for hit in hits))
    return value(hits[0].row), problems_held, layers, prose(hits[0].evidence)


def decision_log(state: State) -> list[str]:
    """Verdicts, decisions, refusals and interruptions in order of time."""
    rows: list[tuple[datetime, list[str]]] = [(item.at, _compared_row(state, item)) for item in state.comparisons]
    rows += [(taken.at, _decided_row(taken)) for taken in state.decisions]
    rows += [(event.at, _incident_row(state, event)) for event in state.incidents]
    if state.ended is not None and state.ended_at is not None:
        rows.append((state.ended_at, [state.ended.state, NONE, NONE, prose(state.ended.reason), NONE]))
    rows.sort(key=lambda row: row[0])
    lines = ["## Decision log", ""]
    header = ("Time", "Action", "Run", "Rule", "Reason", "Numbers")
    lines += table(header, ([utc(at), *cells] for at, cells in rows)) if rows else ["Nothing was decided yet."]
    return lines


def _incident_row(state: State, event: Event) -> list[str]:  # noqa: C901 - one flat arm a fact
    match event.fact:
        case Refused(refusal=refusal):
            return ["refused", NONE, "policy", f"{prose(refusal.what)}: {prose(refusal.why)}", NONE]
        case Proposed() as fact:
            name = root_name(state.plan.method, fact.number)
            return ["proposed", code(name), code(fact.source), prose(fact.why), _changes(state, fact.config)]
        case SearchEnded(reason=reason):
            return ["search ended", NONE, code("search-over"), prose(reason), NONE]
        case Flagged(run=name, flag=flag, response=response):
            reason = f"{prose(flag.reason)}: {response.action.replace('_', ' ')}"
            return ["flag", code(name), code(flag.name), reason, _numbers(flag.numbers)]
        case EpochOpened() as fact:
            reason = (
                f"the harness of the {fact.set} set is {code(fact.harness)} instead of {code(fact.before)} from here on"
            )
            return ["new epoch", NONE, NONE, f"{reason}; earlier scores are compared no more", NONE]
        case NoiseMeasured() as fact:
            reason = f"the base model evaluated twice: {fact.flips} of {fact.n} outcomes changed"
            return ["noise", NONE, NONE, reason, f"delta {points(fact.delta)}"]
        case LookTaken() as fact:
            return [
                "look",
                code(fact.run),
                code("alpha-of-look"),
                f"look {fact.look} at the confirm set",
                f"alpha {fact.alpha:.4f}",
            ]
        case PlannerSwitched(planner=planner, why=why):
            return ["planner", NONE, NONE, f"{code(planner)} plans from here on: {prose(why)}", NONE]
        case Noted(text=text, by=by):
            return ["note", NONE, NONE, f"{by}: {prose(text)}", NONE]
        case Paused(why=why):
            return ["paused", NONE, NONE, prose(why), NONE]
        case Unpaused():
            return ["unpaused", NONE, NONE, "jobs are launched again", NONE]
        case ApprovalAsked(run=name):
            return ["approval asked", code(name), NONE, "it waits for a person's yes", NONE]
        case Approved(run=name):
            return ["approved", code(name), NONE, "a person said yes", NONE]
        case Vetoed(run=name, why=why):
            return ["vetoed", code(name), NONE, prose(why), NONE]
        case Resumed():
            return ["resumed", NONE, NONE, "a new hfagent process took the project over", NONE]
        case Crashed(error=error):
            return ["crashed", NONE, NONE, prose(error), NONE]
        case BackendLost(error=error):
            return ["backend away", NONE, NONE, f"{prose(error)}; its jobs go on, their money stays held", NONE]
        case LimitNear(limit=limit, share=share):
            how = "spent or held" if limit in ("budget", "GPU hours") else "used"
            reason = f"{share:.0%} of the {limit} {'are' if limit.endswith('s') else 'is'} {how}"
            return ["limit near", NONE, NONE, reason, NONE]
        case OrphanFound(key=key, url=url):
            reason = f"{link('a job', url)} of this project that its ledger knows nothing of was ended"
            return ["orphan", code(key), NONE, reason, NONE]
        case ClockJumped(seconds=seconds):
            reason = f"the clock of this machine went {duration(abs(seconds))} {'forward' if seconds > 0 else 'back'}"
            return ["clock", NONE, NONE, f"{reason}, or it slept; jobs are watched by what passed for them", NONE]
        case LineTorn(kept=kept, bytes=size):
            reason = f"the ledger's last line was cut off while it was written; its {size} bytes are in {code(kept)}"
            return ["torn line", NONE, NONE, reason, NONE]
        case BackendFound():
            return ["backend back", NONE, NONE, "it answers again", NONE]
        case SubmitRetried(key=key):
            return ["submitted again", code(key), NONE, "the last request left no job", NONE]
        case StrayFound(key=key, url=url):
            reason = f"a {link('second job', url)} of this key: a request that was thought lost; cancelled"
            return ["stray", code(key), NONE, reason, NONE]
    raise TypeError(f"{event.fact.kind} is no incident")


def experiment_evaluations(state: State) -> list[str]:
    """The closing table: every evaluation with its job and its model, the base model first."""
    done = [run for run in state.runs.values() if run.spec.kind == "evaluate"]
    done.sort(key=lambda run: run.spec.subject is not None)
    rows = [_evaluation_row(state, run) for run in done]
    if not any(run.spec.subject is None for run in done):
        yet = TBD if state.ended is None else NONE
        rows.insert(0, ["Base model", f"{problems(state.plan.search)} (search)", yet, yet, base_model(state)])
    header = ("Run Title", "Benchmark", "Score", "Evaluation Job Link", "Model Link")
    return ["## Experiment Evaluations", "", *table(header, rows)]


# --- inside ----------------------------------------------------------------------------------------------------------


def _run_row(state: State, run: Run) -> list[str]:
    name = f"[{code(run.spec.name)}](#{path(anchor(heading(run)))})"
    seconds = facts.running_s(run)
    held = f"{dollars(run.last.job.reserve_micro_usd)} held"
    end = [
        held if run.last.open else dollars(facts.cost_micro_usd(run)),
        duration(seconds) if seconds is not None else TBD if run.last.open else NONE,
        decision_words(state, run.spec.name) if run.spec.kind == "train" else NONE,
    ]
    if run.spec.kind != "evaluate":
        return [name, run.spec.kind, NONE, NONE, NONE, NONE, *end]
    problem_set = f"{code(facts.benchmark(state, run).name)} ({facts.asked(run)})"
    number = str(run.score.n) if run.score is not None else NONE
    return [name, run.spec.kind, problem_set, score(run), number, gain(state, run), *end]


def _evaluation_row(state: State, run: Run) -> list[str]:
    subject = run.spec.subject
    who = "Base model" if subject is None else code(subject)
    job = link(code(run.last.job_id or run.spec.name), run.last.url) if run.last.url else TBD if run.last.open else NONE
    where = f"{problems(facts.benchmark(state, run))} ({facts.asked(run)})"
    return [who, where, score(run), job, model_of(state, subject)]


def _compared_row(state: State, item: Comparison) -> list[str]:
    fact, found = item.fact, item.fact.verdict
    against = "the base model" if fact.reference is None else code(fact.reference)
    reason = f"against {against} on the {fact.set} set: {prose(sentence(found, metric=facts.metric(state)))}"
    return ["verdict", code(fact.candidate), code(found.test), reason, f"{found.wins} won, {found.losses} lost"]


def _decided_row(taken: Taken) -> list[str]:
    decision = taken.decision
    action = decision.action if decision.run in (None, taken.about) else f"{decision.action} {code(str(decision.run))}"
    reason = prose(decision.reason)
    if decision.alternatives:
        reason += f". Not done: {prose('; '.join(decision.alternatives))}"
    if decision.inputs:
        reason += f". From: {', '.join(map(code, decision.inputs))}"
    rule = f"{code(decision.rule)} {prose(decision.version)}".strip()
    return [action, code(taken.about), rule, reason, _numbers(decision.numbers)]


def _numbers(numbers: Mapping[str, float | None]) -> str:
    known = {name: number for name, number in numbers.items() if number is not None}
    return ", ".join(f"{prose(name)} {number:.3g}" for name, number in known.items()) or NONE


def _changes(state: State, config: TrainConfig) -> str:
    before, after = state.plan.train.model_dump(), config.model_dump()
    changed = [f"{prose(name)} {value(after[name])}" for name in after if after[name] != before[name]]
    return ", ".join(changed) or NONE


def _dataset_counts(report: DatasetReport) -> str:
    parts = [f"{'unknown number of' if report.rows is None else report.rows} rows"]
    if report.sampled is not None:
        parts.append(f"{report.sampled} read{f', {FIRST_ONLY}' if report.first_only else ''}")
    if report.duplicates is not None:
        parts.append(f"{report.duplicates} exact repeats")
    if report.token_lengths:
        lengths = ", ".join(f"{prose(name)} {tokens}" for name, tokens in report.token_lengths.items())
        parts.append(f"tokens a row: {lengths}")
    columns = ", ".join(code(column) for column in report.columns)
    return f"{'; '.join(parts)}; columns {columns or NONE}."
