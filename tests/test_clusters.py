"""A night on a cluster: what its plan says, and what is refused before it begins."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fake_slurm import AWAY, FakeSlurm
from test_plan import GPU_BOX, plan

from hfagent.agent import cluster_wiring, wiring
from hfagent.agent.cli import main
from hfagent.agent.clusters import gpus
from hfagent.agent.errors import AccountRefused, BackendAway, HfagentError, PackageMissing, PlanRejected, SettingsError
from hfagent.agent.settings import Settings
from hfagent.tools import cluster_doctor
from hfagent.tools.cluster_jobs import ClusterJobRunner
from hfagent.tools.doctor import Check

GPUS = ["main*|up|gpu:a100:4|1-00:00:00", "cpu|up|(null)|infinite", "old|down|(null)|infinite"]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "slurm")
    fake.install()
    monkeypatch.setenv("PATH", f"{fake.bin}:{os.environ['PATH']}")
    return fake


def settings(tmp_path: Path, **values: Any) -> Settings:
    made = Settings.model_validate({"backend": "slurm", **values})
    return made.model_copy(update={"state_dir": tmp_path / "state", "reports_dir": tmp_path / "reports"})


def checks(made: Settings) -> dict[str, Check]:
    found = cluster_doctor.examine(made)
    assert all(check.mend for check in found if check.status == "broken")
    return {check.name: check for check in found}


def refused(made: Settings, error: type[HfagentError]) -> str:
    with pytest.raises(error, match="hfagent doctor --backend") as raised:
        cluster_doctor.require(made)
    assert type(raised.value) is error
    return str(raised.value)


# --- plans -----------------------------------------------------------------------------------------------------------


def test_a_plan_on_a_cluster_is_free_unless_its_gpus_have_a_price() -> None:
    made = plan(here=GPU_BOX, settings={"backend": "slurm"})
    assert (made.backend, made.flavor, made.gpu, made.price_micro_usd_per_hour) == ("slurm", "slurm", True, 0)
    assert made.model.id == "Qwen/Qwen3-0.6B"
    dear = {"backend": "slurm", "slurm_gres": "gpu:a100:2", "cluster_usd_per_gpu_hour": 1.5}
    assert plan(here=GPU_BOX, settings=dear).price_micro_usd_per_hour == 3_000_000
    assert plan(settings=dear).price_micro_usd_per_hour == 0  # no GPU, no price
    assert plan(here=GPU_BOX, settings={"cluster_usd_per_gpu_hour": 1.5}).price_micro_usd_per_hour == 0


@pytest.mark.parametrize(
    ("gres", "count"), [(None, 1), ("gpu", 1), ("gpu:2", 2), ("gpu:a100", 1), ("gpu:h100:4,shard:1", 4), ("fpga:2", 0)]
)
def test_gpus_are_counted_as_slurm_counts_them(gres: str | None, count: int) -> None:
    assert gpus(Settings(backend="slurm", slurm_gres=gres), gpu=True) == count
    assert gpus(Settings(backend="ray", slurm_gres=gres), gpu=True) == 1


def test_a_flavor_of_another_backend_is_refused() -> None:
    with pytest.raises(PlanRejected, match="its only flavor is 'ray'"):
        plan(settings={"backend": "ray", "flavor": "l4x1"})


def test_whether_jobs_get_a_gpu_is_what_the_settings_say_or_slurm(slurm: FakeSlurm, tmp_path: Path) -> None:
    slurm.write("partitions", GPUS)
    assert cluster_wiring.has_gpu(settings(tmp_path))
    assert not cluster_wiring.has_gpu(settings(tmp_path, slurm_partition="cpu"))
    assert not cluster_wiring.has_gpu(settings(tmp_path, cluster_gpu=False))
    assert cluster_wiring.has_gpu(settings(tmp_path, slurm_partition="cpu", slurm_gres="gpu:1"))
    assert not cluster_wiring.has_gpu(settings(tmp_path, backend="ray"))
    slurm.break_tool("sinfo", AWAY)
    with pytest.raises(SettingsError, match="set cluster_gpu"):
        cluster_wiring.has_gpu(settings(tmp_path))


def test_a_night_that_is_taken_up_again_asks_for_what_its_plan_did(tmp_path: Path) -> None:
    made = plan(here=GPU_BOX, settings={"backend": "slurm", "state_dir": str(tmp_path)})
    again = wiring.as_planned(Settings(), made)
    assert (again.backend, again.cluster_gpu, again.state_dir) == ("slurm", True, tmp_path)
    runner = wiring.job_runner(again)
    assert isinstance(runner, ClusterJobRunner)
    assert (runner.name, runner.settle_s) == ("slurm", 60.0)


# --- before a night begins -------------------------------------------------------------------------------------------


def test_a_slurm_that_takes_jobs_passes(slurm: FakeSlurm, tmp_path: Path) -> None:
    slurm.write("partitions", GPUS)
    found = checks(settings(tmp_path))
    assert {check.status for check in found.values()} <= {"ok", "note"}
    assert found["partition"].detail == "main, time limit 1-00:00:00"
    assert found["gpu"].detail == "jobs ask for gpu:1; there is gpu:a100:4"
    assert slurm.jobs == []
    cluster_doctor.require(settings(tmp_path))


def test_what_is_wrong_with_slurm_is_said_with_its_mend(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.write("partitions", GPUS)
    assert "there are cpu, main, old; set slurm_partition" in refused(
        settings(tmp_path, slurm_partition="x"), SettingsError
    )
    assert "old takes no jobs" in refused(settings(tmp_path, slurm_partition="old"), SettingsError)
    assert "hfagent sets itself" in refused(settings(tmp_path, slurm_options="--requeue"), SettingsError)
    slurm.break_tool("sbatch", "allocation failure: Invalid account or account/partition combination specified")
    assert "set slurm_account" in refused(settings(tmp_path), AccountRefused)
    slurm.break_tool("sinfo", AWAY)
    assert "scontrol ping" in refused(settings(tmp_path), BackendAway)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no sbatch, squeue, scancel, sinfo on PATH" in refused(settings(tmp_path), SettingsError)


def test_a_night_is_refused_before_it_begins_and_leaves_nothing(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    slurm.write("partitions", ["other|up|(null)|infinite"])
    with pytest.raises(SystemExit) as ended:
        main(["improve code solving with SFT", "--backend", "slurm", "--yes", "--json"])
    assert ended.value.code == 2
    said = json.loads(capsys.readouterr().out)["error"]
    assert "there is no default one; there are other; set slurm_partition" in said
    assert list((tmp_path / "training_reports").iterdir()) == []


def test_a_ray_that_is_not_there_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the package ray is not installed")
    made = settings(tmp_path, backend="ray", ray_address="http://127.0.0.1:1")
    assert "set ray_address" in refused(made, BackendAway)


def test_ray_without_its_client_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray.job_submission", None)
    assert "[ray]" in refused(settings(tmp_path, backend="ray"), PackageMissing)


def test_a_disk_of_one_machine_is_noted_and_one_without_locks_refused(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_doctor, "file_system", lambda folder: "ext4")
    assert checks(settings(tmp_path))["state folder disk"].status == "note"
    monkeypatch.setattr(cluster_doctor, "file_system", lambda folder: "nfs4")
    assert checks(settings(tmp_path))["state folder disk"].status == "ok"

    def no_locks(*args: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", no_locks)
    assert "takes no locks" in refused(settings(tmp_path), SettingsError)


def test_the_file_system_of_a_folder_is_that_of_its_nearest_mount(tmp_path: Path) -> None:
    assert cluster_doctor.file_system(Path("/proc/self")) == "proc"
    assert cluster_doctor.file_system(tmp_path / "not" / "there") is not None


def test_the_doctor_looks_at_the_cluster(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--backend", "slurm", "--json"])
    assert ended.value.code == 0
    names = [check["name"] for check in json.loads(capsys.readouterr().out)["checks"]]
    assert names[-7:] == [
        "partition", "gpu", "job", "state folder disk", "python disk", "working folder disk", "locks",
    ]  # fmt: skip
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--backend", "slurm"])
    assert ended.value.code == 1
    assert "BROKEN slurm: no sbatch" in capsys.readouterr().out
