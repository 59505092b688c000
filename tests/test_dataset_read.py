"""Reading datasets: files, folders, a saved dataset, and a Hub of our own on this machine."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hfagent.agent.errors import DatasetError
from hfagent.agent.records import DatasetRef, ModelRef
from hfagent.tools.dataset_files import read_file
from hfagent.tools.dataset_read import DatasetReader, load_rows

CHAT = [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def read(path: Path, **options: Any) -> list[dict[str, Any]]:
    return load_rows(DatasetRef(id=str(path), **options), limit=None).rows


def refusal(path: Path | str, **options: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        load_rows(DatasetRef(id=str(path), **options), limit=None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"q": "a", "ok": true}\n\n{"q": "b", "ok": false}\n'),
        ("a.json", '[{"q": "a", "ok": true}, {"q": "b", "ok": false}]'),
        ("a.json", '{"data": [{"q": "a", "ok": true}, {"q": "b", "ok": false}]}'),
        ("a.json", '{"q": "a", "ok": true}\n{"q": "b", "ok": false}\n'),
        ("a.csv", "q,ok\na,true\nb,False\n"),
        ("a.csv", '\ufeffq,ok\r\n"a",true\r\nb,False\r\n'),
    ],
)
def test_text_formats_give_the_same_rows(tmp_path: Path, name: str, text: str) -> None:
    assert read(write(tmp_path / name, text)) == [{"q": "a", "ok": True}, {"q": "b", "ok": False}]


def test_csv_keeps_numbers_and_long_fields_as_text(tmp_path: Path) -> None:
    long = "w " * 100_000
    assert read(write(tmp_path / "a.csv", f'q,a\n"{long}",72\n')) == [{"q": long, "a": "72"}]


def test_parquet_and_column_types(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"messages": CHAT, "id": 1, "s": "a"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = load_rows(DatasetRef(id=str(tmp_path / "a.parquet")), limit=None)
    assert found.rows == rows
    assert found.columns["id"] == "int64"
    assert found.columns["s"] == "string"
    assert found.columns["messages"].startswith("List(")


def test_a_column_that_arrow_refuses_is_mixed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", lines({"a": "x", "b": 1}, {"a": [1], "b": 2}))
    assert load_rows(DatasetRef(id=str(path)), limit=None).columns == {"a": "mixed", "b": "int64"}


def test_the_head_or_an_even_spread(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", lines(*({"i": i} for i in range(1001))))
    head = load_rows(DatasetRef(id=str(path)), limit=10)
    spread = load_rows(DatasetRef(id=str(path)), limit=10, spread=True)
    assert ([row["i"] for row in head.rows], head.total) == (list(range(10)), 1001)
    places = [row["i"] for row in spread.rows]
    assert (len(places), places[0], spread.total) == (10, 0, 1001)
    assert places[-1] >= 850
    assert max(b - a for a, b in pairwise(places)) <= 200


def test_a_folder_has_splits_by_the_names_in_it(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train-00000.jsonl", lines({"t": "a"}))
    write(tmp_path / "data" / "train-00001.jsonl", lines({"t": "b"}))
    write(tmp_path / "dev" / "rows.json", '[{"t": "c"}]')
    write(tmp_path / "README.md", "words")
    write(tmp_path / ".cache" / "train.jsonl", "broken")
    assert read(tmp_path) == [{"t": "a"}, {"t": "b"}]
    assert read(tmp_path, split="validation") == [{"t": "c"}]
    assert refusal(tmp_path, split="test").endswith("has no split 'test'; it has 'train', 'validation'")


def test_a_folder_without_split_names_is_train_and_configs_are_folders(tmp_path: Path) -> None:
    write(tmp_path / "easy" / "rows.jsonl", lines({"t": "a"}))
    write(tmp_path / "hard" / "rows.jsonl", lines({"t": "b"}))
    write(tmp_path / "dataset_infos.json", '{"default": {}}')
    assert read(tmp_path) == [{"t": "a"}, {"t": "b"}]
    assert read(tmp_path, config="hard") == [{"t": "b"}]
    assert "no config 'odd'" in refusal(tmp_path, config="odd")


def test_a_saved_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list([{"messages": CHAT, "i": i} for i in range(6)])
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": data, "extra": data}).save_to_disk(str(tmp_path / "two"))
    found = load_rows(DatasetRef(id=str(tmp_path / "one")), limit=3, spread=True)
    assert ([row["i"] for row in found.rows], found.total, found.columns["i"]) == ([0, 2, 4], 6, "int64")
    assert len(read(tmp_path / "two", split="extra")) == 6
    assert refusal(tmp_path / "two", split="test").endswith("it has 'extra', 'train'")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"t": "a"}\n{"t": \n', "a.jsonl', line 2 is not JSON"),
        ("a.jsonl", '{"t": "a\x01"}\n', "is not JSON: Invalid control character at column 9; mend"),
        ("a.json", '[{"t": "a}]', "line 1 is not JSON: Unterminated string starting at column 8"),
        ("a.jsonl", '{"t": "a"}\n[1]\n', "a.jsonl', line 2 holds list"),
        ("a.json", '[{"t": "a"},\n {"t" "b"}]', "a.json', line 2 is not JSON"),
        ("a.json", '"words"', "holds str"),
        ("a.json", '[{"t": "a"}, 3]', "item 2 holds int"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", "a.csv', line 3 does not have the 2 fields"),
        ("a.csv", "a,b\n1\n", "a.csv', line 2 does not have the 2 fields"),
        ("a.jsonl", "\n\n", "has no rows"),
        ("a.json", "", "has no rows"),
        ("a.csv", "a,b\n", "has no rows"),
        ("a.parquet", "words", "is not Parquet"),
        ("a.xlsx", "words", "the known formats are .jsonl"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    assert message in refusal(write(tmp_path / name, text))


def test_a_broken_line_is_found_beyond_the_sample(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", lines(*({"text": "a"} for _ in range(50))) + "{broken\n")
    with pytest.raises(DatasetError, match="line 51"):
        load_rows(DatasetRef(id=str(path)), limit=5)


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin.jsonl").write_bytes('{"t": "\xe9"}'.encode("latin-1"))
    one = write(tmp_path / "a.jsonl", lines({"t": "a"}))
    assert "no file or folder" in refusal(tmp_path / "nothing.jsonl")
    assert "no file or folder" in refusal("./nothing")
    assert "no data files" in refusal(tmp_path / "empty")
    assert "is one file and so one split, 'train'" in refusal(one, split="test")
    assert "is not UTF-8" in refusal(tmp_path / "latin.jsonl")
    assert "dataset store" in refusal("embedded:procedural-python")
    assert "File name too long" in refusal("x" * 5000)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "no file or folder" in refusal(tmp_path / "loop")


def test_an_error_of_the_system_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "odd.jsonl").mkdir()
    with pytest.raises(DatasetError, match=r"cannot read '.*odd\.jsonl': Is a directory"):
        list(read_file(tmp_path / "odd.jsonl"))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser reads everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", lines({"t": "a"}))
    path.chmod(0)
    assert "Permission denied" in refusal(path)


class WordTokenizer:
    chat_template = "{{ messages }}"

    def __call__(self, text: str, *, add_special_tokens: bool, verbose: bool) -> dict[str, list[int]]:
        return {"input_ids": [0] * len(text.split())}


def test_the_reader_judges_a_spread_sample_with_the_models_tokenizer(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", lines(*({"messages": CHAT, "i": i} for i in range(30))))
    reader = DatasetReader(10, load_tokenizer=lambda model: WordTokenizer())
    report = reader.check(DatasetRef(id=str(path)), model=ModelRef(id="org/model"), max_length=2)
    assert (report.rows, report.sampled, report.token_lengths) == (30, 10, {"p50": 3, "p95": 3, "max": 3})
    assert report.methods["sft"].verdict == "READY"
    assert "10 of 10 rows are cut at max_length=2" in report.methods["sft"].warnings[0]
    assert reader.check(DatasetRef(id=str(path)), model=None, max_length=2).token_lengths is None


HUB: dict[str, dict[str, str]] = {
    "org/plain": {"train.jsonl": lines(*({"text": str(i)} for i in range(20)))},
    "org/counted": {
        "README.md": "---\ndataset_info:\n  features:\n  - name: text\n    dtype: string\n  splits:\n"
        "  - name: train\n    num_examples: 20\n---\n",
        "train.jsonl": lines(*({"text": str(i)} for i in range(20))),
    },
    "org/many": {
        "README.md": "---\nconfigs:\n- config_name: easy\n  data_files: easy/*.jsonl\n"
        "- config_name: hard\n  data_files: hard/*.jsonl\n---\n",
        "easy/train.jsonl": lines({"text": "a"}),
        "hard/train.jsonl": lines({"text": "b"}),
    },
}
SHA = "0" * 40


class Hub(BaseHTTPRequestHandler):
    """The requests that `load_dataset` makes; `org/gated` refuses, all else is not found."""

    def log_message(self, format: str, *values: Any) -> None:  # noqa: A002 - the name in the standard library
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(200, [])

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        repo = "/".join(path.removeprefix("/api").removeprefix("/datasets/").split("/")[:2])
        files = HUB.get(repo)
        if repo == "org/gated":
            self.answer(403 if "/resolve/" in path else 200, {"id": repo, "sha": SHA, "siblings": []}, "GatedRepo")
        elif files is None:
            self.answer(404, {}, "RepoNotFound")
        elif "/tree/" in path:
            folder = path.split(f"/tree/{SHA}")[-1].strip("/")
            found = [Path(name) for name in files if name.startswith(folder)]
            entries = [{"type": "file", "path": str(name), "size": len(files[str(name)]), "oid": "0"} for name in found]
            parents = {str(name.parent) for name in found} - {".", folder}
            entries += [{"type": "directory", "path": name, "oid": "0"} for name in parents]
            self.answer(200 if found else 404, entries, "EntryNotFound")
        elif "/resolve/" in path:
            name = path.split("/resolve/")[1].split("/", 1)[1]
            self.answer(200 if name in files else 404, files.get(name, ""), "EntryNotFound")
        else:
            siblings = [{"rfilename": name} for name in files]
            self.answer(200, {"id": repo, "sha": SHA, "siblings": siblings, "private": False, "tags": []})

    def answer(self, status: int, body: Any, error: str = "") -> None:
        if status >= 400:
            body = {"error": error}
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        asked = self.headers.get("Range", "")
        if status == 200 and asked.startswith("bytes="):
            first, last = asked.removeprefix("bytes=").split("-")
            status, data = 206, data[int(first) : int(last) + 1 if last else None]
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", SHA)
        self.send_header("ETag", f'"{abs(hash(self.path))}"')
        if status >= 400:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


SCRIPT = """
import json, sys
from hfagent.agent.errors import DatasetError
from hfagent.agent.records import DatasetRef
from hfagent.tools.dataset_files import read_file
from hfagent.tools.dataset_read import load_rows
found = []
for name, config, split, limit in json.loads(sys.argv[1]):
    try:
        data = load_rows(DatasetRef(id=name, config=config, split=split), limit=limit)
        found.append([[row["text"] for row in data.rows], data.columns, data.total])
    except DatasetError as error:
        found.append(str(error))
print(json.dumps(found))
"""


def ask(endpoint: str, home: Path, *questions: tuple[str, str | None, str, int | None]) -> list[Any]:
    """Answers from a process of its own: the libraries fix the Hub's address when they are imported."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_DATASETS_CACHE", "HF_HUB_CACHE"):
        environment.pop(name, None)
    environment["HF_HUB_DISABLE_XET"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(questions)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


def test_the_hub(hub: str, tmp_path: Path) -> None:
    answers = ask(
        hub,
        tmp_path,
        ("org/plain", None, "train", 3),
        ("org/plain", None, "train", 50),
        ("org/plain", None, "train", None),
        ("org/counted", None, "train", 3),
        ("org/many", "hard", "train", 3),
        ("org/many", None, "train", 3),
        ("org/many", "odd", "train", 3),
        ("org/plain", None, "test", 3),
        ("org/gated", None, "train", 3),
        ("org/nothing", None, "train", 3),
        ("bad name", None, "train", 3),
    )
    numbers = [str(i) for i in range(20)]
    assert answers[:5] == [
        [numbers[:3], {"text": "string"}, None],
        [numbers, {"text": "string"}, 20],
        [numbers, {"text": "string"}, 20],
        [numbers[:3], {"text": "string"}, 20],
        [["b"], {"text": "string"}, 1],
    ]
    assert answers[5] == "dataset 'org/many' has several configs and no default; choose one of easy, hard"
    assert answers[6] == "dataset 'org/many' has no config 'odd'; choose one of easy, hard"
    assert answers[7] == "'org/plain' has no split 'test'; it has 'train'"
    assert "org/gated' is gated: accept its terms" in answers[8]
    assert "no dataset 'org/nothing' on the Hub, or it is private" in answers[9]
    assert answers[10].startswith("cannot load dataset 'bad name'")


def test_without_a_network(tmp_path: Path) -> None:
    (answer,) = ask("http://127.0.0.1:9", tmp_path, ("org/plain", None, "train", 3))
    assert answer.startswith("cannot reach the Hub for dataset 'org/plain'")
