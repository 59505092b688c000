"""Answers that are none: a Hub that is silent, and something else that answers in its place."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.emulator.jobs import Jobs
from tests.emulator.server import Emulator

from hfagent.agent.errors import BackendAway
from hfagent.tools import hub_calls
from hfagent.tools.hub_calls import api, ask, bound


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(tmp_path / "hub", extra=Jobs().routes) as running:
        yield running
        bound(hub_calls.TIMEOUT_S)


def listed(client: Any) -> list[Any]:
    return ask(lambda: list(client.list_jobs(namespace="ada")), attempts=1)


def test_a_silent_hub_is_away_and_holds_nobody_up_for_ever(hub: Emulator) -> None:
    client = api(hub.endpoint, hub.hub.add_user("ada"))
    bound(0.5)
    hub.faults.plan(path="/api/jobs/hardware", times=9, delay_s=30, when="never")
    begun = time.monotonic()
    with pytest.raises(BackendAway, match="does not answer"):
        ask(lambda: client.list_jobs_hardware(), attempts=1)
    assert time.monotonic() - begun < 5


def test_the_limit_holds_for_every_client_of_the_process(hub: Emulator) -> None:
    from huggingface_hub import get_session

    api(hub.endpoint, hub.hub.add_user("ada"))
    assert get_session().timeout.read == hub_calls.TIMEOUT_S


@pytest.mark.parametrize("body", ["<html>we are back soon</html>", [{"error": "maintenance"}]])
def test_what_is_no_answer_of_the_hub_is_none(hub: Emulator, body: Any) -> None:
    client = api(hub.endpoint, hub.hub.add_user("ada"))
    hub.faults.plan(path="/api/jobs/ada", status=200, body=body)
    with pytest.raises(BackendAway, match="is not the Hub"):
        listed(client)
    assert listed(client) == []
