"""`python -m tests.emulator --root DIR --port N`: an emulated Hub whose jobs run here, for trying commands by hand."""

import argparse
import shlex
import sys
import threading
from pathlib import Path

from tests.emulator.jobs import Jobs
from tests.emulator.server import Emulator


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.emulator", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of all state; kept and gone on with")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--user", default="ada", help="name of the person whose token is printed")
    args = parser.parse_args()
    jobs = Jobs()
    with Emulator(args.root, extra=jobs.routes, port=args.port) as emulator:
        known = [user.token for user in emulator.hub.users.values() if user.name == args.user]
        token = known[0] if known else emulator.hub.add_user(args.user)
        lines = [f"endpoint {emulator.endpoint}", f"token    {token}", ""]
        bucket = emulator.hub.bucket_folder(args.user, "hfagent")
        variables = {**emulator.variables(token), "HFAGENT_JOB_MOUNT": str(bucket)}
        lines += [f"export {key}={shlex.quote(value)}" for key, value in variables.items()]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return
        finally:
            jobs.close()


main()
