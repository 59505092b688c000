"""A disk that is full at any write, or read-only: the night stops with one line, whole, and goes on with room."""

import io
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from process_night import PlannedJobs, starts
from rich.console import Console
from world import SKILL, World, at_desk, claimed, ended, killed, make_plan, night

from hfagent.agent import ledger
from hfagent.agent.console import THEME
from hfagent.agent.errors import LedgerError, NoRoom, SettingsError
from hfagent.agent.events import Crashed, JobIntended, JobRejected
from hfagent.agent.night import begin, resume
from hfagent.agent.settings import Settings
from hfagent.agent.state import State
from hfagent.agent.wiring import Paths

PAGE = 4096
CASES = 15
"""Pages that a whole night does not fit into."""


class Disk:
    """A file system of one MiB."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._ballast = folder / ".ballast"

    def leave(self, pages: int) -> None:
        """Fill it up to so much."""
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(PAGE))
            except OSError:
                file.truncate(max(0, file.tell() - pages * PAGE))

    def make_room(self) -> None:
        self._ballast.unlink()

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("no mount here")
    if done.returncode:
        pytest.skip("nothing may be mounted here")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> State:
    return night(tmp_path_factory.mktemp("whole") / "night.jsonl", World(SKILL))


def quiet() -> Console:
    return Console(file=io.StringIO(), theme=THEME)


def keep_settings(folder: Path) -> Settings:
    return Settings(reports_dir=folder, state_dir=folder / "state")


@pytest.mark.parametrize("pages", range(CASES))
def test_a_disk_that_is_full_at_any_line_of_the_ledger(disk: Disk, undisturbed: State, pages: int) -> None:
    """Ledger: the disk is full at any of its pages."""
    path, world = disk.folder / "night.jsonl", World(SKILL)
    disk.leave(pages)
    with pytest.raises((LedgerError, NoRoom), match="No space left on device; free the disk, then `hfagent resume"):
        night(path, world)
    written = ledger.read_chain(path)
    assert written.torn == b""
    disk.make_room()
    state = night(path, world)
    assert claimed(state) == claimed(undisturbed)
    assert len(world.runner.submits) == len(set(world.runner.submits)) == 9


@pytest.mark.parametrize("pages", [0, 1, 2, 6, 12])
def test_a_disk_that_is_full_at_any_file_of_a_night(disk: Disk, undisturbed: State, pages: int) -> None:
    """Report, plots, requests: the disk is full at any of them."""
    settings, world, plan = keep_settings(disk.folder), World(SKILL), make_plan()
    disk.leave(pages)
    console = quiet()
    with pytest.raises((LedgerError, NoRoom, SettingsError), match=r"free the disk|mend it|choose another"):
        begin(plan, world.ports, settings, ask=None, console=console)
    assert not list(disk.folder.rglob("*.part"))
    assert not [path for path in disk.folder.rglob(".*.*") if path.name != ".ballast"]
    paths = Paths(disk.folder, plan.project)
    disk.make_room()
    if paths.ledger.exists() and ledger.is_confirmed(paths.ledger):
        state = resume(paths, world.ports, settings, console=console)
    else:
        begun = begin(plan, world.ports, settings, ask=None, console=console)
        assert begun is not None
        state = begun
    assert claimed(state) == claimed(undisturbed)
    assert "confirmed better" in paths.report.read_text()


def test_no_room_for_a_job_keeps_its_key_and_the_night_goes_on_with_room(disk: Disk, tmp_path: Path) -> None:
    """Jobs: the disk of their folders is full."""
    path = tmp_path / "night.jsonl"
    there = World(SKILL)
    jobs = PlannedJobs(disk.folder, seconds=0.02)
    there.runner = jobs  # type: ignore[assignment]
    disk.leave(1)
    with pytest.raises(NoRoom, match=r"No space left on device; make room .*`hfagent resume`"):
        night(path, there)
    facts = [event.fact for event in ledger.read(path)]
    assert [fact.kind for fact in facts[-3:]] == ["job_intended", "planner_woke", "crashed"]
    assert not any(isinstance(fact, JobRejected) for fact in facts)
    disk.make_room()
    with at_desk(path, there) as desk:
        desk.reconcile()
        [attempt] = desk.state.open_attempts
        jobs.wait([str(attempt.job_id)], timeout_s=10)
        desk.observe()
        assert desk.state.runs["smoke"].done
        assert starts(disk.folder) == {"night-smoke-a1": 1}
    intended = [event.fact.job.key for event in ledger.read(path) if isinstance(event.fact, JobIntended)]
    assert intended == ["night-smoke-a1"]


def test_a_folder_that_has_become_read_only_is_named_and_gone_on_with(disk: Disk, undisturbed: State) -> None:
    """Ledger: its file system is read-only when the night is resumed."""
    path, world = disk.folder / "night.jsonl", World(SKILL)
    killed(path, world, lambda event: event.seq == 20)
    disk.remount("ro")
    with pytest.raises(SettingsError, match="Read-only file system"):
        night(path, world)
    assert len(ledger.read(path)) == 20
    disk.remount("rw")
    assert claimed(night(path, world)) == claimed(undisturbed)


def test_a_read_only_folder_is_named_with_the_flag_before_anything_runs(disk: Disk) -> None:
    """Folder of reports: read-only from the start."""
    disk.remount("ro")
    world = World(SKILL)
    with pytest.raises(SettingsError, match="Read-only file system; choose another folder with --reports-dir"):
        begin(make_plan(), world.ports, keep_settings(disk.folder), ask=None, console=quiet())
    assert world.runner.submits == []


def test_a_write_of_a_tool_that_finds_no_room_is_one_clear_line(tmp_path: Path) -> None:
    """Data and models: a copy finds no room."""
    full = OSError(28, "No space left on device", str(tmp_path / "data" / "rows.jsonl"))
    paths = Paths(tmp_path, "night")
    state = _night_with_a_store_that(lambda: _raise(full), tmp_path, match="rows.jsonl': No space left on device")
    assert state is None
    assert not paths.ledger.exists()


def _raise(error: Exception) -> None:
    raise error


def _night_with_a_store_that(fails: Callable[[], None], folder: Path, *, match: str) -> State | None:
    world = World(SKILL)

    class Store:
        def prepare(self, ref: object, **options: object) -> str:
            fails()
            return "never"

    ports = replace(world.ports, datasets=Store())
    with pytest.raises(NoRoom, match=match):
        return begin(make_plan(), ports, keep_settings(folder), ask=None, console=quiet())
    return None


def test_a_crash_is_told_where_there_is_room_for_it(tmp_path: Path) -> None:
    """Jobs: no room for their folder, and enough for the ledger."""
    path, world = tmp_path / "night.jsonl", World(SKILL)
    submit = world.runner.submit

    def no_room(spec: object) -> object:
        raise NoRoom("the job folder cannot be made: No space left on device")

    world.runner.submit = no_room  # type: ignore[method-assign, assignment]
    with pytest.raises(NoRoom):
        night(path, world)
    last = ledger.read(path)[-1].fact
    assert isinstance(last, Crashed)
    assert "No space left" in last.error
    world.runner.submit = submit  # type: ignore[method-assign]
    assert ended(night(path, world)) == "finished"
    assert len(world.runner.submits) == 9
