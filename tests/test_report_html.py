"""The report as one HTML file."""

import re
from html.parser import HTMLParser
from pathlib import Path

from nights import finished_night, state_of

from hfagent.agent import report, report_html


class Reader(HTMLParser):
    """Tags, anchors and links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        if found.get("id"):
            self.ids.add(str(found["id"]))
        if tag == "a":
            self.links.append(str(found["href"]))
        if tag == "img":
            self.sources.append(str(found["src"]))


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


def test_the_page_needs_no_other_file_and_its_links_within_lead_somewhere(tmp_path: Path) -> None:
    state, path = state_of(finished_night()), tmp_path / "night.md"
    report.write(state, path)
    made = report_html.write(report.current(state, path), path)
    page = read(made.read_text())
    assert made == tmp_path / "night.html"
    assert page.tags.count("table") >= 8
    assert len(page.sources) == 2
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    inner = [link[1:] for link in page.links if link.startswith("#")]
    assert inner
    assert set(inner) <= page.ids
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "notes:start" not in made.read_text()


def test_what_others_wrote_is_text_and_no_markup(tmp_path: Path) -> None:
    text = "<script>alert(1)</script> <img src=x onerror=y>\n\n[x](javascript:alert(1))\n\n![a](../../etc/passwd)\n"
    page = read(report_html.page(text, title="<b>", folder=tmp_path))
    assert not {"script", "b"} & set(page.tags)
    assert page.sources == []
    assert not [link for link in page.links if link.startswith("javascript")]


def test_the_same_report_gives_the_same_page(tmp_path: Path) -> None:
    state = state_of(finished_night())
    first, second = (report_html.page(report.render(state), title="t", folder=tmp_path) for _ in range(2))
    assert first == second
    assert re.match(r"<!doctype html>", first)
