"""The live screens: the terminal's by textual's own driver, the web page in headless Chromium. Both read the ledger."""

import asyncio
import http.client
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nights import finished_night, state_of
from playwright.sync_api import Page, expect, sync_playwright
from textual.widgets import DataTable, Static

from hfagent.agent.events import Event, to_line
from hfagent.agent.view import view
from hfagent.agent.watch_screen import WatchScreen
from hfagent.agent.wiring import Paths

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVENTS = finished_night()
PROJECT = "improve-code-sft"
KEY = "hf_abcdefghijklmnopqrstuvwxyz01234567"


def write(folder: Path, events: list[Event]) -> Paths:
    folder.mkdir(exist_ok=True)
    paths = Paths(folder, PROJECT)
    paths.ledger.write_text("".join(f"{to_line(event)}\n" for event in events))
    return paths


class Site:
    """The program serving a project."""

    def __init__(self, url: str, paths: Paths):
        self.url = url
        self.paths = paths
        self.port = int(url.rstrip("/").rsplit(":", 1)[1])

    def get(self, path: str, host: str | None = None) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{self.port}"})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()

    def first_view(self) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/events")
        line = connection.getresponse().readline().decode()
        connection.close()
        told: dict[str, Any] = json.loads(line.removeprefix("data: "))
        return told


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    paths = write(tmp_path / "reports", EVENTS[: len(EVENTS) // 2])
    command = [sys.executable, "-m", "hfagent", "watch", PROJECT, "--web", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--reports-dir", str(paths.reports)], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    yield Site(process.stdout.readline().strip(), paths)
    process.terminate()
    process.wait(10)


@pytest.mark.parametrize("count", [1, 5, len(EVENTS) // 2, len(EVENTS)])
def test_a_view_is_plain_values_at_any_time(count: int) -> None:
    state = state_of(EVENTS[:count])
    shown = view(state, datetime(2026, 3, 3, tzinfo=UTC), held=False)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert [run["name"] for run in shown["runs"]] == list(state.runs)


def test_the_page_is_told_of_each_change_and_answers_only_to_its_own_name(site: Site) -> None:
    before = site.first_view()
    write(site.paths.reports, EVENTS)
    after = site.first_view()
    assert (before["phase"], after["phase"]) == ("waiting", "finished")
    assert after["claim"] == "confirmed_better"
    status, headers, text = site.get("/")
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert site.get("/", host="evil.example")[0] == 400
    assert site.get("/events", host="evil.example:80")[0] == 400
    assert site.get("/../../etc/passwd")[0] == 404
    assert "<script src=" in text
    assert "Decision log" in site.get("/report")[2]


def test_it_listens_on_loopback_alone(site: Site) -> None:
    listening = subprocess.run(["ss", "-ltn"], capture_output=True, text=True, check=False).stdout
    if not listening:
        pytest.skip("ss is not installed")
    [line] = [line for line in listening.splitlines() if f":{site.port} " in line]
    assert f"127.0.0.1:{site.port}" in line


@pytest.fixture
def page(site: Site) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 390, "height": 844})
        errors: list[str] = []
        opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.goto(site.url)
        yield opened
        browser.close()
        assert errors == []


def test_a_browser_follows_the_night_also_on_a_phone(site: Site, page: Page) -> None:
    page.wait_for_selector("#runs tr")
    assert page.inner_text("#phase") == "waiting"
    write(site.paths.reports, EVENTS)
    expect(page.locator("#phase")).to_have_text("finished")
    assert page.inner_text("#verdict").startswith("confirmed better: 0.")
    state = state_of(EVENTS)
    assert page.locator("#runs tr").count() == len(state.runs)
    assert page.locator("#curves polyline").count() == len(state.trained)
    assert page.locator("#decisions li").count() == len(state.decisions)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.set_viewport_size({"width": 1280, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.click("text=report")
    page.wait_for_selector("text=Decision log")


def test_what_others_wrote_is_shown_as_text(site: Site, page: Page) -> None:
    lines = "".join(f"{to_line(event)}\n" for event in EVENTS)
    evil = lines.replace("Improve code solving abilities with SFT", f"<img src=x onerror=alert(1)> {KEY}")
    site.paths.ledger.write_text(evil)
    expect(page.locator("#goal")).to_contain_text("onerror")
    assert page.locator("#goal img").count() == 0
    assert KEY not in page.content()


def test_the_terminal_screen_shows_runs_verdict_and_decisions(tmp_path: Path) -> None:
    paths = write(tmp_path / "reports", EVENTS[: len(EVENTS) // 2])

    async def follow() -> None:
        app = WatchScreen(paths)
        async with app.run_test(size=(160, 50)) as pilot:
            before = app.query_one(DataTable).row_count
            write(tmp_path / "reports", EVENTS)
            app.look()
            await pilot.pause()
            assert app.query_one(DataTable).row_count == len(state_of(EVENTS).runs) > before
            assert " -> 0." in str(app.query_one("#head", Static).render())
            assert "keep" in str(app.query_one("#decided", Static).render())
            assert "train/loss" in str(app.query_one("#curves", Static).render())
            await pilot.press("q")

    asyncio.run(follow())


def test_without_a_terminal_the_other_ways_are_named(tmp_path: Path) -> None:
    write(tmp_path / "training_reports", EVENTS)
    command = [sys.executable, "-m", "hfagent", "watch"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "take --web" in done.stderr
