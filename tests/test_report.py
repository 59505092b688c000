import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nights import BASE, CONTAMINATION, EXTENDED, PLAN, Night, finished_night, score_of, state_of

from hfagent.agent import report
from hfagent.agent.errors import HfagentError
from hfagent.agent.events import (
    ContaminationChecked,
    Crashed,
    DatasetChecked,
    Event,
    JobEnded,
    JobIntended,
    JobRejected,
    PlanConfirmed,
    PlanMade,
    ProjectEnded,
    Refused,
    Resumed,
)
from hfagent.agent.integrity import Hit
from hfagent.agent.records import DatasetRef, Decision, ModelRef, Plan, Refusal, RunSpec

HOSTILE = "a|b\n# `x` <script>alert(1)</script> <!-- notes:end --> \x1b[31m**bold** [l](javascript:x) \\| $1$"
FIRST = RunSpec(name="sft-01", kind="train", why="first run", train=PLAN.train)
BASELINE = RunSpec(name="baseline", kind="evaluate", why="the baseline", set="search")


def rendered(events: list[Event]) -> str:
    return report.render(state_of(events))


def row(text: str, first: str) -> list[str]:
    """The cells of the first table row that begins with `first`."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return cells(line)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]]


def section(text: str, heading: str) -> str:
    """From a heading to the next one of its level or above."""
    level = heading.split(" ")[0]
    rest = text[text.index(f"\n{heading}") + 1 :]
    return re.split(rf"\n#{{1,{len(level)}}} ", rest, maxsplit=1)[0]


def assert_whole(text: str) -> None:
    """All tables are rectangular, no markup of others got in, and the closing table is there."""
    outside = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    width = 0
    for line in outside.splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        width = width or len(cells(line))
        assert len(cells(line)) == width, line
    allowed = outside.replace(report.NOTES_START, "", 1).replace(report.NOTES_END, "", 1)
    assert not re.search(r"<(?!/?code>)", re.sub(r"`[^`\n]*`", "", allowed))
    assert "\x1b" not in text
    assert (text.count(report.NOTES_START), text.count(report.NOTES_END)) == (1, 1)
    assert "\n## Experiment Evaluations\n" in text


def finished(reason: str = "done", state: Any = "finished") -> ProjectEnded:
    return ProjectEnded(state=state, reason=reason)


def judged(*, base: int, first: int, confirm: tuple[int, int] | None = None) -> Night:
    """A night with one training run, kept, and confirmed if `confirm` says how base and run did."""
    night = Night()
    night.prepare()
    scores = [night.evaluate(BASELINE, base)]
    night.train(FIRST, first_step=1, last_step=20, seconds=60, eval_loss=0.4)
    scores.append(
        night.evaluate(RunSpec(name="sft-01-eval", kind="evaluate", why="w", subject="sft-01", set="search"), first)
    )
    night.compare("sft-01", (scores[0], scores[1]))
    night.decide("keep", "sft-01", "keep-any-gain", "a gain")
    if confirm is not None:
        scores = [
            night.evaluate(RunSpec(name="baseline-confirm", kind="evaluate", why="w", set="confirm"), confirm[0]),
            night.evaluate(
                RunSpec(name="sft-01-confirm", kind="evaluate", why="w", subject="sft-01", set="confirm"), confirm[1]
            ),
        ]
        night.compare("sft-01", (scores[0], scores[1]))
    return night


# --- the text --------------------------------------------------------------------------------------------------------


def test_a_whole_night(golden: Callable[[str, str], None]) -> None:
    text = report.render(state_of(finished_night()), plots=["improve-code-sft/loss.svg", "improve-code-sft/scores.svg"])

    golden("report.md", text)
    assert_whole(text)
    assert "TBD" not in text


@pytest.mark.parametrize("count", range(1, len(finished_night())))
def test_the_report_is_whole_after_every_event(count: int) -> None:
    assert_whole(rendered(finished_night()[:count]))


def test_the_teacher_is_named_where_the_model_is() -> None:
    teacher = ModelRef(id="org/big", revision="abc")
    night = Night(PLAN.model_copy(update={"method": "distillation", "teacher": teacher}))
    night.prepare()
    night.train(FIRST, first_step=1, last_step=4, seconds=5, eval_loss=1.0)
    text = rendered(night.events)
    linked = "[`org/big`](https://huggingface.co/org/big/tree/abc)"
    assert f"- Teacher: {linked}" in text
    assert row(text, "Teacher")[1] == linked
    assert "Teacher" not in rendered(finished_night())


def test_right_after_the_plan_the_baseline_is_still_to_come() -> None:
    text = rendered(finished_night()[:1])

    assert "**No verdict yet.**" in text
    assert "No run was started yet." in text
    assert row(text, "Base model")[2:4] == ["TBD", "TBD"]
    assert row(text, "Ended")[1] == "TBD"


def test_a_running_training_run_shows_where_it_is() -> None:
    events = finished_night()
    logged = next(event.seq for event in events if event.fact.kind == "metrics_logged")
    text = rendered(events[:logged])

    assert "**State:** running as of 2026-03-02 21:31:28 UTC: `sft-01` (in progress)" in text
    assert row(text, "Progress")[1] == "step=10/20 loss=0.686"
    assert row(text, "Adapter")[1] == "TBD"
    assert "Launched values: TBD." in text


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        (
            Crashed(error="ValueError: a|b"),
            r"crashed as of 2026-03-02 21:30:11 UTC: ValueError: a\|b; `hfagent resume improve-code-sft`",
        ),
        (finished("the dataset cannot train", "failed"), "failed: the dataset cannot train"),
        (finished("on request, by hfagent cancel", "stopped"), "stopped: on request, by hfagent cancel"),
        (finished("the time limit of 8 h is reached", "stopped"), "stopped: the time limit of 8 h is reached"),
    ],
)
def test_state_line(fact: Any, words: str) -> None:
    night = Night()
    night.prepare()
    night.add(fact)

    assert f"**State:** {words}" in rendered(night.events)


def test_a_resumed_project_is_no_longer_crashed() -> None:
    night = Night()
    night.prepare()
    night.add(Crashed(error="OSError: gone"))
    night.add(Resumed(pid=1))
    text = rendered(night.events)

    assert "**State:** running" in text
    assert "**State:** crashed" not in text
    assert "| crashed | – | – | OSError: gone | – |" in text
    assert "| resumed | – | – | a new hfagent process took the project over | – |" in text


@pytest.mark.parametrize("text", [HOSTILE, "<!-- notes:start --> <!-- notes:end -->"])
def test_text_from_outside_does_not_break_the_markdown(text: str) -> None:
    plan = PLAN.model_copy(update={"goal": text, "notes": (text,), "dataset": DatasetRef(id=text, config=text)})
    night = Night(plan)
    night.prepare()
    checked = next(event.fact for event in night.events if isinstance(event.fact, DatasetChecked)).report
    method = checked.methods["sft"].model_copy(update={"reason": text, "warnings": (text,)})
    dirty = checked.model_copy(update={"columns": {text: "string"}, "methods": {"sft": method}})
    night.add(DatasetChecked(report=dirty))
    score = night.evaluate(BASELINE.model_copy(update={"why": text}), BASE)
    result = {"device": text, "adapter": text, "launched": {"note": text, "lora_r": text}}
    night.end(night.begin(FIRST), seconds=1, stage="ERROR", exit_code=1, message=text, result=result)
    night.add(Refused(refusal=Refusal(what=text, why=text)))
    night.compare("sft-01", (score, score_of(PLAN.search, EXTENDED)))
    night.decide("keep", "sft-01", text, text)
    night.add(finished(text, "failed"))
    whole = rendered(night.events)

    assert_whole(whole)
    assert whole.count("\n# ") == 0


# --- verdict ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("confirm", "words", "loadable"),
    [
        (None, "**Promising, not confirmed.** `sft-01` on the search set: better: 0.095 -> 0.535", True),
        ((18, 131), "**Better than the base model, confirmed", True),
        ((40, 41), "**No detectable difference from the base model", True),
        ((131, 18), "**Worse than the base model", False),
    ],
)
def test_the_verdict_comes_first(confirm: tuple[int, int] | None, words: str, loadable: bool) -> None:
    text = rendered(judged(base=19, first=107, confirm=confirm).events)

    assert words in text.splitlines()[4]
    assert ("AutoPeftModelForCausalLM.from_pretrained(" in text) is loadable
    assert row(text, "Looks at the confirm set")[1] == ("0" if confirm is None else "1")


def test_a_night_without_a_gain_says_so() -> None:
    night = judged(base=40, first=38)
    night.add(finished("no run was better than the base model on the search set"))

    assert "> **No gain was confirmed.** `sft-01` on the search set: no detectable difference" in rendered(night.events)


def test_the_baseline_alone_is_no_verdict() -> None:
    night = Night()
    night.prepare()
    night.evaluate(BASELINE, BASE)

    assert "> **No verdict yet.** The base model scores 0.095 pass@1 [0.062, 0.144]" in rendered(night.events)


# --- runs and money --------------------------------------------------------------------------------------------------


def test_spent_held_and_cap() -> None:
    plan = PLAN.model_copy(update={"price_micro_usd_per_hour": 1_500_000, "budget_micro_usd": 5_000_000})
    night = Night(plan)
    night.prepare()
    night.evaluate(BASELINE, BASE)
    night.begin(FIRST)
    text = rendered(night.events)

    assert row(text, "Cost")[1] == "$0.01 spent, $0.38 held for open jobs, cap $5.00"
    assert section(text, "## Runs").count("$0.38 held") == 1


def test_an_unknown_cost_is_not_zero() -> None:
    night = Night()
    night.prepare()
    key = night.begin(BASELINE)
    night.add(
        JobEnded(
            key=key, stage="ERROR", finished_at=None, running_s=None, cost_micro_usd=None, exit_code=None,
            message="lost", result=None,
        )
    )  # fmt: skip
    text = rendered(night.events)

    assert row(text, "Cost")[1].startswith("unknown spent")
    assert row(text, "1")[1:] == ["Failed", "2026-03-02 21:30:12 UTC", "–", "–", "lost"]


def test_a_rejected_job_is_told_with_its_reason() -> None:
    night = Night()
    night.prepare()
    job = next(
        e.fact.job for e in finished_night() if isinstance(e.fact, JobIntended) and e.fact.run.name == "baseline"
    )
    night.add(JobIntended(run=BASELINE, job=job))
    night.add(JobRejected(key=job.key, message="no room"))
    text = rendered(night.events)

    assert row(text, "1")[1:] == ["Rejected", "–", "–", "–", "no room"]
    assert "never started" in text


def test_planned_against_launched() -> None:
    assert "| `warmup_steps` | 2 | 2 | 3 |" in section(rendered(finished_night()), "## sft-01:")
    night = Night()
    night.prepare()
    night.end(night.begin(FIRST), seconds=9, result={"launched": PLAN.train.model_dump()})

    assert section(section(rendered(night.events), "## sft-01:"), "### Planned").endswith("As planned.\n")


def test_a_setting_that_the_job_chose_by_itself_is_no_deviation_but_a_parameter() -> None:
    night = Night()
    night.prepare()
    launched = {**PLAN.train.model_dump(), "max_steps": 20, "packing": False}
    night.end(night.begin(FIRST), seconds=9, result={"launched": launched})
    text = rendered(night.events)

    assert "As planned." in text
    assert row(text, "packing")[1] == "no"


def test_an_extension_that_gained_nothing_keeps_its_parent() -> None:
    events = finished_night()
    kept = next(event for event in events if event.fact.kind == "decided" and event.fact.about == "sft-01-x1")
    assert kept.fact.kind == "decided"
    parent = Decision(action="keep", run="sft-01", rule="keep-parent", reason="no gain")
    changed = kept.model_copy(update={"fact": kept.fact.model_copy(update={"decision": parent})})
    text = rendered([*events[: kept.seq - 1], changed])

    assert section(text, "## sft-01:").count("| Decision | extend, kept |") == 1
    assert section(text, "## sft-01-x1:").count("| Decision | keep `sft-01` |") == 1
    assert row(text, "2026-03-02 21:34:12 UTC")
    assert "| keep `sft-01` | `sft-01-x1` | `keep-parent` |" in text


def with_sources(**changes: Any) -> str:
    plan = Plan.model_validate({**PLAN.model_dump(), **changes})
    night = Night(plan)
    night.add(PlanMade(plan=plan, versions={}))
    night.add(PlanConfirmed(by="terminal"))
    return section(rendered(night.events), "## What this run used")


def test_models_and_datasets_are_linked_where_they_are_on_the_hub() -> None:
    text = with_sources(
        model=ModelRef(id="Qwen/Qwen3-0.6B", revision="main").model_dump(),
        dataset=DatasetRef(id="open-r1/codeforces-cots", config="solutions_py").model_dump(),
    )

    assert "[`Qwen/Qwen3-0.6B`](https://huggingface.co/Qwen/Qwen3-0.6B/tree/main)" in text
    assert "[`open-r1/codeforces-cots`](https://huggingface.co/datasets/open-r1/codeforces-cots)" in text
    assert "config `solutions_py`, split `train`" in text


@pytest.mark.parametrize("name", ["./data/rows", "/data/rows", "data/rows.jsonl", "a/b/c"])
def test_local_data_is_shown_as_a_path(name: str) -> None:
    assert f"- Dataset: `{name}` (split `train`)" in with_sources(dataset=DatasetRef(id=name).model_dump())


def test_the_metrics_of_a_project_are_found_under_its_name_in_trackio() -> None:
    plan = PLAN.model_copy(update={"token": "a1b2", "state_dir": "/my work/.hfagent"})
    night = Night(plan)
    night.prepare()
    night.train(FIRST, first_step=1, last_step=20, seconds=60, eval_loss=0.4)
    text = section(rendered(night.events), "## sft-01:")

    assert row(text, "Trackio project / run")[1] == "`improve-code-sft-a1b2` / `sft-01`"
    assert "`TRACKIO_DIR='/my work/.hfagent/trackio' trackio show --project improve-code-sft-a1b2`, run" in text


def test_a_length_that_the_benchmark_sets_is_said_so() -> None:
    evaluation = PLAN.evaluation.model_copy(update={"max_new_tokens": None})
    night = Night(PLAN.model_copy(update={"evaluation": evaluation}))
    night.prepare()
    night.evaluate(BASELINE, BASE)

    assert "as many tokens as a problem needs" in row(rendered(night.events), "Answers")[1]


def test_the_tracker_says_where_metrics_are() -> None:
    state = state_of(finished_night())

    assert "[open the dashboard](https://x.hf.space/?project=improve-code-sft), run `sft-01-x1`" in report.render(
        state, tracker_url=lambda project, run: f"https://x.hf.space/?project={project}"
    )


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_file_is_the_rendered_report_with_its_plots(tmp_path: Path) -> None:
    state = state_of(finished_night())
    path = tmp_path / "reports" / "improve-code-sft.md"
    report.write(state, path)

    links = ["improve-code-sft/loss.svg", "improve-code-sft/scores.svg"]
    assert path.read_text() == report.render(state, plots=links)
    assert all((path.parent / link).is_file() for link in links)
    assert sorted(p.name for p in path.parent.rglob("*")) == [
        "improve-code-sft",
        "improve-code-sft.md",
        "loss.svg",
        "scores.svg",
    ]


def test_an_unchanged_report_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "p.md"
    report.write(state_of(finished_night()[:5]), path)
    before = path.stat()
    report.write(state_of(finished_night()[:5]), path)

    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    "notes",
    [
        b"\nGood night. Tomorrow: lr 5e-4.\n",
        b"\r\n| a | b |\r\n\r\n",
        b"caf\xe9 \xff\x00",
        b" <!-- notes:start --> x <!-- notes:end --> y ",
        b"",
    ],
)
def test_notes_stay_byte_for_byte(tmp_path: Path, notes: bytes) -> None:
    path = tmp_path / "p.md"
    report.write(state_of(finished_night()[:5]), path)
    start, end = report.NOTES_START.encode(), report.NOTES_END.encode()
    head, _, rest = path.read_bytes().partition(start)
    path.write_bytes(head + start + notes + end + rest.partition(end)[2])

    for count in (6, 9):
        report.write(state_of(finished_night()[:count]), path)

    assert start + notes + end in path.read_bytes()
    assert path.read_bytes().count(b"## Experiment Evaluations") == 1
    assert not path.with_name("p.md.bak").exists()


def test_a_file_without_markers_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "p.md"
    path.write_text("my own words\n")
    report.write(state_of(finished_night()[:5]), path)

    assert path.with_name("p.md.bak").read_text() == "my own words\n"
    assert path.read_text().startswith("# Improve code")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(HfagentError, match=r"cannot write the report '.*p\.md'"):
        report.write(state_of(finished_night()[:5]), tmp_path / "file" / "p.md")


def test_each_contaminated_row_is_named_once_with_all_its_signs():
    night = Night()
    night.prepare()
    hits = [
        Hit(row=place, problem=problem, layer=layer, evidence="def f(x): ...")
        for place in range(3, 30)
        for problem, layer in (("confirm-0-0001", "ast"), ("confirm-0-0007", "ast"), ("confirm-0-0001", "ngram"))
    ]
    found = {"hits": tuple(hits), "hit_counts": {"ast": 54, "ngram": 27}, "flagged": tuple(range(3, 30))}
    night.add(ContaminationChecked(report=CONTAMINATION.model_copy(update={**found, "verdict": "contaminated"})))
    text = section(rendered(night.events), "## Contamination check")
    assert row(text, "3")[1:3] == ["`confirm-0-0001`, `confirm-0-0007`", "ast, ngram"]
    assert "| 22 |" in text
    assert "| 23 |" not in text
    assert "20 of the 27 rows are shown" in text
