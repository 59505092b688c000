"""How a job script is run on this machine: by this Python where its packages suffice, else by uv."""

import importlib.metadata
import platform
import re
import shutil
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfagent.agent.errors import JobError, PackageMissing

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_HEADER = re.compile(r"^# /// script\s*$(.*?)^# ///\s*$", re.MULTILINE | re.DOTALL)


def script_command(script: Path, args: Sequence[str] = ()) -> list[str]:
    """The command that runs a script with a PEP 723 header, without its arguments, which may ask for more packages.

    Raises:
        PackageMissing: this Python lacks a package of the header, and uv is not on PATH.
        JobError: the header cannot be read.
    """
    missing = unmet_requirements(script, args)
    if not missing:
        return [sys.executable, str(script)]
    uv = shutil.which("uv")
    if uv is None:
        raise PackageMissing(
            f"{script.name} needs {', '.join(missing)}, which this Python does not have: "
            "install the packages with pip install 'hfagent[local]', or install uv, which fetches them itself"
        )
    further = [part for requirement in _further(header(script), args) for part in ("--with", requirement)]
    return [uv, "run", *further, "--script", str(script)]


def requirements(script: Path, args: Sequence[str] = ()) -> list[str]:
    """What the header asks for: for every run, and for one with these arguments."""
    found = header(script)
    return [*found.get("dependencies", ()), *_further(found, args)]


def require_further(script: Path, args: Sequence[str]) -> None:
    """Refuse early what `script_command` would for the packages that these arguments ask for.

    Raises:
        PackageMissing: this Python lacks one of them, and uv is not on PATH.
    """
    from packaging.requirements import Requirement

    missing = [text for text in _further(header(script), args) if not is_installed(Requirement(text))]
    if missing and shutil.which("uv") is None:
        raise PackageMissing(
            f"{', '.join(args)} needs {', '.join(missing)}, which this Python does not have: pip install it, or uv"
        )


def _further(found: Mapping[str, Any], args: Sequence[str]) -> list[str]:
    """The table `tool.hfagent.with` of a header: argument -> packages that it takes."""
    table = found.get("tool", {}).get("hfagent", {}).get("with", {})
    return [requirement for arg in args for requirement in table.get(arg, ())]


def unmet_requirements(script: Path, args: Sequence[str]) -> list[str]:
    """What the header asks for and this Python does not have, as written there."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        found = header(script)
        python = str(found.get("requires-python", ""))
        python_fits = SpecifierSet(python).contains(platform.python_version(), prereleases=True)
        wanted = [Requirement(text) for text in requirements(script, args)]
    except ValueError as error:
        raise JobError(f"the script header of {script.name!r} cannot be read: {error}") from error
    unmet = [] if python_fits else [f"Python {python}"]
    for requirement in wanted:
        applies = requirement.marker is None or requirement.marker.evaluate()
        # The runner puts this package on the job's path itself.
        if applies and not is_installed(requirement):
            unmet.append(str(requirement))
    return unmet


def is_installed(requirement: "Requirement") -> bool:
    """Whether this Python has the package in a version that suits."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)


def header(script: Path) -> dict[str, Any]:
    """The PEP 723 header of a script, parsed; empty where it has none."""
    found = _HEADER.search(script.read_text(encoding="utf-8"))
    if found is None:
        return {}
    return tomllib.loads("\n".join(line.removeprefix("#").removeprefix(" ") for line in found[1].splitlines()))
