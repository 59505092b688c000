"""The planner's tools, thin: parse, act at the desk, answer in short JSON that names itself.

The first paragraph of a docstring is the prompt. What policy refuses comes back as `refused`, not as an exception, so
that nothing tells a planner to try again.
"""

import json
from collections.abc import Callable
from typing import Any

from smolagents import Tool

from hfagent.agent import proposals
from hfagent.agent.desk import Desk
from hfagent.agent.proposals import Move
from hfagent.agent.records import Record, Refusal

WHY = {"type": "string", "description": "Hypothesis or reason, one sentence; it is printed in the report."}
RUN = {"type": "string", "description": "Name of a training run, e.g. 'sft-01'."}
LEVER = {
    "type": "string",
    "description": "Its name, e.g. learning_rate, lora_r, effective_batch_size, warmup_steps, weight_decay.",
}
SET = {
    "type": "string",
    "description": "'search' (used freely) or 'confirm' (touched once).",
    "enum": ["search", "confirm"],
}


class DeskTool(Tool):  # type: ignore[misc]
    """A tool that acts at a desk."""

    # smolagents compares forward()'s parameters with `inputs`; ours are generated from `inputs` by one caller.
    skip_forward_signature_validation = True

    def __init__(
        self, name: str, description: str, inputs: dict[str, dict[str, Any]], act: Callable[[dict[str, Any]], Any]
    ) -> None:
        self.name = name
        self.description = description
        self.inputs = inputs
        self.output_type = "string"
        self._act = act
        super().__init__()

    def forward(self, **arguments: Any) -> str:
        """Act and answer."""
        return _text(self.name, self._act(arguments))


def make_tools(desk: Desk, *, on_error: Callable[[Exception], None]) -> list[Tool]:
    """All tools over one desk.

    Args:
        desk: where they act.
        on_error: told of every exception: a planner can mend none of them (a full disk, a missing package, a bug),
            and smolagents would swallow it. The tool then answers with its text.
    """

    def guarded(act: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
        def run(arguments: dict[str, Any]) -> Any:
            try:
                return act(arguments)
            except Exception as error:  # noqa: BLE001 - handed on; the planner's wake raises it
                on_error(error)
                return {"error": str(error)}

        return run

    def launch(tool: str) -> Callable[[dict[str, Any]], Any]:
        return guarded(lambda arguments: desk.launch(proposals.spec_of(desk.state, Move(tool=tool, args=arguments))))

    return [
        DeskTool(
            "check_dataset",
            "Judge the plan's dataset for every method. First call of a night.",
            {},
            guarded(lambda a: _checked(desk)),
        ),
        DeskTool(
            "check_contamination",
            "Compare the training rows with every benchmark problem. Needed before anything is trained.",
            {},
            guarded(lambda a: _firewall(desk)),
        ),
        DeskTool(
            "smoke", "Launch the training template for a few steps. Needed before train.", {"why": WHY}, launch("smoke")
        ),
        DeskTool(
            "train",
            "Launch a training run: first with the plan's hyperparameters, then with those that propose gave.",
            {"why": WHY},
            launch("train"),
        ),
        DeskTool(
            "propose",
            "Let the search choose the next set of hyperparameters, from all that was tried.",
            {},
            guarded(lambda a: desk.propose()),
        ),
        DeskTool(
            "enqueue",
            "Try your own idea next instead of propose: one hyperparameter of the best set so far changed.",
            {"lever": LEVER, "value": {"type": "number", "description": "Its new value."}, "why": WHY},
            guarded(lambda a: desk.enqueue(a["lever"], a["value"], a["why"])),
        ),
        DeskTool(
            "restart",
            "Begin a broken training run again as its decision says, after decide said change.",
            {"run": RUN, "why": WHY},
            launch("restart"),
        ),
        DeskTool(
            "extend",
            "Continue a training run for more epochs, after decide said extend.",
            {"run": RUN, "why": WHY},
            launch("extend"),
        ),
        DeskTool(
            "evaluate",
            "Launch an evaluation. The baseline (subject 'base') on the search set comes before any training.",
            {"subject": {"type": "string", "description": "'base' or a training run."}, "set": SET, "why": WHY},
            launch("evaluate"),
        ),
        DeskTool(
            "repeat_baseline",
            "Score the base model once more with other batches. Needed before the confirm set.",
            {"why": WHY},
            launch("repeat_baseline"),
        ),
        DeskTool(
            "compare",
            "Paired verdict of a training run against the base model. Both need a score on the set.",
            {"run": RUN, "set": SET},
            guarded(lambda a: desk.compare(a["run"], a["set"])),
        ),
        DeskTool(
            "decide",
            "Decide by rule about a compared or a broken training run: extend, change, keep or discard.",
            {"run": RUN},
            guarded(lambda a: desk.decide(a["run"])),
        ),
        DeskTool(
            "finish",
            "End the project. Refused while the plan has something left to do.",
            {
                "outcome": {"type": "string", "description": "How it ends.", "enum": ["finished", "failed", "stopped"]},
                "reason": {"type": "string", "description": "One sentence."},
            },
            guarded(lambda a: desk.finish(a["outcome"], a["reason"])),
        ),
    ]


def _checked(desk: Desk) -> dict[str, Any]:
    report = desk.check_dataset()
    method = desk.state.plan.method
    return {"rows": report.rows, method: report.methods[method].model_dump(exclude={"mapping"})}


def _firewall(desk: Desk) -> dict[str, Any]:
    """Counts alone: neither a problem's text nor a row's reaches a planner."""
    report = desk.check_contamination()
    return {"verdict": report.verdict, "rows": report.rows, "flagged": len(report.flagged)}


def _text(tool: str, answer: Any) -> str:
    if isinstance(answer, Refusal):
        body: Any = {"refused": answer.what, "why": answer.why}
    elif isinstance(answer, Record):
        body = answer.model_dump(mode="json", exclude_none=True)
    else:
        body = answer if answer is not None else {"ok": True}
    return json.dumps({"tool": tool, **body})
