"""`hfagent verify`: what was done to a ledger by hand is named by its line; what a crash leaves is no damage."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from nights import finished_night
from rich.console import Console
from world import SKILL, World, ended, killed, make_plan, night

from hfagent.agent.chain import Head
from hfagent.agent.cli import main
from hfagent.agent.console import THEME
from hfagent.agent.errors import LedgerDamaged
from hfagent.agent.events import Resumed, to_line
from hfagent.agent.fakes import FakeClock
from hfagent.agent.ledger import open_ledger, read, read_chain
from hfagent.agent.night import begin
from hfagent.agent.project import known
from hfagent.agent.report import head_in, render
from hfagent.agent.settings import Settings
from hfagent.agent.wiring import Paths

Lines = list[bytes]


def value_at(lines: Lines) -> int:
    return next(n for n, line in enumerate(lines) if b'"kind":"scored"' in line)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "training_reports" / "night.jsonl"
    night(path, World(SKILL))
    return path


@pytest.fixture
def reported(tmp_path: Path) -> Path:
    """The ledger of a night with its report beside it."""
    folder = tmp_path / "training_reports"
    settings = Settings(reports_dir=folder, state_dir=tmp_path / "state")
    begin(make_plan(), World(SKILL).ports, settings, ask=None, console=Console(file=io.StringIO(), theme=THEME))
    return folder / "night.jsonl"


def verify(capsys: pytest.CaptureFixture[str], folder: Path, *args: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["verify", "--reports-dir", str(folder), *args])
    code = ended.value.code
    return (code if isinstance(code, int) else 0), capsys.readouterr().out


def altered(lines: Lines) -> tuple[Lines, int, str]:
    place = value_at(lines)
    score = re.sub(rb'"value":0\.\d+', b'"value":0.9', lines[place])
    return [*lines[:place], score, *lines[place + 1 :]], place + 1, "altered"


def missing(lines: Lines) -> tuple[Lines, int, str]:
    return [*lines[:9], *lines[10:]], 10, "missing"


def reordered(lines: Lines) -> tuple[Lines, int, str]:
    return [*lines[:9], lines[10], lines[9], *lines[11:]], 10, "reordered"


def repeated(lines: Lines) -> tuple[Lines, int, str]:
    return [*lines[:10], lines[9], *lines[10:]], 11, "repeated"


def renumbered(lines: Lines) -> tuple[Lines, int, str]:
    """A line is taken out and the rest numbered anew."""
    rest = [re.sub(rb'^{"seq":\d+', b'{"seq":%d' % number, line) for number, line in enumerate(lines[10:], start=10)]
    return [*lines[:9], *rest], 9, "taken out"


def stripped(lines: Lines) -> tuple[Lines, int, str]:
    told = json.loads(lines[11])
    del told["prev"]
    return [*lines[:11], json.dumps(told).encode(), *lines[12:]], 12, "lacks the hash"


def broken(lines: Lines) -> tuple[Lines, int, str]:
    return [*lines[:4], lines[4][:-9], *lines[5:]], 5, "no event"


@pytest.mark.parametrize("damage", [altered, missing, reordered, repeated, renumbered, stripped, broken])
def test_the_first_line_that_is_not_what_was_written_is_named(
    capsys: pytest.CaptureFixture[str], path: Path, damage: Callable[[Lines], tuple[Lines, int, str]]
) -> None:
    """Ledger: a line altered, taken out, moved, repeated, renumbered, stripped of its hash, or broken."""
    lines, number, why = damage(path.read_bytes().split(b"\n")[:-1])
    path.write_bytes(b"\n".join(lines) + b"\n")
    before = path.read_bytes()
    code, out = verify(capsys, path.parent, "night", "--json")
    told = json.loads(out)
    assert (code, told["whole"], told["line"]) == (1, False, number)
    assert why in told["why"]
    code, out = verify(capsys, path.parent)
    assert code == 1
    assert f"line {number} of the ledger {str(path)!r}" in out
    assert "put a copy of the file from before back" in out
    with pytest.raises(LedgerDamaged):
        night(path, World(SKILL))
    assert path.read_bytes() == before


def test_a_whole_ledger_is_whole(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    code, out = verify(capsys, path.parent, "--json")
    told = json.loads(out)
    assert (code, told["whole"], told["lines"], told["unlinked"]) == (0, True, len(read(path)), 0)
    assert told["head"] in verify(capsys, path.parent)[1]


def test_a_torn_last_line_is_no_damage_and_is_told(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    """Ledger: `hfagent verify` after a crash in mid-write."""
    with path.open("ab") as file:
        file.write(b'{"seq":')
    code, out = verify(capsys, path.parent)
    assert code == 0
    assert "7 bytes of a line that was never whole" in out


def test_a_ledger_of_a_version_without_hashes_is_read_and_continued_with_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    events = finished_night()[:12]
    path = tmp_path / f"{events[0].fact.plan.project}.jsonl"  # type: ignore[union-attr]
    path.write_text("".join(to_line(event) + "\n" for event in events))
    old = path.read_bytes()
    assert len(read(path)) == 12
    with open_ledger(path, FakeClock()) as book:
        book.append(Resumed(pid=1))
        book.append(Resumed(pid=2))
    assert path.read_bytes().startswith(old)
    told = json.loads(verify(capsys, tmp_path, "--json")[1])
    assert (told["whole"], told["unlinked"], told["lines"]) == (True, 12, 14)
    path.write_bytes(path.read_bytes().replace(b'"pid":1', b'"pid":3'))
    assert json.loads(verify(capsys, tmp_path, "--json")[1])["line"] == 13


def test_a_night_whose_last_line_was_torn_goes_on_and_the_report_says_where_its_bytes_are(tmp_path: Path) -> None:
    """Power loss in the middle of a line: its bytes are put aside, and the night goes on."""
    path = tmp_path / "night.jsonl"
    killed(path, World(SKILL), lambda event: event.seq == 20)
    last = path.read_bytes().splitlines(keepends=True)[-1]
    path.write_bytes(path.read_bytes()[: -len(last) // 2])
    state = night(path, World(SKILL))
    assert ended(state) == "finished"
    [kept] = tmp_path.glob("*.torn-after-19")
    assert last.startswith(kept.read_bytes())
    assert f"its {kept.stat().st_size} bytes are in `{kept.name}`" in render(state)


def cut(lines: Lines) -> Lines:
    return lines[:-3]


def anew(lines: Lines) -> Lines:
    """Another last line, whose chain is whole."""
    told = json.loads(lines[-1]) | {"at": "2026-01-01T00:00:00Z"}
    return [*lines[:-1], json.dumps(told).encode()]


@pytest.mark.parametrize(
    ("damage", "why"), [(cut, "lines were cut off its end"), (anew, "it was written anew"), (lambda _: [], "cut off")]
)
def test_a_ledger_that_is_not_the_one_its_report_was_rendered_of_is_found(
    capsys: pytest.CaptureFixture[str], reported: Path, damage: Callable[[Lines], Lines], why: str
) -> None:
    """Ledger: lines cut off its end, or written anew, while the report beside it stays."""
    whole = reported.read_bytes().splitlines()
    code, out = verify(capsys, reported.parent, "night", "--json")
    assert (code, json.loads(out)["known_lines"]) == (0, len(whole))
    reported.write_bytes(b"".join(line + b"\n" for line in damage(whole)))
    code, out = verify(capsys, reported.parent, "night")
    assert code == 1
    assert why in out
    assert "by the report 'night.md'" in out


@pytest.mark.parametrize("lines", [1, 30, -1])
def test_a_ledger_is_held_against_a_hash_that_was_kept(
    capsys: pytest.CaptureFixture[str], path: Path, lines: int
) -> None:
    """Ledger: lines cut off its end, or written anew, where a hash of it was kept."""
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:lines]))
    kept = json.loads(verify(capsys, path.parent, "--json")[1])["head"]
    path.write_bytes(b"".join(whole))
    code, out = verify(capsys, path.parent, "--head", kept, "--json")
    assert (code, json.loads(out)["known_lines"]) == (0, len(whole[:lines]))
    path.write_bytes(b"".join(whole[:lines][:-1]))
    code, out = verify(capsys, path.parent, "--head", kept)
    assert code == 1
    assert f"no line has the hash {kept}: lines were cut off its end, or it was written anew" in out


def test_what_is_no_hash_is_refused_and_without_a_report_the_end_is_not_vouched_for(
    capsys: pytest.CaptureFixture[str], path: Path
) -> None:
    assert "lines cut off its end would not be noticed" in verify(capsys, path.parent)[1]
    assert verify(capsys, path.parent, "--head", "abc")[0] == 2


def test_a_report_tells_the_same_end_wherever_it_is_copied(reported: Path, tmp_path: Path) -> None:
    head = Head(len(read(reported)), read_chain(reported).head)
    report = reported.with_suffix(".md")
    assert head_in(report) == head
    copy = tmp_path / "copy.md"
    copy.write_text(known(Paths(reported.parent, "night")).report())
    assert head_in(copy) == head
    notes = f"\n\nLedger: 7 lines, the last one has the hash `{'0' * 32}`.\n"
    report.write_text(report.read_text().replace("<!-- notes:start -->", f"<!-- notes:start -->{notes}"))
    assert head_in(report) == head
