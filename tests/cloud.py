"""The world of fakes with its jobs on the emulator, and a night there."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.emulator.jobs import Behavior, Jobs
from tests.emulator.server import Emulator
from world import SKILL, World, at_desk, work

import hfagent
from hfagent.agent import ledger
from hfagent.agent.clock import SystemClock
from hfagent.agent.events import Event
from hfagent.agent.ports import Ports
from hfagent.agent.records import JobSpec
from hfagent.agent.state import State
from hfagent.job_templates.remote import ARGS
from hfagent.tools.hf_jobs import KEY, HfJobRunner
from hfagent.tools.hub_calls import api
from hfagent.tools.job_bucket import JobBucket

PRICE = 167 * 60
"""cpu-basic of the emulator, millionths of a dollar an hour."""
SETTLE_S = 1.0
ROWS = "".join(
    json.dumps({"prompt": f"w{i}", "chosen": f"w{i + 1}", "rejected": f"w{i + 2}"}) + "\n" for i in range(120)
)
"""What a model makes for DPO."""
LEAVE = """
import json, pathlib
home, left = pathlib.Path({home!r}), json.loads({left!r})
for name in ("adapter", "stable_checkpoint"):
    if left.get(name):
        folder = pathlib.Path(left[name]); folder.mkdir(parents=True, exist_ok=True); (folder / "x").write_text("x")
home.mkdir(parents=True, exist_ok=True)
if left.get("dataset") and {rows!r} is not None:
    folder = pathlib.Path(left["dataset"]); folder.mkdir(parents=True); (folder / "train.jsonl").write_text({rows!r})
(home / "result.json").write_text(json.dumps(left))
(home / "exit.json").write_text('{{"exit_code": 0}}')
print("RESULT " + json.dumps(left))
"""
FAIL = """
import pathlib, sys
home = pathlib.Path({home!r}); home.mkdir(parents=True, exist_ok=True)
(home / "exit.json").write_text('{{"exit_code": 1}}')
print({text!r}); sys.exit(1)
"""


def small_package(root: Path) -> Path:
    """What the jobs here need of hfagent: the whole of it takes the emulator 15 s to store."""
    package = root / "package" / "hfagent"
    if not package.exists():
        (package / "job_templates").mkdir(parents=True)
        for name in ("train_sft.py", "train_dpo.py", "train_kto.py", "make_data.py", "evaluate.py", "export.py"):
            shutil.copy(Path(hfagent.__file__).parent / "job_templates" / name, package / "job_templates" / name)
    return package


@dataclass
class Cloud(World):
    """The world of fakes with its jobs on the emulator."""

    emulator: Emulator
    jobs: Jobs
    token: str
    special: Callable[[str], Behavior | str | None] = field(default=lambda key: None)
    """Key -> how this job goes; a text is printed by a script that fails; None is well."""
    rows: str = ROWS
    """What the model makes, as its job tells it."""
    arrives: Callable[[str], str | None] = field(default=lambda rows: rows)
    """These rows -> what of them is in the bucket; None where nothing is."""

    def __post_init__(self) -> None:
        super().__init__({**SKILL, "sft-01-r1": 0.4, "sft-01-r1-x1": 0.6})
        self.jobs.behave = self.behavior

    def behavior(self, body: Mapping[str, Any]) -> Behavior:
        key, home = body["labels"][KEY], body["command"][-2]
        special = self.special(key)
        if isinstance(special, Behavior) and (special.script or special.end or special.stuck):
            return special
        if isinstance(special, str):
            return Behavior(script=FAIL.format(home=home, text=special))
        run = key.removeprefix("night-").rpartition("-a")[0]
        args = tuple(json.loads(body["environment"][ARGS]))
        flags = {"--benchmark": "evaluate", "--smoke": "smoke", "--prompts": "generate"}
        kind = next((kind for flag, kind in flags.items() if flag in args), "train")
        spec = JobSpec.model_validate({
            "key": key, "project": "night", "run": run, "kind": kind, "template": "x.py", "args": args,
            "flavor": "cpu-basic", "timeout_s": 1, "price_micro_usd_per_hour": 0,
        })  # fmt: skip
        left = dict(self.behave(spec).result or {})
        if kind == "generate":
            left |= {"dataset": f"{home}/out/data", "sha256": hashlib.sha256(self.rows.encode()).hexdigest()}
        elif kind != "evaluate":
            left |= {"adapter": f"{home}/out/{run}", "stable_checkpoint": f"{home}/out/checkpoint-1"}
        script = LEAVE.format(home=home, left=json.dumps(left), rows=self.arrives(self.rows))
        return (
            Behavior(script=script, accept_s=special.accept_s, hidden_s=special.hidden_s)
            if special
            else Behavior(script=script)
        )

    @property
    def ports(self) -> Ports:
        client = api(self.emulator.endpoint, self.token)
        bucket = JobBucket(client, "ada/hfagent", mount=str(self.emulator.hub.bucket_folder("ada", "hfagent")))
        runner = HfJobRunner(
            client,
            "ada",
            bucket,
            environment={},
            secrets={"HF_TOKEN": self.token},
            copies=self.emulator.hub.root.parent / "state",
            poll_s=0.1,
            settle_s=SETTLE_S,
            package=small_package(self.emulator.hub.root),
        )
        return Ports(**{**vars(super().ports), "runner": runner, "clock": SystemClock()})


def night(path: Path, cloud: Cloud, *, on_event: Callable[[Event], None] = lambda event: None, **changes: Any) -> State:
    resumed = path.exists()
    plan = {"backend": "hf", "flavor": "cpu-basic", "price_micro_usd_per_hour": PRICE, "budget_micro_usd": 5_000_000}
    with at_desk(path, cloud, **plan, **changes) as desk:
        desk.ledger.subscribe(on_event)
        return work(desk, poll_s=0.2, resumed_by=1 if resumed else None)


def facts(path: Path, kind: type) -> list[Any]:
    return [event.fact for event in ledger.read(path) if isinstance(event.fact, kind)]


def assert_paid_as_billed(state: State, cloud: Cloud) -> None:
    assert state.held_micro_usd == 0
    assert state.spent_micro_usd == sum(job.billed_micro_usd for job in cloud.jobs.all)


def keys(cloud: Cloud) -> list[str]:
    return sorted(job.labels[KEY] for job in cloud.jobs.all)
