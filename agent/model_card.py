"""The card of a published model: what it is, how much better, by which evidence, and how to load it. Pure."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from hfagent.agent import guards
from hfagent.agent.claim import claim
from hfagent.agent.records import Claim, Export, RunSpec
from hfagent.agent.release import file_check
from hfagent.agent.report_release import files_table
from hfagent.agent.report_words import EMBEDDED_MODEL_WORDS, hub_dataset, hub_model, hub_teacher
from hfagent.agent.runs import Run
from hfagent.agent.state import State
from hfagent.agent.trackio_links import run_link
from hfagent.agent.verdict import Verdict
from hfagent.agent.view import verdict_text

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TASKS = {
    "procedural_python": "procedural Python functions",
    "procedural_math": "procedural word problems",
    "openai_humaneval": "HumanEval",
    "gsm8k": "GSM8K",
    "mbpp": "MBPP, sanitized",
    "math_500": "half of MATH-500",
    "ifeval": "half of IFEval",
}


def model_card(state: State, publish: RunSpec, version: str, *, gguf: bool = False) -> str:
    """README.md of the repo.

    Args:
        state: of the project; a run was kept, and exported.
        publish: the run that pushes.
        version: of hfagent.
        gguf: the card of the repo with the GGUF files.
    """
    run, export = state.runs[str(state.kept)], publish.export or Export()
    title = str(export.push).rpartition("/")[2] + ("-GGUF" if gguf else "")
    parts = [
        _front_matter(state, run, title, publish, gguf=gguf),
        f"# {title}",
        _what(state),
        export.judged or _verdict(state),
        _files(state, publish, export) if gguf else _load(str(export.push)),
        _results(state, run),
        _parameters(state, run),
        _provenance(state, run, version),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(state: State, run: Run, title: str, publish: RunSpec, *, gguf: bool) -> str:
    from huggingface_hub import ModelCardData

    method, dataset, export = state.plan.method, hub_dataset(state), publish.export or Export()
    data: dict[str, Any] = {
        "base_model": str(export.push) if gguf else hub_model(state),
        "datasets": None if dataset is None else [dataset],
        "library_name": "gguf" if gguf else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["hfagent", "trl", method, *(["gguf", "llama.cpp"] if gguf else ["trackio"])],
        "model_name": title,
        "eval_results": _eval_results(state, run, publish if gguf else None) or None,
    }
    return f"---\n{ModelCardData(**data).to_yaml()}\n---"


def _eval_results(state: State, run: Run, files: RunSpec | None) -> "list[EvalResult]":
    """The score on the confirm set: of the model, or of each file of a push that was judged."""
    from huggingface_hub import EvalResult

    confirm = state.scored(run.spec.name, "confirm")
    if confirm is None or confirm.score is None:
        return []
    name, metric = confirm.score.benchmark.name, confirm.score.metric
    scores = {metric: confirm.score.value}
    if files is not None:
        asked = files.export.quantize if files.export is not None else ()
        checks = [file_check(state, str(files.exported), quantization) for quantization in asked]
        scores = {f"{metric} ({check.quantization})": check.score for check in checks if check is not None}
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=name,
            dataset_name=TASKS.get(name, name),
            metric_type=metric,
            metric_value=round(value, 4),
            metric_name=label,
        )
        for label, value in scores.items()
    ]


def _what(state: State) -> str:
    """What was trained on what; of folders and files of this machine the last part of their names alone."""
    plan = state.plan
    model, dataset = hub_model(state) or _name(plan.model.id), hub_dataset(state) or _name(plan.dataset.id)
    goal = plan.goal.replace(plan.model.id, model).replace(plan.dataset.id, dataset)
    taught = ""
    if plan.teacher is not None:
        teacher = hub_teacher(state) or _name(plan.teacher.id)
        goal, taught = goal.replace(plan.teacher.id, teacher), f" from the teacher `{teacher}`"
    base = plan.model if plan.stage is None else plan.stage.base
    copied = f" ({EMBEDDED_MODEL_WORDS})" if base.id.startswith("embedded:") else ""
    if plan.stage is not None:
        story = "".join(f"\n- {line}" for line in plan.stage.before)
        return (
            f"`{model}`{copied}, trained in {plan.stage.of} stages for the goal: *{goal}*. The last that was kept is "
            f"stage {plan.stage.number}, {plan.method.upper()} (LoRA, merged){taught} on `{dataset}`: its results and "
            f"parameters are below, against the model that it began with.{chr(10) if story else ''}{story}"
        )
    return (
        f"`{model}`{copied}, trained with {plan.method.upper()} (LoRA, merged){taught} on `{dataset}` for the "
        f"goal: *{goal}*"
    )


def _name(path: str) -> str:
    return PurePath(path.removeprefix("embedded:")).name


def _verdict(state: State) -> str:
    made = state.claim or claim(state)
    lines = [verdict_text(state)]
    if made.label != "confirmed_better":
        lines.insert(0, f"**Published without a confirmed gain** ({_label(made)}: {made.reason}).")
    return "\n\n".join([*lines, *guard_lines(guards.verdicts(state))])


def guard_lines(found: Mapping[str, Verdict | None]) -> list[str]:
    """What was found on each guard."""
    return [f"{TASKS.get(name, name)}, an ability to be kept: {guards.words(v)}." for name, v in found.items()]


def _label(made: Claim) -> str:
    return made.label.replace("_", " ")


def _load(repo: str) -> str:
    return (
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{repo}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n```'
    )


def _files(state: State, publish: RunSpec, export: Export) -> str:
    table = "\n".join(files_table(state, state.runs[str(publish.exported)], only=export.quantize))
    return f"{table}\n\n```\nllama-server -hf {export.push}-GGUF:{export.quantize[0]}\n```"


def _results(state: State, run: Run) -> str:
    rows = ["| Problems | Base model | This model | n |", "| --- | --- | --- | --- |"]
    for problems in ("search", "confirm"):
        base, ours = state.scored(None, problems), state.scored(run.spec.name, problems)
        if base is None or ours is None or base.score is None or ours.score is None:
            continue
        name = ours.score.benchmark.name
        rows.append(
            f"| {TASKS.get(name, name)} ({problems} set) | {base.score.value:.3f} | {ours.score.value:.3f} "
            f"| {ours.score.n} |"
        )
    return "\n".join(rows)


def _parameters(state: State, run: Run) -> str:
    launched = run.result.get("launched")
    asked = (run.spec.train or state.plan.train).model_dump(exclude_none=True)
    shown: dict[str, Any] = dict(launched) if isinstance(launched, dict) else asked
    rows = ["| Parameter | Value |", "| --- | --- |"]
    rows += [f"| {name} | {value} |" for name, value in shown.items() if value is not None]
    return "\n".join(rows)


def _provenance(state: State, run: Run, version: str) -> str:
    plan, lines = state.plan, []
    confirm = state.scored(run.spec.name, "confirm")
    lines.append(f"- Made by hfagent {version}, project `{plan.label}`, run `{run.spec.name}`.")
    if plan.model.revision:
        lines.append(f"- Base model at revision `{plan.model.revision}`.")
    if plan.teacher is not None and plan.teacher.revision:
        lines.append(f"- Teacher at revision `{plan.teacher.revision}`.")
    if confirm is not None and confirm.score is not None:
        lines.append(f"- Evaluated by the harness `{confirm.score.harness}` in the sandbox {confirm.score.sandbox}.")
    if plan.trackio_space is not None:  # the address of a server of one's own is nobody else's business
        project = str(run.result.get("trackio_project", plan.label))
        lines.append(f"- [Metrics in Trackio]({run_link(plan, project, str(run.result.get('trackio_run', '')))}).")
    used = ", ".join(f"{name} {number}" for name, number in sorted(state.versions.items()))
    lines.append(f"- Packages: {used}.")
    return "\n".join(lines)
