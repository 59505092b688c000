"""A language model plans while it can; while it cannot, the rules do, and the report says so."""

from collections.abc import Callable
from typing import Protocol

from hfagent.agent.desk import Desk
from hfagent.agent.errors import PlannerAway
from hfagent.agent.planner import AgentPlanner, StalledError
from hfagent.agent.planner_facts import PlannerSwitched
from hfagent.agent.ports import Planner
from hfagent.agent.rules import next_move

MAX_SKIPPED = 16
"""Wakes, less one, that the rules plan before a model that went in circles is asked again."""


class Outage(Protocol):
    """How long an endpoint is waited for; see `patience.Patience`."""

    outage_s: float


class Takeover:
    """Planner of a night with a model."""

    def __init__(
        self,
        desk: Desk,
        model: AgentPlanner,
        rules: Planner,
        *,
        patience: Outage,
        unaffordable: Callable[[], str | None],
        stop_asked: Callable[[], str | None],
    ):
        """Make one.

        Args:
            desk: where both work.
            model: plans first.
            rules: plan in its place.
            patience: of the model's endpoint.
            unaffordable: why another wake of the model cannot be paid; None while it can.
            stop_asked: the reason, once somebody wants the night stopped.
        """
        self._desk = desk
        self._model = model
        self._rules = rules
        self._patience = patience
        self._outage_s = patience.outage_s
        self._unaffordable = unaffordable
        self._stop_asked = stop_asked
        self._stalls = self._skip = 0

    def wake(self) -> None:
        """Let the model work, or the rules.

        An endpoint that was waited for in vain is asked once at each later wake, without waiting. A model that goes in
        circles wake after wake is asked ever more seldom.
        """
        away = self._desk.state.stand_in
        self._patience.outage_s = self._outage_s if away is None else 0.0
        if away is not None and self._skip > 0:
            self._skip -= 1
            self._rules.wake()
            return
        why = self._unaffordable() or self._tried()
        if why is None:
            if away is not None and self._desk.state.ended is None:
                self._desk.append(PlannerSwitched(planner=self._model.name, why="it works again"))
            return
        if self._stop_asked() is not None:
            return
        if away is None:
            self._desk.append(PlannerSwitched(planner="rules", why=why))
        if next_move(self._desk.state, self._desk.now) is not None:  # else a person is waited for
            self._rules.wake()

    def _tried(self) -> str | None:
        """Why the model's wake came to nothing; None where it worked.

        One that goes in circles is woken once more with nothing to choose from.
        """
        try:
            self._model.wake()
        except PlannerAway as error:
            return str(error)
        except StalledError as error:
            due = next_move(self._desk.state, self._desk.now)
            if due is None:
                return None
            if (short := self._unaffordable()) is not None:
                return short
            try:
                self._model.wake(only=due)
            except (PlannerAway, StalledError):
                self._stalls += 1
                self._skip = min(2**self._stalls, MAX_SKIPPED) - 1
                return str(error)
        self._stalls = 0
        return None
