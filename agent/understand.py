"""A wish that no pattern understands is put into words that one does, by the model that plans; code judges them."""

from collections.abc import Callable
from typing import Any

from smolagents import LogLevel, Model, Tool, ToolCallingAgent
from smolagents.agents import EMPTY_PROMPT_TEMPLATES
from smolagents.utils import AgentError

from hfagent.agent.brief import cut, load_prompt
from hfagent.agent.errors import GoalUnclear, HfagentError, UsageError
from hfagent.agent.goal_numbers import read_numbers
from hfagent.agent.goal_words import AREA_WORDS
from hfagent.agent.pipeline_facts import Pipeline
from hfagent.agent.plan import Flags
from hfagent.agent.records import Plan
from hfagent.tools.hub_search import Kind, find
from hfagent.tools.toolbox import as_json, wrong_arguments

MAX_TURNS = 8
LIMITS = ("max_rows", "max_hours", "budget_usd")
QUERY = {"type": "string", "description": "Words of the name."}
OPTIONAL: dict[str, dict[str, Any]] = {
    "method": {
        "type": "string",
        "description": "sft, dpo, grpo, kto or distillation; several with commas, in their order.",
        "nullable": True,
    },
    "model": {"type": "string", "description": "Id of the base model.", "nullable": True},
    "teacher": {"type": "string", "description": "Id of the model that distillation learns from.", "nullable": True},
    "dataset": {"type": "string", "description": "Id or path of the training data.", "nullable": True},
    "benchmark": {"type": "string", "description": "Name of the benchmark.", "nullable": True},
    "max_rows": {"type": "integer", "description": "Training examples, if said.", "nullable": True},
    "max_hours": {"type": "number", "description": "Time limit in hours, if said.", "nullable": True},
    "budget_usd": {"type": "number", "description": "Cap in dollars, if said.", "nullable": True},
}
AREA = {"type": "string", "description": "What is to be improved.", "enum": list(AREA_WORDS)}


class _Asked(Tool):  # type: ignore[misc]
    skip_forward_signature_validation = True

    def __init__(
        self, name: str, description: str, inputs: dict[str, Any], act: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        self.name, self.description, self.inputs, self.output_type = name, description, inputs, "string"
        self._act = act
        super().__init__()

    def forward(self, **arguments: Any) -> str:
        given = {name: value for name, value in arguments.items() if value is not None}
        wrong = wrong_arguments(self.inputs, given)
        try:
            found = {"refused": wrong} if wrong is not None else self._act(given)
        except UsageError as error:
            found = {"refused": cut(str(error), 400)}
        return as_json({"tool": self.name, **found})


def understand(
    wish: str, flags: Flags, model: Model, *, planned: Callable[[str, Flags], Plan | Pipeline], token: str | None
) -> Plan | Pipeline:
    """The plan for a wish, as the model understands it; the plan says so, and how.

    Limits that a pattern finds in the wish hold whatever the model makes of them.

    Args:
        wish: the person's words.
        flags: what is said beside them; they win over the model.
        model: reads the wish.
        planned: makes a plan of a sentence, or says why not.
        token: for the search on the Hub.

    Raises:
        GoalUnclear: the model found nothing to plan; its words are told.
        UsageError: a limit in the wish cannot be kept.
        PlannerAway: it does not answer.
    """
    made: list[Plan | Pipeline] = []
    limits = {k: v for k, v in read_numbers(wish).model_dump().items() if k in LIMITS and v is not None}

    def plan(given: dict[str, Any]) -> dict[str, Any]:
        said = {name: given[name] for name in ("model", "teacher", "dataset", "benchmark", "method") if name in given}
        own = {name: value for name, value in flags.model_dump().items() if value}
        sentence = _sentence({**given, **limits})
        plan = planned(sentence, Flags.model_validate({**said, **own}))
        note = f"{model.model_id} understood the goal as: {sentence}" + "".join(f", {k} {v}" for k, v in said.items())
        made.append(plan.model_copy(update={"goal": wish, "notes": (*plan.notes, note)}))
        return {"planned": plan.project}

    def search(kind: Kind) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda given: {
            "found": [item.model_dump(exclude_none=True) for item in find(kind, given["query"], token=token)]
        }

    agent = ToolCallingAgent(
        tools=[
            _Asked("find_models", "Search models on the Hub.", {"query": QUERY}, search("model")),
            _Asked("find_datasets", "Search datasets on the Hub.", {"query": QUERY}, search("dataset")),
            _Asked("plan", "Put the wish into a plan.", {"area": AREA, **OPTIONAL}, plan),
        ],
        model=model,
        prompt_templates={**EMPTY_PROMPT_TEMPLATES, "system_prompt": load_prompt("understand.md")},
        max_steps=MAX_TURNS + 1,
        max_tool_threads=1,
        verbosity_level=LogLevel.OFF,
    )
    answer = None
    try:
        for number, step in enumerate(agent.run(f"The wish: {cut(wish, 2000)}", stream=True)):
            answer = getattr(step, "output", None) or answer
            if made or number > 4 * MAX_TURNS:
                agent.interrupt()
    except AgentError as error:
        if isinstance(error.__cause__, HfagentError):
            raise error.__cause__ from None
    if not made:
        said = f": {cut(str(answer), 200)}" if isinstance(answer, str) else ""
        raise GoalUnclear(f"{model.model_id} found nothing to plan in {cut(wish, 80)!r}{said}")
    return made[0]


def _sentence(given: dict[str, Any]) -> str:
    methods = " then ".join(given.get("method", "sft").split(","))
    parts = [f"improve {given['area'].replace('-', ' ')} with {methods}"]
    if "max_rows" in given:
        parts.append(f"on {given['max_rows']} examples")
    if "max_hours" in given:
        parts.append(f"in at most {given['max_hours']:g} hours")
    if "budget_usd" in given:
        parts.append(f"for at most ${given['budget_usd']:g}")
    return " ".join(parts)
