"""The report's plots as SVG files: training loss, and scores with intervals. Redrawn only when their data changed."""

import hashlib
import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfagent.agent import lines
from hfagent.agent import report_facts as facts
from hfagent.agent.markdown import plain
from hfagent.agent.records import ProblemSet, Score
from hfagent.agent.runs import Run
from hfagent.agent.state import State

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROWTH = 1.25
"""A running curve is redrawn when it has grown by a quarter: a drawing takes 0.2 s of the machine that trains."""
NEWEST, BEST = 4, 8
"""Of more training runs than both together only these are drawn: more could not be told apart, and their legend would
leave no room for the curves."""
NAMED_INSIDE = 6
"""Names that the corner of the curves has room for."""
LEGEND_COLUMNS = 3
HELD_OUT = "held-out rows"
WIDTH_INCHES = 7.2
MARKED_POINTS = 60
"""Up to so many points each one is marked; longer curves are thin lines."""

# Okabe & Ito's palette: told apart by all common kinds of colour vision; grey is the base model's.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_LABELS = {
    "sft": "loss (nats a token)",
    "dpo": "loss (nats a pair)",
    "grpo": "reward",
    "distillation": "distance to the teacher (nats a token)",
}
_BASE_COLOUR = "#555555"
_STYLE: dict[str, Any] = {
    "svg.hashsalt": "hfagent",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Curve:
    """Losses of one training run; an extension begins at its parent's last point before it."""

    run: str
    parent: str | None
    number: int
    """Place among the training runs: its colour and mark in all plots."""
    train: tuple[tuple[int, float], ...]
    """Optimizer step, loss; NaN where the run logged no number."""
    shared: int
    """How many of the first points are the parent's."""
    evaluation: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Point:
    """One evaluation."""

    label: str
    number: int | None
    """As in `Curve`; None for the base model."""
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Panel:
    """The evaluations on one set of problems."""

    title: str
    metric: str
    points: tuple[Point, ...]


def update(state: State, folder: Path) -> list[str]:
    """Bring the plots in `folder` up to date.

    Returns:
        File names of all plots that the state has data for, in the order of the report.

    Raises:
        OSError: the folder cannot be written.
    """
    curves, panels = loss_curves(state), score_panels(state)
    label = _LABELS.get(state.plan.method, "loss")
    names = []
    if curves:
        _refresh(folder / "loss.svg", (curves, label), lambda: draw_loss(curves, label=label))
        names.append("loss.svg")
    if panels:
        _refresh(folder / "scores.svg", panels, lambda: draw_scores(panels))
        names.append("scores.svg")
    return names


def drawn_runs(state: State) -> frozenset[str]:
    """The training runs that are drawn: of many the kept one, the newest and the best on the search set."""
    names = [run.spec.name for run in state.trained]
    if len(names) <= NEWEST + BEST:
        return frozenset(names)
    scores = state.search_scores()
    newest = names[-NEWEST:]
    others = sorted(names[:-NEWEST], key=lambda name: (name != state.kept, -scores.get(name, -1.0)))
    return frozenset([*newest, *others[:BEST]])


def loss_curves(state: State) -> tuple[Curve, ...]:
    """The curves of the training runs that are drawn and logged a loss; of a running one a prefix (see GROWTH)."""
    shown = drawn_runs(state)
    curves: list[Curve] = []
    trains: dict[str, tuple[tuple[int, float], ...]] = {}
    for number, run in enumerate(state.trained):
        metric = lines.curve(state.plan.method)
        train = _series(run, metric)
        if run.last.open:
            train = train[: _drawn(len(train))]
        if not train:
            continue
        trains[run.spec.name] = train
        if run.spec.name not in shown:
            continue
        before = [point for point in trains.get(run.spec.parent or "", ()) if point[0] < train[0][0]][-1:]
        held_out = _series(run, metric.replace("train/", "eval/"))
        seen = tuple(point for point in held_out if point[0] <= train[-1][0])
        curves.append(Curve(run.spec.name, run.spec.parent, number, (*before, *train), len(before), seen))
    return tuple(curves)


def score_panels(state: State) -> tuple[Panel, ...]:
    """The scored evaluations by set, the base model first; of the training runs those that are drawn."""
    sets: tuple[ProblemSet, ...] = ("search", "confirm")
    shown = drawn_runs(state)
    numbers = {run.spec.name: number for number, run in enumerate(state.trained)}
    panels = []
    for problems in sets:
        scored = [run for run in state.runs.values() if run.spec.set == problems]
        found = [
            (run, run.score)
            for run in scored
            if run.score is not None and (run.spec.subject is None or run.spec.subject in shown)
        ]
        found.sort(key=lambda item: item[0].spec.subject is not None)
        if found:
            score = found[0][1]
            title = f"{problems.capitalize()} set: {score.benchmark.name}, {score.n} problems"
            panels.append(Panel(title, score.metric, tuple(_point(run, score, numbers) for run, score in found)))
    return tuple(panels)


def draw_loss(curves: Sequence[Curve], *, label: str) -> "Figure":
    """Loss, or GRPO's reward, against step, one line a run; that of held-out rows as hollow marks in its colour."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(WIDTH_INCHES, 3.6), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        colour, marker = _look(curve.number)
        steps, losses = zip(*curve.train, strict=True)
        name = _label(curve.run if curve.parent is None else f"{curve.run} (extends {curve.parent})")
        marked = marker if len(steps) <= MARKED_POINTS else ""
        axes.plot(
            steps, losses, color=colour, linewidth=1.5 if marked else 0.8, label=name,
            marker=marked, markersize=4, markevery=slice(curve.shared, None),
        )  # fmt: skip
        if curve.evaluation:
            steps, losses = zip(*curve.evaluation, strict=True)
            # Not filled: an extension's mark may lie on its parent's last one.
            axes.plot(
                steps, losses, linestyle="none", marker=marker, markersize=9, markerfacecolor="none",
                markeredgecolor=colour, markeredgewidth=1.5, zorder=3, label=_label(f"{curve.run}, {HELD_OUT}"),
            )  # fmt: skip
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(label)
    if axes.get_ylim()[0] > 0:
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    _name_curves(figure, axes)
    return figure


def _name_curves(figure: "Figure", axes: "Axes") -> None:
    """The legend: in the corner, or below the curves where there are too many for that; hollow marks then once."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) <= NAMED_INSIDE:
        axes.legend(loc="upper right")
        return
    of_runs = [(line, name) for line, name in zip(handles, labels, strict=True) if not name.endswith(HELD_OUT)]
    if len(of_runs) < len(labels):
        axes.set_title("hollow: held-out rows")
    rows = math.ceil(len(of_runs) / LEGEND_COLUMNS)
    figure.set_figheight(figure.get_figheight() + 0.2 * rows)
    lines, names = zip(*of_runs, strict=True)
    figure.legend(lines, names, loc="outside lower center", ncols=LEGEND_COLUMNS, fontsize=8)


def draw_scores(panels: Sequence[Panel]) -> "Figure":
    """Each score as a mark with its interval, one panel a set, all on one scale."""
    from matplotlib.figure import Figure

    rows = [len(panel.points) for panel in panels]
    figure = Figure(figsize=(WIDTH_INCHES, 0.6 + sum(0.55 + 0.32 * count for count in rows)), layout="constrained")
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=[count + 0.4 for count in rows])
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        _draw_panel(axes, panel)
    last = grid[-1, 0]
    last.set_xlim(0, min(1.0, 1.25 * max(point.high for panel in panels for point in panel.points)))
    last.set_xlabel(_label(f"{panels[-1].metric}, 95 % interval"))
    return figure


def _draw_panel(axes: "Axes", panel: Panel) -> None:
    for row, point in enumerate(panel.points):
        colour, marker = _look(point.number)
        reach = [[point.value - point.low], [point.high - point.value]]
        fill = "white" if point.number is None else colour
        axes.errorbar(
            [point.value], [row], xerr=reach, color=colour, marker=marker, markersize=7, markerfacecolor=fill,
            linewidth=1.5, capsize=3, clip_on=False,
        )  # fmt: skip
        axes.annotate(
            f"{point.value:.3f}", (point.high, row), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes.set_yticks(range(len(panel.points)), [_label(point.label) for point in panel.points])
    axes.set_ylim(len(panel.points) - 0.4, -0.6)
    axes.set_title(_label(panel.title))
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0, pad=9)


def svg(draw: Callable[[], "Figure"], mark: str) -> bytes:
    """What `draw` draws, as a file: same data and same matplotlib, same bytes. `mark` goes into its metadata."""
    import matplotlib.style

    file = io.BytesIO()
    # "default" first: a matplotlibrc of this machine must not show in the report.
    with matplotlib.style.context(["default", _STYLE]):
        draw().savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Identifier": mark})
    return file.getvalue()


def replace_file(path: Path, content: bytes) -> None:
    """Write under another name, wait for the disk, rename: readers see the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


# --- inside ----------------------------------------------------------------------------------------------------------


def _refresh(path: Path, data: object, draw: Callable[[], "Figure"]) -> None:
    """Draw, unless the file was drawn from the same data; the file carries the data's hash."""
    mark = f"hfagent:{hashlib.sha256(repr(data).encode()).hexdigest()[:32]}"
    if path.is_file() and mark.encode() in path.read_bytes():
        return
    content = svg(draw, mark)
    replace_file(path, content)


def _series(run: Run, metric: str) -> tuple[tuple[int, float], ...]:
    """Step and value where the metric was logged; NaN where it was logged as no number."""
    rows = [(point.step, point.values[metric]) for point in run.points if metric in point.values]
    return tuple((step, math.nan if number is None else number) for step, number in rows)


def _drawn(points: int) -> int:
    """How many of a running curve's points are drawn: 1, 2, 3, 4, 5, 7, 9, 12, ... by GROWTH."""
    drawn = 0
    while (more := max(drawn + 1, math.ceil(GROWTH * drawn))) <= points:
        drawn = more
    return drawn


def _point(run: Run, score: Score, numbers: Mapping[str, int]) -> Point:
    low, high = facts.score_interval(score)
    subject = run.spec.subject
    return Point(subject or "base model", None if subject is None else numbers.get(subject, 0), score.value, low, high)


def _look(number: int | None) -> tuple[str, str]:
    """Colour and mark."""
    if number is None:
        return _BASE_COLOUR, "s"
    # Each round of colours has other marks.
    return _COLOURS[number % len(_COLOURS)], _MARKERS[(number + number // len(_COLOURS)) % len(_MARKERS)]


def _label(text: str) -> str:
    """Text that matplotlib does not read as a formula."""
    return plain(text, limit=60).replace("$", r"\$")
