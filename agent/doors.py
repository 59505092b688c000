"""The commands by which people and other agents come in while a night runs. Each returns the exit code."""

import sys
from importlib.util import find_spec

from hfagent.agent import wiring
from hfagent.agent.errors import PackageMissing, UsageError
from hfagent.agent.settings import Settings


def watch(project: str | None, settings: Settings, *, web: bool, port: int) -> int:
    """Show a project as it goes, on the terminal or as a page.

    Raises:
        UsageError: there is no terminal, or the port is taken.
    """
    paths = wiring.find_project(settings.reports_dir, project)
    if web:
        from hfagent.agent.web import serve

        try:
            serve(paths, port)
        except OSError as error:
            raise UsageError(f"the port {port} cannot be used: {error.strerror}; choose another with --port") from error
        return 0
    if not sys.stdout.isatty():
        raise UsageError("there is no terminal to draw on: take --web, or `hfagent status`")
    from hfagent.agent.watch_screen import WatchScreen

    WatchScreen(paths).run()
    return 0


def chat(settings: Settings) -> int:
    """Talk."""
    from hfagent.agent.chat_terminal import converse

    return converse(settings)


def mcp(settings: Settings) -> int:
    """Serve other agents.

    Raises:
        PackageMissing: the extra `mcp` is not installed.
    """
    if find_spec("mcp") is None:
        raise PackageMissing('`hfagent mcp` needs the package mcp: run `pip install -c constraints.txt -e ".[mcp]"`')
    from hfagent.agent.mcp_server import serve

    serve(settings)
    return 0
