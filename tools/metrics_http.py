"""Reads the metrics of a run from a Trackio server or Space, or from the job's log while that is away."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hfagent.agent.errors import JobError
from hfagent.agent.ports import JobRunner
from hfagent.agent.records import MetricPoint
from hfagent.tools.hub_calls import http_error
from hfagent.tools.metrics_log import STEP, key_of, logged, merged

TIMEOUT_S = 10.0
ROWS = 5000
"""Of one answer; Trackio gives at most 10,000."""
_NEWEST = "SELECT run_id FROM metrics WHERE run_name = {run} ORDER BY id DESC LIMIT 1"
_LATER = "SELECT id, metrics FROM metrics WHERE run_id = {run_id} AND id > {row} ORDER BY id LIMIT {rows}"


@dataclass
class _Seen:
    """What is known of a run so far."""

    run_id: str | None = None
    row: int = 0
    """Newest row's id; only later ones are asked for."""
    rows: list[dict[str, Any]] = field(default_factory=list)


class TrackioServer:
    """Implements `Tracker` over HTTP.

    Args:
        url: of the server or the Space.
        token: of the Hub, for a private Space; None for a server of one's own, which needs none to read.
        runner: whose logs are read while the server does not answer.
    """

    def __init__(self, url: str, *, token: str | None, runner: JobRunner) -> None:
        self._url = url.rstrip("/")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._runner = runner
        self._seen: dict[tuple[str, str], _Seen] = {}

    def points(self, project: str, run: str, *, after_step: int = -1) -> Sequence[MetricPoint]:
        """Rows after a step, one point a step; from the log's progress lines while the server is away."""
        seen = self._seen.setdefault((project, run), _Seen())
        try:
            self._read(seen, project, run)
        except (http_error(), OSError, ValueError, KeyError, TypeError):
            return merged(self._logged(project, run), after_step)
        # A server that was away while the job logged may hold nothing yet.
        return merged(_later(seen.rows, after_step) if seen.rows else self._logged(project, run), after_step)

    def url(self, project: str, run: str) -> str:
        """The server's own page."""
        return f"{self._url}/?project={project}&runs={run}"

    def _read(self, seen: _Seen, project: str, run: str) -> None:
        newest = self._query(project, _NEWEST.format(run=_quoted(run)))
        if not newest:
            return
        run_id = str(newest[0]["run_id"])
        if run_id != seen.run_id:  # a run of the same name, begun anew
            seen.run_id, seen.row, seen.rows = run_id, 0, []
        while True:
            rows = self._query(project, _LATER.format(run_id=_quoted(run_id), row=seen.row, rows=ROWS))
            for row in rows:
                seen.row = int(row["id"])
                seen.rows.append(json.loads(row["metrics"]))
            if len(rows) < ROWS:
                return

    def _query(self, project: str, query: str) -> list[dict[str, Any]]:
        from huggingface_hub import get_session

        answer = get_session().post(
            f"{self._url}/api/query_project",
            json={"project": project, "query": query},
            headers=self._headers,
            timeout=TIMEOUT_S,
        )
        answer.raise_for_status()
        found = answer.json()["data"]
        return list(found["rows"])

    def _logged(self, project: str, run: str) -> list[dict[str, Any]]:
        key = key_of(project, run)
        try:
            running = next((job for job in self._runner.jobs(project) if job.key == key), None)
            return logged(self._runner, running or self._runner.find(key))
        except JobError:
            return []


def _later(rows: list[dict[str, Any]], after_step: int) -> list[dict[str, Any]]:
    """The rows behind the last one of this step or an earlier one: a look at a long run reads only its end."""
    for at in range(len(rows), 0, -1):
        step = rows[at - 1].get(STEP)
        if isinstance(step, int) and step <= after_step:
            return rows[at:]
    return rows


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
