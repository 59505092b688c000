"""The report as one self-contained HTML file: to be sent, or read where no Markdown is shown."""

import base64
import html
import re
from pathlib import Path

from hfagent.agent.errors import ReportError
from hfagent.agent.markdown import anchor
from hfagent.agent.plots import replace_file
from hfagent.agent.report import NOTES_END, NOTES_START

IMAGE = re.compile(r'<img src="([^"]*)" alt="([^"]*)"[^>]*>')
STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #ffffff; --soft: #f3f4f6; --line: #d7dadf; --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6e9; --paper: #16181b; --soft: #22262b; --line: #3a3f46; --link: #7db7f0; }
  img { background: #ffffff; }
}
body { color: var(--ink); background: var(--paper); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 70rem; padding: 1.5rem; overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.25; margin-top: 2rem; }
a { color: var(--link); }
code, pre { font: 0.875em/1.45 ui-monospace, monospace; background: var(--soft); border-radius: 4px; }
code { padding: 0.1em 0.3em; }
pre { padding: 0.75rem; overflow-x: auto; }
pre code { padding: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.75rem 0; }
th, td { border: 1px solid var(--line); padding: 0.35rem 0.6rem; text-align: left; vertical-align: top; }
th { background: var(--soft); }
img { max-width: 100%; }
"""


def page(markdown: str, *, title: str, folder: Path) -> str:
    """The page.

    Args:
        markdown: the report; HTML in it is shown as text.
        title: of the page.
        folder: where its pictures are; they become part of the page.
    """
    from markdown_it import MarkdownIt

    text = markdown.replace(NOTES_START, "").replace(NOTES_END, "")
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    body = body.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")
    body = _anchored(body)
    body = IMAGE.sub(lambda found: _inlined(folder, found[1], found[2]), body)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def write(markdown: str, report: Path) -> Path:
    """Write the page beside the report.

    Raises:
        ReportError: it cannot be written; an earlier one is whole.
    """
    target = report.with_suffix(".html")
    try:
        replace_file(target, page(markdown, title=report.stem, folder=report.parent).encode())
    except OSError as error:
        raise ReportError(f"cannot write the page {str(target)!r}: {error.strerror}; free the disk") from error
    return target


def _inlined(folder: Path, source: str, alt: str) -> str:
    path = (folder / html.unescape(source)).resolve()
    if not path.is_relative_to(folder.resolve()) or path.suffix != ".svg" or not path.is_file():
        return f"<em>{alt}</em>"
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{alt}">'


def _anchored(body: str) -> str:
    """Headings with the anchors that the report's links use, as GitHub makes them."""

    def named(found: re.Match[str]) -> str:
        text = html.unescape(re.sub(r"<[^>]+>", "", found[2]))
        return f'<h{found[1]} id="{html.escape(anchor(text))}">{found[2]}</h{found[1]}>'

    return re.sub(r"<h([1-6])>(.*?)</h\1>", named, body, flags=re.DOTALL)
