"""The planner's tools, thin: parse, act at the desk, answer in short JSON that names itself.

The first paragraph of a docstring is the prompt. What policy refuses comes back as `refused`, not as an exception, so
that nothing tells a planner to try again. Text that others wrote (logs, messages) stands in JSON strings and is cut.
"""

import json
import math
from collections.abc import Callable
from typing import Any

from smolagents import Tool

from hfagent.agent import proposals
from hfagent.agent.brief import cut
from hfagent.agent.desk import Desk
from hfagent.agent.events import Proposed
from hfagent.agent.proposals import Move
from hfagent.agent.records import Decision, JobSpec, Refusal
from hfagent.agent.redact import redact
from hfagent.agent.rules import next_move
from hfagent.agent.verdict import Verdict
from hfagent.tools.job_views import log_view, metrics_view

Act = Callable[[dict[str, Any]], Any]

MAX_TEXT = 400
"""Characters of a reason, a hypothesis or a note."""

WHY = {"type": "string", "description": "The reason, one sentence; it is printed in the report."}
HYPOTHESIS = {"type": "string", "description": "What you expect of it, one sentence; it is printed in the report."}
RUN = {"type": "string", "description": "Name of a training run, e.g. 'sft-01'."}
ANY_RUN = {"type": "string", "description": "Name of a run, e.g. 'smoke', 'baseline' or 'sft-01'."}
LEVER = {
    "type": "string",
    "description": "Of your idea, e.g. learning_rate, lora_r, effective_batch_size, warmup_steps, weight_decay.",
    "nullable": True,
}
VALUE = {"type": "number", "description": "The lever's new value.", "nullable": True}
WHAT = {"type": "string", "description": "Which job.", "enum": ["smoke", "train", "restart"]}
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
        self,
        name: str,
        description: str,
        inputs: dict[str, dict[str, Any]],
        act: Act,
        due: Callable[[], Move | None] = lambda: None,
    ) -> None:
        self.name = name
        self.description = description
        self.inputs = inputs
        self.output_type = "string"
        self._act = act
        self._due = due
        super().__init__()

    def forward(self, **arguments: Any) -> str:
        """Check the arguments, act and answer."""
        given = {name: value for name, value in arguments.items() if value is not None}
        wrong = next((why for name, value in given.items() if (why := _wrong(self.inputs[name], value))), None)
        if wrong is not None:
            answer: Any = Refusal(what=self.name, why=wrong)
        else:
            answer = self._act({name: _short(value) for name, value in given.items()})
        due = self._due()
        hint = {} if due is None else {"due": {"tool": due.tool, "args": due.args}}
        return redact(json.dumps({"tool": self.name, **_body(answer), **hint}))


def make_tools(desk: Desk, *, on_error: Callable[[Exception], None]) -> list[Tool]:
    """All tools over one desk.

    Args:
        desk: where they act.
        on_error: told of every exception: a planner can mend none of them (a full disk, a missing package, a bug),
            and smolagents would swallow it. The tool then answers with its text.
    """

    def guarded(act: Act) -> Act:
        def run(arguments: dict[str, Any]) -> Any:
            if desk.state.ended is not None:
                return Refusal(what="anything more", why=f"the project is {desk.state.ended.state}")
            try:
                return act(arguments)
            except Exception as error:  # noqa: BLE001 - handed on; the planner's wake raises it
                on_error(error)
                return {"error": str(error)}

        return run

    def launch(tool: str) -> Act:
        return guarded(lambda arguments: desk.launch(proposals.spec_of(desk.state, Move(tool=tool, args=arguments))))

    def due() -> Move | None:
        """What the rules would call next, with each answer: a planner need not remember the order."""
        return next_move(desk.state, desk.now)

    specs: list[tuple[str, str, dict[str, dict[str, Any]], Act]] = [
        (
            "check_dataset",
            "Judge the plan's dataset for every method. First call of a night.",
            {},
            guarded(lambda a: _checked(desk)),
        ),
        (
            "check_contamination",
            "Compare the training rows with every benchmark problem. Needed before anything is trained.",
            {},
            guarded(lambda a: _firewall(desk)),
        ),
        (
            "plan_run",
            "Plan the next set of hyperparameters: by the search, or by your idea, one lever of the best set changed.",
            {"why": WHY, "lever": LEVER, "value": VALUE},
            guarded(lambda a: desk.plan_run(a["why"], a.get("lever"), a.get("value"))),
        ),
        (
            "launch",
            "Start a job: the smoke (a few steps, before any training), the training planned last, or a broken "
            "training run again after decide said change.",
            {"what": WHAT, "run": {**RUN, "nullable": True}, "hypothesis": HYPOTHESIS, "why": WHY},
            launch("launch"),
        ),
        (
            "extend",
            "Continue a training run for more epochs, after decide said extend.",
            {"run": RUN, "hypothesis": HYPOTHESIS, "why": WHY},
            launch("extend"),
        ),
        (
            "evaluate",
            "Start an evaluation. The base model on the search set comes before any training, and once more "
            "(repeat) before the confirm set.",
            {
                "subject": {"type": "string", "description": "'base' or a training run."},
                "set": SET,
                "repeat": {"type": "boolean", "description": "The base model once more.", "nullable": True},
                "why": WHY,
            },
            launch("evaluate"),
        ),
        (
            "compare",
            "Paired verdict of a training run against the base model. Both need a score on the set.",
            {"run": RUN, "set": SET},
            guarded(lambda a: desk.compare(a["run"], a["set"])),
        ),
        (
            "decide",
            "Decide by rule about a compared or a broken training run: extend, change, keep or discard.",
            {"run": RUN},
            guarded(lambda a: desk.decide(a["run"])),
        ),
        (
            "metrics",
            "Losses and learning rates of a training run, thinned out.",
            {"run": RUN},
            guarded(lambda a: metrics_view(desk.state, a["run"])),
        ),
        (
            "logs",
            "The end of a run's log; `before` of the answer asks for the lines before it.",
            {"run": ANY_RUN, "before": {"type": "integer", "description": "Lines to leave out.", "nullable": True}},
            guarded(lambda a: log_view(desk.state, desk.ports.runner, a["run"], before=a.get("before", 0))),
        ),
        (
            "note",
            "Keep a remark for the report.",
            {"text": {"type": "string", "description": "One or two sentences."}},
            guarded(lambda a: {"kept": desk.note(a["text"]).text[:40]}),
        ),
        (
            "finish",
            "End the project. Refused while the plan has something left to do.",
            {
                "outcome": {
                    "type": "string",
                    "description": "How it ends.",
                    "enum": ["finished", "failed", "stopped"],
                },
                "reason": {"type": "string", "description": "One sentence."},
            },
            guarded(lambda a: desk.finish(a["outcome"], a["reason"])),
        ),
    ]
    return [DeskTool(*spec, due) for spec in specs]


def _wrong(schema: dict[str, Any], value: Any) -> str | None:
    """What smolagents does not check: values of an enum, empty texts, numbers that are none."""
    allowed = schema.get("enum")
    if allowed is not None and value not in allowed:
        return f"{str(value)[:60]!r} is not one of {', '.join(allowed)}"
    if isinstance(value, str) and not value.strip():
        return "an argument is empty"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no number"
    return None


def _short(value: Any) -> Any:
    return cut(redact(value), MAX_TEXT) if isinstance(value, str) else value


def _checked(desk: Desk) -> dict[str, Any] | Refusal:
    report = desk.check_dataset()
    if isinstance(report, Refusal):
        return report
    method = desk.state.plan.method
    return {"rows": report.rows, method: report.methods[method].model_dump(exclude={"mapping"})}


def _firewall(desk: Desk) -> dict[str, Any] | Refusal:
    """Counts alone: neither a problem's text nor a row's reaches a planner."""
    report = desk.check_contamination()
    if isinstance(report, Refusal):
        return report
    return {"verdict": report.verdict, "rows": report.rows, "flagged": len(report.flagged)}


def _body(answer: Any) -> dict[str, Any]:
    if isinstance(answer, Refusal):
        return {"refused": cut(answer.what, 100), "why": cut(answer.why, MAX_TEXT)}
    if isinstance(answer, JobSpec):
        return {"started": answer.run, "timeout_s": answer.timeout_s, "reserved_usd": answer.reserve_micro_usd / 1e6}
    if isinstance(answer, Proposed):
        return {"planned": answer.number, "why": cut(answer.why, MAX_TEXT)}
    if isinstance(answer, Verdict):
        return {name: getattr(answer, name) for name in ("label", "delta", "ci_low", "ci_high", "p_value", "n")}
    if isinstance(answer, Decision):
        return {"action": answer.action, "run": answer.run, "rule": answer.rule, "reason": cut(answer.reason, MAX_TEXT)}
    return {"ok": True} if answer is None else dict(answer)
