"""The sandbox tells a finished program from a cheating one, and lets neither out."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hfagent.agent.errors import EvaluationError
from hfagent.tools import sandbox as module
from hfagent.tools.sandbox import Level, Sandbox, probe


def working_levels() -> list[Sandbox]:
    """Every level of this machine that isolates, not only the strongest: the others are used elsewhere."""
    return [box for level in module.known_levels() if probe(box := Sandbox(level)) is None]


@pytest.fixture(params=working_levels(), ids=lambda box: box.name)
def box(request: pytest.FixtureRequest) -> Sandbox:
    return request.param


@pytest.mark.parametrize(
    ("program", "kind"),
    [
        ("import math\nassert math.sqrt(4) == 2", "passed"),
        ("def f(:", "syntax"),
        ("assert 1 == 2", "assertion"),
        ("[][1]", "exception"),
        ("import sys\nsys.exit(0)\nassert 1 == 2", "exit"),
        ("import os\nos._exit(0)", "killed"),
        ("x = bytearray(2 << 30)", "memory"),
        ("import ctypes\nctypes.string_at(0)", "killed"),
    ],
)
def test_a_program_passes_only_by_reaching_its_end(box: Sandbox, program: str, kind: str) -> None:
    outcome = box.run(program)
    assert (outcome.passed, outcome.kind) == (kind == "passed", kind)


def test_a_report_written_by_the_program_is_not_believed(box: Sandbox) -> None:
    forged = """
import os
for fd in range(64):
    try:
        os.write(fd, b"passed\\n")
    except OSError:
        pass
os._exit(0)
"""
    assert not box.run(forged).passed


def test_detail_names_the_error_and_its_line_and_stays_short(box: Sandbox) -> None:
    assert box.run("x = 1\nint('a')").detail == "ValueError: invalid literal for int() with base 10: 'a' (line 2)"
    assert len(box.run("raise ValueError('a' * 10**6)").detail) <= 500


def test_an_endless_program_is_stopped_in_time(box: Sandbox) -> None:
    started = time.monotonic()
    outcome = box.run("import time\nwhile True: time.sleep(1)", timeout_s=0.5)
    assert outcome.kind == "timeout"
    assert time.monotonic() - started < 3


def test_a_flood_of_output_is_cut(box: Sandbox) -> None:
    flood = """
import os
while True:
    for fd in range(64):
        try:
            os.write(fd, b"x" * 4096)
        except OSError:
            pass
"""
    started = time.monotonic()
    outcome = box.run(flood, timeout_s=1)
    assert not outcome.passed
    assert len(outcome.detail) <= 500
    assert time.monotonic() - started < 4


def test_sets_have_the_same_order_every_time(box: Sandbox) -> None:
    program = "raise ValueError(list({'apple', 'pear', 'plum', 'fig', 'kiwi'}))"
    assert box.run(program).detail == box.run(program).detail


def test_many_programs_keep_their_order(box: Sandbox) -> None:
    programs = [f"import time\ntime.sleep({0.1 * (i == 0)})\nassert {i} % 2" for i in range(6)]
    assert [outcome.passed for outcome in box.run_many(programs, workers=3)] == [False, True] * 3


def test_the_probe_notices_a_level_that_does_not_isolate() -> None:
    assert "a program can" in (probe(Sandbox(Level("open"))) or "")


def test_a_launcher_that_is_missing_is_a_reason_and_no_crash() -> None:
    assert "absent" in (probe(Sandbox(Level("broken", ("/absent",)))) or "")


CLOSED = """
import os, sys
from hfagent.agent.errors import EvaluationError
from hfagent.tools.sandbox import Sandbox
sys.executable = sys.argv[1]
if os.getuid() == 0:
    os.setuid(65534)
try:
    Sandbox.choose()
except EvaluationError as error:
    print(error)
"""


def test_a_python_that_this_user_may_not_run_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    program = tmp_path / "closed" / "python3"
    command = [sys.executable, "-c", CLOSED, str(program)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd="/", env={**os.environ, "TMPDIR": "/"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"may not run the Python below this environment, '{program}'" in done.stdout


def test_without_a_working_level_it_refuses_unless_told_otherwise() -> None:
    levels = [Level("broken", ("/absent",))]
    with pytest.raises(EvaluationError, match=r"broken.*--unsafe-exec"):
        Sandbox.choose(levels=levels)
    unsafe = Sandbox.choose(levels=levels, unsafe=True)
    assert unsafe.name == "unsafe"
    assert unsafe.run("x = 1").passed
