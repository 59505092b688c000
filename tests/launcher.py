"""A process that launches jobs one after the other, to be killed at any instant and begun again.

    python tests/launcher.py LEDGER FIRST LAST SETTLE_S PLACE

PLACE is the mount of a bucket of the emulator, or `slurm:FOLDER` with the folder's `templates/evaluate.py` as the job.
Ends once each of the jobs FIRST .. LAST has an id and has ended.
"""

import os
import sys
import time
from pathlib import Path

from world import World, make_plan

from hfagent.agent.clock import SystemClock
from hfagent.agent.events import PlanMade
from hfagent.agent.job_desk import JobDesk
from hfagent.agent.ledger import open_ledger
from hfagent.agent.ports import JobRunner, Ports
from hfagent.agent.records import JobSpec, RunSpec
from hfagent.tools.cluster_jobs import ClusterJobRunner
from hfagent.tools.hf_jobs import HfJobRunner
from hfagent.tools.hub_calls import api
from hfagent.tools.job_bucket import JobBucket
from hfagent.tools.slurm_jobs import SlurmQueue, Wants

PRICE = 167 * 60  # cpu-basic of the emulator
IDLE_S = 0.2


def runner_at(place: str, settle_s: float) -> JobRunner:
    kind, _, folder = place.rpartition(":")
    if kind == "slurm":
        queue = SlurmQueue(Wants(), settle_s=settle_s)
        return ClusterJobRunner(queue, Path(folder) / "jobs", templates=Path(folder) / "templates", poll_s=0.1)
    client = api(os.environ["HF_ENDPOINT"], os.environ["HF_TOKEN"])
    bucket = JobBucket(client, "ada/hfagent", mount=place)
    return HfJobRunner(
        client, "ada", bucket, environment={}, secrets={}, copies=Path("copies"), poll_s=0.1, settle_s=settle_s
    )


def main(path: Path, first: int, last: int, settle_s: float, place: str) -> None:
    runner = runner_at(place, settle_s)
    flavor = "cpu-basic" if runner.name == "hf" else runner.name
    ports = Ports(**{**vars(World({}).ports), "runner": runner, "clock": SystemClock()})
    with open_ledger(path, ports.clock) as book:
        if not book.events:
            book.append(PlanMade(plan=make_plan(backend=runner.name), versions={}))
        desk = JobDesk(book, ports)
        for number in range(first, last + 1):
            name = f"r{number}"
            if name not in desk.state.runs:
                job = JobSpec(
                    key=f"{desk.state.plan.label}-{name}-a1", project="night", run=name, kind="export",
                    template="evaluate.py", args=(), flavor=flavor, timeout_s=60, price_micro_usd_per_hour=PRICE,
                )  # fmt: skip
                desk.start(RunSpec(name=name, kind="export", why="a test"), job)
            while desk.state.runs[name].last.job_id is None:
                if not desk.state.runs[name].last.open:
                    raise SystemExit(f"{name}: {desk.state.runs[name].last.message}")
                desk.reconcile()
                time.sleep(0.02)
        while desk.state.open_attempts or any(stray.open for stray in desk.state.strays.values()):
            desk.observe()
            time.sleep(0.1)
        desk.settle()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
