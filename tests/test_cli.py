import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_night import SKILL, World, night

from hfagent.agent.cli import main

GOAL = "improve code solving with SFT"


class Shell:
    """Calls the program in this process, in a folder of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]):
        self._capsys = capsys

    def __call__(self, *args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(args)
        out, err = self._capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0), out, err


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return Shell(capsys)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    path = tmp_path / "training_reports" / "night.jsonl"
    night(path, World(SKILL))
    return path


def test_dry_run_prints_plan_and_cost_and_leaves_nothing(shell: Shell, tmp_path: Path) -> None:
    code, out, _ = shell(GOAL, "--dry-run")
    assert code == 0
    for word in ("embedded:SmolLM2-135M-Instruct", "embedded:procedural-python", "$0.00", "the Hub does not answer"):
        assert word in out
    assert list(tmp_path.iterdir()) == []


def test_dry_run_as_json_holds_plan_time_and_cost(shell: Shell) -> None:
    code, out, _ = shell("--dry-run", "--json", GOAL)
    shown = json.loads(out)
    assert (code, shown["plan"]["method"], shown["estimate_usd"]) == (0, "sft", 0.0)
    assert shown["estimate_s"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((GOAL,), "--yes"),
        (("make coffee", "--yes"), "does not say what to improve"),
        ((GOAL, "--yes", "--flavor", "a10g-large"), "unknown flavor 'a10g-large'"),
        ((GOAL, "--yes", "--backend", "moon"), "--backend"),
        ((GOAL, "--yes", "--budget-usd", "-1"), "--budget-usd"),
        ((GOAL, "--yes", "--method", "dpo"), "'dpo' is not available yet"),
        ((GOAL, "--yes", "--benchmark", "nope"), "'nope' is not available"),
        ((GOAL, "--yes", "--dataset", "missing.jsonl"), "missing.jsonl"),
        (("status",), "no project"),
        (("resume", "nope"), "no project 'nope'"),
        (("check", "missing.parquet"), "missing.parquet"),
    ],
)
def test_what_cannot_be_used_is_one_line_exit_2_and_nothing_left(
    shell: Shell, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    code, out, err = shell(*words)
    assert (code, out) == (2, "")
    complaint = [line for line in err.splitlines() if line.startswith("hfagent:")]
    assert len(complaint) == 1
    assert message in complaint[0]
    assert list(tmp_path.glob("training_reports/*")) == []


def test_a_misspelt_command_is_not_taken_for_a_goal(shell: Shell) -> None:
    code, _, err = shell("staus")
    assert code == 2
    assert "did you mean 'status'" in err


def test_a_folder_that_cannot_be_written_is_named_with_its_flag(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = shell(GOAL, "--yes", "--reports-dir", "file/reports")
    assert code == 2
    assert "--reports-dir" in err


def test_status_as_json_is_the_contract(shell: Shell, finished: Path) -> None:
    code, out, _ = shell("status", "--json")
    shown: dict[str, Any] = json.loads(out)
    assert code == 0
    assert set(shown) == {
        "project", "goal", "state", "stop_reason", "verdict", "claim", "runs", "decisions", "spent_usd", "held_usd",
        "started_at", "report", "ledger",
    }  # fmt: skip
    assert (shown["project"], shown["state"], shown["spent_usd"], shown["held_usd"]) == ("night", "finished", 0.0, 0.0)
    assert set(shown["verdict"]) == {
        "label", "delta", "ci_low", "ci_high", "p_value", "mde", "n", "base_score", "candidate_score",
    }  # fmt: skip
    assert shown["verdict"]["label"] == "better"
    assert all(set(run) == {"name", "kind", "stage", "job_id", "url", "score", "cost_usd"} for run in shown["runs"])
    assert {run["kind"] for run in shown["runs"]} == {"train", "evaluate", "smoke"}
    assert [decision["action"] for decision in shown["decisions"]] == ["extend", "keep"]
    assert Path(shown["ledger"]) == finished


def test_status_of_an_unfinished_project_waits_for_resume(shell: Shell, finished: Path) -> None:
    lines = finished.read_text().splitlines(keepends=True)
    finished.write_text("".join(lines[:12]))
    shown = json.loads(shell("status", "--json")[1])
    assert (shown["state"], shown["verdict"], shown["stop_reason"]) == ("waiting", None, None)
    assert "hfagent resume night" in shell("status")[1]


def test_report_prints_a_path_or_the_report(shell: Shell, finished: Path) -> None:
    assert shell("report", "night")[1].strip() == str(finished.with_suffix(".md"))
    assert "sft-01-x1" in shell("report", "night", "--print")[1]


def test_a_finished_project_is_not_run_again(shell: Shell, finished: Path) -> None:
    before = finished.read_bytes()
    code, out, _ = shell("resume", "night", "--json")
    assert (code, json.loads(out)["state"]) == (0, "finished")
    assert finished.read_bytes() == before
    assert shell("cancel", "night")[0] == 2


def test_check_judges_a_file_for_every_method(shell: Shell, tmp_path: Path) -> None:
    rows = [{"instruction": f"say {i}", "output": str(i)} for i in range(5)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, _ = shell("check", "data.jsonl", "--json")
    shown = json.loads(out)
    assert (code, shown["dataset"], shown["rows"]) == (0, "data.jsonl", 5)
    assert set(shown["methods"]) == {"sft", "dpo", "grpo", "kto"}
    assert shown["methods"]["sft"]["verdict"] == "NEEDS_MAPPING"
    assert set(shown["methods"]["sft"]) == {"verdict", "reason", "mapping", "warnings"}
    only = json.loads(shell("check", "data.jsonl", "--json", "--method", "SFT")[1])
    assert set(only["methods"]) == {"sft"}


def test_doctor_says_what_to_do(shell: Shell) -> None:
    _, out, _ = shell("doctor", "--json")
    checks = {item["name"]: item for item in json.loads(out)["checks"]}
    assert {"python", "packages", "device", "disk", "sandbox", "trackio", "token"} <= set(checks)
    assert all(item["mend"] for item in checks.values() if item["status"] == "broken")


def test_secrets_are_neither_printed_nor_recorded(tmp_path: Path) -> None:
    env = {**os.environ, "HF_TOKEN": "hf_secret_value", "OPENAI_API_KEY": "sk_secret_value", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "hfagent", GOAL, "--dry-run", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert "secret_value" not in done.stdout + done.stderr
