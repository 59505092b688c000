"""The machine-readable summary: one object, stable across versions. Pure."""

from pathlib import Path
from typing import Any

from hfagent.agent import guards
from hfagent.agent.runs import Run
from hfagent.agent.state import State
from hfagent.agent.verdict import Verdict

VERDICT_FIELDS = (
    "label", "delta", "ci_low", "ci_high", "p_value", "mde", "n", "base_score", "candidate_score",
)  # fmt: skip


def headline(state: State) -> Verdict | None:
    """The kept run's verdict on the confirm set; None before it was reached."""
    run = state.kept
    comparison = state.comparison(run, None, "confirm") if run is not None else None
    return None if comparison is None else comparison.fact.verdict


def published(state: State) -> dict[str, str]:
    """Repo -> address of what was pushed to the Hub, the merged model before its GGUF files.

    Also by jobs that failed afterwards: what has arrived is there.
    """
    found: dict[str, str] = {}
    for attempt in (attempt for run in state.runs.values() for attempt in run.attempts):
        pushed = (attempt.result or {}).get("pushed")
        if isinstance(pushed, dict):
            found |= {str(repo): str(where.get("url", "")) for repo, where in pushed.items()}
    return found


def phase(state: State, *, held: bool) -> str:
    """running, waiting, finished, failed or stopped.

    Args:
        state: the project.
        held: whether an hfagent process holds the ledger now. An unfinished project that nobody holds is waiting for
            `hfagent resume`, or has failed when its last process crashed.
    """
    if state.ended is not None:
        return state.ended.state
    if held:
        return "running"
    return "failed" if state.crash is not None else "waiting"


def summary(state: State, *, report: Path, ledger: Path, held: bool) -> dict[str, Any]:
    """What `--json` prints. Unknown is None, never 0."""
    verdict = headline(state)
    return {
        "project": state.plan.project,
        "goal": state.plan.goal,
        "state": phase(state, held=held),
        "stop_reason": state.ended.reason if state.ended is not None else state.crash,
        "verdict": None if verdict is None else _verdict(verdict),
        "claim": None if state.claim is None else state.claim.model_dump(),
        "guards": {name: None if v is None else _verdict(v) for name, v in guards.verdicts(state).items()},
        "runs": [_run(run) for run in state.runs.values()],
        "decisions": [
            {"at": iso(t.at), "action": t.decision.action, "run": t.decision.run, "reason": t.decision.reason}
            for t in state.decisions
        ],
        "published": published(state),
        "spent_usd": usd(state.spent_micro_usd),
        "held_usd": usd(state.held_micro_usd),
        "started_at": iso(state.started_at),
        "report": str(report),
        "ledger": str(ledger),
    }  # fmt: skip


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {name: getattr(verdict, name) for name in VERDICT_FIELDS}


def _run(run: Run) -> dict[str, Any]:
    costs = [attempt.cost_micro_usd for attempt in run.attempts if attempt.stage != "REJECTED"]
    return {
        "name": run.spec.name,
        "kind": run.spec.kind,
        "stage": run.last.stage,
        "job_id": run.last.job_id,
        "url": run.last.url,
        "score": None if run.score is None else run.score.value,
        "cost_usd": None if None in costs else usd(sum(cost for cost in costs if cost is not None)),
    }


def usd(micro_usd: int | None) -> float | None:
    """Dollars; unknown stays None."""
    return None if micro_usd is None else micro_usd / 1e6


def iso(at: Any) -> str:
    """To the second, UTC."""
    return str(at.isoformat(timespec="seconds").replace("+00:00", "Z"))
