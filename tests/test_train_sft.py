import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_model import write_tiny_model
from tiny_runs import environment, losses, run_all, write_jsonl

from hfagent.agent.dataset_records import ColumnMapping
from hfagent.agent.errors import ModelError, UsageError
from hfagent.agent.jobs import hyperparameter_args
from hfagent.agent.records import (
    TrainConfig,
)
from hfagent.job_templates import train_sft
from hfagent.job_templates.train_sft import FORMATS, parse_args
from hfagent.job_templates.training import (
    Checkpoint,
    Schedule,
    check_adapter,
    check_resumable,
    hold_out,
    keep_only,
    plan_schedule,
    read_checkpoint,
)
from hfagent.job_templates.training_args import read_rows
from hfagent.job_templates.training_watch import no_number, progress_line

NEEDED = ["--model", "m", "--dataset", "d.jsonl", "--output-dir", "out/run-1"]


def test_every_hyperparameter_comes_back_from_its_flag() -> None:
    config = TrainConfig(
        num_train_epochs=2.5,
        max_steps=7,
        per_device_train_batch_size=3,
        learning_rate=1e-5,
        lr_scheduler_type="constant_with_warmup",
        lora_dropout=0.05,
        max_rows=90,
        eval_fraction=0.0,
        seed=4,
    )
    assert parse_args([*NEEDED, *hyperparameter_args(config)]).config == config


def test_defaults_are_the_record_s_and_the_run_is_named_after_its_folder() -> None:
    args = parse_args(NEEDED)
    assert (args.config, args.run_name, args.dataset.split, args.mapping) == (TrainConfig(), "run-1", "train", None)


def test_a_mapping_comes_as_json() -> None:
    mapping = ColumnMapping(columns={"prompt": ("q",), "completion": ("a", "b")}, drop_rows=True)
    assert parse_args([*NEEDED, "--mapping", mapping.model_dump_json(exclude_defaults=True)]).mapping == mapping


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--learning-rate", "fast"], "argument --learning-rate: 'fast'"),
        (["--lora-r", "0"], "argument --lora-r: '0'"),
        (["--method", "dpo"], "trains by 'sft', not 'dpo'"),
        (["--mapping", "{"], "argument --mapping: '{'"),
    ],
)
def test_a_wrong_flag_is_named_and_ends_with_2(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_args([*NEEDED, *flags])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_smoke_run_is_short_and_never_has_more_rows_than_asked() -> None:
    config = parse_args([*NEEDED, "--smoke", "--max-rows", "9", "--max-steps", "500"]).config
    assert (config.max_steps, config.max_rows, config.eval_fraction) == (3, 9, 0.0)


def test_a_smoke_run_has_rows_for_a_step_from_all_parts_of_the_file(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl", [{"messages": [{"role": "assistant", "content": f"w{i}"}]} for i in range(100)])
    named = ["--model", "m", "--dataset", str(tmp_path / "d.jsonl"), "--output-dir", "o", "--smoke"]
    few, many = (parse_args([*named, "--per-device-train-batch-size", size]) for size in ("2", "40"))
    places = [int(row["messages"][0]["content"][1:]) for row in read_rows(few, (("messages",),))]
    assert len(places) == 16
    assert min(places) < 10
    assert max(places) > 90
    assert len(read_rows(many, (("messages",),))) == 40


def test_held_out_rows_stay_the_same_in_another_order_and_among_more_seeds() -> None:
    rows = [{"text": f"row {i}"} for i in range(200)]
    train, held_out = hold_out(rows, 0.05)
    assert len(held_out) == 10
    assert len(train) == 190
    assert sorted(r["text"] for r in hold_out(rows[::-1], 0.05)[1]) == sorted(r["text"] for r in held_out)


def test_equal_rows_never_come_to_both_sides() -> None:
    rows = [{"text": f"row {i % 20}"} for i in range(200)]
    train, held_out = hold_out(rows, 0.1)
    assert held_out
    assert not {row["text"] for row in train} & {row["text"] for row in held_out}


def test_nothing_is_held_out_when_the_fraction_is_zero() -> None:
    rows = [{"text": "a"}, {"text": "b"}]
    assert hold_out(rows, 0.0) == (rows, [])


def test_nothing_is_held_out_when_nothing_would_be_left_to_train_on() -> None:
    rows = [{"text": "always"}] * 40
    assert hold_out(rows, 0.05) == (rows, [])


def test_steps_follow_epochs_and_rows_of_a_step() -> None:
    schedule = plan_schedule(TrainConfig(num_train_epochs=1.5, decay_fraction=0.25), rows=101, batch=16)
    assert (schedule.total, schedule.decay, schedule.stable) == (11, 3, 8)  # 7 steps an epoch
    assert schedule.total in schedule.evaluations


def test_held_out_loss_is_taken_each_half_epoch_and_at_most_eight_times() -> None:
    two_epochs = plan_schedule(TrainConfig(num_train_epochs=2), rows=80, batch=8)
    assert two_epochs.evaluations == {5, 10, 15, 16, 20}
    assert len(plan_schedule(TrainConfig(num_train_epochs=40), rows=80, batch=8).evaluations) == 9
    assert plan_schedule(TrainConfig(max_steps=20), rows=400, batch=8).evaluations == {16, 20}


def test_learning_rate_warms_up_stays_and_decays_and_no_step_is_wasted() -> None:
    schedule = Schedule(total=10, warmup=2, decay=3, evaluations=frozenset())
    factors = [schedule.factor(step) for step in range(10)]
    assert factors[:8] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1])
    assert 1 > factors[8] > factors[9] > 0


def test_an_extension_continues_at_the_stable_rate() -> None:
    short, long = (Schedule(total, 2, round(0.2 * total), frozenset()) for total in (20, 40))
    # The rate of the step to come is part of the checkpoint.
    seen = [short.factor(step) for step in range(short.stable + 1)]
    seen += [long.factor(step) for step in range(short.stable + 1, 40)]
    after_warmup = seen[2:]
    assert after_warmup == sorted(after_warmup, reverse=True)
    assert seen == [long.factor(step) for step in range(40)]


def test_warmup_gives_way_to_a_very_short_run() -> None:
    schedule = plan_schedule(TrainConfig(max_steps=2, warmup_steps=50, decay_fraction=0.5), rows=8, batch=8)
    assert (schedule.warmup, schedule.decay) == (1, 1)


def test_a_constant_schedule_has_no_decay() -> None:
    config = TrainConfig(max_steps=10, lr_scheduler_type="constant_with_warmup")
    schedule = plan_schedule(config, rows=80, batch=8)
    assert schedule.stable == 10
    assert schedule.factor(9) == 1


def test_resuming_from_within_the_decay_is_refused_with_the_step_to_use() -> None:
    config = TrainConfig(decay_fraction=0.2)
    inside = Checkpoint(Path("checkpoint-18"), step=18, planned_steps=20, tokens=0)
    with pytest.raises(UsageError, match="resume from checkpoint-16"):
        check_resumable(inside, Schedule(40, 2, 8, frozenset()), config)
    check_resumable(inside, Schedule(20, 2, 4, frozenset()), config)  # the same run after a crash
    check_resumable(Checkpoint(Path("checkpoint-16"), 16, 20, 0), Schedule(40, 2, 8, frozenset()), config)


def test_resuming_a_finished_run_is_refused() -> None:
    done = Checkpoint(Path("checkpoint-20"), step=20, planned_steps=20, tokens=0)
    with pytest.raises(UsageError, match="raise --max-steps"):
        check_resumable(done, Schedule(20, 2, 4, frozenset()), TrainConfig())


def test_a_checkpoint_cut_off_in_writing_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text('{"global_step": 1')
    with pytest.raises(UsageError, match="no checkpoint to resume from"):
        read_checkpoint(tmp_path)


def test_old_checkpoints_go_and_nothing_else(tmp_path: Path) -> None:
    for name in ("checkpoint-4", "checkpoint-8", "checkpoint-16", "adapter"):
        (tmp_path / name).mkdir()
    keep_only(tmp_path, (8, 16))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "checkpoint-16", "checkpoint-8"]


def test_progress_lines_show_step_of_total_and_loss() -> None:
    row = {"loss": 0.25, "learning_rate": 0.001}
    assert progress_line(3, 20, row, 2.0) == "step 3/20 loss 0.2500 lr 0.001 2.00 s/step"
    assert progress_line(20, 20, {"eval_loss": 0.5}, None) == "step 20/20 eval_loss 0.5000"
    assert progress_line(20, 20, {"train_runtime": 3.0}, None) is None


def test_a_loss_that_is_no_number_is_found_and_an_infinite_gradient_is_not() -> None:
    assert no_number({"loss": float("nan")}) == "loss nan"
    assert no_number({"eval_loss": float("inf")}) == "eval_loss inf"
    assert no_number({"loss": 1.0, "grad_norm": float("inf")}) is None


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "nothing was learned"), (float("nan"), "NaN or infinity")], ids=["untrained", "nan"]
)
def test_a_useless_adapter_is_found(value: float, said: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    (tmp_path / "adapter_config.json").write_text("{}")
    save_file(
        {"q.lora_A.weight": torch.ones(2), "q.lora_B.weight": torch.full((2,), value)},
        tmp_path / "adapter_model.safetensors",
    )
    with pytest.raises(ModelError, match=said):
        check_adapter(tmp_path)


def rows_of(folder: Path, rows: list[dict[str, Any]], *flags: str) -> list[dict[str, Any]]:
    write_jsonl(folder / "rows.jsonl", rows)
    argv = ["--model", "m", "--dataset", str(folder / "rows.jsonl"), "--output-dir", str(folder / "out"), *flags]
    return read_rows(parse_args(argv), FORMATS)


def test_only_the_columns_that_are_trained_on_are_kept(tmp_path: Path) -> None:
    rows = [{"text": "ignored", "prompt": "p", "completion": "c", "id": 1}]
    assert rows_of(tmp_path, rows) == [{"prompt": "p", "completion": "c"}]


def test_rows_are_rewritten_by_the_mapping_and_cut_at_max_rows(tmp_path: Path) -> None:
    mapping = '{"columns": {"prompt": ["question"], "completion": ["answer"]}}'
    rows = [{"question": f"q{i}", "answer": "a"} for i in range(9)]
    found = rows_of(tmp_path, rows, "--mapping", mapping, "--max-rows", "4")
    assert found == [{"prompt": f"q{i}", "completion": "a"} for i in range(4)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"question": "q"}], "sft trains on prompt.completion or messages or"),
        ([{"text": "a"}, {"text": None}], "1 of 2 rows cannot be trained on, the first is row 1"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_refused_before_any_weight_is_loaded(
    rows: list[dict[str, Any]], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        rows_of(tmp_path, rows)


# From here on real trainings of a tiny model.


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    write_tiny_model(folder / "model")
    rows = [
        {
            "prompt": [{"role": "user", "content": f"w{i % 7} w{i % 11}"}],
            "completion": [{"role": "assistant", "content": f"w{i % 11} w{i % 7} w{i % 5}"}],
            "unrelated": i,
        }
        for i in range(60)
    ]
    write_jsonl(folder / "rows.jsonl", rows)
    write_jsonl(folder / "long.jsonl", [{"prompt": "w1 " * 20 + f"w{i}", "completion": "w2"} for i in range(20)])
    return folder


def command(place: Path, run: str, *flags: str) -> list[str]:
    argv = ["--model", str(place / "model"), "--dataset", str(place / "rows.jsonl"), "--output-dir", str(place / run)]
    return [*argv, "--project", "tiny", "--per-device-train-batch-size", "8", "--learning-rate", "0.01", *flags]


@pytest.fixture(scope="module")
def runs(place: Path) -> list[dict[str, Any]]:
    """Exit code, output lines and RESULT of: a run, one twice as long, the extension of the first, a diverging one."""
    rows = ["--max-rows", "44"]  # 6 steps an epoch, so that step 8 lies within the second
    resumed = ["--resume-from-checkpoint", str(place / "short" / "checkpoint-8")]
    halved = ["--per-device-train-batch-size", "4", "--gradient-accumulation-steps", "2"]
    commands = [
        command(place, "short", *rows, "--max-steps", "10"),
        command(place, "long", *rows, "--max-steps", "20"),
        command(place, "extended", *rows, "--max-steps", "20", *resumed, *halved),
        command(place, "diverged", "--max-steps", "10", "--learning-rate", "1e30"),
        command(place, "no-room", "--max-length", "8", "--dataset", str(place / "long.jsonl")),
        command(place, "lowered", *rows, "--max-steps", "20", *resumed, "--learning-rate", "0.003"),
    ]
    return run_all(place, [("train_sft", argv) for argv in commands])


def test_a_run_reports_what_it_did_and_leaves_what_it_says(runs: list[dict[str, Any]], place: Path) -> None:
    result = runs[0]["result"]
    assert runs[0]["code"] == 0
    assert {name: result[name] for name in ("steps", "rows", "eval_rows", "trackio_project", "trackio_run")} == {
        "steps": 10, "rows": 42, "eval_rows": 2, "trackio_project": "tiny", "trackio_run": "short",
    }  # fmt: skip
    assert Path(result["adapter"], "tokenizer.json").is_file()
    assert result["checkpoint"] == str(place / "short" / "checkpoint-10")
    assert result["stable_checkpoint"] == str(place / "short" / "checkpoint-8")
    assert Path(result["stable_checkpoint"], "optimizer.pt").is_file()
    assert 0 < result["train_loss"] < 4
    assert 0 < 9 * result["step_s"] < result["seconds"]
    assert result["eval_loss"] > 0
    launched = TrainConfig.model_validate(result["launched"])
    assert launched == TrainConfig(max_steps=10, learning_rate=0.01, max_rows=44)


def test_an_extension_sees_the_same_rows_at_the_same_rate_as_a_run_that_was_long_from_the_start(
    runs: list[dict[str, Any]],
) -> None:
    short, long, extended = map(losses, runs[:3])
    assert list(extended) == list(range(9, 21))
    for column in (0, 1):  # losses of other rows differ by some 0.03
        expected = [long[step][column] for step in range(1, 21)]
        assert [(short | extended)[step][column] for step in range(1, 21)] == pytest.approx(expected, abs=2e-3)
    assert runs[2]["result"]["stable_checkpoint"].endswith("extended/checkpoint-16")
    assert runs[2]["result"]["eval_loss"] == pytest.approx(runs[1]["result"]["eval_loss"], rel=0.05)
    assert runs[2]["result"]["tokens"] < runs[1]["result"]["tokens"]
    held = runs[2]["result"]["launched"]
    assert (held["per_device_train_batch_size"], held["gradient_accumulation_steps"]) == (4, 2)


def test_a_run_begun_again_at_a_lower_rate_goes_on_from_the_checkpoint_at_that_rate(runs: list[dict[str, Any]]) -> None:
    rates = {step: rate for step, (_, rate) in losses(runs[5]).items()}
    assert list(rates) == list(range(9, 21))
    assert rates[9] == rates[16] == pytest.approx(0.003)
    assert rates[20] < 0.001


def test_a_diverging_run_stops_at_once_and_leaves_no_model(runs: list[dict[str, Any]]) -> None:
    assert runs[3]["code"] == 1
    assert set(runs[3]["result"]) == {"steps", "checkpoints"}
    assert len(losses(runs[3])) < 10
    assert "training diverged: loss nan at step" in runs[-1]["stderr"]


def test_rows_whose_prompts_leave_no_room_end_the_run_with_the_reason(runs: list[dict[str, Any]]) -> None:
    assert (runs[4]["code"], runs[4]["result"]) == (2, None)
    assert "--max-length 8 leaves no row, since their prompt alone fills it: raise it" in runs[-1]["stderr"]


def test_sigterm_leaves_a_checkpoint_and_the_logged_rows(place: Path) -> None:
    from hfagent.tools.metrics import TrackioTracker

    argv = [sys.executable, train_sft.__file__, *command(place, "stopped", "--max-steps", "5000")]
    with subprocess.Popen(argv, env=environment(place), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("step 5/"):
                process.send_signal(signal.SIGTERM)
                started = time.monotonic()
        code = process.wait(timeout=60)
    assert code == 143
    assert time.monotonic() - started < 20
    [result] = [json.loads(line.removeprefix("RESULT ")) for line in lines if line.startswith("RESULT ")]
    last = max(int(path.name.removeprefix("checkpoint-")) for path in (place / "stopped").glob("checkpoint-*"))
    assert read_checkpoint(Path(result["checkpoints"][str(last)])).step == last == result["steps"]
    assert TrackioTracker(place / "trackio").points("tiny", "stopped")[-1].step == last
