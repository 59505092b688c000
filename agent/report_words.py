"""How the report words what it shows: models, datasets, problems, scores, gains, decisions. Pure."""

import re

from hfagent.agent import report_facts as facts
from hfagent.agent.markdown import NONE, TBD, code, link, plain, prose, utc
from hfagent.agent.records import BenchmarkRef, DatasetRef, ModelRef
from hfagent.agent.runs import Run
from hfagent.agent.state import State

EMBEDDED_MODELS = {"SmolLM2-135M-Instruct": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Embedded name -> the Hub repository of the original."""
EMBEDDED_MODEL_WORDS = "4-bit weights, dequantised"
EMBEDDED_DATASETS = {
    "procedural-python": "short Python-function tasks with hidden tests, written by a seeded generator of hfagent; "
    "the training tasks share no composition of operations with the problems of either set",
    "procedural-math": "word problems of two or three steps with worked solutions, written by a seeded generator of "
    "hfagent; the training problems share no composition of steps with the problems of either set",
}

STAGE_WORDS = {
    "INTENDED": "Submitting",
    "REJECTED": "Rejected",
    "SCHEDULING": "Queued",
    "RUNNING": "In Progress",
    "COMPLETED": "Completed",
    "CANCELED": "Canceled",
    "ERROR": "Failed",
    "DELETED": "Deleted",
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_DATA_FILE = re.compile(r"\.(jsonl?|parquet|csv|gguf|safetensors)$")


def hub_model(state: State) -> str | None:
    """The base model's id on the Hub, that of the original for an embedded one; None where it is a folder.

    Of a stage it is the model that its pipeline began with.
    """
    stage = state.plan.stage
    if stage is not None and state.plan.model.id != stage.base.id:
        on_hub = stage.base.id if _on_hub(stage.base.id, None) else None
        return EMBEDDED_MODELS.get(stage.base.id.removeprefix("embedded:"), on_hub)
    model = state.plan.model.id
    original = EMBEDDED_MODELS.get(model.removeprefix("embedded:")) if model.startswith("embedded:") else None
    return original or (model if _on_hub(model, state.model_path) else None)


def hub_teacher(state: State) -> str | None:
    """The teacher's id on the Hub; None where it is a folder, embedded, or there is none."""
    found = state.plan.teacher
    return found.id if found is not None and _on_hub(found.id, state.teacher_path) else None


def hub_dataset(state: State) -> str | None:
    """The dataset's id on the Hub; None where it is embedded, a file or a folder."""
    data = state.plan.dataset.id
    return data if _on_hub(data, state.data_source) else None


def base_model(state: State) -> str:
    """The base model, linked where it is on the Hub; of a stage also what it was made of."""
    stage, model = state.plan.stage, state.plan.model
    if stage is not None and model.id != stage.base.id:
        return f"{code(model.id)}, made of {model_words(stage.base)} by earlier stages"
    return model_words(model, prepared=state.model_path)


def teacher(state: State) -> str | None:
    """The model that is learnt from, linked where it is on the Hub; None without one."""
    found = state.plan.teacher
    return None if found is None else model_words(found, prepared=state.teacher_path)


def model_words(model: ModelRef, *, prepared: str | None = None) -> str:
    """A model, linked where it is on the Hub.

    Args:
        model: as the plan names it.
        prepared: what it was loaded as; None while unknown.
    """
    name = model.id.removeprefix("embedded:")
    if name != model.id and name in EMBEDDED_MODELS:
        return f"{_hub(EMBEDDED_MODELS[name])} (embedded copy)"
    if _on_hub(model.id, prepared):
        return _hub(model.id, revision=model.revision)
    return code(model.id)


def dataset(state: State) -> str:
    """The dataset with its config and split, linked where it is on the Hub."""
    return data_words(state.plan.dataset, prepared=state.data_source)


def data_words(data: DatasetRef, *, prepared: str | None = None) -> str:
    """A dataset; see `model_words`."""
    name = data.id.removeprefix("embedded:")
    if name != data.id and name in EMBEDDED_DATASETS:
        return f"{code(name)} (embedded)"
    where = _hub(data.id, kind="datasets/") if _on_hub(data.id, prepared) else code(data.id)
    config = f"config {code(data.config)}, " if data.config else ""
    return f"{where} ({config}split {code(data.split)})"


def embedded_words(state: State) -> tuple[str, str]:
    """What is to be known of an embedded model and of an embedded dataset; empty for others."""
    model, data = state.plan.model.id, state.plan.dataset.id
    about_model = EMBEDDED_MODEL_WORDS if model.startswith("embedded:") else ""
    name = data.removeprefix("embedded:")
    return about_model, EMBEDDED_DATASETS.get(name, "") if name != data else ""


def problems(benchmark: BenchmarkRef) -> str:
    """A benchmark and how many of its problems, the draw's seed where it matters."""
    if benchmark.n is None:
        return f"{code(benchmark.name)}, all problems"
    return f"{code(benchmark.name)}, {benchmark.n} problems, seed {benchmark.seed}"


def score(run: Run) -> str:
    """An evaluation's score with its interval; TBD before it is there, a dash when it will not come."""
    if run.score is None:
        return TBD if run.last.open or run.done else NONE
    low, high = facts.score_interval(run.score)
    return f"{run.score.value:.3f} {prose(run.score.metric)} [{low:.3f}, {high:.3f}]"


def gain(state: State, run: Run) -> str:
    """An evaluation against the base model on the same set, in points (hundredths)."""
    if run.spec.subject is None:
        return "baseline"
    found = facts.against_base(state, run)
    if found is not None:
        return f"{points(found.delta)} [{points(found.ci_low)}, {points(found.ci_high)}]"
    base = facts.base_score(state, run)
    if run.score is None or base is None:
        return TBD if run.last.open or run.done else NONE
    return f"{points(run.score.value - base.value)}, not compared"


def points(difference: float) -> str:
    """A difference of scores in points (hundredths), signed."""
    return f"{100 * difference:+.1f}"


def heading(run: Run) -> str:
    """Name, start and state of a run, as its section is headed."""
    return f"{plain(run.spec.name)}: {utc(facts.started(run))}, {STAGE_WORDS[run.last.stage]}"


def model_of(state: State, subject: str | None) -> str:
    """Where the evaluated model is: the base model, or a run's adapter."""
    if subject is None:
        return base_model(state)
    adapter = state.runs[subject].result.get("adapter") if subject in state.runs else None
    if not isinstance(adapter, str):
        return NONE
    return _hub(adapter) if _on_hub(adapter, None) else code(adapter)


def decision_words(state: State, name: str) -> str:
    """What was decided about a training run."""
    decision = state.decision_on(name)
    if decision is None:
        return TBD if state.ended is None else NONE
    words = decision.action if decision.run in (None, name) else f"{decision.action} {code(str(decision.run))}"
    return f"{words}, kept" if state.kept == name and words != "keep" else words


def _on_hub(name: str, prepared: str | None) -> bool:
    """Whether a name is a Hub id. What was prepared as something else than its name is a local file or folder."""
    return _HUB_ID.fullmatch(name) is not None and not _DATA_FILE.search(name) and prepared in (None, name)


def _hub(name: str, *, kind: str = "", revision: str | None = None) -> str:
    at = f"/tree/{revision}" if revision else ""
    return link(code(name), f"https://huggingface.co/{kind}{name}{at}")
