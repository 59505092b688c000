"""What may leave: models whose gain is confirmed, and files that keep it. Pure."""

from hfagent.agent import estimate, thresholds
from hfagent.agent.claim import claim
from hfagent.agent.records import Record, RunSpec, Score
from hfagent.agent.state import State
from hfagent.agent.verdict import Verdict, compare


class FileCheck(Record):
    """How the answers of an exported file compare on the confirm problems."""

    quantization: str
    score: float
    gain: Verdict
    """The file against the base model; in a pipeline the original one."""
    loss: Verdict
    """The file against the model that it was made from, by `thresholds.FILE_MARGIN`."""

    @property
    def keeps(self) -> bool:
        """Whether the gain is in the file: it is still significantly better than the base model."""
        return self.gain.label == "better"

    @property
    def words(self) -> str:
        """One sentence."""
        lost = f"{100 * self.loss.delta:+.1f} points"
        if not self.keeps:
            return f"the gain is not in the file: {lost} against the model that it was made from"
        if self.loss.label == "better":
            return f"keeps the gain: {lost}, a loss of {100 * thresholds.FILE_MARGIN:.0f} points is excluded"
        if self.loss.label == "worse":
            return f"keeps a part of the gain: {lost}, a loss of over {100 * thresholds.FILE_MARGIN:.0f} points"
        return f"keeps a gain: {lost}, a loss of {100 * thresholds.FILE_MARGIN:.0f} points is not excluded"


def file_check(state: State, exported: str, quantization: str) -> FileCheck | None:
    """What was found about a file; None before its evaluation, or where the model itself was not confirmed."""
    judged = next((run for run in state.runs.values() if _asks(run.spec, exported, quantization)), None)
    stage_base, ours = confirmed_scores(state)
    if judged is None or judged.score is None or stage_base is None or ours is None:
        return None
    score, asked = judged.score, judged.spec.export
    base = stage_base.outcomes if asked is None or asked.original is None else asked.original
    if not score.outcomes.keys() == base.keys() == ours.outcomes.keys():
        return None
    return FileCheck(
        quantization=quantization,
        score=score.value,
        gain=compare(base, score.outcomes, alpha=thresholds.ALPHA),
        loss=compare(ours.outcomes, score.outcomes, alpha=thresholds.ALPHA, margin=-thresholds.FILE_MARGIN),
    )


def confirmed_scores(state: State) -> tuple[Score | None, Score | None]:
    """Of the base model and of the kept one on the confirm set."""
    kept = state.kept
    base, ours = state.scored(None, "confirm"), state.scored(kept, "confirm") if kept is not None else None
    return base.score if base is not None else None, ours.score if ours is not None else None


def check(state: State, spec: RunSpec) -> str | None:
    """Why a run of the release may not be launched: nothing is pushed that the verdict does not carry, unless a person
    says so."""
    export = spec.export
    if state.kept is None or spec.subject != state.kept:
        return "no run was kept: there is no model to export" if state.kept is None else f"{state.kept} was kept"
    if export is not None and export.push is not None and export.judged is None and state.plan.stage is not None:
        above = state.plan.stage.pipeline
        return f"it is a stage of {above!r}, whose claim a push needs: publish that, `hfagent publish {above}`"
    if export is not None and export.push is not None and not export.anyway and export.judged is None:
        made = state.claim or claim(state)
        if made.label != "confirmed_better":
            return (
                f"the gain is not confirmed ({made.label.replace('_', ' ')}: {made.reason}), and nothing is published "
                "that the verdict does not carry; --publish-anyway publishes it with a card that says so"
            )
    if spec.kind == "export":
        return None
    source = state.runs.get(str(spec.exported))
    if source is None or not source.done:
        return f"{spec.exported} has made no files"
    if spec.kind == "verify" or export is None or export.anyway:
        return None
    lost = [name for name in export.quantize if not may_leave(state, source.spec.name, name)]
    return f"{', '.join(lost)}: nobody knows that the file keeps the gain" if lost else None


def may_leave(state: State, exported: str, quantization: str) -> bool:
    """Whether a file may be pushed: it is known to keep the gain."""
    found = file_check(state, exported, quantization)
    return found is not None and found.keeps


def too_slow(state: State, exported: str, quantization: str) -> str | None:
    """Why a file is not evaluated; None where it is."""
    seconds = estimate.file_s(state, exported, quantization)
    if seconds <= thresholds.FILE_LIMIT_S:
        return None
    return f"not evaluated: llama.cpp would take about {seconds / 3600:.0f} h on a processor"


def _asks(spec: RunSpec, exported: str, quantization: str) -> bool:
    return spec.kind == "verify" and (spec.exported, spec.quantization) == (exported, quantization)
