"""Hyperparameters of a training, and which of them a method has."""

from typing import Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from hfagent.agent.record import Record

Method = Literal["sft", "dpo", "grpo", "kto", "reward", "distillation"]
METHODS: tuple[Method, ...] = get_args(Method)
SAMPLING: tuple[Method, ...] = ("grpo", "distillation")
"""Methods that write completions while they train: each step's are fresh, so nothing is learnt by heart, and those to
held-out prompts, which are drawn anew each time, tell no more than the training's own."""

FIELDS_OF_METHODS: dict[str, tuple[Method, ...]] = {
    "beta": ("dpo", "kto", "grpo", "distillation"),
    "desirable_weight": ("kto",),
    "undesirable_weight": ("kto",),
    "num_generations": ("grpo",),
    "max_completion_length": ("grpo", "distillation"),
    "temperature": ("grpo", "distillation"),
    "reward_funcs": ("grpo",),
}
"""Fields of `TrainConfig` that not every method has -> those that have them."""


class TrainConfig(Record):
    """Hyperparameters of a training run, by the names of transformers, TRL and peft.

    Fields that are None are not given to TRL, whose own default then counts.
    """

    method: Method = "sft"
    num_train_epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; None lets `num_train_epochs` decide."""
    per_device_train_batch_size: int = Field(default=8, ge=1)
    """Rows, pairs (dpo, reward) or completions (grpo, distillation)."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    lr_scheduler_type: Literal["warmup_stable_decay", "constant_with_warmup"] = "warmup_stable_decay"
    """Only schedules that can be extended: a decayed one would jump back up on resume."""
    warmup_steps: int = Field(default=2, ge=0)
    decay_fraction: float = Field(default=0.2, ge=0, lt=1)
    """Share of the steps that decay the learning rate; an extension resumes from the step before them."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_length: int = Field(default=1024, ge=8)
    """Tokens of a row, prompt and completion together."""
    lora_r: int = Field(default=16, ge=1)
    lora_alpha: int = Field(default=32, ge=1)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    max_rows: int | None = Field(default=None, ge=1)
    eval_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of the rows held out for the evaluation loss."""
    logging_steps: int = Field(default=1, ge=1)
    save_steps: int = Field(default=100, ge=1)
    seed: int = 0
    load_in_4bit: bool | None = None
    """The base model quantized by bitsandbytes: a quarter of the memory, on CUDA GPUs only."""
    beta: float | None = Field(default=None, ge=0)
    """How strongly the model is held to where it started; TRL: 0.1 for dpo and kto, 0 for grpo. Of distillation another
    number: what is made small, from 0 (forward KL) to 1 (reverse KL, TRL's)."""
    desirable_weight: float | None = Field(default=None, gt=0)
    undesirable_weight: float | None = Field(default=None, gt=0)
    """Of the losses of good and bad completions; where neither is given, the rarer kind gets the weight that balances
    the two."""
    num_generations: int | None = Field(default=None, ge=2)
    """Completions of a prompt that are compared."""
    max_completion_length: int | None = Field(default=None, ge=1)
    """Tokens of a completion; TRL: 512."""
    temperature: float | None = Field(default=None, gt=0)
    """Of the sampling of completions, and of both distributions of distillation; TRL: 1."""
    reward_funcs: str | None = Field(default=None, min_length=1)
    """Names of `tools/rewards.py` or dotted paths `package.module:function`, each with its weight: `tests_pass:1,
    syntax:0.2`."""

    @field_validator(*FIELDS_OF_METHODS)
    @classmethod
    def _belongs_to_the_method(cls, value: Any, info: ValidationInfo) -> Any:
        method, methods = info.data.get("method"), FIELDS_OF_METHODS[str(info.field_name)]
        if value is not None and method is not None and method not in methods:
            raise ValueError(f"{method} has no {info.field_name}, which belongs to {', '.join(methods)}: leave it out")
        return value

    @property
    def batch(self) -> int:
        """Rows of an optimizer step on one device."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps


def method_fields(method: Method) -> frozenset[str]:
    """The fields of `TrainConfig` that a method has."""
    return frozenset(name for name in TrainConfig.model_fields if method in FIELDS_OF_METHODS.get(name, METHODS))
