"""Planners: a smolagents agent over the toolbox. Every wake is a fresh short run, its prompt rendered from the state.

The rule planner is a smolagents `Model` whose answer is the policy's next move, so there is one loop with or without a
language model.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from smolagents import ActionStep, ChatMessage, LogLevel, MessageRole, Model, ToolCallingAgent
from smolagents.agents import EMPTY_PROMPT_TEMPLATES
from smolagents.models import ChatMessageToolCall, ChatMessageToolCallFunction
from smolagents.utils import AgentError, AgentGenerationError, AgentParsingError

from hfagent.agent.brief import brief, instructions
from hfagent.agent.desk import Desk
from hfagent.agent.errors import HfagentError, PlannerAway
from hfagent.agent.events import Refused
from hfagent.agent.guard import Guard
from hfagent.agent.planner_facts import Noted, PlannerCalled, PlannerWoke
from hfagent.agent.proposals import Move
from hfagent.agent.rules import next_move
from hfagent.tools.toolbox import make_tools

MAX_CALLS = 12
"""Turns in one wake: the longest rule-planned wake has 4."""
KEPT_CHARS = 600
"""Of each text of an earlier turn: what the model said, what a tool answered (it is short itself), an error."""


class StalledError(HfagentError, RuntimeError):
    """A wake changed nothing while nothing runs."""


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

    def __init__(self, desk: Desk, model: Model) -> None:
        self._desk = desk
        self._model = model
        self._reads = not isinstance(model, RuleModel)
        """Whether the model reads what it is told; the rules know the state."""
        self._agents: dict[str | None, _Agent] = {}
        self.errors: list[Exception] = []

    @property
    def name(self) -> str:
        """Of the model."""
        return str(self._model.model_id)

    def wake(self, *, only: Move | None = None) -> None:
        """One fresh run of the agent.

        Args:
            only: offer no other tool than this move's, and say so: for a model that went in circles.

        Raises:
            PlannerAway: the model does not answer.
            StalledError: nothing runs and nothing was changed, or the wake went in circles.
            Exception: what a tool met; no planner can mend it.
        """
        self.errors.clear()
        begun = known = len(self._desk.ledger.events)
        calls, error, guard = 0, None, Guard()
        agent = self._agent(only)
        try:
            for step in agent.run(self._told(only), stream=True):
                if not isinstance(step, ActionStep):
                    continue
                calls += 1
                _trim(step)
                guard.see(_called(step), changed=self._changed(known))
                known, error = len(self._desk.ledger.events), _error(step) or error
                done = self._over or (only is not None and self._changed(begun))
                if self.errors or done or guard.trouble or calls >= MAX_CALLS:
                    agent.interrupt()  # no `break`: smolagents yields amid an exception (Ctrl-C), which it would lose
        except AgentGenerationError as failed:
            self._account(calls)
            if isinstance(failed.__cause__, HfagentError):
                raise failed.__cause__ from None
            raise PlannerAway(f"the model {self.name!r} failed: {failed}") from failed
        except AgentError:
            if not agent.interrupt_switch:
                raise
        self._account(calls)
        if self.errors:
            raise self.errors[-1]
        if guard.trouble or not (self._over or self._changed(begun)):
            trouble = guard.trouble or "nothing was changed"
            last = f"; its last error: {error}" if error else ""
            raise StalledError(f"the planner {self.name!r}: {trouble}{last}")

    def _told(self, only: Move | None) -> str:
        return brief(self._desk.state, self._desk.now, only=only) if self._reads else "What is next?"

    @property
    def _over(self) -> bool:
        """Whether there is nothing to do but wait."""
        return next_move(self._desk.state, self._desk.now) is None

    def _changed(self, since: int) -> bool:
        """Whether the project is another one than after so many events; a refusal or a note is no progress."""
        new = self._desk.ledger.events[since:]
        return any(not isinstance(event.fact, Refused | Noted | PlannerWoke | PlannerCalled) for event in new)

    def _account(self, calls: int) -> None:
        if self._desk.state.ended is None:
            self._desk.append(PlannerWoke(planner=self.name, calls=calls))

    def _agent(self, only: Move | None) -> _Agent:
        """Each run of it begins with an empty memory."""
        name = None if only is None else only.tool
        if name not in self._agents:
            tools = make_tools(self._desk, on_error=self.errors.append, hints=self._reads)
            self._agents[name] = _Agent(
                tools=[tool for tool in tools if name in (None, tool.name)],
                model=self._model,
                prompt_templates={**EMPTY_PROMPT_TEMPLATES, "system_prompt": instructions()},
                max_steps=MAX_CALLS + 1,  # the wake ends before smolagents asks for a last word
                max_tool_threads=1,
                verbosity_level=LogLevel.OFF,
                final_answer_checks=[self._may_wait],
            )
        return self._agents[name]

    def _may_wait(self, answer: Any, memory: Any, *, agent: Any) -> bool:
        """A final answer is for waiting: refused while something is to be done."""
        due = next_move(self._desk.state, self._desk.now)
        if due is None:
            return True
        raise ValueError(f"there is nothing to wait for: {due.tool} {due.args} is due, or finish if it is refused")


def rule_planner(desk: Desk) -> AgentPlanner:
    """The planner that needs no language model."""
    planner: AgentPlanner = AgentPlanner(
        desk, RuleModel(lambda: None if planner.errors else next_move(desk.state, desk.now))
    )
    return planner


def _called(step: ActionStep) -> Sequence[Move]:
    """The calls of a turn; smolagents keeps none where one of them failed, so the message is asked."""
    message = step.model_output_message
    calls = (message.tool_calls if message is not None else None) or []
    found = []
    for call in calls:
        arguments = call.function.arguments
        args = arguments if isinstance(arguments, dict) else {"unparsed": str(arguments)}
        found.append(Move(tool=str(call.function.name), args=args))
    return found


def _error(step: ActionStep) -> str | None:
    if step.error is None:
        return None
    if isinstance(step.error, AgentParsingError):
        return "its answer held no tool call"
    return str(step.error.message)[:KEPT_CHARS]


def _trim(step: ActionStep) -> None:
    """Bound what the next turns of the wake send again."""
    step.model_input_messages = None
    if isinstance(step.model_output, str):
        step.model_output = step.model_output[:KEPT_CHARS]
    if step.error is not None:
        step.error.message = str(step.error.message)[:KEPT_CHARS]
        step.error.args = (step.error.message,)
    for call in step.tool_calls or []:
        if len(str(call.arguments)) > KEPT_CHARS:
            call.arguments = {"cut": str(call.arguments)[:KEPT_CHARS]}
