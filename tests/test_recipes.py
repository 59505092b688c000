"""Recipes: every data file is complete and keeps searching and claiming apart."""

from typing import get_args

import pytest

from hfagent.agent.errors import UsageError
from hfagent.agent.goal import parse_goal
from hfagent.agent.recipes import load
from hfagent.agent.records import TaskArea
from hfagent.tools.benchmarks import names


@pytest.mark.parametrize("area", get_args(TaskArea))
def test_every_area_has_a_recipe_that_searches_and_confirms_on_different_problems(area):
    recipe = load(area)
    assert recipe.area == area
    for choices in filter(None, (recipe, recipe.embedded)):
        assert (choices.search.set, choices.confirm.set) == ("search", "confirm")
        assert choices.dataset.id != choices.confirm.name
        assert {guard.name for guard in choices.guards}.isdisjoint({choices.search.name, choices.confirm.name})
        assert {"model", "dataset", "search", "confirm"} <= choices.why.keys()


@pytest.mark.parametrize("area", get_args(TaskArea))
def test_a_goal_that_names_the_recipes_dataset_leads_back_to_its_area(area):
    assert parse_goal(f"train on {load(area).dataset.id}").task_area == area


@pytest.mark.parametrize(("area", "dataset", "other"), [("code", "python", "HumanEval"), ("math", "math", "GSM8K")])
def test_code_and_math_work_offline(area, dataset, other):
    embedded = load(area).embedded
    assert (embedded.model.id, embedded.dataset.id) == (
        "embedded:SmolLM2-135M-Instruct",
        f"embedded:procedural-{dataset}",
    )
    assert other in embedded.notice


@pytest.mark.parametrize("area", get_args(TaskArea))
def test_every_problem_that_a_recipe_names_can_be_had(area):
    recipe = load(area)
    for choices in filter(None, (recipe, recipe.embedded)):
        assert {choices.search.name, choices.confirm.name, *(guard.name for guard in choices.guards)} <= set(names())


def test_an_unknown_area_is_refused_with_the_known_ones():
    with pytest.raises(
        UsageError, match="'maths': did you mean 'math'\\? the areas are code, math, instruction-following"
    ):
        load("maths")
