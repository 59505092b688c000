import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from nights import PLAN, Night, finished_night, state_of
from rich.console import Console
from world import SKILL, World, night

from hfagent.agent import commands, report
from hfagent.agent import console as terminal
from hfagent.agent.cli import main
from hfagent.agent.clock import SystemClock
from hfagent.agent.dataset_records import DatasetReport, MethodCheck
from hfagent.agent.events import Event, JobIntended, to_line
from hfagent.agent.ledger import open_ledger
from hfagent.agent.loading import kept_adapter
from hfagent.agent.records import (
    RunSpec,
)
from hfagent.agent.state import State
from hfagent.agent.train_config import METHODS
from hfagent.agent.wiring import Paths
from hfagent.tools.embedded_model import FILES
from hfagent.tools.local_jobs import LocalJobRunner

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


def write_ledger(events: list[Event], folder: Path) -> Path:
    path = folder / f"{state_of(events).plan.project}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(to_line(event) + "\n" for event in events))
    return path


def running_night() -> Night:
    """A training run 90 s after its start."""
    night = Night(PLAN)
    night.prepare()
    night.begin(RunSpec(name="sft-01", kind="train", why="first run", train=PLAN.train))
    night.wait(90)
    return night


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
        ((GOAL, "--yes", "--method", "reward"), "'reward' is not available yet"),
        ((GOAL, "--yes", "--benchmark", "nope"), "'nope' is not available"),
        ((GOAL, "--yes", "--dataset", "missing.jsonl"), "missing.jsonl"),
        ((GOAL, "--yes", "--model", "./nomodel"), "'./nomodel'"),
        (("check", "rows.jsonl", "--model", "/nonexist"), "'/nonexist' is neither a folder here nor a Hub id"),
        (("status",), "no project"),
        (("resume", "nope"), "no project 'nope'"),
        (("check", "missing.parquet"), "missing.parquet"),
    ],
)
def test_what_cannot_be_used_is_one_line_exit_2_and_nothing_left(
    shell: Shell, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    code, out, err = shell(*words)
    assert (code, out) == (2, "")
    assert "data_prepared" not in err
    complaint = [line for line in err.splitlines() if line.startswith("hfagent:")]
    assert len(complaint) == 1
    assert message in complaint[0]
    assert list(tmp_path.glob("training_reports/*")) == []


def test_a_model_that_is_nowhere_is_one_line_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    command = [sys.executable, "-m", "hfagent", "check", "rows.jsonl", "--model", "nobody/doesnotexist"]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}  # read once, when the Hub's client is imported
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("hfagent: cannot load the tokenizer of 'nobody/doesnotexist': ")


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
        "project", "goal", "state", "stop_reason", "verdict", "claim", "guards", "runs", "decisions", "published",
        "spent_usd", "held_usd", "started_at", "report", "ledger",
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


def test_a_printed_report_has_the_plots_and_the_notes_of_its_file(shell: Shell, tmp_path: Path) -> None:
    ledger = write_ledger(finished_night(), tmp_path / "training_reports")
    path = ledger.with_suffix(".md")
    report.write(state_of(finished_night()), path)
    path.write_text(path.read_text().replace(report.NOTES_START, f"{report.NOTES_START}\n\nslept well\n"))
    out = shell("report", "--print")[1]
    assert "Nothing to draw yet" not in out
    assert f"one curve a training run: {ledger.parent}/{PLAN.project}/loss.svg" in " ".join(out.split())
    assert "slept well" in out


def test_a_resume_beside_a_working_process_is_refused_in_one_line(shell: Shell, finished: Path) -> None:
    lines = finished.read_text().splitlines(keepends=True)
    finished.write_text("".join(lines[:12]))
    with open_ledger(finished, SystemClock()):
        code, out, err = shell("resume", "night")
    assert (code, out) == (2, "")
    assert f"another hfagent process (pid {os.getpid()}, since " in err
    assert "works on the project 'night'" in err


def test_sigterm_ends_like_ctrl_c_and_says_how_to_go_on(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def terminated() -> State | None:
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("went on after SIGTERM")

    before = signal.getsignal(signal.SIGTERM)
    code = commands._worked(terminated, Paths(finished.parent, "night"), as_json=False)
    err = capsys.readouterr().err
    assert code == 143
    assert "terminated; a running job goes on" in err
    assert "hfagent resume night" in err
    assert "hfagent cancel night" in err
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_runs_shows_the_time_until_now() -> None:
    night = running_night()
    state = state_of(night.events)
    console = Console(width=200, theme=terminal.THEME)
    with console.capture() as shown:
        console.print(terminal.run_table(state, night.at))
    assert "1 min 30 s" in shown.get()
    closing = terminal.closing(state, Paths(Path("r"), "p"), state.started_at + timedelta(minutes=5), held=True)
    assert "time      5 min 00 s" in closing


def test_a_path_in_the_closing_block_is_never_broken(shell: Shell, tmp_path: Path) -> None:
    state = state_of(finished_night())
    closing = terminal.closing(state, Paths(tmp_path, "p"), state.updated_at, held=False)
    kept = kept_adapter(state)
    assert kept is not None
    code = [line[10:] for line in closing.splitlines() if line.startswith(("load", " "))]
    assert code[0].startswith("AutoPeftModelForCausalLM")
    assert eval("\n".join(code), {"AutoPeftModelForCausalLM": Loader}) == kept.folder


class Loader:
    """Stands for the class of peft."""

    @staticmethod
    def from_pretrained(path: str) -> str:
        return path


def test_smoke_progress_has_a_total() -> None:
    from hfagent.agent.lines import SMOKE_STEPS, progress
    from hfagent.job_templates.training_args import for_smoke

    assert for_smoke(PLAN.train).max_steps == SMOKE_STEPS
    events = finished_night()
    state = state_of(events)
    run = state.runs["sft-01"]
    assert progress(replace(run, spec=run.spec.model_copy(update={"kind": "smoke"})), state).startswith("step=20/3 ")


def test_logs_are_found_by_run_and_by_job(shell: Shell, tmp_path: Path) -> None:
    events = running_night().events
    write_ledger(events, tmp_path / "training_reports")
    job = next(event.fact.job for event in events if isinstance(event.fact, JobIntended))
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / job.template).write_text("print('step 1')\nprint('step 2')\n")
    runner = LocalJobRunner(tmp_path / ".hfagent" / "jobs", templates=tmp_path / "templates")
    runner.wait([runner.submit(job).id], timeout_s=60)
    assert shell("logs", "sft-01", "--tail", "1")[:2] == (0, "step 2\n")
    assert shell("logs", f"local-{job.key}", "--project", PLAN.project)[:2] == (0, "step 1\nstep 2\n")
    code, out, err = shell("logs", "sft-99")
    assert (code, out) == (2, "")
    assert f"no job 'sft-99' in the project '{PLAN.project}': its runs are sft-01" in err


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
    assert set(shown["methods"]) == set(METHODS)
    assert shown["methods"]["sft"]["verdict"] == "NEEDS_MAPPING"
    assert set(shown["methods"]["sft"]) == {"verdict", "reason", "mapping", "warnings"}
    only = json.loads(shell("check", "data.jsonl", "--json", "--method", "SFT")[1])
    assert set(only["methods"]) == {"sft"}


@pytest.mark.parametrize(("method", "code"), [("sft", 0), ("dpo", 1), (None, 0)])
def test_check_fails_where_nothing_asked_about_can_train(
    shell: Shell, tmp_path: Path, method: str | None, code: int
) -> None:
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(9)))
    assert shell("check", "data.jsonl", *(("--method", method) if method else ()))[0] == code


def test_check_says_that_a_length_alone_does_nothing(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(9)))
    assert "--max-length has no effect without --model" in shell("check", "data.jsonl", "--max-length", "8")[2]


def test_check_takes_the_embedded_model_by_its_name(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny_model import write_tiny_model

    folder = tmp_path / "cache" / "models" / "SmolLM2-135M-Instruct"
    write_tiny_model(folder)
    for name in FILES:
        (folder / name).touch()
    (tmp_path / "data.jsonl").write_text(
        "".join(json.dumps({"prompt": "w1 w2", "completion": "w3"}) + "\n" for _ in "12")
    )
    monkeypatch.setenv("HFAGENT_CACHE_DIR", str(tmp_path / "cache"))
    code, out, _ = shell("check", "data.jsonl", "--model", "embedded:SmolLM2-135M-Instruct", "--json")
    shown = json.loads(out)
    assert (code, shown["token_lengths"]) == (0, {"p50": 3, "p95": 3, "max": 3})
    assert shown["methods"]["sft"]["mapping"]["turns"] == {"prompt": "user", "completion": "assistant"}


def test_a_mapping_is_said_to_be_applied_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    ready = MethodCheck(verdict="READY", reason="found text")
    mapped = MethodCheck(verdict="NEEDS_MAPPING", reason="question -> prompt")
    for check, said in ((ready, False), (mapped, True)):
        found = DatasetReport(dataset="d", rows=9, columns={"a": "string"}, methods={"sft": check})
        terminal.stdout_console().print(terminal.dataset_view(found))
        assert ("a run rewrites the rows so by itself" in capsys.readouterr().out) is said


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
