"""The book of looks: one number each, whatever crashes, and whoever asks at the same time."""

import json
import multiprocessing
import os
import resource
from pathlib import Path

import pytest

from hfagent.agent.errors import LedgerError, SettingsError
from hfagent.agent.findings import Look
from hfagent.agent.looks import LookBook
from hfagent.agent.ports import Looks
from hfagent.agent.records import BenchmarkRef, ModelRef
from hfagent.agent.sequential import alpha_of_look

MODEL = ModelRef(id="org/model")
CONFIRM = BenchmarkRef(name="procedural_python", set="confirm", n=200)


def take(path: Path, candidate: str, *, project: str = "code-1", model: ModelRef = MODEL) -> Look:
    book: Looks = LookBook(path)
    return book.take(model, CONFIRM, project=project, candidate=candidate)


def test_looks_are_counted_over_projects_and_each_spends_its_share(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "looks.jsonl"
    taken = [take(path, "sft-01"), take(path, "sft-02"), take(path, "sft-01", project="code-2")]
    assert taken == [Look(number=number, alpha=alpha_of_look(number)) for number in (1, 2, 3)]
    assert take(path, "sft-01", model=ModelRef(id="org/other")).number == 1


def test_taken_again_it_is_the_same_look(tmp_path: Path) -> None:
    path = tmp_path / "looks.jsonl"
    first = [take(path, name) for name in ("a", "b", "c")]
    before = path.read_bytes()
    assert [take(path, name) for name in ("a", "b", "c")] == first
    assert path.read_bytes() == before


def test_a_torn_last_line_is_no_look(tmp_path: Path) -> None:
    path = tmp_path / "looks.jsonl"
    take(path, "a")
    whole = path.read_bytes()
    take(path, "b")
    path.write_bytes(path.read_bytes()[:-7])
    assert path.read_bytes() != whole
    assert take(path, "c").number == 2
    assert [json.loads(line)["candidate"] for line in path.read_text().splitlines()] == ["a", "c"]


@pytest.mark.parametrize("damage", ["not json", '{"key": 1}', ""])
def test_a_damaged_line_is_named_and_nothing_is_counted_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "looks.jsonl"
    take(path, "a")
    path.write_text(damage + "\n" + path.read_text())
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"line 1 .* is damaged"):
        take(path, "b")
    assert path.read_bytes() == before


def _take_many(path: Path, worker: int, numbers: "multiprocessing.Queue[list[int]]") -> None:
    mine = [take(path, f"{worker}-{number}").number for number in range(10)]
    numbers.put([*mine, take(path, "shared").number])


def test_processes_at_once_never_get_the_same_number(tmp_path: Path) -> None:
    path = tmp_path / "looks.jsonl"
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[list[int]] = context.Queue()
    workers = [context.Process(target=_take_many, args=(path, worker, queue)) for worker in range(4)]
    for worker in workers:
        worker.start()
    found = [queue.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join(10)
    own = sorted(number for numbers in found for number in numbers[:-1])
    shared = {numbers[-1] for numbers in found}
    assert len(shared) == 1
    assert sorted([*own, *shared]) == list(range(1, 42))


def test_a_full_disk_uses_no_look(tmp_path: Path) -> None:
    path = tmp_path / "looks.jsonl"
    take(path, "a")
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    try:
        with pytest.raises(LedgerError, match="no look was used; free the disk"):
            take(path, "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert take(path, "c").number == 2


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_used(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(SettingsError, match="HFAGENT_LOOKS_FILE"):
        take(blocker / "looks.jsonl", "a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SettingsError, match="Permission denied"):
            take(tmp_path / "looks.jsonl", "a")
    finally:
        tmp_path.chmod(0o700)
