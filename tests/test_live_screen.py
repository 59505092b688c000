"""The live table of a terminal: what fits, and no more often than it may cost."""

import io
import time

from nights import finished_night, state_of
from rich.console import Console

from hfagent.agent import console as terminal
from hfagent.agent.live_screen import LiveScreen


def test_a_screen_shows_the_newest_runs_and_how_many_are_above_it() -> None:
    state = state_of(finished_night())
    console = Console(width=200, theme=terminal.THEME)
    with console.capture() as shown:
        console.print(terminal.run_table(state, state.updated_at, rows=2))
    lines = shown.get().splitlines()
    assert lines[1].startswith(f"{len(state.runs) - 2} earlier")
    assert [line.split()[0] for line in lines[2:]] == list(state.runs)[-2:]


def test_a_screen_that_is_dear_to_draw_is_drawn_less_often() -> None:
    drawn = 0

    def render() -> str:
        nonlocal drawn
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        drawn += 1
        return "x"

    screen = LiveScreen(Console(force_terminal=True, file=io.StringIO()), render)
    screen.start()
    time.sleep(2.5)
    screen.stop()
    assert 2 <= drawn <= 4  # at its start, after a second, at its end: another would be after ten seconds
