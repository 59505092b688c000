"""A goal becomes a plan: flags over the sentence over the recipe. Pure."""

import re
from collections.abc import Collection

from hfagent.agent.clusters import own_flavor
from hfagent.agent.errors import PlanRejected
from hfagent.agent.goal import GoalHints
from hfagent.agent.goal_export import asked_export
from hfagent.agent.goal_numbers import GoalNumbers
from hfagent.agent.goal_words import denied
from hfagent.agent.hardware import Table, fallback
from hfagent.agent.method_defaults import generation
from hfagent.agent.placement import Placement, place
from hfagent.agent.plan_benchmarks import choose_benchmarks, choose_guards
from hfagent.agent.plan_teacher import choose_teacher
from hfagent.agent.plan_training import training
from hfagent.agent.recipes import Recipe
from hfagent.agent.records import BenchmarkRef, DatasetRef, Method, ModelRef, Plan, Record, Refusal
from hfagent.agent.settings import Backend, Settings

BUILT: tuple[Method, ...] = ("sft", "dpo", "grpo", "kto", "distillation")
"""Methods that make a model to be evaluated, and have a job template."""
DEFAULT_TRIALS = 8
"""Sets of hyperparameters that fit a night on one GPU."""
LIMITS = ("max_hours", "max_gpu_hours", "budget_usd", "target_points", "max_trials", "max_jobs", "seed")
"""Numbers of a goal that are settings."""
NOT_LORA = "full fine-tuning (training is by LoRA)"
OVERNIGHT_HOURS = 8.0
"""What `overnight` is read as where no number of hours is said: from the evening to the morning."""
UNBUILT = {
    NOT_LORA: r"\b(full([- ]parameters?|[- ]weights?)?[- ](fine-?\s?tun\w*|sft)|all (the )?weights)\b",
    "training on a quantized model": r"\b(q-?lora|(4|8|four|eight)[- ]?bit)\b",
}
"""What a goal may ask for and this version cannot do, by the words that ask for it."""


ON_HF = r"\b(hf|hugging ?face)[- ]jobs?\b"
"""How a goal says where its jobs are to run."""


class Flags(Record):
    """What the command line says about the plan; None where it is silent."""

    model: str | None = None
    teacher: str | None = None
    dataset: str | None = None
    config: str | None = None
    split: str | None = None
    method: str | None = None
    benchmark: str | None = None
    guards: tuple[str, ...] = ()
    project: str | None = None
    quick: bool = False
    push: str | None = None
    gguf: str | None = None
    """Quantizations, with commas."""
    public: bool = False
    publish_anyway: bool = False


class Surroundings(Record):
    """What the machine offers."""

    hub: bool
    """The Hub answers."""
    gpu: bool
    """On this machine."""
    benchmarks: tuple[str, ...]
    """Benchmarks that can be evaluated here."""
    taken: tuple[str, ...] = ()
    """Project names in use."""
    hardware: Table | None = None
    """What can be rented; None where jobs run here."""
    parameters: int | None = None
    """Weights of the model that is wanted, as its files count them; None while unknown."""
    vocab_size: int | None = None
    teacher: ModelRef | None = None
    """The teacher that is wanted, at one commit, with its weights counted; None where there is none."""


def backend(goal: str, settings: Settings) -> Backend:
    """Where jobs run: by the settings where they say it, else by the sentence."""
    asked = any(not denied(goal, match.start()) for match in re.finditer(ON_HF, goal, re.IGNORECASE))
    return "hf" if asked and "backend" not in settings.model_fields_set else settings.backend


def model_id(hints: GoalHints, flags: Flags, recipe: Recipe, *, gpu: bool) -> str:
    """The model that is trained on rented hardware; where it has no GPU, the embedded one stands in."""
    own = recipe.embedded.model if recipe.embedded and not gpu else recipe.model
    return flags.model or hints.model or own.id


def make_plan(
    goal: str,
    *,
    method: Method,
    hints: GoalHints,
    flags: Flags,
    recipe: Recipe,
    settings: Settings,
    here: Surroundings,
    capped: bool = True,
) -> Plan:
    """The complete plan.

    Args:
        goal: the sentence.
        method: of the training, see `stages.asked_methods`.
        hints: what the sentence says.
        flags: what the command line says.
        recipe: what is taken where both are silent.
        settings: limits, folders, and where jobs run where the sentence does not say it.
        here: what there is to work with.
        capped: refuse jobs that cost money without a budget.

    Raises:
        PlanRejected: something asked for cannot be done here; the message says what can.
    """
    settings, limit_notes = _with_wishes(settings, hints.numbers, hints.flavor)
    settings = settings.model_copy(update={"backend": backend(goal, settings)})
    _check_built(goal, settings)
    _check_rented(settings, here, capped=capped)
    rented = here.hardware if settings.backend == "hf" else None
    gpu = here.gpu if rented is None else rented.has_gpu(settings.flavor)
    embedded = recipe.embedded if recipe.embedded and not (here.hub and gpu) else None
    wanted_model, wanted_dataset = flags.model or hints.model, flags.dataset or hints.dataset
    base = embedded or recipe
    search, confirm = choose_benchmarks(
        flags.benchmark or hints.benchmark, base, here.benchmarks, seed=settings.seed, quick=flags.quick
    )
    guards = choose_guards(
        flags.guards, base, (search, confirm), here.benchmarks, seed=settings.seed, quick=flags.quick
    )
    if not here.hub and embedded is None and (wanted_model is None or wanted_dataset is None):
        raise PlanRejected(
            f"the {recipe.area} recipe takes {recipe.model.id!r} and {recipe.dataset.id!r} from the Hub, which does "
            "not answer: name a local --model and --dataset, or work on code or math, which needs no network"
        )
    model = ModelRef(id=wanted_model) if wanted_model not in (None, base.model.id) else base.model
    dataset = _dataset(flags, wanted_dataset, base.dataset, recipe.dataset, method)
    if rented is not None:
        model = model.model_copy(update={"parameters": here.parameters or model.parameters})
    teacher = choose_teacher(model, here.teacher) if method == "distillation" else None
    train = training(
        recipe, method, model, dataset, hints.numbers,
        embedded=embedded, seed=settings.seed, quick=flags.quick,
    )  # fmt: skip
    evaluation = base.evaluation.model_copy(update={"seed": settings.seed})
    placed: Placement | None = None
    if rented is not None:
        placed = place(
            rented, model.parameters, method, teacher=teacher,
            train=train, evaluation=evaluation, named=settings.flavor, vocab_size=here.vocab_size,
        )  # fmt: skip
        train, evaluation = placed.train, placed.evaluation
    flavor = own_flavor(settings, gpu=gpu) if placed is None else placed.flavor
    if settings.max_jobs > 1 and settings.backend == "local":
        raise PlanRejected(
            f"max_jobs is {settings.max_jobs}, and jobs on this machine run one at a time: take --backend hf, slurm or "
            "ray, or leave max_jobs at 1"
        )
    export = asked_export(
        goal, hints.export,
        push=flags.push, gguf=flags.gguf, public=flags.public, anyway=flags.publish_anyway,
    )  # fmt: skip
    if export is not None and export.push is not None and not here.hub:
        raise PlanRejected(f"the Hub does not answer, so nothing can be pushed to {export.push!r}: leave it out")
    return Plan(
        project=_project(flags, model.id, dataset, method, here.taken),
        goal=goal,
        task_area=recipe.area,
        method=method,
        model=model,
        teacher=teacher,
        dataset=dataset,
        search=search,
        confirm=confirm,
        guards=guards,
        train=train,
        evaluation=evaluation,
        backend=settings.backend,
        gpu=here.gpu if placed is None else placed.flavor.gpu is not None,
        accelerator=None if placed is None else placed.flavor.gpu,
        state_dir=str(settings.state_dir),
        flavor=flavor.name,
        price_micro_usd_per_hour=flavor.price_micro_usd_per_hour,
        budget_micro_usd=settings.budget_micro_usd,
        max_hours=settings.max_hours,
        gpus=max(1, flavor.gpus),
        max_gpu_hours=settings.max_gpu_hours,
        max_planner_tokens=settings.max_planner_tokens,
        max_extensions=0 if flags.quick else 1 if embedded else 2,
        max_trials=settings.max_trials or (1 if embedded or flags.quick else DEFAULT_TRIALS),
        max_jobs=settings.max_jobs,
        target_delta=None if settings.target_points is None else settings.target_points / 100,
        contaminated_rows=settings.contaminated_rows,
        export=export,
        generation=generation(embedded=embedded is not None and dataset.id == embedded.dataset.id),
        approve_runs=settings.approve_runs,
        unsafe_exec=settings.unsafe_exec,
        notes=(
            *(_notes(recipe, model, dataset, confirm, here, settings) if embedded else ()),
            *limit_notes,
            *(_gpu_notes(goal, here) if placed is None else placed.notes),
        ),
    )


def _gpu_notes(goal: str, here: Surroundings) -> tuple[str, ...]:
    asked = not here.gpu and any(
        not denied(goal, match.start())
        for match in re.finditer(r"\b(?:on|with|using) (?:\w+ )?gpu\b", goal, re.IGNORECASE)
    )
    return ("the goal asks for a GPU and there is none here: all runs on the processor",) if asked else ()


def _with_wishes(settings: Settings, numbers: GoalNumbers, flavor: str | None) -> tuple[Settings, tuple[str, ...]]:
    """The settings with what the sentence alone says, and a note wherever it is overruled or a night is meant."""
    said = {name: getattr(numbers, name) for name in LIMITS}
    said = {name: value for name, value in {**said, "flavor": flavor}.items() if value is not None}
    set_before = {name for name in said if name in settings.model_fields_set}
    notes = [
        f"{name} is set to {getattr(settings, name):g}, so the {said[name]:g} of the goal does not count"
        for name in sorted(set_before - {"flavor"})
        if getattr(settings, name) != said[name]
    ]
    new = {name: value for name, value in said.items() if name not in set_before}
    if numbers.overnight and settings.max_hours is None:
        new["max_hours"] = OVERNIGHT_HOURS
        notes.append(f"overnight is read as a limit of {OVERNIGHT_HOURS:g} h; --max-hours sets another")
    return settings.model_copy(update=new), tuple(notes)


def _check_built(goal: str, settings: Settings) -> None:
    for what, pattern in UNBUILT.items():
        if any(not denied(goal, match.start()) for match in re.finditer(pattern, goal, re.IGNORECASE)):
            raise PlanRejected(f"{what} is not available yet: leave it out of the goal")
    if any(denied(goal, match.start()) for match in re.finditer(r"\blora\b", goal, re.IGNORECASE)):
        raise PlanRejected(f"{NOT_LORA} is not available yet: leave it out of the goal")
    if settings.backend != "hf" and settings.flavor not in (None, settings.backend):
        known = not isinstance(fallback().named(settings.flavor), Refusal)
        hint = "; it can be rented: --backend hf" if known else ""
        raise PlanRejected(
            f"unknown flavor {settings.flavor!r} for the backend {settings.backend!r}; its only flavor is "
            f"{settings.backend!r}{hint}"
        )


def _check_rented(settings: Settings, here: Surroundings, *, capped: bool) -> None:
    if settings.backend != "hf":
        return
    if not here.hub or here.hardware is None:
        raise PlanRejected(
            "jobs on hf need the Hub, which does not answer: check the network and HF_HUB_OFFLINE, or "
            "use --backend local"
        )
    if capped and settings.budget_usd is None:
        raise PlanRejected(
            "jobs on hf cost money: name --budget-usd, the most that the whole project may cost; "
            "`hfagent estimate` says what to expect"
        )


def _dataset(flags: Flags, wanted: str | None, default: DatasetRef, known: DatasetRef, method: Method) -> DatasetRef:
    """The dataset that is asked for, else the default; config and split of a known one where nobody names them."""
    if wanted in (None, default.id) and default.id.startswith("embedded:") and (flags.config or flags.split):
        raise PlanRejected(f"--config and --split do not fit {default.id!r}: name the --dataset that they belong to")
    base = next((ref for ref in (default, known) if wanted in (None, ref.id)), DatasetRef(id=str(wanted)))
    changes = {name: getattr(flags, name) for name in ("config", "split") if getattr(flags, name) is not None}
    if base.embedded and method != "sft":
        changes["config"] = "grpo"  # the tasks with their tests: a model's own answers become the other columns
    return base.model_copy(update=changes)


def _project(flags: Flags, model: str, dataset: DatasetRef, method: str, taken: Collection[str]) -> str:
    if flags.project is not None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,59}", flags.project):
            raise PlanRejected(
                f"the project name {flags.project!r} must be 1 to 60 lower-case letters, digits and dashes"
            )
        if flags.project in taken:
            raise PlanRejected(
                f"the project {flags.project!r} exists: `hfagent resume {flags.project}`, or another name"
            )
        return flags.project
    name = "-".join(_slug(part) for part in (model, dataset.id, method))[:54].strip("-")
    number = 1
    while (candidate := name if number == 1 else f"{name}-{number}") in taken:
        number += 1
    return candidate


def _slug(text: str) -> str:
    last = re.split(r"[/:\\]", text.rstrip("/"))[-1]
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\.(jsonl|json|parquet|csv)$", "", last).lower()).strip("-")


def _notes(
    recipe: Recipe, model: ModelRef, dataset: DatasetRef, confirm: BenchmarkRef, here: Surroundings, settings: Settings
) -> tuple[str, ...]:
    """Plain words about what the embedded parts replace."""
    embedded = recipe.embedded
    if embedded is None:
        return ()
    why = "there is no GPU here" if here.hub else "the Hub does not answer"
    why = f"{settings.flavor} has no GPU" if settings.backend == "hf" else why
    notes = []
    if model == embedded.model:
        name = model.id.removeprefix("embedded:")
        notes.append(f"{why}: the embedded model {name} is trained instead of {recipe.model.id}")
    if dataset.id == embedded.dataset.id:
        name = dataset.id.removeprefix("embedded:")
        notes.append(f"{why}: the embedded dataset {name}, generated here, replaces {recipe.dataset.id}")
    if len(notes) < 2:
        return tuple(notes)
    if confirm.name == embedded.confirm.name:
        return (*notes, embedded.notice)
    return (*notes, f"the embedded data are of another kind than {confirm.name}: expect little or no gain there")
