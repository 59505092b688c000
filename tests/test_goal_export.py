"""What a sentence wants done with the model at the end."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from nights import PLAN, Night, state_of
from world import LOST, SKILL, World, at_desk, claimed, ended, killed, night

from hfagent.agent import ledger
from hfagent.agent.errors import PlanRejected, UsageError
from hfagent.agent.events import JobIntended
from hfagent.agent.fakes import Ending
from hfagent.agent.goal import parse_goal
from hfagent.agent.goal_export import asked_export, read_export
from hfagent.agent.model_card import model_card
from hfagent.agent.records import DatasetRef, Export, JobSpec, ModelRef, RunSpec
from hfagent.agent.report import render
from hfagent.agent.report_release import export_text
from hfagent.agent.state import State
from hfagent.agent.summary import published

BLOG = "Convert my fine-tuned model to GGUF with Q4_K_M quantization. Push to user/name."


@pytest.mark.parametrize(
    ("sentence", "export"),
    [
        (BLOG, Export(quantize=("Q4_K_M",), push="user/name")),
        ("improve code, convert to GGUF Q8_0 and push to ada/tuned", Export(quantize=("Q8_0",), push="ada/tuned")),
        ("improve code and export GGUF files as q4_k_m and f16", Export(quantize=("F16", "Q4_K_M"))),
        ("improve code, then a GGUF of it", Export(quantize=("Q4_K_M",))),
        ("improve code and publish the model to ada/m-1.5 publicly", Export(push="ada/m-1.5", public=True)),
        ("improve code; upload it to ada/m whatever the verdict", Export(push="ada/m", anyway=True)),
        ("improve code; do not push to ada/m, no GGUF", None),
        ("improve code", None),
    ],
)
def test_a_sentence_says_what_is_made_of_the_model(sentence: str, export: Export | None) -> None:
    assert read_export(sentence)[0] == export


@pytest.mark.parametrize(
    ("sentence", "public"),
    [
        ("improve code and push to me/x, not public", False),
        ("improve code and push to me/x privately (never public)", False),
        ("improve code, push to me/x, keep it private and do not make it public", False),
        ("improve code, push to me/x, do not make it public", False),
        ("improve code and never publicly push it to me/x", False),
        ("improve math on public datasets and push to me/x", False),
        ("improve math on publicly available data and push to me/x", False),
        ("improve math and push to me/x, and make the public data set the confirm set", False),
        ("improve code and push to me/x, public", True),
        ("improve code and push to me/x as a public model", True),
        ("improve code and publicly push it to me/x", True),
        ("improve code and push it publicly to me/x", True),
        ("improve code, push to me/x with GGUF files and make it public", True),
        ("improve code on my private data and push to me/x publicly", True),
    ],
)
def test_only_a_push_that_is_called_public_may_be_seen_by_all(sentence: str, public: bool) -> None:
    export, _ = read_export(sentence)
    assert export is not None
    assert (export.push, export.public) == ("me/x", public)


@pytest.mark.parametrize("words", ["do not publish anyway", "never push anyway", "do not push-anyway"])
def test_a_denied_push_anyway_is_none(words: str) -> None:
    assert read_export(f"improve code and push to me/x; {words}")[0] == Export(push="me/x")


@pytest.mark.parametrize(
    ("words", "made"),
    [
        ("but not F16", ("Q4_K_M",)),
        ("as Q8_0 but not F16", ("Q8_0",)),
        ("without F16 or Q8_0", ("Q4_K_M",)),
        ("not F16 but q5-k-m", ("Q5_K_M",)),
    ],
)
def test_a_quantization_that_is_not_wanted_is_not_made(words: str, made: tuple[str, ...]) -> None:
    assert read_export(f"improve code and convert to GGUF {words}")[0] == Export(quantize=made)


def test_the_repo_is_no_model_and_no_dataset() -> None:
    hints = parse_goal("fine-tune Qwen/Qwen3-0.6B on ./rows.jsonl to improve code and push it to ada/tuned")
    assert (hints.model, hints.dataset, hints.export) == ("Qwen/Qwen3-0.6B", "./rows.jsonl", Export(push="ada/tuned"))


def test_flags_win_and_what_cannot_be_done_is_said() -> None:
    said = {"gguf": None, "push": None, "public": False, "anyway": False}
    found = asked_export("", Export(push="a/b"), **{**said, "push": "c/d", "gguf": "q8_0,F16"})
    assert found == Export(push="c/d", quantize=("Q8_0", "F16"))
    with pytest.raises(PlanRejected, match="where to"):
        asked_export("improve code and push it to the Hub", None, **said)
    with pytest.raises(PlanRejected, match="user/name"):
        asked_export("", None, **{**said, "push": "nowhere"})
    with pytest.raises(UsageError, match="Q3_K"):
        asked_export("", None, **{**said, "gguf": "Q3_K"})


def launched(path: Path, kind: str) -> list[JobIntended]:
    facts = [event.fact for event in ledger.read(path)]
    return [fact for fact in facts if isinstance(fact, JobIntended) and fact.run.kind == kind]


def flags(fact: JobIntended) -> dict[str, str]:
    return dict(zip(fact.job.args[::2], fact.job.args[1::2], strict=False))


KEPT = {"Q8_0": 0.6, "Q5_K_M": 0.45, "Q4_K_M": 0.1}
"""Skill of each file of a model of 0.6, made from a base model of 0.1."""


def a_night(tmp_path: Path, there: World, **export: object) -> State:
    asked = Export.model_validate({"push": "ada/tuned", **export})
    return night(tmp_path / "n.jsonl", there, export=asked, state_dir=str(tmp_path))


def test_a_confirmed_model_is_merged_judged_and_pushed_with_its_card(tmp_path: Path) -> None:
    state = a_night(tmp_path, World({**SKILL, **KEPT}), quantize=("Q8_0",))
    assert (ended(state), claimed(state).label) == ("finished", "confirmed_better")
    (made,) = launched(tmp_path / "n.jsonl", "export")
    assert (flags(made)["--quantize"], flags(made)["--adapter"]) == ("Q8_0", f"/models/{state.kept}")
    (judged,) = launched(tmp_path / "n.jsonl", "verify")
    (asked,) = [f for f in launched(tmp_path / "n.jsonl", "evaluate") if f.run.name == f"{state.kept}-confirm"]
    assert (flags(judged)["--gguf"], flags(judged)["--model"]) == ("/m/Q8_0", f"/m/merged-{state.kept}")
    for flag in ("--benchmark", "--set", "--n", "--benchmark-seed", "--seed", "--temperature"):
        assert flags(judged)[flag] == flags(asked)[flag]
    (pushed,) = launched(tmp_path / "n.jsonl", "publish")
    args = flags(pushed)
    assert (args["--push"], args["--model"], args["--gguf"]) == ("ada/tuned", f"/m/merged-{state.kept}", "/m/Q8_0")
    card = Path(args["--card"]).read_text()
    assert "better" in card
    assert 'from_pretrained("ada/tuned")' in card
    files = Path(args["--gguf-card"]).read_text()
    assert "llama-server -hf ada/tuned-GGUF:Q8_0" in files
    assert "| 0.560 | +0.0 points" in files
    (scored,) = ModelCard(files).data.eval_results or []
    assert (scored.metric_name, scored.metric_value) == ("pass@1 (Q8_0)", 0.56)
    text = render(state)
    assert "https://hub/ada/tuned" in text
    assert 'AutoModelForCausalLM.from_pretrained("ada/tuned")' in text
    assert "keeps the gain: +0.0 points, a loss of 5 points is excluded" in text


def test_a_file_that_lost_the_gain_stays_here_and_the_others_are_pushed(tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    state = a_night(tmp_path, World({**SKILL, **KEPT}), quantize=("Q4_K_M", "Q5_K_M"))
    (pushed,) = launched(path, "publish")
    assert pushed.job.args.count("--gguf") == 1
    assert flags(pushed)["--gguf"] == "/m/Q5_K_M"
    assert "not Q4_K_M" in pushed.run.why
    card = Path(flags(pushed)["--gguf-card"]).read_text()
    assert "keeps a part of the gain: -" in card
    assert "Q4_K_M" not in card
    assert "the gain is not in the file: -46.5 points" in render(state)
    assert len(state.looks) == 1


@pytest.mark.parametrize("anyway", [False, True])
def test_a_file_that_takes_days_to_judge_is_pushed_only_anyway_and_says_so(tmp_path: Path, anyway: bool) -> None:
    there = World({**SKILL, **KEPT})
    there.tokens_per_s = 0.5
    state = a_night(tmp_path, there, quantize=("Q8_0",), anyway=anyway)
    assert launched(tmp_path / "n.jsonl", "verify") == []
    (pushed,) = launched(tmp_path / "n.jsonl", "publish")
    assert "not evaluated: llama.cpp would take about" in render(state)
    assert "not evaluated: llama.cpp would take about" in export_text(state)
    if anyway:
        assert "not evaluated: llama.cpp would take about" in Path(flags(pushed)["--gguf-card"]).read_text()
    else:
        assert "--gguf" not in pushed.job.args


def test_a_file_that_cannot_be_judged_is_not_pushed(tmp_path: Path) -> None:
    there = World({**SKILL, **KEPT})
    failed = Ending(running_s=5, stage="ERROR", exit_code=1, message="it does not load")
    there.endings = lambda spec: failed if spec.kind == "verify" else None
    state = a_night(tmp_path, there, quantize=("Q8_0",))
    (pushed,) = launched(tmp_path / "n.jsonl", "publish")
    assert "--gguf" not in pushed.job.args
    assert ended(state) == "finished"


def test_files_alone_are_made_and_judged(tmp_path: Path) -> None:
    state = a_night(tmp_path, World({**SKILL, **KEPT}), push=None, quantize=("Q8_0",))
    assert [run.spec.name for run in state.runs.values()][-2:] == ["export", "export-q8-0"]
    assert ended(state) == "finished"


def card_of(**plan: Any) -> tuple[ModelCard, str]:
    night = Night(PLAN.model_copy(update={"export": Export(push="ada/tuned"), **plan}))
    night.prepare()
    run = RunSpec(name="sft-01", kind="train", why="x", train=PLAN.train)
    night.train(run, first_step=1, last_step=4, seconds=5, eval_loss=1.0)
    night.decide("keep", "sft-01", "keep-any-gain", "better")
    publish = RunSpec(name="publish", kind="publish", why="x", subject="sft-01", export=Export(push="ada/tuned"))
    text = model_card(state_of(night.events), publish, "1.0")
    return ModelCard(text), text


def test_a_card_names_the_original_of_an_embedded_model() -> None:
    card, text = card_of()
    assert card.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert card.data.datasets is None
    assert "embedded:" not in text


def test_a_card_tells_nothing_of_this_machines_folders_and_servers() -> None:
    model, rows = "/home/ada/private/tiny", "work/rows.jsonl"
    goal = f"fine-tune {model} on {rows} to improve code"
    server = {"trackio_url": "http://10.0.0.7:7860", "namespace": "ada"}
    card, text = card_of(model=ModelRef(id=model), dataset=DatasetRef(id=rows), goal=goal, **server)
    assert card.data.base_model is None
    assert card.data.datasets is None
    assert "fine-tune tiny on rows.jsonl to improve code" in text
    assert not [secret for secret in ("/home/ada", "work/", "10.0.0.7") if secret in text]


def test_a_card_names_the_teacher_by_its_id_or_by_the_last_part_of_its_folder() -> None:
    goal = "distill /home/ada/private/big for code"
    card, text = card_of(method="distillation", teacher=ModelRef(id="/home/ada/private/big"), goal=goal)
    assert "DISTILLATION (LoRA, merged) from the teacher `big` on" in text
    assert "*distill big for code*" in text
    assert "/home/ada" not in text
    assert "distillation" in card.data.tags
    night = card_of(method="distillation", teacher=ModelRef(id="org/big", revision="abc"))[1]
    assert "from the teacher `org/big` on" in night
    assert "- Teacher at revision `abc`." in night


def test_a_folder_whose_name_looks_like_a_repo_is_none() -> None:
    card, _ = card_of(model=ModelRef(id="models/tiny"), dataset=DatasetRef(id="work/rows"))
    assert (card.data.base_model, card.data.datasets) == (None, None)


def test_the_metrics_of_a_space_are_linked() -> None:
    space = {"trackio_url": "https://ada-trackio.hf.space", "trackio_space": "ada/trackio", "namespace": "ada"}
    assert "[Metrics in Trackio](https://ada-trackio.hf.space/?project=" in card_of(**space)[1]


def test_nothing_is_pushed_that_the_verdict_does_not_carry(tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    equal = {**SKILL, "sft-01": 0.1, "sft-01-x1": 0.1, "sft-01-x2": 0.1}
    state = a_night(tmp_path, World(equal))
    assert ended(state) == "finished"
    assert launched(path, "export") + launched(path, "publish") == []


def test_a_push_that_fails_does_not_spoil_the_night(tmp_path: Path) -> None:
    there = World(SKILL)
    failed = Ending(running_s=5, stage="ERROR", exit_code=1, message="could not be pushed")
    there.endings = lambda spec: failed if spec.kind == "publish" else None
    state = a_night(tmp_path, there)
    assert (ended(state), claimed(state).label) == ("finished", "confirmed_better")
    assert state.ended is not None
    assert "publish: its job failed: could not be pushed" in state.ended.reason
    assert published(state) == {}
    assert len(launched(tmp_path / "n.jsonl", "publish")) == 1


def test_what_arrived_before_a_push_failed_is_not_forgotten(tmp_path: Path) -> None:
    there = World({**SKILL, **KEPT})
    arrived = {"pushed": {"ada/tuned": {"url": "https://hub/ada/tuned"}}}
    failed = Ending(running_s=5, stage="ERROR", exit_code=1, message="no files", result=arrived)
    there.endings = lambda spec: failed if spec.kind == "publish" else None
    state = a_night(tmp_path, there, quantize=("Q8_0",))
    assert published(state) == {"ada/tuned": "https://hub/ada/tuned"}
    assert "Pushed: [`ada/tuned`](https://hub/ada/tuned)" in render(state)
    assert "pushed    https://hub/ada/tuned" in export_text(state)


@pytest.mark.parametrize("kind", ["export", "verify", "publish"])
def test_a_job_of_the_release_whose_machine_is_lost_is_begun_again(tmp_path: Path, kind: str) -> None:
    there = World({**SKILL, **KEPT})
    there.endings = lambda spec: LOST if spec.kind == kind and spec.key.endswith("-a1") else None
    state = a_night(tmp_path, there, quantize=("Q8_0",))
    assert ended(state) == "finished"
    assert state.runs["publish"].done
    assert len(launched(tmp_path / "n.jsonl", kind)) == 2


def test_a_night_killed_after_any_event_of_the_release_is_the_same(tmp_path: Path) -> None:
    whole = a_night(tmp_path / "whole", World({**SKILL, **KEPT}), quantize=("Q8_0", "Q4_K_M"))
    path, there, seen = tmp_path / "n.jsonl", World({**SKILL, **KEPT}), 0
    asked = Export(push="ada/tuned", quantize=("Q8_0", "Q4_K_M"))
    for number in range(40, len(ledger.read(tmp_path / "whole" / "n.jsonl"))):
        path.unlink(missing_ok=True)
        there = World({**SKILL, **KEPT})
        killed(path, there, lambda event: event.seq == number, export=asked, state_dir=str(tmp_path))  # noqa: B023
        state = night(path, there)
        seen += 1
        assert list(state.runs) == list(whole.runs)
        assert sorted(there.runner.submits) == sorted({f"night-{name}-a1" for name in state.runs})
    assert seen > 10


def test_a_project_that_has_ended_is_exported_judged_and_pushed_on_request(tmp_path: Path) -> None:
    path, there = tmp_path / "n.jsonl", World({**SKILL, **KEPT})
    night(path, there, state_dir=str(tmp_path))
    asked = Export(push="ada/tuned", quantize=("Q8_0", "Q4_K_M"))
    for names in (["export", "export-q8-0", "export-q4-k-m", "publish"], ["publish-2"]):
        there.clock.advance(60)
        with at_desk(path, there) as desk:
            begun, since = [], desk.now
            while isinstance(job := desk.ship(asked, since=since), JobSpec):
                begun.append(job.run)
                there.clock.advance(300)
                desk.observe()
            assert job is None
        assert begun == names
    assert launched(path, "publish")[1].job.args.count("--gguf") == 1
