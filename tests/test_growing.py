"""Sequences and mappings that share their items, and the fold that is made of them."""

import time
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nights import PLAN, Night

from hfagent.agent.events import MetricsLogged
from hfagent.agent.folding import fold
from hfagent.agent.growing import LAYER, Growing, Layered
from hfagent.agent.records import MetricPoint, RunSpec


def test_a_longer_sequence_leaves_the_shorter_one_as_it_was() -> None:
    short = Growing([1, 2])
    one, other = short.plus(3), short.plus(4, 5)
    assert (list(short), list(one), list(other)) == ([1, 2], [1, 2, 3], [1, 2, 4, 5])
    assert (other[-1], other[1:3], other[::-1], len(one)) == (5, [2, 4], [5, 4, 2, 1], 3)
    assert list(other.first(1).plus(9)) == [1, 9]
    assert list(other) == [1, 2, 4, 5]
    assert (one == (1, 2, 3), one == Growing([1, 2, 3]), one == other) == (True, True, False)
    with pytest.raises(IndexError):
        short[2]


@given(st.lists(st.tuples(st.integers(0, 3 * LAYER).map(str), st.integers())))
def test_a_layered_mapping_is_a_dict_that_remembers(changes: list[tuple[str, int]]) -> None:
    mapping: Layered[int] = Layered()
    expected: dict[str, int] = {}
    earlier = []
    for key, value in changes:
        earlier.append((mapping, dict(expected)))
        mapping, expected = mapping.plus(key, value), {**expected, key: value}
    for found, told in [*earlier, (mapping, expected)]:
        assert list(found.items()) == list(told.items())
        assert list(reversed(found)) == list(reversed(told))
        assert (len(found), set(found)) == (len(told), set(told))
        assert all(key in found and found[key] == told[key] for key in told)
    assert "none" not in mapping


def test_rows_of_a_step_are_merged_wherever_they_come() -> None:
    night = Night(PLAN)
    night.prepare()
    night.begin(RunSpec(name="sft-01", kind="train", why="w", train=PLAN.train))
    for steps in ((1, 2), (3,), (3, 4), (2,), (6, 5)):
        points = tuple(MetricPoint(step=step, values={f"m{len(steps)}": float(step)}) for step in steps)
        night.add(MetricsLogged(run="sft-01", points=points))
    state = fold(night.events)
    assert state is not None
    assert [(point.step, set(point.values)) for point in state.runs["sft-01"].points] == [
        (1, {"m2"}), (2, {"m1", "m2"}), (3, {"m1", "m2"}), (4, {"m2"}), (5, {"m2"}), (6, {"m2"}),
    ]  # fmt: skip


@pytest.mark.parametrize(("runs", "rows"), [(400, 50), (2, 10_000)])
def test_a_long_ledger_is_folded_in_time_by_its_length(runs: int, rows: int) -> None:
    night = Night(PLAN)
    night.prepare()
    for number in range(runs):
        key = night.begin(RunSpec(name=f"sft-{number}", kind="train", why="w", train=PLAN.train))
        for step in range(1, rows + 1):
            night.at += timedelta(seconds=2)
            point = MetricPoint(step=step, values={"train/loss": 2.0})
            night.add(MetricsLogged(run=f"sft-{number}", points=(point,)))
        night.end(key, seconds=60)
    begun = time.process_time()
    state = fold(night.events)
    assert time.process_time() - begun < 1.0  # 0.15 s; by copies 2 s and 40 s
    assert state is not None
    assert len(state.runs["sft-1"].points) == rows
