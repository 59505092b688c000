import ast
import builtins
import json
import random
import re
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hfagent.agent.errors import DatasetError, UsageError
from hfagent.agent.integrity import ContaminationReport
from hfagent.agent.records import BenchmarkRef, DatasetRef
from hfagent.tools import benchmarks
from hfagent.tools.code_signature import functions
from hfagent.tools.contamination import Firewall, check, cleaned
from hfagent.tools.contamination_text import code_pieces, texts
from hfagent.tools.problem import Problem
from hfagent.tools.procedural_python import train_rows

HUMANEVAL = BenchmarkRef(name="openai_humaneval", set="confirm")


def procedural(seed: int, n: int = 200) -> list[BenchmarkRef]:
    return [BenchmarkRef(name="procedural_python", set=s, n=n, seed=seed) for s in ("search", "confirm")]


problems = cache(benchmarks.problems)


def report(rows: Any, made: list[BenchmarkRef], *, name: str = "org/data", split: str = "train") -> Any:
    held = [problem for benchmark in made for problem in problems(benchmark)]
    return check(rows, held, dataset_id=name, benchmarks=made, split=split)


@cache
def library() -> list[str]:
    """Functions of Python's standard library, as natural code."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for path in sorted(folder.glob("[abc]*.py")):
        text = path.read_text(encoding="utf-8")
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        found += ["\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno]) for node in nodes]
    return random.Random(0).sample(found, 300)


# --- disguises, written apart from the code under test ---------------------------------------------------------------


class Renamer(ast.NodeTransformer):
    """Another name for everything but builtins and attributes."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}

    def new(self, name: str) -> str:
        return name if hasattr(builtins, name) else self.names.setdefault(name, f"my_{len(self.names)}_thing")

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.new(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self.names.setdefault(node.arg, f"my_{len(self.names)}_thing"))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = self.new(node.name)
        return self.generic_visit(node)


def renamed(source: str) -> tuple[str, dict[str, str]]:
    renamer = Renamer()
    for node in ast.walk(tree := ast.parse(source)):  # parameters first: one may be called as a builtin is
        if isinstance(node, ast.arg):
            renamer.names.setdefault(node.arg, f"my_{len(renamer.names)}_thing")
    renamer.visit_Name = lambda node: ast.Name(renamer.names.get(node.id) or renamer.new(node.id), node.ctx)  # type: ignore[method-assign]
    return ast.unparse(renamer.visit(tree)), renamer.names


def reworded(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:]
            node.body.insert(0, ast.Expr(ast.Constant("Work out what was asked for and hand it back.")))
    return re.sub(r"\n( +return\b)", r"\n    # here comes the result\n\1", ast.unparse(tree))


def verbatim_row(problem: Problem) -> dict[str, Any]:
    return {"prompt": problem.prompt, "completion": problem.solution}


def renamed_row(problem: Problem) -> dict[str, Any]:
    code, names = renamed(problem.solution)
    prompt = re.sub(r"\w+", lambda match: names.get(match[0], match[0]), problem.prompt)
    return {
        "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": f"```python\n{code}\n```"}]
    }


def reworded_row(problem: Problem) -> dict[str, Any]:
    return {"text": f"Please help me with my code.\n\n```python\n{reworded(problem.solution)}\n```\nIt works."}


def edited_row(problem: Problem) -> dict[str, Any]:
    """Renamed, reworded, and one statement more."""
    tree = ast.parse(reworded(renamed(problem.solution)[0]))
    function = [node for node in tree.body if isinstance(node, ast.FunctionDef)][-1]
    function.body.insert(1, ast.parse("calls = 0").body[0])
    return {"text": ast.unparse(tree)}


DISGUISES: dict[str, Callable[[Problem], dict[str, Any]]] = {
    "verbatim": verbatim_row,
    "renamed": renamed_row,
    "reworded": reworded_row,
}


def recall(
    made: list[BenchmarkRef], clean: list[dict[str, Any]], disguise: Callable[[Problem], dict[str, Any]]
) -> float:
    """Share of the planted problems that are found in the rows they were planted in; nothing else may be flagged."""
    held = [problem for benchmark in made for problem in problems(benchmark)]
    rows = [*clean, *map(disguise, held)]
    order = random.Random(1).sample(range(len(rows)), len(rows))
    found = report([rows[place] for place in order], made)
    flagged = {order[place] for place in found.flagged}
    assert len(flagged & set(range(len(clean)))) < max(0.01 * len(clean), 1)
    return len([place for place in flagged if place >= len(clean)]) / len(held)


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("made", [[HUMANEVAL], procedural(0, 50)], ids=["humaneval", "procedural"])
def test_planted_problems_are_found(made: list[BenchmarkRef], disguise: str) -> None:
    clean = [*train_rows(150, 0), *({"text": text} for text in library())]
    assert recall(made, clean, DISGUISES[disguise]) >= 0.95


def test_a_copy_edited_besides_is_still_found_where_it_is_long_enough() -> None:
    held = [problem for problem in problems(HUMANEVAL) if len(problem.solution) - len(problem.prefix) > 400]
    found = check(map(edited_row, held), held, dataset_id="org/data", benchmarks=[HUMANEVAL])
    assert len(found.flagged) >= 0.9 * len(held)
    assert found.hit_counts.keys() == {"minhash"}


@pytest.mark.parametrize("seed", range(5))
def test_training_tasks_of_the_same_family_are_clean(seed: int) -> None:
    found = report(train_rows(100, seed), procedural(seed, 60))
    assert (found.verdict, found.flagged, found.hits) == ("clean", (), ())


def test_natural_code_is_hardly_ever_flagged() -> None:
    found = report(({"text": text} for text in library()), [HUMANEVAL])
    assert found.rows == 300
    assert len(found.flagged) < 3


# --- where code is found ---------------------------------------------------------------------------------------------

PROBLEM = problems(HUMANEVAL)[0]


def small(rows: Any, *, name: str = "org/data", split: str = "train") -> ContaminationReport:
    """Against one problem, and those with names and bodies that anyone could write."""
    held = [problem for problem in problems(HUMANEVAL) if problem.id in {"HumanEval/23", "HumanEval/53"}]
    return check(rows, [PROBLEM, *held], dataset_id=name, benchmarks=[HUMANEVAL], split=split)


def shapes() -> Iterator[Any]:
    code = reworded(PROBLEM.solution)
    head, body = code.split('back."""\n', 1)
    head += 'back."""'
    yield {"text": f"Sure!\n\n```py\n{code}\n```"}
    yield {"text": f"Sure! Here it is:\n\n{code}\nThat is all, isn't it?"}
    yield {"text": f"```python\n{code}"}
    yield {"prompt": head, "completion": body}
    yield {"messages": [{"role": "user", "content": f"```python\n{head}\n```"}, {"role": "assistant", "content": body}]}
    yield {"messages": [{"role": "user", "content": [{"type": "text", "text": code}]}]}
    yield {"conversations": json.dumps([{"from": "gpt", "value": code}])}
    yield {"id": 3, "data": {"deep": [[{"er": code}]]}}
    yield {"text": code.replace("\n", "\r\n")}
    yield {"text": code.replace("\n", "\\n")}
    yield {"text": "class Solution:\n" + re.sub("^", "    ", code.partition("\n\n")[2] or code, flags=re.MULTILINE)}
    yield {"text": code.encode()}
    yield {"text": f"```\nprint('hello')\n```\n\n{code}"}


@pytest.mark.parametrize("row", [*shapes()], ids=lambda row: str(row)[:30])
def test_code_is_found_in_every_shape_of_a_row(row: Any) -> None:
    assert small([{"text": "a row before"}, row]).flagged == (1,)


def test_a_statement_alone_is_found_by_its_words() -> None:
    statement = re.sub(r"^.*def .*\n", "", PROBLEM.prefix, flags=re.MULTILINE)
    found = small([{"prompt": f"Hello. {statement} Thanks!", "completion": "I do not know."}])
    assert [(hit.problem, hit.layer) for hit in found.hits] == [(PROBLEM.id, "ngram")]


def test_a_rewritten_solution_under_the_old_name_is_found_with_a_second_sign() -> None:
    own = "def has_close_elements(numbers, threshold):\n    raise NotImplementedError('later')\n"
    assert small([{"text": own}]).hit_counts == {"entry_point": 1}


def test_a_common_name_alone_is_no_evidence() -> None:
    found = small([{"text": "def add(left, right):\n    print(left, right)\n    return str(left) + right\n"}])
    assert (found.verdict, set(found.ignored)) == ("clean", {"the name of an entry point"})


def test_a_tiny_function_is_no_evidence_without_the_name() -> None:
    assert small([{"text": "def length(text: str) -> int:\n    return len(text)\n"}]).verdict == "clean"


def test_copies_repeated_over_and_over_are_no_boilerplate() -> None:
    found = small([verbatim_row(PROBLEM)] * 100 + [{"text": "x"}])
    assert (len(found.flagged), found.hit_counts["ngram"], len(found.hits)) == (100, 100, 100)


# --- the report ------------------------------------------------------------------------------------------------------


def test_the_report_shows_of_a_problem_only_its_id() -> None:
    row = {"text": reworded(renamed(PROBLEM.solution)[0])}
    found = small([row])
    secret = " ".join(PROBLEM.prefix.split()[-12:])
    assert found.hits
    assert secret not in found.model_dump_json()
    assert all(len(hit.evidence) <= 200 and hit.evidence[:30] in " ".join(row["text"].split()) for hit in found.hits)
    assert PROBLEM.solution not in PROBLEM.model_dump_json()
    assert ContaminationReport.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("name", "split", "verdict"),
    [
        ("openai/openai_humaneval", "test", "denied"),
        ("evalplus/humanevalplus", "train", "denied"),
        ("someone/OpenAI-HumanEval_custom", "train", "denied"),
        ("nuprl/MultiPL-E", "test", "denied"),
        ("/data/openai_humaneval/test.jsonl", "train", "denied"),
        ("openai/gsm8k", "test", "clean"),
        ("google-research-datasets/mbpp", "test", "clean"),
        ("open-r1/codeforces-cots", "train", "clean"),
    ],
)
def test_a_benchmark_s_copies_are_denied_by_name_where_it_is_the_one_at_hand(
    name: str, split: str, verdict: str
) -> None:
    assert small([{"text": "harmless"}], name=name, split=split).verdict == verdict


def test_a_denied_dataset_is_not_cleaned() -> None:
    rows = [{"text": "harmless"}]
    with pytest.raises(DatasetError, match="is a benchmark by its name"):
        list(cleaned(rows, small(rows, name="x/humaneval-fork")))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (None, "row 1 of 'org/data' is NoneType"),
        ("text", "row 1 of 'org/data' is str"),
        ({}, "without columns"),
        ({"input_ids": [1, 2, 3]}, "no text"),
        ({"text": b"\xff\xfe\xff"}, "not UTF-8"),
    ],
)
def test_a_row_that_cannot_be_read_is_an_error_and_not_clean(row: Any, said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        small([{"text": "fine"}, row])


def test_json_without_text_is_a_text_itself() -> None:
    assert texts({"answer": "[1, 2]"}, where="row") == ["[1, 2]"]


def test_a_row_without_anything_trains_nothing() -> None:
    assert small([{"text": None, "tags": []}, {"text": "  "}]).verdict == "clean"


def test_no_rows_and_no_problems_are_errors() -> None:
    with pytest.raises(DatasetError, match="has no rows"):
        small([])
    with pytest.raises(UsageError, match="no benchmark problems"):
        check([{"text": "x"}], [], dataset_id="d", benchmarks=[HUMANEVAL])


def test_cleaning_leaves_exactly_the_other_rows_and_notices_other_data() -> None:
    rows = [{"text": "a"}, verbatim_row(PROBLEM), {"text": "b"}]
    found = small(rows)
    assert list(cleaned(rows, found)) == [{"text": "a"}, {"text": "b"}]
    with pytest.raises(DatasetError, match="3 were checked"):
        list(cleaned(rows[:2], found))


def test_the_firewall_reads_a_file_and_writes_a_clean_copy(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in [{"text": "a"}, verbatim_row(PROBLEM), {"text": "b"}]))
    firewall, ref = Firewall(tmp_path / "state"), DatasetRef(id=str(data))
    found = firewall.check(ref, name="my-data", benchmarks=[HUMANEVAL, *procedural(0, 20)])
    assert (found.verdict, found.flagged, found.rows, found.problems) == ("contaminated", (1,), 3, 204)
    assert found.benchmarks == ("openai_humaneval/confirm", "procedural_python/search", "procedural_python/confirm")
    copy = firewall.clean(ref, found)
    assert [json.loads(line) for line in Path(copy.id).read_text().splitlines()] == [{"text": "a"}, {"text": "b"}]
    assert firewall.check(copy, name="my-data", benchmarks=[HUMANEVAL]).verdict == "clean"
    assert firewall.clean(ref, found) == copy
    assert firewall.check(ref, name="my-data", benchmarks=[HUMANEVAL], max_rows=1).rows == 1


def test_nothing_is_written_where_every_row_is_a_copy(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps(verbatim_row(PROBLEM)) + "\n")
    ref = DatasetRef(id=str(data))
    with pytest.raises(DatasetError, match="every row"):
        Firewall(tmp_path).clean(ref, Firewall(tmp_path).check(ref, name="d", benchmarks=[HUMANEVAL]))


# --- signatures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("def f(a: int) -> int:\n    '''doc'''\n    return a + 1", "def g(b): return (b+1)  # so", True),
        ("def f(a):\n    x: int = a\n    return x", "def f(b):\n    y = b\n    return y", True),
        ("def f(list):\n    return list", "def f(x):\n    return x", True),
        ("def f(a):\n    return sum(a)", "def f(a):\n    return max(a)", False),
        ("def f(a):\n    return a.upper()", "def f(a):\n    return a.lower()", False),
        ("def f(a):\n    return a + 1", "def f(a):\n    return a + 2", False),
        ("def f(a, b):\n    return a - b", "def f(a, b):\n    return b - a", False),
        ("def f(a):\n    if a:\n        g()\n    h()", "def f(a):\n    if a:\n        g()\n        h()", False),
    ],
)
def test_digests_see_through_names_and_comments_and_nothing_else(one: str, other: str, equal: bool) -> None:
    assert (functions(one)[0].digest == functions(other)[0].digest) == equal


def test_renaming_never_changes_a_digest_and_parsing_survives_anything() -> None:
    for text in library():
        dedented = functions(text)
        if not dedented or re.search(r".(def|class|except|import|global|nonlocal) ", text[10:]):
            continue
        assert functions(renamed(dedented[0].source)[0])[0].digest == dedented[0].digest
    assert functions(f"def f(x):\n    return {' + '.join(['x'] * 3000)}") == []
    noise = random.Random(0)
    for text in library()[:100]:
        functions("".join(noise.sample(text, len(text))))
        code_pieces(texts({"text": text[: noise.randrange(len(text))]}, where="row"))
