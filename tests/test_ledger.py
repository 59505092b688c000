import fcntl
import json
import multiprocessing
import resource
import threading
import time
from pathlib import Path

import pytest

from hfagent.agent.chain import link
from hfagent.agent.errors import LedgerError, SettingsError, UsageError
from hfagent.agent.events import Crashed, Resumed
from hfagent.agent.fakes import FakeClock
from hfagent.agent.ledger import is_held, open_ledger, read
from hfagent.agent.upkeep_facts import LineTorn


def fill(path: Path, n: int) -> None:
    with open_ledger(path, FakeClock()) as book:
        for pid in range(1, n + 1):
            book.append(Resumed(pid=pid))


def test_lines_are_json_with_seq_at_and_kind(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    fill(path, 2)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    links = [line.pop("prev") for line in lines]
    assert lines == [
        {"seq": 1, "at": "2026-01-01T22:00:00Z", "kind": "resumed", "pid": 1},
        {"seq": 2, "at": "2026-01-01T22:00:00Z", "kind": "resumed", "pid": 2},
    ]
    assert links == [link(b""), link(path.read_bytes().split(b"\n")[0])]


def test_events_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    with open_ledger(path, FakeClock()) as book:
        written = [book.append(Resumed(pid=7)), book.append(Crashed(error='a "quoted"\nline'))]
    assert read(path) == written


@pytest.mark.parametrize(
    "torn", [b'{"seq":3,"at":"2026-01-01T22:00:', b'{"seq":3,"at"' + bytes(40) + b"\n"], ids=["cut off", "zeros"]
)
def test_a_torn_last_line_is_left_out_and_then_put_aside_with_its_bytes(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "p.jsonl"
    fill(path, 2)
    with path.open("ab") as file:
        file.write(torn)
    assert [event.seq for event in read(path)] == [1, 2]
    with open_ledger(path, FakeClock()) as book:
        told = book.events[-1].fact
        assert isinstance(told, LineTorn)
        assert (told.bytes, (tmp_path / told.kept).read_bytes()) == (len(torn), torn)
        book.append(Resumed(pid=3))
    with open_ledger(path, FakeClock()) as book:
        assert [event.fact.kind for event in book.events] == ["resumed", "resumed", "line_torn", "resumed"]


def test_a_torn_line_that_was_put_aside_is_told_of_though_a_crash_came_between(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    fill(path, 2)
    (tmp_path / "p.jsonl.torn-after-2").write_bytes(b"{")
    with open_ledger(path, FakeClock()) as book:
        assert book.events[-1].fact == LineTorn(kept="p.jsonl.torn-after-2", bytes=1)


def test_a_torn_line_that_cannot_be_kept_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    fill(path, 2)
    with path.open("ab") as file:
        file.write(b"x" * 50)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        with pytest.raises(LedgerError, match="free the disk"), open_ledger(path, FakeClock()):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [child.name for child in tmp_path.iterdir()] == ["p.jsonl"]


@pytest.mark.parametrize(
    "damage",
    [
        "not json",
        '{"seq":2,"at":"2026-01-01T22:00:00Z","kind":"unheard_of"}',
        '{"seq":9,"at":"2026-01-01T22:00:00Z","kind":"resumed","pid":1}',
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "p.jsonl"
    fill(path, 1)
    with path.open("a") as file:
        file.write(damage + "\n")
    fill_after = path.read_bytes()
    with pytest.raises(LedgerError, match="line 2"):
        read(path)
    with pytest.raises(LedgerError, match="line 2"), open_ledger(path, FakeClock()):
        pass
    assert path.read_bytes() == fill_after


def _hold(
    path: Path, opened: "multiprocessing.synchronize.Event", release: "multiprocessing.synchronize.Event"
) -> None:
    with open_ledger(path, FakeClock()):
        opened.set()
        release.wait(10)


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    fill(path, 1)
    assert not is_held(path)
    context = multiprocessing.get_context("fork")
    opened, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(path, opened, release))
    other.start()
    assert opened.wait(10)
    try:
        assert is_held(path)
        said = rf"another hfagent process \(pid {other.pid}, since 2026-01-01 22:00:00 UTC\) works on the project 'p'"
        with pytest.raises(UsageError, match=said), open_ledger(path, FakeClock()):
            pass
        assert len(read(path)) == 1
    finally:
        release.set()
        other.join()


def test_a_folder_that_cannot_be_made_is_named_with_the_flag(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(SettingsError, match="--reports-dir"), open_ledger(blocker / "p.jsonl", FakeClock()):
        pass


def test_a_full_disk_leaves_the_ledger_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    fill(path, 1)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_ledger(path, FakeClock()) as book:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
        try:
            with pytest.raises(LedgerError, match="cannot write the ledger"):
                book.append(Resumed(pid=2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.read_bytes() == before
        book.append(Resumed(pid=2))
    assert [event.seq for event in read(path)] == [1, 2]


def test_a_ledger_that_is_abandoned_while_another_process_waits_for_it_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    fill(path, 1)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        second = threading.Thread(target=fill, args=(path, 2))
        second.start()
        time.sleep(0.1)  # it has opened the file, and asks for the lock
        path.unlink()
    second.join()
    assert [event.fact for event in read(path)] == [Resumed(pid=1), Resumed(pid=2)]
