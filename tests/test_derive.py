"""Columns renamed into a dataset of their own, with the recipe."""

import json
from pathlib import Path

import pytest

from hfagent.agent.errors import DatasetError
from hfagent.agent.records import DatasetRef
from hfagent.tools.dataset_read import load_rows
from hfagent.tools.derive import rename_columns

ROWS = [{"prompt": f"q{n}", "good_response": f"good {n}", "bad_response": f"bad {n}", "source": "x"} for n in range(5)]


@pytest.fixture
def data(tmp_path: Path) -> DatasetRef:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return DatasetRef(id=str(path))


def test_the_renamed_rows_and_the_recipe_are_written_and_the_source_stays(tmp_path: Path, data: DatasetRef) -> None:
    before = Path(data.id).read_bytes()
    made = rename_columns(data, {"good_response": "chosen", "bad_response": "rejected"}, tmp_path / "out")
    rows = load_rows(DatasetRef(id=made.path), limit=None).rows
    assert rows[3] == {"prompt": "q3", "source": "x", "chosen": "good 3", "rejected": "bad 3"}
    recipe = json.loads(Path(made.recipe).read_text())
    assert recipe["rename_columns"] == {"good_response": "chosen", "bad_response": "rejected"}
    assert (recipe["rows"], made.rows) == (5, 5)
    assert Path(data.id).read_bytes() == before


def test_the_same_request_gives_the_same_file(tmp_path: Path, data: DatasetRef) -> None:
    first, second = (rename_columns(data, {"source": "origin"}, tmp_path / "out") for _ in range(2))
    assert first == second


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, data: DatasetRef) -> None:
    with pytest.raises(DatasetError, match="no column 'best'; its columns are prompt, good_response"):
        rename_columns(data, {"best": "chosen"}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
