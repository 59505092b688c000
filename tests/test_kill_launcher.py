"""Launches under kill -9: a process that submits jobs on hf is killed at random instants and begun again."""

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.emulator.jobs import Behavior, Jobs
from tests.emulator.server import Emulator

import hfagent
from hfagent.agent import ledger
from hfagent.agent.folding import fold
from hfagent.tools.hf_jobs import KEY

HERE = Path(__file__).parent
SETTLE_S, ACCEPT_S = 0.8, 0.4


@pytest.mark.slow
def test_every_key_is_one_job_whenever_the_launcher_is_killed(tmp_path: Path) -> None:
    draw = random.Random(1)
    jobs = Jobs(lambda body: Behavior(idle_s=0.2, accept_s=draw.uniform(0, ACCEPT_S)))
    number, kills, path = 40, 0, tmp_path / "n.jsonl"
    with Emulator(tmp_path / "hub", extra=jobs.routes) as emulator:
        folders = (Path(hfagent.__file__).parent.parent, HERE, HERE.parent)
        env = emulator.env(emulator.hub.add_user("ada")) | {"PYTHONPATH": ":".join(map(str, folders))}
        mount = emulator.hub.bucket_folder("ada", "hfagent")

        def command(last: int) -> list[str]:
            return [sys.executable, str(HERE / "launcher.py"), str(path), "1", str(last), str(SETTLE_S), str(mount)]

        subprocess.run(command(1), env=env, check=True, timeout=180)  # uploads the code, once
        for _ in range(200):
            with subprocess.Popen(command(number), env=env, stderr=subprocess.DEVNULL) as process:
                try:
                    assert process.wait(timeout=draw.uniform(1.5, 5.0)) == 0
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    kills += 1
        state = fold(ledger.read(path))
        assert state is not None
        assert kills > 0
        assert Counter(job.labels[KEY] for job in jobs.all) == {f"night-r{n}-a1": 1 for n in range(1, number + 1)}
        assert state.held_micro_usd == 0
        assert state.spent_micro_usd == sum(job.billed_micro_usd for job in jobs.all)
        jobs.close()
