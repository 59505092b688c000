"""A night on hf with secrets planted wherever one may be kept: afterwards they are looked for everywhere."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, obedient
from tests.emulator.jobs import Behavior, Jobs
from tests.emulator.server import Emulator
from tiny_model import write_tiny_model
from world import SKILL, World

from hfagent.agent.events import JobEnded
from hfagent.agent.ledger import read
from hfagent.agent.records import JobSpec
from hfagent.job_templates.remote import ARGS
from hfagent.tools.hf_jobs import KEY, PROJECT

KEY_OF_PLANNER, KEY_OF_METRICS = "sk-plantedOpenaiKey0123456789", "plantedTrackioKey0123456789"
DEADLINE_S = 150
LEAVE = """
import json, os, pathlib, sys
home, left = pathlib.Path({home!r}), json.loads({left!r})
home.mkdir(parents=True, exist_ok=True)
if {lost!r}:
    print("ValueError: the Hub does not accept " + os.environ["HF_TOKEN"])
    (home / "exit.json").write_text('{{"exit_code": 143}}')
    sys.exit(143)
for name in ("adapter", "stable_checkpoint"):
    if left.get(name):
        folder = pathlib.Path(left[name]); folder.mkdir(parents=True, exist_ok=True); (folder / "x").write_text("x")
if "pushed" in left:
    from huggingface_hub import HfApi
    card = pathlib.Path({card!r}).read_bytes()
    HfApi().create_repo("ada/coder", private=True)
    HfApi().upload_file(repo_id="ada/coder", path_or_fileobj=card, path_in_repo="README.md")
(home / "result.json").write_text(json.dumps(left))
(home / "exit.json").write_text('{{"exit_code": 0}}')
print("RESULT " + json.dumps(left))
"""


class Planned(World):
    """Jobs that leave at once what the templates leave after hours; one is lost, with its token in its log."""

    def behavior(self, body: Mapping[str, Any]) -> Behavior:
        key, home = body["labels"][KEY], body["command"][-2]
        args = json.loads(body["environment"][ARGS])
        named = dict(zip(args[::2], args[1::2], strict=False))
        run = key.removeprefix(body["labels"][PROJECT] + "-").rpartition("-a")[0]
        kind = "evaluate" if "--benchmark" in args else "publish" if "--push" in args else "train"
        kind = "export" if kind == "train" and "--adapter" in args else kind
        spec = JobSpec(
            key=key, project="night", run=run, kind="smoke" if "--smoke" in args else kind, template="x.py",
            args=tuple(args), flavor="cpu-basic", timeout_s=1, price_micro_usd_per_hour=0,
        )  # fmt: skip
        left = dict(self.behave(spec).result or {})
        if kind == "train":
            left |= {"adapter": f"{home}/out/{run}", "stable_checkpoint": f"{home}/out/checkpoint-1"}
            left |= {"base_model": named["--model"], "adapter_base_model": named["--model"]}
        lost, card = key.endswith("sft-01-a1"), named.get("--card", "")
        return Behavior(script=LEAVE.format(home=home, left=json.dumps(left), lost=lost, card=card))


@dataclass
class Family:
    """What was seen of a process and of all that it started."""

    argv: set[str] = field(default_factory=set)
    environ: set[str] = field(default_factory=set)

    @contextmanager
    def watched(self, pid: int) -> Iterator[None]:
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.02):
                for one in _family(pid):
                    self.argv.add(_proc(one, "cmdline"))
                    self.environ.add(_proc(one, "environ"))

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _family(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, _read(task).split())
    return found


def _proc(pid: int, name: str) -> str:
    return _read(Path(f"/proc/{pid}/{name}"))


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def holding(root: Path, secrets: tuple[str, ...], *, known: tuple[Path, ...]) -> list[Path]:
    """Files below a folder with a secret in them, those apart that are made to keep it."""
    files = [path for path in root.rglob("*") if path.is_file() and path not in known]
    return [path for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked at in /proc")
@pytest.mark.parametrize("kept", ["variable", "file"])
def test_no_secret_is_anywhere_after_a_night(tmp_path: Path, kept: str) -> None:
    write_tiny_model(tmp_path / "night" / "model")
    rows = [{"prompt": f"say w{i % 7} w{i % 11}", "completion": f"w{i % 5} w{i % 3}"} for i in range(60)]
    (tmp_path / "night" / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    jobs, family = Jobs(), Family()
    jobs.behave = Planned({**SKILL, "sft-01": 0.4}).behavior
    with Emulator(tmp_path / "hub", extra=jobs.routes) as hub, ChatServer(obedient).running() as chat:
        token = hub.hub.add_user("ada", token="hf_PlantedTokenOfTheNight0123456789abc")
        home = tmp_path / "home" / "hf"
        home.mkdir(parents=True)
        env = hub.env(token) | {
            "HOME": str(tmp_path / "home"),
            "HF_HOME": str(home),
            "OPENAI_API_KEY": KEY_OF_PLANNER,
            "TRACKIO_WRITE_TOKEN": KEY_OF_METRICS,
            "HFAGENT_TRACKIO_SERVER_URL": "http://127.0.0.1:9",
            "HFAGENT_JOB_MOUNT": str(hub.hub.bucket_folder("ada", "hfagent")),
            "HFAGENT_POLL_S": "0.2",
            "HFAGENT_SETTLE_S": "1",
        }
        if kept == "file":
            del env["HF_TOKEN"]
            (home / "token").write_text(token)
        goal = "fine-tune ./model on ./rows.jsonl to improve code and push it to ada/coder"
        command = ["--backend", "hf", "--flavor", "cpu-basic", "--budget-usd", "5", "--yes", "--planner", chat.url]
        with subprocess.Popen(
            [sys.executable, "-m", "hfagent", goal, *command], cwd=tmp_path / "night", env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process, family.watched(process.pid):  # fmt: skip
            out, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, err[-3000:]
        jobs.close()
        [ledger] = (tmp_path / "night" / "training_reports").glob("*.jsonl")
        ended = [event.fact for event in read(ledger) if isinstance(event.fact, JobEnded)]
        [lost] = [fact.message for fact in ended if fact.message]
        assert lost.endswith("does not accept ***")
        assert b"from_pretrained" in hub.hub.read_file("model", "ada/coder", "README.md")
        assert chat.requests
        assert family.argv

        secrets = (token, KEY_OF_PLANNER, KEY_OF_METRICS)
        told = [out, err, *family.argv, json.dumps(chat.requests)]
        told += [json.dumps({**job.body, "secrets": None}) for job in jobs.all]
        told += [f"{seen.path}?{seen.query}" for seen in hub.requests]
        if kept == "file":
            told += [value.replace(KEY_OF_PLANNER, "").replace(KEY_OF_METRICS, "") for value in family.environ]
        assert not [text[:200] for text in told for secret in secrets if secret in text]
        assert not [key for key in chat.keys if key and KEY_OF_PLANNER not in key]
        known = (hub.hub.root / "users.json", home / "token")
        assert not holding(tmp_path, secrets, known=known)
        assert {name for job in jobs.all for name in job.body["secrets"]} == {"HF_TOKEN", "TRACKIO_WRITE_TOKEN"}
