"""Defaults of the methods: each is a configuration that can be trained, and fields keep to their methods."""

import pytest
from pydantic import ValidationError

from hfagent.agent.method_defaults import defaults, generation
from hfagent.agent.records import Method, TrainConfig
from hfagent.agent.train_config import FIELDS_OF_METHODS, METHODS, method_fields

VALUES = {"reward_funcs": "tests_pass:1", "num_generations": 4, "max_completion_length": 64}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("parameters", [None, 135_000_000, 8_000_000_000])
@pytest.mark.parametrize("embedded", [True, False])
def test_every_method_has_defaults_that_make_a_configuration(
    method: Method, parameters: int | None, embedded: bool
) -> None:
    config = TrainConfig.model_validate(defaults(method, parameters, embedded=embedded))
    assert config.method == method
    if method == "grpo":
        assert config.batch % (config.num_generations or 0) == 0
    if method == "kto":
        assert config.per_device_train_batch_size > 1


def test_larger_models_train_by_smaller_micro_batches_of_the_same_effective_batch() -> None:
    small, large = (TrainConfig.model_validate(defaults("dpo", n, embedded=False)) for n in (10**8, 8 * 10**9))
    assert small.per_device_train_batch_size > large.per_device_train_batch_size
    assert small.batch == large.batch


def test_sft_keeps_what_the_recipe_says() -> None:
    assert defaults("sft", None, embedded=True) == {}


@pytest.mark.parametrize(("field", "methods"), FIELDS_OF_METHODS.items())
def test_a_field_of_another_method_is_refused_with_the_methods_that_have_it(
    field: str, methods: tuple[Method, ...]
) -> None:
    value = VALUES.get(field, 0.5)
    for method in METHODS:
        if method in methods:
            assert getattr(TrainConfig.model_validate({"method": method, field: value}), field) == value
            assert field in method_fields(method)
        else:
            with pytest.raises(ValidationError, match=f"{method} has no {field}, which belongs to {methods[0]}"):
                TrainConfig.model_validate({"method": method, field: value})


def test_generated_data_is_drawn_more_than_once_for_a_prompt() -> None:
    assert all(generation(embedded=embedded).num_samples > 1 for embedded in (True, False))
