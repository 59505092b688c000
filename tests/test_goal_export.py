"""What a sentence wants done with the model at the end."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from nights import PLAN, Night, state_of
from world import SKILL, World, claimed, ended, night

from hfagent.agent import ledger
from hfagent.agent.errors import PlanRejected, UsageError
from hfagent.agent.events import JobIntended
from hfagent.agent.fakes import Ending
from hfagent.agent.goal import parse_goal
from hfagent.agent.goal_export import asked_export, read_export
from hfagent.agent.model_card import model_card
from hfagent.agent.records import DatasetRef, Export, JobSpec, ModelRef, RunSpec
from hfagent.agent.report import render
from hfagent.agent.state import State

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


def exported(path: Path) -> list[JobIntended]:
    facts = [event.fact for event in ledger.read(path)]
    return [fact for fact in facts if isinstance(fact, JobIntended) and fact.run.kind == "export"]


PUSHED = {"ada/tuned": {"url": "https://hub/ada/tuned", "revision": "r", "private": True}}


def pushing(spec: JobSpec) -> Ending | None:
    return (
        Ending(running_s=20, result={"merged": "/m", "files": [], "pushed": PUSHED}) if spec.kind == "export" else None
    )


def a_night(tmp_path: Path, there: World, **export: object) -> State:
    there.endings = there.endings if there.endings(spec_of_export()) is not None else pushing
    plan = {"export": Export(push="ada/tuned", **export), "state_dir": str(tmp_path)}  # type: ignore[arg-type]
    return night(tmp_path / "n.jsonl", there, **plan)


def spec_of_export() -> JobSpec:
    return JobSpec(
        key="k", project="night", run="export", kind="export", template="export.py", args=(), flavor="local",
        timeout_s=1, price_micro_usd_per_hour=0,
    )  # fmt: skip


def test_a_confirmed_model_is_pushed_with_its_card(tmp_path: Path) -> None:
    state = a_night(tmp_path, World(SKILL), quantize=("Q4_K_M",))
    assert (ended(state), claimed(state).label) == ("finished", "confirmed_better")
    (fact,) = exported(tmp_path / "n.jsonl")
    args = dict(zip(fact.job.args[::2], fact.job.args[1::2], strict=False))
    assert args["--push"] == "ada/tuned"
    assert args["--quantize"] == "Q4_K_M"
    assert args["--adapter"] == f"/models/{state.kept}"
    card = Path(args["--card"]).read_text()
    assert "better" in card
    assert 'from_pretrained("ada/tuned")' in card
    assert "llama-server -hf ada/tuned-GGUF:Q4_K_M" in Path(args["--gguf-card"]).read_text()
    text = render(state)
    assert "https://hub/ada/tuned" in text
    assert 'AutoModelForCausalLM.from_pretrained("ada/tuned")' in text


def card_of(**plan: Any) -> tuple[ModelCard, str]:
    night = Night(PLAN.model_copy(update={"export": Export(push="ada/tuned"), **plan}))
    night.prepare()
    run = RunSpec(name="sft-01", kind="train", why="x", train=PLAN.train)
    night.train(run, first_step=1, last_step=4, seconds=5, eval_loss=1.0)
    night.decide("keep", "sft-01", "keep-any-gain", "better")
    text = model_card(state_of(night.events), Export(push="ada/tuned"), "1.0")
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


def test_a_folder_whose_name_looks_like_a_repo_is_none() -> None:
    card, _ = card_of(model=ModelRef(id="models/tiny"), dataset=DatasetRef(id="work/rows"))
    assert (card.data.base_model, card.data.datasets) == (None, None)


def test_the_metrics_of_a_space_are_linked() -> None:
    space = {"trackio_url": "https://ada-trackio.hf.space", "trackio_space": "ada/trackio", "namespace": "ada"}
    assert "[Metrics in Trackio](https://ada-trackio.hf.space/?project=" in card_of(**space)[1]


def test_nothing_is_pushed_that_the_verdict_does_not_carry(tmp_path: Path) -> None:
    equal = {**SKILL, "sft-01": 0.1, "sft-01-x1": 0.1, "sft-01-x2": 0.1}
    state = a_night(tmp_path, World(equal))
    assert ended(state) == "finished"
    assert exported(tmp_path / "n.jsonl") == []


def test_a_push_that_fails_does_not_spoil_the_night(tmp_path: Path) -> None:
    there = World(SKILL)
    failed = Ending(running_s=5, stage="ERROR", exit_code=1, message="could not be pushed")
    there.endings = lambda spec: failed if spec.kind == "export" else None
    state = a_night(tmp_path, there)
    assert (ended(state), claimed(state).label) == ("finished", "confirmed_better")
    assert state.ended is not None
    assert "not exported" in state.ended.reason
    assert len(exported(tmp_path / "n.jsonl")) == 1


def test_a_push_whose_machine_is_lost_is_begun_again(tmp_path: Path) -> None:
    there = World(SKILL)
    lost = Ending(running_s=5, stage="ERROR", exit_code=None, message="the machine is gone")
    there.endings = lambda spec: lost if spec.key.endswith("export-a1") else pushing(spec)
    state = a_night(tmp_path, there)
    assert ended(state) == "finished"
    assert state.runs["export"].done
    assert len(exported(tmp_path / "n.jsonl")) == 2
