"""What stands in the way of a night on hf is found before it begins, said with its mend, and never with the token."""

import http.server
import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tests.emulator.jobs import Jobs
from tests.emulator.server import Emulator
from world import make_plan

from hfagent.agent import planning, wiring
from hfagent.agent.errors import AccountRefused, BackendAway, HfagentError, OutOfCredit, SettingsError, UsageError
from hfagent.agent.hf_wiring import hf_runner
from hfagent.agent.records import DatasetRef, ModelRef
from hfagent.agent.settings import Settings
from hfagent.tools import doctor, hf_doctor, hf_rights
from hfagent.tools.doctor import Check
from hfagent.tools.hub_calls import api

GOAL = "improve code solving with SFT"
FINE = ("repo.content.read", "repo.write", "job.write", "job.read")
CARD = b"---\nlicense: apache-2.0\n---\n"


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "TRACKIO_WRITE_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(tmp_path / "hub", extra=Jobs().routes) as running:
        yield running


def look(
    hub: Emulator, token: str, *, model: str | None = None, dataset: str | None = None, **settings: Any
) -> dict[str, Check]:
    made = Settings(backend="hf", hf_token=SecretStr(token), **settings)
    found = hf_doctor.examine(made, model=model, dataset=dataset, client=api(hub.endpoint, token))
    assert token not in repr(found)
    assert all(check.mend for check in found if check.status == "broken")
    return {check.name: check for check in found}


def refusal(hub: Emulator, token: str, *, model: str | None = None, **settings: Any) -> HfagentError:
    made = Settings(backend="hf", hf_token=SecretStr(token), **settings)
    plan = make_plan(backend="hf", flavor="l4x1", dataset=DatasetRef(id="embedded:procedural-python"))
    plan = plan.model_copy(update={"model": ModelRef(id=model or "embedded:SmolLM2-135M-Instruct")})
    with pytest.raises(HfagentError) as refused:
        hf_doctor.require(made, plan, client=api(hub.endpoint, token))
    assert token not in str(refused.value)
    assert "hfagent doctor --backend hf" in str(refused.value)
    return refused.value


def broken(checks: Mapping[str, Check]) -> set[str]:
    return {name for name, check in checks.items() if check.status == "broken"}


# --- by whoami alone -------------------------------------------------------------------------------------------------


def who(role: str | None = "write", **more: Any) -> dict[str, Any]:
    access: dict[str, Any] = {} if role is None else {"role": role}
    if "fine" in more:
        access["fineGrained"] = more.pop("fine")
    return {"type": "user", "name": "ada", "orgs": [], "auth": {"accessToken": access}, **more}


def scope(kind: str, name: str, *permissions: str) -> dict[str, Any]:
    return {"entity": {"type": kind, "name": name}, "permissions": list(permissions)}


@pytest.mark.parametrize(
    ("answer", "namespace", "status", "said"),
    [
        (who(), "ada", "ok", "role write"),
        (who("read"), "ada", "broken", "neither write nor run jobs"),
        (who(None), "ada", "note", "does not tell"),
        (who("fineGrained"), "ada", "note", "does not tell"),
        (who("fineGrained", fine={"scoped": [scope("user", "ada", *FINE)]}), "ada", "ok", "job.write"),
        (who("fineGrained", fine={"scoped": [scope("user", "ada", "repo.write")]}), "ada", "broken", "lacks job.write"),
        (who("fineGrained", fine={"scoped": [scope("user", "ada", *FINE)]}), "lab", "broken", "lacks repo.write and"),
        (who("fineGrained", fine={"scoped": [scope("org", "lab", *FINE)]}), "lab", "ok", "in lab"),
        (who("fineGrained", fine={"scoped": [scope("model", "ada/m", *FINE)]}), "ada", "broken", "lacks"),
        ({"name": "ada"}, "ada", "note", "role unknown"),
    ],
)
def test_what_a_token_may(answer: dict[str, Any], namespace: str, status: str, said: str) -> None:
    found = hf_rights.token_check(answer, namespace)
    assert found.status == status
    assert said in found.detail
    assert (found.mend is None) == (status == "ok")


def test_a_token_that_lacks_permissions_is_sent_to_the_page_that_makes_one_with_them() -> None:
    for namespace, field in (("ada", "ownUserPermissions=job.write"), ("lab", "orgs=lab")):
        found = hf_rights.token_check(who("fineGrained", fine={"scoped": []}), namespace)
        assert found.mend is not None
        assert "https://huggingface.co/settings/tokens/new?tokenType=fineGrained" in found.mend
        assert field in found.mend


@pytest.mark.parametrize(
    ("role", "status"),
    [("admin", "ok"), ("write", "ok"), ("contributor", "ok"), ("read", "broken"), ("no_access", "broken"),
     (None, "note")],
)  # fmt: skip
def test_the_role_in_an_organization_decides(role: str | None, status: str) -> None:
    answer = who(orgs=[{"name": "lab", "roleInOrg": role}, {"name": "mine", "roleInOrg": "admin"}])
    found = hf_rights.namespace_check(answer, "lab")
    assert found.status == status
    assert status != "broken" or (found.mend is not None and "ada, mine" in found.mend)


@pytest.mark.parametrize(
    ("answer", "namespace", "status"),
    [
        (who(canPay=True), "ada", "ok"),
        (who(canPay=False, isPro=True), "ada", "note"),
        (who(canPay=False, isPro=False), "ada", "broken"),
        (who(), "ada", "note"),
        (who(canPay=True, orgs=[{"name": "lab", "canPay": False}]), "lab", "broken"),
        (who(canPay=False, orgs=[{"name": "lab", "canPay": True}]), "lab", "ok"),
        (who(canPay=False, orgs=[{"name": "lab", "canPay": False, "plan": "team"}]), "lab", "note"),
        (who(canPay=False), "lab", "note"),
    ],
)
def test_who_pays_is_the_namespace(answer: dict[str, Any], namespace: str, status: str) -> None:
    found = hf_rights.payment_check(answer, namespace)
    assert found.status == status
    assert (found.mend is None) == (status == "ok")


def test_licenses_are_told() -> None:
    cases = (((), "note"), (("mit",), "ok"), (("cc-by-nc-4.0",), "note"))
    for licences, status in cases:
        assert hf_rights.repo_check("model", "org/m", licences=licences, gated=False).status == status


# --- against the emulator --------------------------------------------------------------------------------------------


def test_a_good_account_gets_its_private_bucket(hub: Emulator) -> None:
    token = hub.hub.add_user("ada")
    for _ in range(2):
        found = look(hub, token, flavor="l4x1")
        assert list(found) == ["token", "namespace", "payment", "bucket", "jobs", "hardware", "metrics"]
        assert {name for name, check in found.items() if check.status == "ok"} == set(found) - {"metrics"}
    assert hub.hub.buckets["ada/hfagent"].private
    assert found["metrics"].status == "note"
    assert "ada/trackio does not exist yet" in found["metrics"].detail
    assert "l4x1 at $0.80 an hour" in found["hardware"].detail


def test_a_night_of_a_good_account_may_begin(hub: Emulator) -> None:
    token = hub.hub.add_user("ada")
    made = Settings(backend="hf", hf_token=SecretStr(token))
    plan = make_plan(backend="hf", flavor="l4x1", dataset=DatasetRef(id="embedded:procedural-python"))
    plan = plan.model_copy(update={"model": ModelRef(id="embedded:SmolLM2-135M-Instruct")})
    hf_doctor.require(made, plan, client=api(hub.endpoint, token))
    assert "ada/hfagent" in hub.hub.buckets


def test_nothing_is_put_into_a_public_bucket(hub: Emulator) -> None:
    hub.hub.create_bucket("ada", "hfagent")
    token = hub.hub.add_user("ada")
    assert broken(look(hub, token)) == {"bucket"}
    error = refusal(hub, token)
    assert isinstance(error, SettingsError)
    assert "make it private" in str(error)


def test_a_bucket_that_is_there_must_be_writable(hub: Emulator) -> None:
    token = hub.hub.add_user("ada")
    look(hub, token)
    hub.faults.plan(path="xet-write-token", status=403, body={"error": "made by another member"})
    found = look(hub, token)
    assert broken(found) == {"bucket"}
    assert "made by another member" in found["bucket"].detail


def test_a_read_token_is_refused_and_makes_nothing(hub: Emulator) -> None:
    token = hub.hub.add_user("ada", role="read")
    assert broken(look(hub, token)) == {"token"}
    error = refusal(hub, token)
    assert isinstance(error, AccountRefused)
    assert "role write" in str(error)
    assert not hub.hub.buckets


def test_a_fine_grained_token_needs_both_permissions(hub: Emulator) -> None:
    enough = hub.hub.add_user("ada", role="fineGrained", permissions=FINE)
    lacking = hub.hub.add_user("ada", role="fineGrained", permissions=["repo.write"])
    assert not broken(look(hub, enough))
    assert broken(look(hub, lacking)) == {"token"}
    assert "lacks job.write" in str(refusal(hub, lacking))


def test_an_organization_pays_and_owns(hub: Emulator) -> None:
    token = hub.hub.add_user("ada", orgs={"lab": "write", "watched": "read"})
    assert not broken(look(hub, token, namespace="lab"))
    assert set(hub.hub.buckets) == {"lab/hfagent"}
    for namespace in ("watched", "strangers"):
        found = look(hub, token, namespace=namespace)
        assert "namespace" in broken(found)
        assert "ada, lab" in str(found["namespace"].mend)
        assert isinstance(refusal(hub, token, namespace=namespace), SettingsError)


def test_who_cannot_pay_is_told_before_the_first_job(hub: Emulator) -> None:
    token = hub.hub.add_user("ada", can_pay=False)
    assert broken(look(hub, token)) == {"payment"}
    error = refusal(hub, token)
    assert isinstance(error, OutOfCredit)
    assert "huggingface.co/settings/billing" in str(error)


def test_a_token_that_is_not_accepted(hub: Emulator) -> None:
    token = hub.hub.add_user("ada")
    hub.hub.expire(token)
    found = look(hub, token)
    assert list(found) == ["token"]
    assert "does not accept the token" in found["token"].detail
    assert isinstance(refusal(hub, token), AccountRefused)


def test_no_token_and_one_that_is_none(hub: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    [found] = hf_doctor.examine(Settings(backend="hf"))
    assert (found.name, found.status) == ("token", "broken")
    assert "hf auth login" in str(found.mend)
    for text in ("hf_abcdefgh ijkl", "hf_abcd\nefghijkl", "hf_abcdefghä"):
        assert broken(look(hub, text)) == {"token"}
    assert not hub.requests


def test_a_line_break_after_the_token_is_no_part_of_it(hub: Emulator) -> None:
    token = hub.hub.add_user("ada")
    settings = Settings(backend="hf", hf_token=SecretStr(token + "\n"))
    found = hf_doctor.examine(settings, client=api(hub.endpoint, token))
    assert all(check.status != "broken" for check in found)


def test_offline_is_said_before_anything_is_asked(hub: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    token = hub.hub.add_user("ada")
    assert "unset HF_HUB_OFFLINE" in str(look(hub, token)["hub"].mend)
    assert isinstance(refusal(hub, token), SettingsError)
    monkeypatch.setenv("HFAGENT_SET_HUB_OFFLINE", "1")
    assert isinstance(refusal(hub, token), BackendAway)
    assert not hub.requests


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (402, OutOfCredit, "settings/billing"),
        (403, AccountRefused, "repo.write and job.write"),
        (429, BackendAway, "asks the Hub too often"),
        (503, BackendAway, "status.huggingface.co"),
    ],
)
def test_refusals_of_the_hub_are_said_plainly(hub: Emulator, status: int, error: type[HfagentError], said: str) -> None:
    token = hub.hub.add_user("ada")
    asked = {"bucket": "/api/buckets/", "hardware": "/api/jobs/hardware"}
    if error is not BackendAway:  # the client waits on its own before it gives up a list
        asked["jobs"] = "/api/jobs/ada"
    for name, path in asked.items():
        hub.faults.plan(path=path, status=status, times=99, headers={"retry-after": "0"})
        found = look(hub, token)
        assert broken(found) == {name}
        assert said in str(found[name].mend)
        assert type(refusal(hub, token)) is error
        hub.faults.clear()


def test_something_else_than_the_hub_answers(hub: Emulator) -> None:
    token = hub.hub.add_user("ada")
    for body in ("<html>log in to the network</html>", ["ada"], {"error": "no name"}):
        hub.faults.plan(path="whoami", status=200, body=body)
        assert "is not the Hub" in look(hub, token)["token"].detail


def test_an_unknown_flavor_is_refused_with_what_was_meant(hub: Emulator) -> None:
    found = look(hub, hub.hub.add_user("ada"), flavor="a10g-smal")
    assert broken(found) == {"hardware"}
    assert "did you mean 'a10g-small'" in found["hardware"].detail


def test_a_model_and_a_dataset_must_be_there_and_open(hub: Emulator, tmp_path: Path) -> None:
    token = hub.hub.add_user("ada")
    hub.hub.put_files("model", "meta/open", {"README.md": CARD})
    hub.hub.put_files("dataset", "meta/rows", {"a.jsonl": b"{}\n"})
    found = look(hub, token, model="meta/open", dataset="meta/rows")
    assert (found["model"].status, found["model"].detail) == ("ok", "meta/open, license apache-2.0")
    assert (found["dataset"].status, "not stated" in found["dataset"].detail) == ("note", True)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a"}\n')
    found = look(hub, token, model="embedded:SmolLM2-135M-Instruct", dataset=str(rows))
    assert (found["model"].status, found["dataset"].status) == ("ok", "ok")
    found = look(hub, token, model="meta/none", dataset=str(tmp_path / "none.jsonl"))
    assert broken(found) == {"model", "dataset"}
    assert "is not on the Hub, or private" in found["model"].detail
    assert broken(look(hub, token, model="no id!", dataset="embedded:nothing")) == {"model", "dataset"}


def test_a_gated_model_opens_for_who_was_let_in(hub: Emulator) -> None:
    token = hub.hub.add_user("ada")
    hub.hub.put_files("model", "meta/gated", {"README.md": CARD})
    hub.hub.repo("model", "meta/gated").gated = "manual"
    found = look(hub, token, model="meta/gated")["model"]
    assert (found.status, "is gated" in found.detail) == ("broken", True)
    assert "https://huggingface.co/meta/gated" in str(found.mend)
    assert isinstance(refusal(hub, token, model="meta/gated"), AccountRefused)
    hub.hub.grant("model", "meta/gated", "ada")
    found = look(hub, token, model="meta/gated")["model"]
    assert (found.status, "with access" in found.detail) == ("ok", True)


def test_the_space_of_the_metrics(hub: Emulator) -> None:
    token = hub.hub.add_user("ada")
    hub.hub.create_repo("space", "ada/trackio", sdk="gradio")
    space = hub.hub.repo("space", "ada/trackio")
    assert "public" in look(hub, token)["metrics"].detail
    space.private = True
    assert look(hub, token)["metrics"].status == "ok"
    space.stage = "PAUSED"
    found = look(hub, token)["metrics"]
    assert (found.status, "PAUSED" in found.detail) == ("note", True)
    assert broken(look(hub, token, trackio_space="strangers/trackio")) == {"metrics"}


@pytest.mark.parametrize("space", [None, "ada/metrics_2"])
def test_what_was_planned_is_what_the_night_begins_and_goes_on_with(
    hub: Emulator, monkeypatch: pytest.MonkeyPatch, space: str | None
) -> None:
    token = hub.hub.add_user("ada")
    client = api(hub.endpoint, token)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    asked = Settings(backend="hf", hf_token=SecretStr(token), namespace="ada", trackio_space=space)
    plan = make_plan(backend="hf", flavor="l4x1", dataset=DatasetRef(id="embedded:procedural-python"))
    model = ModelRef(id="embedded:SmolLM2-135M-Instruct")
    plan = plan.model_copy(update={"model": model} | planning.owner(plan, asked))
    for settings in (asked, Settings(backend="hf", hf_token=SecretStr(token))):  # begun, and gone on with elsewhere
        hf_doctor.require(wiring.as_planned(settings, plan), plan, client=client)
        runner = hf_runner(wiring.as_planned(settings, plan))
        assert runner.environment["TRACKIO_SPACE_ID"] == (space or "ada/trackio")
        assert "TRACKIO_SERVER_URL" not in runner.environment


class Trackio(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/version" else 404)
        self.end_headers()
        self.wfile.write(b'{"version": "0.43.0"}')

    def log_message(self, *args: object) -> None:
        pass


def test_a_server_of_metrics(hub: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    token = hub.hub.add_user("ada")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Trackio) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert broken(look(hub, token, trackio_server_url=url)) == {"metrics"}  # Trackio ends a job without a token
        monkeypatch.setenv("TRACKIO_WRITE_TOKEN", "written")
        assert "this machine" in look(hub, token, trackio_server_url=url)["metrics"].detail
        found = look(hub, token, trackio_server_url=f"{url}/?write_token=s3cret")["metrics"]
        assert found.status == "broken"
        assert "s3cret" not in repr(found)
        away = look(hub, token, trackio_server_url=f"{url}/elsewhere")["metrics"]
        assert (away.status, "logs" in str(away.mend)) == ("note", True)
        server.shutdown()


# --- the program -----------------------------------------------------------------------------------------------------


def program(hub: Emulator, token: str, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *args], cwd=folder, env=hub.env(token), capture_output=True, text=True, timeout=120
    )
    assert token not in done.stdout + done.stderr
    return done


def test_doctor_of_the_command_line(hub: Emulator, tmp_path: Path) -> None:
    command = ("-m", "hfagent", "doctor", "--backend", "hf", "--json")
    done = program(hub, hub.hub.add_user("ada"), tmp_path, *command, "--flavor", "cpu-basic")
    found = {item["name"]: item for item in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"python", "packages", "disk", "token", "bucket", "hardware", "metrics"} <= set(found)
    assert not {"device", "sandbox"} & set(found)  # of this machine, where no job runs
    assert program(hub, hub.hub.add_user("ada", role="read"), tmp_path, *command).returncode == 1


def test_sources_are_looked_for_where_jobs_run_on_hf() -> None:
    with pytest.raises(UsageError, match="--backend hf"):
        doctor.examine(Settings(), model="org/name")


@pytest.mark.parametrize(("role", "can_pay", "code"), [("read", True, 1), ("write", False, 3)])
def test_a_night_that_could_not_end_is_not_begun(
    hub: Emulator, tmp_path: Path, role: Any, can_pay: bool, code: int
) -> None:
    token = hub.hub.add_user("ada", role=role, can_pay=can_pay)
    wanted = (GOAL, "--backend", "hf", "--flavor", "cpu-basic", "--budget-usd", "1", "--yes")
    done = program(hub, token, tmp_path, "-m", "hfagent", *wanted)
    assert done.returncode == code, done.stderr
    assert "jobs on hf cannot run" in done.stderr
    assert not list(tmp_path.glob("training_reports/*.jsonl"))
    assert not hub.count("/api/jobs/ada", method="POST")


def test_another_agents_night_is_not_begun_either(hub: Emulator, tmp_path: Path) -> None:
    script = f"""
        from pathlib import Path
        from hfagent.agent.errors import AccountRefused
        from hfagent.agent.plan import Flags
        from hfagent.agent.session import Session
        from hfagent.agent.settings import load
        import os
        settings = load({{"backend": "hf", "flavor": "cpu-basic", "budget_usd": 1.0}}, cwd=Path.cwd(), env=os.environ)
        session = Session(settings, lambda settings: 1 / 0, pid=1)
        try:
            session.plan({GOAL!r}, Flags())
        except AccountRefused as error:
            print(error)
    """
    done = program(hub, hub.hub.add_user("ada", role="read"), tmp_path, "-c", textwrap.dedent(script))
    assert "jobs on hf cannot run: token" in done.stdout, done.stderr
