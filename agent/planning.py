"""From a sentence to a plan, and from a dataset's name to a judgement: what every door of hfagent does alike."""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfagent.agent import wiring
from hfagent.agent.dataset_records import DatasetReport
from hfagent.agent.errors import GoalUnclear, PackageMissing, SettingsError, UsageError
from hfagent.agent.goal import GoalHints
from hfagent.agent.jobs import TEMPLATES
from hfagent.agent.ledger import is_confirmed
from hfagent.agent.pipeline_facts import Pipeline
from hfagent.agent.plan import Flags, Surroundings, backend, make_plan, model_id
from hfagent.agent.plan_teacher import wanted_teacher
from hfagent.agent.recipes import Recipe
from hfagent.agent.records import (
    BenchmarkRef,
    DatasetRef,
    Export,
    ModelRef,
    Plan,
)
from hfagent.agent.settings import Settings
from hfagent.agent.stages import asked_methods, make_pipeline, stage_flags

if TYPE_CHECKING:
    from hfagent.agent.estimate_view import Estimate
    from hfagent.tools.derive import Derived

_TEMPLATES = Path(__file__).parents[1] / "job_templates"
SET_HERE = "HFAGENT_SET_HUB_OFFLINE"
"""Set beside HF_HUB_OFFLINE where hfagent set it, so that the Hub is asked again later."""


def plan_goal(goal: str, flags: Flags, settings: Settings, *, capped: bool = True) -> Plan | Pipeline:
    """The plan for a goal, complete and with a token of its own, or the pipeline for one of several stages; nothing is
    fetched or launched.

    A goal that no pattern understands is put into words by the model that plans, where there is one. Jobs that cost
    money are refused without a budget unless that is not asked for (`capped`).

    Raises:
        UsageError: the goal cannot be understood or reached here, a model or dataset is not there, or there is a budget
            and no price of the planner's tokens.
    """
    if settings.planner == "rules":
        return _planned(goal, flags, settings, capped=capped)
    from hfagent.agent.planners import impatient_model, require_price
    from hfagent.agent.understand import understand

    try:
        plan = _planned(goal, flags, settings, capped=capped)
    except GoalUnclear:
        plan = understand(
            goal,
            flags,
            impatient_model(settings),
            planned=lambda sentence, said: _planned(sentence, said, _on(settings, goal), capped=capped),
            token=_token(settings),
        )
    require_price(settings, plan)
    return plan


def estimate_goal(goal: str, flags: Flags, settings: Settings) -> "tuple[Estimate, ...]":
    """What a goal would take and cost, stage by stage; nothing is launched, and no budget is asked for.

    Raises:
        UsageError: as for `plan_goal`.
    """
    from hfagent.agent.estimate_view import price
    from hfagent.tools import hub_hardware
    from hfagent.tools.sources import rough_size

    planned = plan_goal(goal, flags, settings, capped=False)
    plans = planned.stages if isinstance(planned, Pipeline) else (planned,)
    if plans[0].backend != "hf":
        return tuple(price(plan, rough_size(plan.dataset), None) for plan in plans)
    token, model = _token(settings), plans[0].model
    vocabulary = hub_hardware.vocabulary(model.id, model.revision, token)
    hardware = hub_hardware.hardware(token)
    return tuple(price(plan, rough_size(plan.dataset), hardware, vocab_size=vocabulary) for plan in plans)


def _token(settings: Settings) -> str | None:
    return None if settings.hf_token is None else settings.hf_token.get_secret_value()


def _on(settings: Settings, goal: str) -> Settings:
    """The settings with where the goal's jobs run, which the model that puts it into words need not repeat."""
    return settings if backend(goal, settings) == settings.backend else settings.model_copy(update={"backend": "hf"})


def _planned(goal: str, flags: Flags, settings: Settings, *, capped: bool) -> Plan | Pipeline:
    from hfagent.agent.goal import parse_goal
    from hfagent.agent.recipes import load
    from hfagent.tools.benchmarks import names
    from hfagent.tools.sources import require_dataset, require_model, require_teacher

    hints = parse_goal(goal)
    ledgers = settings.reports_dir.glob("*.jsonl") if settings.reports_dir.is_dir() else ()
    taken = tuple(path.stem for path in ledgers if is_confirmed(path))
    recipe = load(hints.task_area or "code")
    here = Surroundings(hub=hub_answers(), gpu=wiring.has_gpu(settings), benchmarks=names(), taken=taken)
    if here.hub and backend(goal, settings) == "hf":
        here = here.model_copy(update=_rented(settings, hints, flags, recipe))
    methods = asked_methods(flags, hints)
    if (teacher := wanted_teacher(flags.teacher, hints.teacher, methods)) is not None:
        here = here.model_copy(update={"teacher": _teacher(teacher, settings, hub=here.hub)})
    single = len(methods) == 1
    plans = [
        _pinned(
            make_plan(
                goal, method=method, hints=hints, flags=said, recipe=recipe, settings=settings, here=here, capped=capped
            ),
            hub=here.hub,
            asked=flags.guards,
        )
        for method, said in zip(methods, [flags] if single else stage_flags(flags, methods), strict=True)
    ]
    require_model(plans[0].model, hub=here.hub)
    for plan in plans:
        if plan.teacher is not None:
            require_teacher(plan.teacher, plan.model, _token(settings))
    for dataset in dict.fromkeys(plan.dataset for plan in plans):
        require_dataset(dataset, hub=here.hub)
    own = {"token": secrets.token_hex(2)} | owner(plans[0], settings)
    plans = [plan.model_copy(update=own) for plan in plans]
    planned = plans[0] if single else make_pipeline(goal, plans, flags, taken)
    if planned.export is not None:
        require_export(planned.export, plans[0], settings)
    return planned


def _teacher(name: str, settings: Settings, *, hub: bool) -> ModelRef:
    """The teacher at its newest commit, where it is on the Hub, with its weights counted.

    Raises:
        PlanRejected: no such model.
    """
    from hfagent.tools import hub_hardware
    from hfagent.tools.sources import require_model

    require_model(ModelRef(id=name), hub=hub)
    if not (hub or Path(name).expanduser().is_dir()):
        return ModelRef(id=name)
    token = _token(settings)
    revision = hub_hardware.commit(name, token)
    return ModelRef(id=name, revision=revision, parameters=hub_hardware.parameters(name, revision, token))


def require_export(export: Export, plan: Plan, settings: Settings) -> None:
    """Refuse GGUF files that could not be made of a plan's model where its jobs run.

    Raises:
        PackageMissing: a package that writes them is not installed.
        PlanRejected: no such file can be made of the model.
    """
    from hfagent.tools.script_command import require_further
    from hfagent.tools.sources import require_gguf

    if export.quantize:
        if plan.backend != "hf":
            require_further(_TEMPLATES / TEMPLATES["export"], ["--quantize"])
        require_gguf(plan.model, _token(settings))


def _pinned(plan: Plan, *, hub: bool, asked: Sequence[str]) -> Plan:
    """With benchmarks whose content is fixed, and notes about them; a guard that nobody `asked` for may be left out."""
    search, *notes = _had(plan, plan.search, hub=hub)
    confirm, *further = _had(plan, plan.confirm, hub=hub)
    notes, guards = [*notes, *further], []
    for wanted in plan.guards:
        try:
            guard, *further = _had(plan, wanted, hub=hub)
        except (UsageError, PackageMissing) as error:
            if wanted.name in asked:
                raise
            notes.append(f"the guard {wanted.name} is left out: {error}")
            continue
        guards.append(guard)
        notes += further
    told = tuple(dict.fromkeys(note for note in notes if note is not None))
    changes = {"search": search, "confirm": confirm, "guards": tuple(guards), "notes": (*plan.notes, *told)}
    return plan.model_copy(update=changes)


def _had(plan: Plan, benchmark: BenchmarkRef, *, hub: bool) -> tuple[BenchmarkRef, str | None]:
    """The benchmark with its content fixed and what is to be known of it, if it can be evaluated where jobs run."""
    from hfagent.tools.benchmarks import pinned
    from hfagent.tools.script_command import require_further

    if plan.backend != "hf":
        require_further(_TEMPLATES / TEMPLATES["evaluate"], [benchmark.name])
    return pinned(benchmark, hub=hub)


def owner(plan: Plan, settings: Settings) -> dict[str, Any]:
    """Whose the jobs are and where their metrics go, as fields of the plan; asked of the Hub once a night."""
    if plan.backend != "hf":
        return {}
    from hfagent.tools.hf_account import found_token

    if found_token(settings) is None:  # shown, estimated, and refused once it is to start
        return {}
    from hfagent.agent.hf_wiring import metrics_space, metrics_url
    from hfagent.tools.hf_account import account

    namespace = account(settings).namespace
    return {
        "namespace": namespace,
        "trackio_url": metrics_url(settings, namespace),
        "trackio_space": metrics_space(settings, namespace),
    }


def _rented(settings: Settings, hints: GoalHints, flags: Flags, recipe: Recipe) -> dict[str, Any]:
    """What the Hub offers and what it knows of the model, as fields of `Surroundings`."""
    from hfagent.tools import hub_hardware

    token = _token(settings)
    hardware = hub_hardware.hardware(token)
    model = model_id(hints, flags, recipe, gpu=hardware.has_gpu(settings.flavor or hints.flavor))
    if model.startswith("embedded:"):  # counted in the recipe
        return {"hardware": hardware}
    return {
        "hardware": hardware,
        "parameters": hub_hardware.parameters(model, token=token),
        "vocab_size": hub_hardware.vocabulary(model, token=token),
    }


def check_data(
    dataset: DatasetRef,
    settings: Settings,
    *,
    method: str | None = None,
    model: str | None = None,
    max_length: int | None = None,
) -> DatasetReport:
    """Judge a dataset for one method, or for all.

    Raises:
        SettingsError: no such method.
        DatasetError: it cannot be found or read.
    """
    from hfagent.tools.dataset_read import DatasetReader, auto_tokenizer
    from hfagent.tools.dataset_store import LocalDatasetStore
    from hfagent.tools.embedded_model import EmbeddedModelStore

    models = EmbeddedModelStore(settings.cache_dir)
    base = None if model is None else ModelRef(id=str(models.prepare(ModelRef(id=model))))
    hub_answers()
    path = LocalDatasetStore(settings.state_dir / "data").prepare(dataset, rows=None, seed=settings.seed)
    found = DatasetReader(load_tokenizer=auto_tokenizer).check(
        dataset.model_copy(update={"id": path}), model=base, max_length=max_length
    )
    found = found.model_copy(update={"dataset": dataset.id})
    if method is None:
        return found
    chosen = {name: check for name, check in found.methods.items() if name == method.lower()}
    if not chosen:
        raise SettingsError(f"unknown method {method!r}: choose one of {', '.join(found.methods)}")
    return found.model_copy(update={"methods": chosen})


def derive(source: DatasetRef, wanted: Mapping[str, str], settings: Settings) -> "Derived":
    """Write a dataset with other column names.

    Args:
        source: the data.
        wanted: new name -> name that stands for it; the other way round where only the new names are in the data.
        settings: where it is written.

    Raises:
        DatasetError: no such dataset or column, or it cannot be written.
    """
    from hfagent.tools.dataset_read import load_rows
    from hfagent.tools.dataset_store import LocalDatasetStore
    from hfagent.tools.derive import rename_columns

    hub_answers()
    folder = settings.state_dir / "data"
    path = LocalDatasetStore(folder).prepare(source, rows=None, seed=settings.seed)
    ref = source.model_copy(update={"id": path})
    there = set(load_rows(ref, limit=1).columns)
    columns = {old: new for new, old in wanted.items()}
    if not columns.keys() <= there and wanted.keys() <= there:
        columns = dict(wanted)
    return rename_columns(ref, columns, folder)


def hub_answers() -> bool:
    """Whether the Hub answers. If not, neither this process nor its jobs try it again: each would for half a minute."""
    if os.environ.pop(SET_HERE, None):  # by an earlier look, here or in the process that started this one
        os.environ.pop("HF_HUB_OFFLINE", None)
    reachable = wiring.hub_reachable()
    if not reachable and not os.environ.get("HF_HUB_OFFLINE"):
        os.environ |= {"HF_HUB_OFFLINE": "1", SET_HERE: "1"}
    return reachable
