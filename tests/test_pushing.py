"""What is pushed to the Hub, and what is not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from tests.emulator.server import Emulator

from hfagent.agent.errors import ModelError
from hfagent.job_templates.pushing import push

REPO = "ada/tuned"
CARD = "---\nlicense: mit\n---\n# Tuned\n"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(tmp_path / "hub") as running:
        yield running


@pytest.fixture
def client(hub: Emulator) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=hub.hub.add_user("ada"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "notes.txt").write_text("mine")
    return made


@pytest.mark.parametrize("public", [False, True])
def test_a_new_repo_has_the_files_the_card_and_the_visibility_asked_for(
    hub: Emulator, client: HfApi, folder: Path, public: bool
) -> None:
    told = push(REPO, folder, CARD, public=public, only=["config.json"], client=client)
    assert told["private"] is not public
    assert hub.hub.repo("model", REPO).private is not public
    assert {"config.json", "README.md"} <= set(client.list_repo_files(REPO))
    assert "notes.txt" not in client.list_repo_files(REPO)
    assert hub.hub.read_file("model", REPO, "README.md") == CARD.encode()


def test_a_repo_that_is_public_gets_nothing_that_was_to_be_private(hub: Emulator, client: HfApi, folder: Path) -> None:
    client.create_repo(REPO, private=False)
    with pytest.raises(ModelError, match="is public: add --public"):
        push(REPO, folder, None, public=False, client=client)
    assert "config.json" not in client.list_repo_files(REPO)
    assert push(REPO, folder, None, public=True, client=client)["private"] is False


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"status": 403, "body": {"error": "no right to write"}}, "could not be pushed: .*no right to write"),
        ({"status": None}, "could not be pushed: the Hub does not answer"),
    ],
)
def test_a_push_that_fails_says_why_in_one_line(
    hub: Emulator, client: HfApi, folder: Path, fault: dict[str, Any], said: str
) -> None:
    hub.faults.plan(path="/api/repos/create", times=99, **fault)
    with pytest.raises(ModelError, match=said) as raised:
        push(REPO, folder, None, public=False, client=client)
    assert "\n" not in str(raised.value)
