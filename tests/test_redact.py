"""Secrets are masked wherever text is kept, and nothing else is."""

import json
from pathlib import Path

import pytest
from world import World, make_plan

from hfagent.agent import ledger
from hfagent.agent.errors import JobError
from hfagent.agent.events import Crashed, PlanMade
from hfagent.agent.planner_facts import Noted
from hfagent.agent.redact import redact, redact_all
from hfagent.agent.settings import Settings
from hfagent.tools.hf_account import found_token
from hfagent.tools.ray_jobs import RayQueue

HF = "hf_" + "aB3dE" * 7
OAUTH = "hf_oauth_eyJhbGciOiJI.eyJzdWIiOiJh_b-c"
SK = "sk-proj-Ab12_cdEF-34ghIJ56klMN78"


@pytest.mark.parametrize(
    "secret", [HF, SK, "sk-ant-api03-Xy12Zz34Ab56Cd78Ef90", "hf_oauth_eyJhbGciOiJI.eyJzdWIiOiJh_b-c"]
)
def test_tokens_are_known_by_their_shape(secret: str) -> None:
    assert redact(f"key {secret}, said the server") == "key ***, said the server"


@pytest.mark.parametrize(
    "name", ["user/sk-instruction-dataset-v2", "/data/sk-translation-corpus/.hfagent", "hf_dataset_small"]
)
def test_names_that_begin_alike_stay(name: str) -> None:
    assert redact(name) == name


def test_values_of_secret_variables_are_masked_and_mere_words_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", 'p"ä55wörd-1')
    monkeypatch.setenv("DB_PASSWORD", "finished")
    monkeypatch.setenv("HFAGENT_NOTIFY", "mailto://u:geheim1@h json://other-host")
    told = json.dumps(redact_all({"a": 'it is p"ä55wörd-1', "b": ["mailto://u:geheim1@h", "json://other-host"]}))
    assert json.loads(told) == {"a": "it is ***", "b": ["***", "***"]}
    assert redact("the night is finished") == "the night is finished"


@pytest.mark.parametrize("name", ["SLURM_JWT", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "WANDB_API_KEY"])
def test_secrets_of_other_programs_are_masked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "eyJhbGciOi-1.x/2")
    assert redact("it says eyJhbGciOi-1.x/2") == "it says ***"


@pytest.fixture
def nothing_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfagent.agent.redact._LEARNT", set())


@pytest.mark.usefixtures("nothing_learnt")
def test_the_token_that_hf_auth_login_has_stored_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "of-another-shape-1")
    assert found_token(Settings()) == "of-another-shape-1"
    assert redact("401 for of-another-shape-1") == "401 for ***"


@pytest.mark.usefixtures("nothing_learnt")
def test_the_token_in_rays_file_is_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))

    class Client:
        def __init__(self, address: str) -> None:
            raise RuntimeError("refused: 0123456789abcdef")

    with pytest.raises(JobError) as raised:
        RayQueue(client=Client).size()
    assert redact(str(raised.value)).endswith("refused: ***")


def test_the_ledger_masks_texts_and_keeps_everything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "baseline")
    monkeypatch.setenv("SOME_TOKEN", 'x"quoted-1')
    plan = make_plan(dataset={"id": "user/sk-instruction-dataset-v2"})
    with ledger.open_ledger(tmp_path / "n.jsonl", World({}).clock) as book:
        book.append(PlanMade(plan=plan, versions={}))
        crashed = book.append(Crashed(error=f'401 for {HF} and x"quoted-1'))
        noted = book.append(Noted(text="baseline first"))
    assert crashed.fact == Crashed(error="401 for *** and ***")
    assert noted.fact == Noted(text="baseline first")
    assert ledger.read(tmp_path / "n.jsonl")[0].fact == PlanMade(plan=plan, versions={})
    assert HF not in (tmp_path / "n.jsonl").read_text()
