"""The search over hyperparameters, by Optuna's ask and tell.

The project's ledger is the truth: the study is brought in line with the trials of the past before anything is asked,
and its journal, kept for people and for Optuna's tools, is written anew by each process. So neither a lost, a torn
nor a leading journal can mislead, and the same past gives the same proposal in any process.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, assert_never

from hfagent.agent.errors import PlanRejected
from hfagent.agent.events import Proposed
from hfagent.agent.findings import Trial
from hfagent.agent.hypotheses import exact_repeat, fitting, key, nearest, result
from hfagent.agent.records import Plan, TrainConfig
from hfagent.agent.space import Space, configure, space

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

    from hfagent.agent.surrogate import SurrogateSampler


class _Search(NamedTuple):
    """One plan's study."""

    plan: Plan
    space: Space
    sampler: "SurrogateSampler"
    study: "Study"


class OptunaSearcher:
    """Proposes sets of hyperparameters.

    Args:
        folder: where `<project>.optuna.log` is written, an Optuna journal of the search; None keeps it in memory.
    """

    def __init__(self, folder: Path | None = None):
        self._folder = folder
        self._search: _Search | None = None

    def propose(self, plan: Plan, past: Sequence[Trial]) -> Proposed:
        """The next set; the same past gives the same answer, in this process or another.

        Args:
            plan: its own configuration is the first trial.
            past: all trials so far, in order.

        Raises:
            PlanRejected: nothing that was not tried fits in memory.
        """
        search = self._caught_up(plan, past)
        base = _base(search.space, past)
        big = [trial.config for trial in past if trial.outcome == "out_of_memory"]

        def ready(values: Mapping[str, float]) -> TrainConfig | None:
            config = configure(base, values)
            return None if exact_repeat(config, past, plan.train) else fitting(config, big)

        search.sampler.allowed = lambda values: ready(values) is not None
        try:
            asked = search.study.ask(dict(search.sampler.distributions))
        except LookupError as error:
            self._search = None
            raise PlanRejected(
                "no set of hyperparameters is left that fits in memory: take a smaller model or a lower max_length"
            ) from error
        config = ready(asked.params)
        assert config is not None
        why = _why(config, past, plan.train)
        asked.set_user_attr("why", why)
        return Proposed(number=len(past) + 1, config=config, why=why, source="optuna")

    def _caught_up(self, plan: Plan, past: Sequence[Trial]) -> _Search:
        """The plan's study, holding the past and nothing else."""
        search = self._search
        if search is None or search.plan != plan or not _agree(search, past):
            search = self._search = self._begun(plan)
        told = search.study.get_trials(deepcopy=False)
        for number, trial in enumerate(past):
            state = _state(trial)
            if number >= len(told):
                search.study.add_trial(_frozen(search, trial))
            elif not told[number].state.is_finished() and state.is_finished():
                search.study.tell(number, trial.value if trial.outcome == "scored" else None, state=state)
        return search

    def _begun(self, plan: Plan) -> _Search:
        import optuna
        from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
        from optuna.storages.journal import JournalFileBackend

        from hfagent.agent.surrogate import SurrogateSampler

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage: BaseStorage = InMemoryStorage()
        if self._folder is not None:
            path = self._folder / f"{plan.project}.optuna.log"
            for old in (path, path.with_name(f"{path.name}.lock")):
                old.unlink(missing_ok=True)
            storage = JournalStorage(JournalFileBackend(str(path)))
        levers = space(plan)
        sampler = SurrogateSampler(levers)
        study = optuna.create_study(study_name=plan.label, direction="maximize", sampler=sampler, storage=storage)
        return _Search(plan, levers, sampler, study)


def _state(trial: Trial) -> "TrialState":
    """How the study counts an outcome: what failed or was stopped was tried and is no good; running out of memory,
    another harness since, or a person's veto says nothing about the score.
    """
    from optuna.trial import TrialState

    match trial.outcome:
        case "open":
            return TrialState.RUNNING
        case "scored":
            return TrialState.COMPLETE
        case "failed" | "pruned":
            return TrialState.PRUNED
        case "out_of_memory" | "outdated" | "vetoed":
            return TrialState.FAIL
        case _:
            assert_never(trial.outcome)


def _frozen(search: _Search, trial: Trial) -> "FrozenTrial":
    from optuna.trial import create_trial

    return create_trial(
        state=_state(trial),
        value=trial.value if trial.outcome == "scored" else None,
        params=search.space.values(trial.config),
        distributions=dict(search.sampler.distributions),
        user_attrs={"why": trial.why},
    )


def _agree(search: _Search, past: Sequence[Trial]) -> bool:
    """Whether all that the study holds is past, or was asked for and has ended since."""
    told = search.study.get_trials(deepcopy=False)
    return len(told) <= len(past) and all(
        known.params == search.space.values(trial.config)
        and (
            not known.state.is_finished()
            or (known.state == _state(trial) and known.value == (trial.value if trial.outcome == "scored" else None))
        )
        for known, trial in zip(told, past, strict=False)
    )


def _base(levers: Space, past: Sequence[Trial]) -> TrainConfig:
    """The plan's configuration, with a micro-batch as small as an earlier trial had to make it to fit in memory."""
    base = levers.plan
    for trial in past:
        micro = trial.config.per_device_train_batch_size
        if micro < configure(base, levers.values(trial.config)).per_device_train_batch_size:
            base = configure(base.model_copy(update={"per_device_train_batch_size": micro}), levers.values(base))
    return base


def _why(config: TrainConfig, past: Sequence[Trial], plan: TrainConfig) -> str:
    like = nearest(config, past, k=1)[0]
    scored = sum(trial.outcome == "scored" for trial in past)
    return (
        f"{key(config, plan)}: the most promising after {scored} scored trials, by what is expected and what is not "
        f"yet known; most like trial {like.number} ({result(like)})"
    )
