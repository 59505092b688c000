"""Runs a job script on a rented machine and leaves what the machine's owner does not tell: its exit code.

    HFAGENT_ARGS='["--smoke", ...]' python -m hfagent.job_templates.remote FOLDER MODULE

In FOLDER, a mounted bucket, it writes `exit.json` last; the script writes `result.json` and fills `out/`.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from hfagent.job_templates.runtime import RESULT_FILE

ARGS = "HFAGENT_ARGS"
"""Variable with the script's arguments as a JSON list."""
SIGNALED = 128


def main(argv: list[str]) -> int:
    """Run the script; returns its exit code, 128 + the signal where one ended it."""
    folder, module = argv
    home = Path(folder)
    (home / "out").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", module, *json.loads(os.environ[ARGS])]
    child = subprocess.Popen(
        [*command, "--output-dir", str(home / "out")], env={**os.environ, RESULT_FILE: str(home / "result.json")}
    )

    def forward(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    code = child.wait()
    code = SIGNALED - code if code < 0 else code
    (home / "exit.json").write_text(json.dumps({"exit_code": code}), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
