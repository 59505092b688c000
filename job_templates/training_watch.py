"""Watches a training from inside: progress lines, checkpoints and evaluations on time, an end on SIGTERM or NaN."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hfagent.job_templates.runtime import say
from hfagent.job_templates.training import Schedule, Stop, keep_only

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

KEPT = 2
"""Checkpoints beside the one before the decay."""


class Watch(Protocol):
    """What is known when the training has ended."""

    broken: str | None
    """The log value that was no number, and its step; None for a sound run."""

    @property
    def step_s(self) -> float | None:
        """Seconds of a step after the first, which compiles and fills caches; None for a run of one step."""


def progress_line(
    step: int, total: int, logs: dict[str, Any], seconds_per_step: float | None, shown: Sequence[str] = ()
) -> str | None:
    """The line for one logged row, with the metrics that are to be `shown`; None for a row without a loss."""
    if (loss := logs.get("eval_loss")) is not None:
        return f"step {step}/{total} eval_loss {loss:.4f}{_metrics(logs, [f'eval_{name}' for name in shown])}"
    if (loss := logs.get("loss")) is None:
        return None
    speed = "" if seconds_per_step is None else f" {seconds_per_step:.2f} s/step"
    rate = f"lr {logs.get('learning_rate', math.nan):.3g}"
    return f"step {step}/{total} loss {loss:.4f} {rate}{_metrics(logs, shown)}{speed}"


def _metrics(logs: dict[str, Any], names: Sequence[str]) -> str:
    return "".join(f" {name} {logs[name]:.3f}" for name in names if logs.get(name) is not None)


def no_number(logs: dict[str, Any]) -> str | None:
    """The first loss that is NaN or infinite, with its value. An infinite gradient alone is normal in fp16."""
    bad = (name for name in ("loss", "eval_loss") if not math.isfinite(logs.get(name, 0.0)))
    return next((f"{name} {logs[name]}" for name in bad), None)


def finish_kernels() -> None:
    """Wait for what a GPU has yet to do: a step that was only queued has cost no time so far."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def watch(schedule: Schedule, stop: Stop, folder: Path, *, shown: Sequence[str] = ()) -> Watch:
    """The callback for a trainer that writes its checkpoints to `folder`; `shown` metrics stand beside the loss."""
    from transformers import TrainerCallback

    class Watching(TrainerCallback):  # type: ignore[misc]
        broken: str | None = None
        last: tuple[int, float] | None = None
        marks: tuple[tuple[int, float], ...] = ()

        @property
        def step_s(self) -> float | None:
            if len(self.marks) < 2:
                return None
            (first, begun), (last, ended) = self.marks[0], self.marks[-1]
            return (ended - begun) / (last - first)

        def on_step_end(
            self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **_: Any
        ) -> None:
            step = state.global_step
            if not self.marks or step == schedule.total:
                finish_kernels()
                self.marks = (*self.marks, (step, time.monotonic()))
            if step in (schedule.stable, schedule.total) or stop.requested:
                control.should_save = True
            control.should_evaluate = step in schedule.evaluations and not stop.requested
            control.should_training_stop = control.should_training_stop or stop.requested

        def on_log(
            self,
            args: "TrainingArguments",
            state: "TrainerState",
            control: "TrainerControl",
            logs: dict[str, Any],
            **_: Any,
        ) -> None:
            step, now = state.global_step, time.monotonic()
            speed = (now - self.last[1]) / (step - self.last[0]) if self.last and step > self.last[0] else None
            self.last = (step, now)
            if line := progress_line(step, schedule.total, logs, speed, shown):
                say(line)
            if problem := no_number(logs):
                self.broken = f"{problem} at step {step} of {schedule.total}"
                control.should_training_stop = True
                control.should_save = control.should_evaluate = False

        def on_save(
            self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **_: Any
        ) -> None:
            # Trouble is seen some logs after it began: the newest checkpoint may have it, the one before does not.
            saved = sorted(int(path.name.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*"))
            keep_only(folder, (*saved[-KEPT:], state.global_step, schedule.stable))

    return Watching()
