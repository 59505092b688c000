"""The wheel holds what the checkout holds: a prompt or recipe left out would break only installed copies."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from hfagent.tools.script_command import header

ROOT = Path(__file__).parent.parent
FOLDERS = ("agent", "tools", "prompts", "job_templates")


def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file())
    expected = {f"hfagent/{path.relative_to(ROOT)}" for path in files if "__pycache__" not in path.parts}
    assert packed == expected | {"hfagent/__init__.py", "hfagent/__main__.py", "hfagent/py.typed"}


@pytest.mark.parametrize("template", sorted(path.name for path in (ROOT / "job_templates").glob("[!_]*.py")))
def test_a_job_needs_no_more_than_the_extra_local_unless_its_arguments_ask_for_more(template: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    local = {_name(text) for text in (*project["dependencies"], *project["optional-dependencies"]["local"])}
    assert {_name(text) for text in header(ROOT / "job_templates" / template).get("dependencies", ())} <= local


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")
