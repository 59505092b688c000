"""The planner's tools, thin: parse, act at the desk, answer in short JSON that names itself.

The first paragraph of a docstring is the prompt. What policy refuses comes back as `refused`, not as an exception, so
that nothing tells a planner to try again. Text that others wrote (logs, messages) stands in JSON strings and is cut.
"""

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from smolagents import Tool

from hfagent.agent import proposals
from hfagent.agent.brief import cut
from hfagent.agent.desk import Desk
from hfagent.agent.events import Proposed
from hfagent.agent.proposals import Move
from hfagent.agent.records import Decision, JobSpec, Refusal
from hfagent.agent.redact import redact, redact_all
from hfagent.agent.rules import next_move
from hfagent.agent.verdict import Verdict
from hfagent.tools.job_views import log_view, metrics_view

Act = Callable[[Desk, dict[str, Any]], Any]

READING = ("metrics", "logs")
"""Tools that change nothing."""
KINDS: dict[str, type | tuple[type, ...]] = {"string": str, "number": (int, float), "integer": int, "boolean": bool}
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
WHAT = {"type": "string", "description": "Which job.", "enum": ["data", "smoke", "train", "restart"]}
SET = {
    "type": "string",
    "description": "'search' (used freely) or 'confirm' (touched once).",
    "enum": ["search", "confirm"],
}


class ToolSpec(NamedTuple):
    """A tool, before it is bound to a desk."""

    name: str
    description: str
    inputs: dict[str, dict[str, Any]]
    act: Act


def _launching(tool: str) -> Act:
    return lambda desk, a: desk.launch(proposals.spec_of(desk.state, Move(tool=tool, args=a)))


TOOLS = (
    ToolSpec(
        "check_dataset",
        "Judge the plan's dataset for every method. First call of a night.",
        {},
        lambda desk, a: _checked(desk),
    ),
    ToolSpec(
        "check_contamination",
        "Compare the training rows with every benchmark problem. Needed before anything is trained.",
        {},
        lambda desk, a: _firewall(desk),
    ),
    ToolSpec(
        "plan_run",
        "Plan the next set of hyperparameters: by the search, or by your idea, one lever of the best set changed.",
        {"why": WHY, "lever": LEVER, "value": VALUE},
        lambda desk, a: desk.plan_run(a["why"], a.get("lever"), a.get("value")),
    ),
    ToolSpec(
        "launch",
        "Start a job: the data (the model makes its own, where the dataset has none for the method), the smoke (a few "
        "steps, before any training), the training planned last, or a broken training run again after decide said "
        "change.",
        {"what": WHAT, "run": {**RUN, "nullable": True}, "hypothesis": HYPOTHESIS, "why": WHY},
        _launching("launch"),
    ),
    ToolSpec(
        "extend",
        "Continue a training run for more epochs, after decide said extend.",
        {"run": RUN, "hypothesis": HYPOTHESIS, "why": WHY},
        _launching("extend"),
    ),
    ToolSpec(
        "evaluate",
        "Start an evaluation. The base model on the search set comes before any training, and once more "
        "(repeat) before the confirm set.",
        {
            "subject": {"type": "string", "description": "'base' or a training run."},
            "set": SET,
            "repeat": {"type": "boolean", "description": "The base model once more.", "nullable": True},
            "guard": {"type": "string", "description": "A guard of the plan, in place of the set.", "nullable": True},
            "why": WHY,
        },
        _launching("evaluate"),
    ),
    ToolSpec(
        "compare",
        "Paired verdict of a training run against the base model. Both need a score on the set.",
        {"run": RUN, "set": SET},
        lambda desk, a: desk.compare(a["run"], a["set"]),
    ),
    ToolSpec(
        "decide",
        "Decide by rule about a compared or a broken training run: extend, change, keep or discard.",
        {"run": RUN},
        lambda desk, a: desk.decide(a["run"]),
    ),
    ToolSpec(
        "metrics",
        "Losses and learning rates of a training run, thinned out.",
        {"run": RUN},
        lambda desk, a: metrics_view(desk.state, a["run"]),
    ),
    ToolSpec(
        "logs",
        "The end of a run's log; `before` of the answer asks for the lines before it.",
        {"run": ANY_RUN, "before": {"type": "integer", "description": "Lines to leave out.", "nullable": True}},
        lambda desk, a: log_view(desk.state, desk.ports.runner, a["run"], before=a.get("before", 0)),
    ),
    ToolSpec(
        "note",
        "Keep a remark for the report.",
        {"text": {"type": "string", "description": "One or two sentences."}},
        lambda desk, a: {"kept": desk.note(a["text"]).text[:40]},
    ),
    ToolSpec(
        "publish",
        "Merge the kept model, convert and push it, as the person asked. Refused unless the verdict carries it.",
        {},
        lambda desk, a: desk.publish(),
    ),
    ToolSpec(
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
        lambda desk, a: desk.finish(a["outcome"], a["reason"]),
    ),
)


class DeskTool(Tool):  # type: ignore[misc]
    """A tool that acts at a desk."""

    # smolagents compares forward()'s parameters with `inputs`; ours are generated from `inputs` by one caller.
    skip_forward_signature_validation = True

    def __init__(self, spec: ToolSpec, desk: Desk, on_error: Callable[[Exception], None], *, hints: bool) -> None:
        self.name = spec.name
        self.description = spec.description
        self.inputs = spec.inputs
        self.output_type = "string"
        self._spec = spec
        self._desk = desk
        self._on_error = on_error
        self._hints = hints
        super().__init__()

    def forward(self, **arguments: Any) -> str:
        """Act and answer."""
        try:
            return answer(self._spec, self._desk, arguments, hint=self._hints)
        except Exception as error:  # noqa: BLE001 - handed on; the planner's wake raises it
            self._on_error(error)
            return json.dumps({"tool": self.name, "error": redact(str(error))})


def make_tools(desk: Desk, *, on_error: Callable[[Exception], None], hints: bool = True) -> list[Tool]:
    """All tools over one desk.

    Args:
        desk: where they act.
        on_error: told of every exception: a planner can mend none of them (a full disk, a missing package, a bug),
            and smolagents would swallow it. The tool then answers with its text.
        hints: say with each answer what is due next.
    """
    return [DeskTool(spec, desk, on_error, hints=hints) for spec in TOOLS]


def answer(spec: ToolSpec, desk: Desk, arguments: dict[str, Any], *, hint: bool = True) -> str:
    """Check the arguments, act, and tell what came of it and what is due next, so that no order need be remembered."""
    given = {name: value for name, value in arguments.items() if value is not None}
    wrong = wrong_arguments(spec.inputs, given)
    if wrong is not None:
        found: Any = Refusal(what=spec.name, why=wrong)
    elif desk.state.ended is not None and spec.name not in READING:
        found = Refusal(what=spec.name, why=f"the project is {desk.state.ended.state}")
    else:
        found = spec.act(desk, {name: _short(value) for name, value in given.items()})
    due = next_move(desk.state, desk.now) if hint else None
    said = {} if due is None else {"due": {"tool": due.tool, "args": due.args}}
    return as_json({"tool": spec.name, **_body(found), **said})


def as_json(told: dict[str, Any]) -> str:
    """An answer, without secrets."""
    return json.dumps(redact_all(told))


def wrong_arguments(inputs: dict[str, dict[str, Any]], given: dict[str, Any]) -> str | None:
    """What is wrong with a call: also values of an enum, empty texts and NaN, which smolagents lets through."""
    missing = [name for name, schema in inputs.items() if name not in given and not schema.get("nullable")]
    if missing:
        return f"{missing[0]} is missing"
    for name, value in given.items():
        if name not in inputs:
            return f"there is no argument {name[:40]!r}; there are {', '.join(inputs) or 'none'}"
        if (why := _wrong(inputs[name], value)) is not None:
            return f"{name}: {why}"
    return None


def _wrong(schema: dict[str, Any], value: Any) -> str | None:
    kind, allowed = schema["type"], schema.get("enum")
    fits = isinstance(value, KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))
    if not fits:
        return f"{str(value)[:60]!r} is no {kind}"
    if allowed is not None and value not in allowed:
        return f"{value[:60]!r} is not one of {', '.join(allowed)}"
    if isinstance(value, str) and not value.strip():
        return "it is empty"
    return f"{value} is no number" if isinstance(value, float) and not math.isfinite(value) else None


def _short(value: Any) -> Any:
    return cut(value, MAX_TEXT) if isinstance(value, str) else value


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
