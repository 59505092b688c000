"""Whether the data can be trained on, or must be made by the model or cleaned before. Pure."""

from hfagent.agent.dataset_records import DatasetReport
from hfagent.agent.records import Plan, Refusal, RunSpec
from hfagent.agent.state import State

REWARD_COLUMNS = {"tests_pass": ("tests", "entry_point"), "number_equal": ("answer",), "syntax": ("entry_point",)}
"""What the rewards of hfagent need of a dataset, beside its prompts; the others need nothing."""
JUDGES = ("tests_pass", "number_equal")
"""The rewards that judge whether an answer is right; the first whose columns are there."""
NEEDED = "columns tests and entry_point, or answer"


def judges(report: DatasetReport) -> str | None:
    """By which rewards answers to the dataset's prompts can be judged; None where by none."""
    return next((f"{name}:1" for name in JUDGES if set(REWARD_COLUMNS[name]) <= report.columns.keys()), None)


def makeable(plan: Plan, report: DatasetReport) -> str | None:
    """Why the model cannot make training data of the dataset's prompts; None where it can."""
    if report.methods["grpo"].verdict == "INCOMPATIBLE":
        return "it has no prompts either that the model could answer to make its own"
    if judges(report) is None:
        return f"the model cannot make its own of the prompts: to judge answers they need {NEEDED}"
    if plan.generation is None:
        return "the plan has none made"
    return None


def data_flaw(plan: Plan, report: DatasetReport, *, made: bool = False) -> str | None:
    """Why nothing can be trained with the plan's method; None where the data is there, or can be made.

    Args:
        plan: of the project.
        report: about the data.
        made: whether it is what the model has made.
    """
    check = report.methods[plan.method]
    if check.verdict != "INCOMPATIBLE":
        lacks = _unjudged(plan.train.reward_funcs, report) if plan.method == "grpo" else None
        if lacks is None:
            return None
        missing = f"nothing can judge the answers: {lacks}"
    elif made:
        return f"the data that the model made cannot train with {plan.method}: {check.reason}"
    elif (why := makeable(plan, report)) is None:
        return None
    else:
        missing = f"{check.reason}; {why}"
    columns = ", ".join(report.columns) or "none"
    return (
        f"the dataset {plan.dataset.id!r} cannot train with {plan.method}: {missing} (its columns are {columns}); "
        f"rename columns, or choose another dataset: `hfagent check {plan.dataset.id}`"
    )


def _unjudged(named: str | None, report: DatasetReport) -> str | None:
    """Why the rewards of a plan cannot judge answers to the dataset's prompts; None where they can."""
    if named is None:
        return None if judges(report) is not None else f"it needs {NEEDED}"
    for part in named.split(","):
        reward = part.strip().partition(":")[0]
        needed = REWARD_COLUMNS.get(reward, ())
        if not set(needed) <= report.columns.keys():
            return f"the reward {reward} needs the columns {' and '.join(needed)}"
    return None


def to_make(plan: Plan, report: DatasetReport | None) -> bool:
    """Whether the model makes its own training data first."""
    return (
        report is not None and report.methods[plan.method].verdict == "INCOMPATIBLE" and makeable(plan, report) is None
    )


def flaw(state: State) -> str | None:
    """Why nothing can be trained on the state's data; None where it can, or is made first, or is not checked yet."""
    return None if state.dataset is None else data_flaw(state.plan, state.dataset, made=state.data_made)


def due(state: State) -> bool:
    """Whether the model is to make the data now."""
    return not state.data_made and to_make(state.plan, state.dataset)


def out_of_order(state: State, spec: RunSpec) -> str | None:
    """Why a run may not start before the data is made, or why none is made."""
    if spec.kind == "generate":
        return None if due(state) else "the data is there: none is to be made"
    return "the model has not made its training data yet: launch data first" if due(state) else None


def check_firewall(state: State) -> Refusal | None:
    """Whether the training rows can be compared with the benchmarks now."""
    why = None
    if state.ended is not None:
        why = f"the project is {state.ended.state}"
    elif state.dataset is None or state.data_path is None:
        why = "the dataset is not checked: check_dataset first"
    elif due(state):
        why = "what is trained on is to be made first: launch data"
    elif state.contamination is not None and not uncleaned(state):
        why = f"already checked: {state.contamination.verdict}"
    return None if why is None else Refusal(what="check for contamination", why=why)


def uncleaned(state: State) -> bool:
    """Whether rows that hold benchmark problems are known and are still to be left out, e.g. after a crash."""
    found = state.contamination is not None and state.contamination.verdict == "contaminated"
    return found and state.plan.contaminated_rows == "drop" and not state.data_cleaned


def contaminated(state: State) -> str | None:
    """Why nothing may be trained on this data; None once it is known to be free of benchmark problems."""
    report = state.contamination
    if report is None:
        return "the training rows were not compared with the benchmark problems: check_contamination first"
    if report.verdict == "denied":
        return f"{report.dataset} is known to hold the benchmark: choose another dataset"
    if report.verdict == "contaminated" and not state.data_cleaned:
        return f"{len(report.flagged)} of {report.rows} training rows hold benchmark problems"
    return None
