import math
from pathlib import Path

import pytest
from nights import PLAN, Night, finished_night, state_of

from hfagent.agent import plots
from hfagent.agent.changed import changed
from hfagent.agent.events import MetricsLogged, Scored
from hfagent.agent.records import BenchmarkRef, Decision, MetricPoint, RunSpec, Score
from hfagent.agent.report_facts import score_interval
from hfagent.agent.runs import Taken
from hfagent.agent.state import State

FIRST = RunSpec(name="sft-01", kind="train", why="first run", train=PLAN.train)


def running(losses: list[float | None]) -> State:
    night = Night()
    night.prepare()
    night.begin(FIRST)
    points = tuple(MetricPoint(step=step, values={"train/loss": loss}) for step, loss in enumerate(losses, start=1))
    night.add(MetricsLogged(run="sft-01", points=points))
    return state_of(night.events)


def score(outcomes: list[float]) -> Score:
    return Score(
        benchmark=BenchmarkRef(name="any", set="search"),
        metric="pass@1",
        value=sum(outcomes) / len(outcomes),
        n=len(outcomes),
        outcomes={str(number): outcome for number, outcome in enumerate(outcomes)},
        harness="h",
        sandbox="s",
    )


def test_an_extension_continues_its_parents_curve() -> None:
    first, extension = plots.loss_curves(state_of(finished_night()))

    assert [step for step, _ in first.train] == list(range(1, 21))
    assert extension.parent == "sft-01"
    assert [step for step, _ in extension.train] == list(range(16, 41))
    assert extension.shared == 1
    assert extension.train[0] == first.train[15]
    assert extension.evaluation == ((40, 0.214),)


@pytest.mark.parametrize(("logged", "drawn"), [(1, 1), (5, 5), (6, 5), (7, 7), (20, 19), (1000, 888)])
def test_a_running_curve_grows_in_steps_of_a_quarter(logged: int, drawn: int) -> None:
    (curve,) = plots.loss_curves(running([1.0] * logged))

    assert len(curve.train) == drawn


def test_a_loss_that_is_no_number_is_a_gap() -> None:
    (curve,) = plots.loss_curves(running([1.5, None, 1.1]))

    assert [math.isnan(loss) for _, loss in curve.train] == [False, True, False]


def test_scores_come_by_set_with_the_base_model_first() -> None:
    panels = plots.score_panels(state_of(finished_night()))

    assert [(panel.title, [point.label for point in panel.points]) for panel in panels] == [
        ("Search set: procedural_python, 200 problems", ["base model", "sft-01", "sft-01-x1"]),
        ("Confirm set: procedural_python, 200 problems", ["base model", "sft-01-x1"]),
    ]
    assert [point.number for point in panels[0].points] == [None, 0, 1]


@pytest.mark.parametrize(
    ("outcomes", "low", "high"),
    [
        ([1.0] * 19 + [0.0] * 181, 0.062, 0.144),  # Wilson
        ([1.0] * 136 + [0.0] * 64, 0.612, 0.741),
        ([0.0] * 20, 0.0, 0.161),
        ([1.0] * 20, 0.839, 1.0),
        ([0.5, 1.0, 0.0, 0.5], -0.150, 1.150),  # Student's t, before it is cut: 0.5 +- 3.182 * 0.408 / 2
    ],
)
def test_score_interval(outcomes: list[float], low: float, high: float) -> None:
    found = score_interval(score(outcomes))

    assert found == pytest.approx((max(low, 0.0), min(high, 1.0)), abs=5e-4)
    assert found[0] <= score(outcomes).value <= found[1]


def test_plots_are_drawn_once_for_the_same_data(tmp_path: Path) -> None:
    state = state_of(finished_night())
    assert plots.update(state, tmp_path / "new") == ["loss.svg", "scores.svg"]
    before = {path.name: (path.stat().st_ino, path.read_bytes()) for path in (tmp_path / "new").iterdir()}
    assert set(before) == {"loss.svg", "scores.svg"}

    plots.update(state, tmp_path / "new")
    assert {path.name: (path.stat().st_ino, path.read_bytes()) for path in (tmp_path / "new").iterdir()} == before

    plots.update(state, tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == {
        name: content for name, (_, content) in before.items()
    }


def test_only_the_plot_whose_data_changed_is_drawn_anew(tmp_path: Path) -> None:
    events = finished_night()
    before_confirm = [event for event in events if event.fact.kind == "scored"][-1].seq - 1
    plots.update(state_of(events[:before_confirm]), tmp_path)
    inodes = {name: (tmp_path / name).stat().st_ino for name in ("loss.svg", "scores.svg")}

    plots.update(state_of(events), tmp_path)

    assert (tmp_path / "loss.svg").stat().st_ino == inodes["loss.svg"]
    assert (tmp_path / "scores.svg").stat().st_ino != inodes["scores.svg"]


def test_nothing_is_drawn_without_data(tmp_path: Path) -> None:
    night = Night()
    night.prepare()

    assert plots.update(state_of(night.events), tmp_path / "folder") == []
    assert not (tmp_path / "folder").exists()


def test_names_are_text_and_settings_of_the_machine_do_not_show() -> None:
    import matplotlib

    panel = plots.Panel(title="a $x^{ <b>", metric="pass@1", points=(plots.Point("$base", None, 0.0, 0.0, 0.02),))
    plain = plots.svg(lambda: plots.draw_scores([panel]), "mark")
    with matplotlib.rc_context({"figure.facecolor": "black", "font.size": 30}):
        styled = plots.svg(lambda: plots.draw_scores([panel]), "mark")

    assert styled == plain
    assert b"a $x^{ &lt;b&gt;" in plain


def test_a_held_out_mark_does_not_hide_the_one_below_it() -> None:
    below = plots.Curve("sft-01", None, 0, ((1, 1.0), (2, 0.5)), 0, ((2, 0.6),))
    above = plots.Curve("sft-01-x1", "sft-01", 1, ((2, 0.5), (3, 0.4)), 1, ((2, 0.6), (3, 0.5)))
    axes = plots.draw_loss([below, above], label="loss").axes[0]
    held_out = [line for line in axes.lines if "held-out" in str(line.get_label())]
    assert [list(line.get_xdata()) for line in held_out] == [[2], [2, 3]]
    assert {line.get_markerfacecolor() for line in held_out} == {"none"}


def test_curves_without_a_single_number_can_be_drawn() -> None:
    curves = plots.loss_curves(running([None, None]))

    assert b"</svg>" in plots.svg(lambda: plots.draw_loss(curves, label="loss"), "mark")


def many_runs(scores: list[float]) -> State:
    night = Night()
    night.prepare()
    for number, solved in enumerate(scores, start=1):
        name = f"sft-{number:02d}"
        key = night.begin(RunSpec(name=name, kind="train", why="one of many", train=PLAN.train))
        night.add(MetricsLogged(run=name, points=(MetricPoint(step=1, values={"train/loss": 1.0}),)))
        night.end(key, seconds=60, result={"adapter": f"/models/{name}"})
        spec = RunSpec(name=f"{name}-eval", kind="evaluate", why="its score", subject=name, set="search")
        night.end(night.begin(spec), seconds=60)
        night.add(Scored(run=spec.name, score=score([1.0] * round(solved * 20) + [0.0] * (20 - round(solved * 20)))))
    return state_of(night.events)


def test_of_many_runs_the_best_and_the_newest_are_drawn() -> None:
    scores = [0.1] * 30
    scores[2] = scores[6] = 0.9
    state = many_runs(scores)

    names = [curve.run for curve in plots.loss_curves(state)]
    assert len(names) == plots.BEST + plots.NEWEST
    assert {"sft-03", "sft-07", "sft-27", "sft-28", "sft-29", "sft-30"} <= set(names)
    (panel,) = plots.score_panels(state)
    assert [point.label for point in panel.points] == names


def test_a_run_that_is_kept_is_drawn_however_many_came_after_it() -> None:
    state = many_runs([0.5] + [0.9] * 30)
    kept = Decision(action="keep", run="sft-01", reason="a test", rule="keep-any-gain")
    state = changed(state, decisions=(Taken(at=state.updated_at, about="sft-01", decision=kept),))

    assert "sft-01" in plots.drawn_runs(state)


@pytest.mark.parametrize("count", [3, plots.BEST + plots.NEWEST])
@pytest.mark.filterwarnings("error")
def test_the_legend_leaves_the_curves_their_room(count: int) -> None:
    losses = tuple((step, 2.0 / step) for step in range(1, 60))
    curves = [plots.Curve(f"sft-{n:02d}-x1", f"sft-{n:02d}", n, losses, 0, losses[::20]) for n in range(count)]
    figure = plots.draw_loss(curves, label="loss")

    plots.svg(lambda: figure, "mark")
    box = figure.axes[0].get_window_extent()
    assert box.height > 0.5 * 3.6 * figure.dpi
    assert box.width > 0.7 * plots.WIDTH_INCHES * figure.dpi
    legend = figure.axes[0].get_legend() or figure.legends[0]
    assert (
        sum(text.get_text().startswith("sft-") and "held-out" not in text.get_text() for text in legend.texts) == count
    )
