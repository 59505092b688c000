# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "pydantic>=2.11",
#   "huggingface-hub>=1.20",
# ]
# ///
"""Pushes a merged model, and GGUF files of it to a repo of their own, each with its card.

Exit codes: 0 with a RESULT line; 1 the Hub does not take them; 2 arguments that cannot be used; 143 stopped by SIGTERM.
A push that was cut off is gone on with: what has arrived is not sent again.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfagent.agent.errors import HfagentError, ModelNotFound, UsageError
from hfagent.job_templates.pushing import push
from hfagent.job_templates.runtime import emit_result, on_sigterm, stop


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The job's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None, allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True, help="folder of the merged model")
    parser.add_argument("--push", metavar="REPO", required=True, help="user/name; GGUF files go to user/name-GGUF")
    parser.add_argument("--card", type=Path, required=True, help="README.md of the model")
    parser.add_argument("--gguf", type=Path, action="append", default=[], help="a file; may be repeated")
    parser.add_argument("--gguf-card", type=Path, help="README.md of the repo with the GGUF files")
    parser.add_argument("--public", action="store_true", help="the repos may be seen by all")
    parser.add_argument("--output-dir", type=Path, required=True)
    args = parser.parse_args(argv)
    if args.gguf and args.gguf_card is None:
        parser.error("argument --gguf: give a --gguf-card, too")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; 0 done, 1 failed, 2 arguments that cannot be used."""
    args = parse_args(argv)
    on_sigterm(stop)
    try:
        emit_result(publish(args))
    except HfagentError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2 if isinstance(error, UsageError) else 1
    return 0


def publish(args: argparse.Namespace) -> dict[str, Any]:
    """Repo -> where it is, as `pushed`.

    Raises:
        ModelError: a file is missing, or the Hub does not take them.
    """
    started = time.monotonic()
    for path in (args.model / "config.json", args.card, *args.gguf, *([args.gguf_card] if args.gguf_card else [])):
        if not path.is_file():
            raise ModelNotFound(f"{str(path)!r} is not there: export the model again, then publish it")
    pushed = {args.push: push(args.push, args.model, args.card.read_text(encoding="utf-8"), public=args.public)}
    if args.gguf:
        emit_result({"pushed": pushed})  # it is there, whatever becomes of the files
        names, card = [path.name for path in args.gguf], args.gguf_card.read_text(encoding="utf-8")
        folder = args.gguf[0].parent
        pushed[f"{args.push}-GGUF"] = push(f"{args.push}-GGUF", folder, card, public=args.public, only=names)
    return {"pushed": pushed, "seconds": round(time.monotonic() - started, 1)}


if __name__ == "__main__":
    sys.exit(main())
