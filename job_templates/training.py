"""What the training scripts share: hold-out, schedule, resuming, stopping, and the check of a saved adapter."""

import hashlib
import json
import math
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hfagent.agent.errors import ModelError, UsageError
from hfagent.agent.records import TrainConfig
from hfagent.job_templates.runtime import SIGTERM_EXIT
from hfagent.job_templates.training_args import Row

SAVE_BY_S = 15.0
"""Seconds that a step in progress gets to end after SIGTERM; the runner kills after 20."""
MAX_EVALUATIONS = 8
SAMPLED = 16
"""Values of each tensor in a fingerprint."""
_NOT_THE_MODEL = frozenset(
    {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "id2label", "label2id"}
)
"""Entries of a configuration that differ between equal models."""
_FRESH = "score."
"""Beginning of the names of a head that training adds to the base."""


def hold_out(rows: Sequence[Row], fraction: float) -> tuple[list[Row], list[Row]]:
    """Split into training rows and held-out rows, of which there are `fraction`, at least one unless it is 0.

    The hash of a row's content decides: an extension, another seed or another order holds out the same rows, and
    equal rows never come to both sides.
    """
    if fraction == 0 or len(rows) < 2:
        return list(rows), []
    keys = [hashlib.sha256(json.dumps(row, sort_keys=True, default=str).encode()).hexdigest() for row in rows]
    limit = sorted(keys)[max(round(len(rows) * fraction), 1) - 1]
    train = [row for row, key in zip(rows, keys, strict=True) if key > limit]
    held_out = [row for row, key in zip(rows, keys, strict=True) if key <= limit]
    return (train, held_out) if train else (held_out, [])  # all rows are equal


@dataclass(frozen=True)
class Schedule:
    """Optimizer steps of a run, counted from its first start, and the learning rate of each."""

    total: int
    warmup: int
    decay: int
    evaluations: frozenset[int]
    """Steps after which the held-out loss is taken; the last step is one of them."""

    @property
    def stable(self) -> int:
        """The step after which the learning rate decays: its checkpoint can be continued to any length."""
        return self.total - self.decay

    def factor(self, step: int) -> float:
        """Share of the learning rate for the step after `step` steps: warm-up, stable, half a cosine down.

        As transformers' warmup_stable_decay but for the warm-up, which there starts from 0: a first step that trains
        nothing, 5 % of a run of 20 steps. The decay starts from 1 as there: a checkpoint holds the rate of the step to
        come, and the one at `stable` has to suit a longer run, too.
        """
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if step < self.stable:
            return 1.0
        progress = (step - self.stable) / max(self.decay, 1)
        return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


class Scheduled:
    """Put before a Trainer class: the learning rate follows `schedule`, which is set once the rows are counted."""

    schedule: Schedule

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Called by the Trainer."""
        from torch.optim.lr_scheduler import LambdaLR

        schedule = self.schedule
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda step: schedule.factor(step))  # type: ignore[attr-defined]
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """A checkpoint brings the learning rate of its run along; this run's own is what was asked for."""
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        rate = self.args.learning_rate  # type: ignore[attr-defined]
        scheduler = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)  # accelerate may have wrapped it
        scheduler.base_lrs = [rate] * len(scheduler.base_lrs)
        factor = self.schedule.factor(scheduler.last_epoch)
        for group in self.optimizer.param_groups:  # type: ignore[attr-defined]
            group["initial_lr"], group["lr"] = rate, rate * factor
        scheduler._last_lr = [rate * factor] * len(scheduler.base_lrs)  # what is logged at the first step


def plan_schedule(config: TrainConfig, *, rows: int, batch: int, evaluate: bool = True) -> Schedule:
    """Optimizer steps for `rows` rows, of which each step takes `batch`, over all devices and micro-batches.

    Without rows held out there is nothing to `evaluate`.
    """
    per_epoch = math.ceil(rows / batch)
    total = config.max_steps or math.ceil(config.num_train_epochs * per_epoch)
    decays = config.lr_scheduler_type == "warmup_stable_decay"
    decay = round(config.decay_fraction * total) if decays else 0
    interval = max(math.ceil(per_epoch / 2), math.ceil(total / MAX_EVALUATIONS))
    evaluations = {step for step in range(interval, total, interval) if total - step >= interval / 2}
    evaluations |= {total - decay, total}  # before the decay: there the loss is as an extension will find it
    return Schedule(total, min(config.warmup_steps, total - decay), decay, frozenset(evaluations if evaluate else ()))


@dataclass(frozen=True)
class Checkpoint:
    """A training state on disk, as the Trainer of transformers writes it."""

    folder: Path
    step: int
    planned_steps: int
    """Steps of the run that wrote it."""
    tokens: int
    """Tokens trained on until then."""


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read where a checkpoint stands.

    Raises:
        UsageError: not a checkpoint, or one whose writing was cut off.
    """
    try:
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        return Checkpoint(folder, state["global_step"], state["max_steps"], state["num_input_tokens_seen"])
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"{str(folder)!r} is no checkpoint to resume from, its trainer_state.json cannot be read: {error}; "
            "name a folder checkpoint-N"
        ) from error


def check_resumable(checkpoint: Checkpoint, schedule: Schedule, config: TrainConfig) -> None:
    """Refuse a continuation that would train nothing, or raise a decayed learning rate again.

    Raises:
        UsageError: with the step to resume from or the number of steps to ask for.
    """
    if checkpoint.step >= schedule.total:
        raise UsageError(
            f"{checkpoint.folder.name!r} stands at step {checkpoint.step} of {schedule.total}: nothing is left to "
            "train; raise --max-steps or --num-train-epochs"
        )
    decays = config.lr_scheduler_type == "warmup_stable_decay"
    old_stable = checkpoint.planned_steps - (round(config.decay_fraction * checkpoint.planned_steps) if decays else 0)
    if checkpoint.step > old_stable and checkpoint.planned_steps != schedule.total:
        raise UsageError(
            f"{checkpoint.folder.name!r} lies in the decay of its run, which began after step {old_stable}: its "
            f"learning rate would jump up again; resume from checkpoint-{old_stable}"
        )


@dataclass
class Stop:
    """What SIGTERM does: before and after the training end at once, within it end after the step, with a checkpoint.

    Rows that Trackio still holds in memory are lost when a process ends without `finish`; the end of the training
    calls it, and the deadline here does for a step that takes too long.
    """

    finish: Callable[[], None] = lambda: None
    training: bool = False
    requested: bool = False
    deadline_s: float = SAVE_BY_S
    _timer: threading.Timer | None = field(default=None, repr=False)

    def __call__(self) -> None:
        """Handle the signal."""
        if not self.training:
            sys.exit(SIGTERM_EXIT)
        if not self.requested:
            self.requested = True
            self._timer = threading.Timer(self.deadline_s, self._end)
            self._timer.daemon = True
            self._timer.start()

    def _end(self) -> None:
        self.finish()
        os._exit(SIGTERM_EXIT)


def cut_off(folder: Path, step: int) -> dict[str, Any]:
    """The RESULT of a training that ended without a model: how far it came and the checkpoints that it left."""
    found = {path.name.removeprefix("checkpoint-"): str(path.resolve()) for path in folder.glob("checkpoint-*")}
    return {"steps": step, "checkpoints": dict(sorted(found.items(), key=lambda item: int(item[0])))}


def keep_only(folder: Path, steps: Sequence[int]) -> None:
    """Delete the checkpoints in a folder but those of these steps."""
    import shutil

    for checkpoint in folder.glob("checkpoint-*"):
        if checkpoint.name.removeprefix("checkpoint-") not in map(str, steps):
            shutil.rmtree(checkpoint)


def check_adapter(folder: Path, *, moved: bool = True, why: str = "nothing was learned") -> None:
    """Read a saved adapter back.

    Raises:
        ModelError: it is missing a part, holds NaN or infinity, or was never trained (all of B is still zero), which
            is right where there was nothing to learn from (not `moved`); `why` is told then.
    """
    import torch
    from safetensors.torch import load_file

    try:
        json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError) as error:
        raise ModelError(f"the adapter in {str(folder)!r} cannot be read back: {error}") from error
    broken = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise ModelError(f"the adapter's {broken[0]!r} holds NaN or infinity: lower the learning rate")
    if moved and not any(bool(tensor.any()) for name, tensor in weights.items() if "lora_B" in name):
        raise ModelError(f"{why}: the adapter in {str(folder)!r} equals its start")


def base_fingerprint(model: Any) -> str:
    """Hash of a base model: configuration, names and shapes of its tensors, and `SAMPLED` values of each.

    The same in every process and in fp32 and bf16 alike; a copy in another folder has the same. Quick enough for any
    size, so a change of single weights may go unseen.
    """
    import torch

    config = {key: value for key, value in model.config.to_diff_dict().items() if key not in _NOT_THE_MODEL}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.named_parameters()):
        if name.startswith(_FRESH):
            continue
        values = tensor.detach().reshape(-1)
        places = torch.linspace(0, max(values.numel() - 1, 0), min(SAMPLED, values.numel()), dtype=torch.float64)
        sample = values[places.long().to(values.device)].to(torch.bfloat16).float().tolist()
        digest.update(f"{name} {tuple(tensor.shape)} {sample}\n".encode())
    return digest.hexdigest()[:16]


def weight_change(model: Any) -> float | None:
    """Norm of the adapter's update over the norm of the matrices that it updates; None if it is no finite number.

    ||BA||^2 is the trace of (B'B)(AA'), so the product of full size is never built.
    """
    from peft.utils.integrations import dequantize_module_weight

    update = base = 0.0
    for module in model.modules():
        for name, b in getattr(module, "lora_B", {}).items():
            b, a = b.weight.detach().float(), module.lora_A[name].weight.detach().float()
            update += module.scaling[name] ** 2 * float(((b.T @ b) * (a @ a.T)).sum())
            base += float(dequantize_module_weight(module.get_base_layer()).detach().float().square().sum())
    change = math.sqrt(max(update, 0.0) / base) if base and math.isfinite(update) else math.nan
    return change if math.isfinite(change) else None


def weight_facts(model: Any, adapter: Path) -> dict[str, Any]:
    """Which base model was trained and how far, for `hfagent.agent.integrity`."""
    base = model.get_base_model()
    saved = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return {
        "base_model": base.name_or_path,
        "base_revision": getattr(base.config, "_commit_hash", None),
        "adapter_base_model": saved["base_model_name_or_path"],
        "weight_change": weight_change(model),
    }
