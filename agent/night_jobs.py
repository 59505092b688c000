"""The jobs of a night before any of them ran: how many of each kind, how long, and at what cost. Pure."""

from hfagent.agent import estimate
from hfagent.agent.estimate import DataSize
from hfagent.agent.hardware import Flavor
from hfagent.agent.records import Plan, Record, RunKind


class NightJob(Record):
    """All jobs of one kind."""

    name: str
    kind: RunKind
    count: int
    expected_s: float
    """Of one job."""
    timeout_s: int
    expected_micro_usd: int
    """Of all of them, each rounded up."""
    reserved_micro_usd: int
    """The same if each ran to its timeout: so much is held before it starts."""


class Elsewhere(Record):
    """The same night on another flavor."""

    flavor: str
    price_micro_usd_per_hour: int
    expected_s: float
    expected_micro_usd: int


def night_jobs(plan: Plan, data: DataSize) -> tuple[NightJob, ...]:
    """Everything that a plan allows for: `estimate.night_s`, job by job. Runs that diverge or are lost come on top."""
    trainings = plan.max_trials + (1 if plan.max_extensions else 0)
    train = estimate.training_s(plan, plan.train, data)
    search, confirm = estimate.evaluation_s(plan, plan.search), estimate.evaluation_s(plan, plan.confirm)
    kinds: tuple[tuple[str, RunKind, int, float], ...] = (
        ("smoke", "smoke", 1, estimate.smoke_s(plan)),
        ("baseline", "evaluate", 1, search),
        ("training", "train", trainings, train),
        ("evaluation", "evaluate", trainings, search),
        ("baseline again", "evaluate", 1, search),
        ("confirmation", "evaluate", 2, confirm),
    )
    if estimate.makes_data(plan):
        kinds = (("data", "generate", 1, estimate.making_s(plan)), *kinds)
    return tuple(_job(plan, name, kind, count, seconds) for name, kind, count, seconds in kinds)


def _job(plan: Plan, name: str, kind: RunKind, count: int, seconds: float) -> NightJob:
    timeout = estimate.timeout_s(seconds)
    return NightJob(
        name=name,
        kind=kind,
        count=count,
        expected_s=seconds,
        timeout_s=timeout,
        expected_micro_usd=count * estimate.cost_micro_usd(plan, seconds),
        reserved_micro_usd=count * estimate.cost_micro_usd(plan, timeout),
    )


def elsewhere(plan: Plan, data: DataSize, flavors: tuple[Flavor, ...]) -> tuple[Elsewhere, ...]:
    """The night on each of these flavors, the cheapest night first."""
    found = [_on(plan, data, flavor) for flavor in flavors if flavor.name != plan.flavor]
    return tuple(sorted(found, key=lambda other: (other.expected_micro_usd, other.expected_s)))


def _on(plan: Plan, data: DataSize, flavor: Flavor) -> Elsewhere:
    moved = plan.model_copy(
        update={
            "flavor": flavor.name,
            "gpu": flavor.gpu is not None,
            "accelerator": flavor.gpu,
            "price_micro_usd_per_hour": flavor.price_micro_usd_per_hour,
        }
    )
    jobs = night_jobs(moved, data)
    return Elsewhere(
        flavor=flavor.name,
        price_micro_usd_per_hour=flavor.price_micro_usd_per_hour,
        expected_s=sum(job.count * job.expected_s for job in jobs),
        expected_micro_usd=sum(job.expected_micro_usd for job in jobs),
    )
