"""The hyperparameters of a plan: the sentence over the method over the recipe. Pure."""

from typing import Any

from hfagent.agent.errors import PlanRejected
from hfagent.agent.goal_numbers import GoalNumbers
from hfagent.agent.method_defaults import defaults
from hfagent.agent.recipes import Choices, Recipe
from hfagent.agent.records import DatasetRef, Method, ModelRef, TrainConfig
from hfagent.agent.space import EFFECTIVE_BATCH, configure

QUICK = {"max_rows": 100, "max_steps": 6}


def training(
    recipe: Recipe,
    method: Method,
    model: ModelRef,
    dataset: DatasetRef,
    numbers: GoalNumbers,
    *,
    embedded: Choices | None,
    seed: int,
    quick: bool,
) -> TrainConfig:
    """The configuration that a plan begins with.

    Args:
        recipe: of the task area.
        method: of the training; its own numbers go before the recipe's.
        model: the base model.
        dataset: the training data.
        numbers: what the sentence says; it goes before all else.
        embedded: the embedded parts, where they stand in for the recipe's.
        seed: of the training.
        quick: a test of a few steps.

    Raises:
        PlanRejected: a batch that the method cannot use.
    """
    changes: dict[str, Any] = {"seed": seed}
    if embedded is not None:
        changes |= _own_parts(recipe, embedded, model, dataset)
    all_embedded = embedded is not None and (model.id, dataset.id) == (embedded.model.id, embedded.dataset.id)
    changes |= defaults(method, model.parameters, embedded=all_embedded)
    train = _as_said(_configured((embedded or recipe).train, changes), numbers)
    return train.model_copy(update=QUICK) if quick else train


def _configured(base: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    train = TrainConfig.model_validate({**base.model_dump(), **changes})
    longest = train.max_completion_length
    if longest is not None and train.max_length <= longest:  # the prompt needs room, too
        train = train.model_copy(update={"max_length": 2 * longest})
    return train


def _as_said(train: TrainConfig, numbers: GoalNumbers) -> TrainConfig:
    """The hyperparameters with those that the sentence says."""
    names = ("max_rows", "num_train_epochs", "max_steps", "learning_rate", "max_length", "lora_r")
    changes = {name: getattr(numbers, name) for name in names} | {EFFECTIVE_BATCH: numbers.batch_size}
    group = train.num_generations
    if group is not None and numbers.batch_size is not None and numbers.batch_size % group:
        raise PlanRejected(
            f"a batch of {numbers.batch_size} completions holds no whole groups of {group}: take a multiple of {group}"
        )
    return configure(train, {name: value for name, value in changes.items() if value is not None})


def _own_parts(recipe: Recipe, embedded: Choices, model: ModelRef, dataset: DatasetRef) -> dict[str, Any]:
    """Hyperparameters that suit the embedded model or data alone give way to the recipe's for a person's own."""
    changes: dict[str, Any] = {}
    if dataset.id != embedded.dataset.id:
        changes |= {
            "max_rows": None,
            "max_length": recipe.train.max_length,
            "eval_fraction": recipe.train.eval_fraction,
        }
    if model.id != embedded.model.id:
        changes |= {"learning_rate": recipe.train.learning_rate}
    return changes
