"""Planners: a smolagents agent over the toolbox. Every wake is a fresh short run, its prompt rendered from the state.

The rule planner is a smolagents `Model` whose answer is the policy's next move, so there is one loop with or without a
language model.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

from smolagents import ChatMessage, LogLevel, MessageRole, Model, ToolCallingAgent
from smolagents.models import ChatMessageToolCall, ChatMessageToolCallFunction

from hfagent.agent.brief import brief, instructions
from hfagent.agent.desk import Desk
from hfagent.agent.errors import HfagentError
from hfagent.agent.events import PlannerWoke, Refused
from hfagent.agent.proposals import Move
from hfagent.agent.rules import next_move
from hfagent.tools.toolbox import make_tools

MAX_CALLS = 12
"""Tool calls in one wake: the longest rule-planned wake has 4."""


class StalledError(HfagentError, RuntimeError):
    """A wake changed nothing while nothing runs."""


class Planner(Protocol):
    """Proposes moves until there is nothing to do but wait."""

    def wake(self) -> None:
        """Work at the desk until jobs run or the project is over."""
        ...


class RuleModel(Model):  # type: ignore[misc]
    """A `Model` that needs no weights: it answers with the next move of the rules."""

    def __init__(self, propose: Callable[[], Move | None]):
        super().__init__(model_id="rules")
        self._propose = propose
        self._calls = 0

    def generate(self, messages: list[Any], *args: Any, **kwargs: Any) -> ChatMessage:
        """One tool call; `final_answer` when there is nothing to do now."""
        move = self._propose() or Move(tool="final_answer", args={"answer": "waiting"})
        self._calls += 1
        call = ChatMessageToolCall(
            id=f"c{self._calls}",
            type="function",
            function=ChatMessageToolCallFunction(name=move.tool, arguments=dict(move.args)),
        )
        return ChatMessage(role=MessageRole.ASSISTANT, content=None, tool_calls=[call])


class _Agent(ToolCallingAgent):  # type: ignore[misc]
    """An agent whose tools and instructions stay as they are, so that its system prompt is rendered once."""

    @cached_property
    def system_prompt(self) -> str:
        """The same bytes at every wake."""
        return str(self.initialize_system_prompt())


class AgentPlanner:
    """Any smolagents model at a desk."""

    def __init__(self, desk: Desk, model: Model):
        self._desk = desk
        self._model = model
        self.errors: list[Exception] = []

    def wake(self) -> None:
        """One fresh run of the agent; its cost becomes an event.

        Raises:
            Exception: what a tool met; no planner can mend it.
            StalledError: nothing runs and nothing was changed.
        """
        self.errors.clear()
        agent, before = self._agent, len(self._desk.ledger.events)
        result = agent.run(brief(self._desk.state, self._desk.now), return_full_result=True)
        if self.errors:
            raise self.errors[-1]
        usage = result.token_usage
        calls = len(agent.memory.steps) - 1
        if all(isinstance(event.fact, Refused) for event in self._desk.ledger.events[before:]):
            trouble = next((step.error for step in agent.memory.steps if getattr(step, "error", None)), "no error")
            raise StalledError(
                f"the planner {self._model.model_id!r} made {calls} calls and changed nothing: {trouble}"
            )
        if self._desk.state.ended is None:
            self._desk.append(
                PlannerWoke(
                    planner=str(self._model.model_id),
                    calls=calls,
                    input_tokens=usage.input_tokens if usage else None,
                    output_tokens=usage.output_tokens if usage else None,
                )
            )

    @cached_property
    def _agent(self) -> _Agent:
        """Each run of it begins with an empty memory."""
        return _Agent(
            tools=make_tools(self._desk, on_error=self.errors.append),
            model=self._model,
            instructions=instructions(),
            max_steps=MAX_CALLS,
            max_tool_threads=1,
            verbosity_level=LogLevel.OFF,
        )


def rule_planner(desk: Desk) -> AgentPlanner:
    """The planner that needs no language model."""
    planner = AgentPlanner(desk, RuleModel(lambda: None if planner.errors else next_move(desk.state, desk.now)))
    return planner
