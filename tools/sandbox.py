"""Runs one Python program that a model wrote: no network, no files but the interpreter's, no processes, limits on all.

Levels, strongest first; the first one that passes the probe is used, and its name belongs to every result:

- `bubblewrap+rlimits`: the program `bwrap` makes the namespaces and the empty root;
- `namespaces+rlimits`: the same made by system calls (root, or unprivileged user namespaces; Linux 5.12);
- `landlock+seccomp+rlimits`: rules of the kernel on files and system calls (Linux 5.13; needs no privilege and
  works in most containers). File names outside stay visible, their contents do not;
- `sandbox-exec+rlimits`: macOS; written after its manual and not tested; memory is not limited there;
- `unsafe`: limits only, and only where the person asked for it.

What it does not stop: a program that searches its own interpreter for the secret of success (frames, garbage
collector) can claim to have passed; it can do no other harm by that. Kernel bugs are out of scope.
"""

import contextlib
import marshal
import os
import re
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from hfagent.agent.errors import EvaluationError

Kind = Literal["passed", "syntax", "assertion", "exception", "exit", "timeout", "memory", "killed"]
"""`exit`: the program ended itself early; `killed`: it vanished without a report twice, e.g. by a crash."""

START_GRACE_S = 0.5
"""Beyond the program's own time: start of the interpreter, and the clean-up."""
REPORT_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one program ended."""

    passed: bool
    kind: Kind
    detail: str
    """What went wrong, up to 500 characters; may contain text that the program chose."""


@dataclass(frozen=True, slots=True)
class Level:
    """One way to isolate a program."""

    name: str
    launcher: tuple[str, ...] = ()
    """Argument list that starts the interpreter."""
    isolation: Literal["none", "user", "namespaces", "landlock"] = "none"
    """What the child does by itself."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A level that works here."""

    level: Level

    @classmethod
    def choose(cls, *, unsafe: bool = False, levels: Iterable[Level] | None = None) -> "Sandbox":
        """The strongest level that passes the probe.

        Args:
            unsafe: Accept limits without isolation where no level works.
            levels: What to try, in this order; None means those of the platform.

        Raises:
            EvaluationError: no level works and `unsafe` is False, or this user may not start the interpreter.
        """
        if not os.access(_interpreter(), os.X_OK):
            raise EvaluationError(
                f"the user {os.getuid()} may not run the Python below this environment, {_interpreter()!r}: "
                "use an environment whose Python every user may read, e.g. the system's"
            )
        reasons = []
        for level in known_levels() if levels is None else levels:
            reason = probe(cls(level))
            if reason is None:
                return cls(level)
            reasons.append(f"{level.name}: {reason}")
        if unsafe:
            return cls(Level("unsafe"))
        raise EvaluationError(
            f"no sandbox works on this machine ({'; '.join(reasons) or 'none is known for ' + sys.platform}); "
            "programs that a model wrote would run with your rights; install bubblewrap, or pass --unsafe-exec "
            "if this machine is disposable"
        )

    @property
    def name(self) -> str:
        """The level's name, for results."""
        return self.level.name

    def run(self, program: str, *, timeout_s: float = 5.0, memory_mib: int = 1024) -> Outcome:
        """Run one program to its end or its limit.

        The program gets an empty environment, fixed hashing, no arguments, no input; what it prints is dropped. It
        passes if and only if its last statement has been executed.

        Args:
            program: Source text.
            timeout_s: Wall-clock seconds.
            memory_mib: Address space, the interpreter's own 30 MiB included.
        """
        outcome = self._run_once(program, timeout_s, memory_mib)
        # Somebody may have killed it, which says nothing of the program: one that vanishes by itself does so again.
        return self._run_once(program, timeout_s, memory_mib) if outcome.kind == "killed" else outcome

    def run_many(self, programs: Sequence[str], *, workers: int, timeout_s: float = 5.0) -> Iterator[Outcome]:
        """Run several at a time; the outcomes come in the programs' order, each as soon as it is known."""
        with ThreadPoolExecutor(max_workers=workers) as pool:
            yield from pool.map(lambda program: self.run(program, timeout_s=timeout_s), programs)

    def _run_once(self, program: str, timeout_s: float, memory_mib: int) -> Outcome:
        nonce = secrets.token_hex(16)
        report, elapsed_s, stderr = self._execute(program, nonce, timeout_s, memory_mib)
        first, _, detail = report.partition("\n")
        if first == nonce:
            return Outcome(passed=True, kind="passed", detail="")
        for kind in get_args(Kind):
            if first == kind != "passed":
                return Outcome(passed=False, kind=kind, detail=detail[:500])
        if elapsed_s >= timeout_s:
            return Outcome(passed=False, kind="timeout", detail=f"still running after {timeout_s:g} s")
        return Outcome(passed=False, kind="killed", detail=f"ended without a report: {stderr or 'no message'}"[:500])

    def _execute(self, program: str, nonce: str, timeout_s: float, memory_mib: int) -> tuple[str, float, str]:
        request = {
            "program": program,
            "nonce": nonce,
            "timeout_s": timeout_s,
            "memory_mib": memory_mib,
            "visible": _visible_paths(),
            "isolation": self.level.isolation,
        }
        # -P -s -S: no folder of ours on the import path. Not -I: it would ignore the fixed hash seed, without which
        # the order of a set, and with it an outcome, changes from run to run.
        command = [*self.level.launcher, _interpreter(), "-P", "-s", "-S", "-B", "-X", "utf8", "-c", _child_text()]
        with tempfile.TemporaryFile() as stdin:
            stdin.write(marshal.dumps(request))
            stdin.seek(0)
            started = time.monotonic()
            process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PYTHONHASHSEED": "0"},
                cwd="/",
                start_new_session=True,
            )
        try:
            report, stderr = _read(process, started + timeout_s + START_GRACE_S)
            elapsed_s = time.monotonic() - started
        finally:
            _kill(process)
        return report, elapsed_s, stderr.strip().rpartition("\n")[2]


def probe(sandbox: Sandbox) -> str | None:
    """Why this sandbox does not isolate, or None: it ran the probe, and every forbidden act failed inside."""
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mailbox,
    ):
        Path(folder).chmod(0o755)  # open to every user: only the sandbox may be what protects it
        secret = Path(folder, "secret")
        secret.write_text("secret", encoding="utf-8")
        secret.chmod(0o666)
        mailbox.bind(("127.0.0.1", 0))
        mailbox.settimeout(0)
        ports = {"tcp": server.getsockname()[1], "udp": mailbox.getsockname()[1]}
        try:
            outcome = sandbox.run(PROBE.format(secret=str(secret), **ports), memory_mib=256)
        except OSError as error:
            return str(error)
        if not outcome.passed:
            return outcome.detail
        try:
            mailbox.recv(1)
        except BlockingIOError:
            return None
    return "a program can send to the machine"


PROBE = """
import os, socket
assert not os.environ, "the environment is not empty"
parent = os.getppid() if os.getppid() > 1 else 2**22  # 0 and 1: a process namespace of its own
def fork():
    if os.fork() == 0:
        os._exit(0)
forbidden = {{
    "read a file of the machine": lambda: open({secret!r}).read(),
    "write to a file of the machine": lambda: open({secret!r}, "w"),
    "list the processes": lambda: os.listdir("/proc/1"),
    "connect to the machine": lambda: socket.create_connection(("127.0.0.1", {tcp}), 2),
    "start a process": fork,
    "signal its parent": lambda: os.kill(parent, 0),
}}
for name, act in forbidden.items():
    try:
        act()
    except (OSError, MemoryError):
        continue
    raise AssertionError("a program can " + name)
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", {udp}))
except OSError:
    pass
"""


def known_levels() -> Iterator[Level]:
    """The levels of this platform, strongest first; whether they work here is for the probe to say."""
    if sys.platform == "linux":
        bubblewrap = shutil.which("bwrap")
        if bubblewrap is not None:
            yield Level("bubblewrap+rlimits", _bubblewrap(bubblewrap), "user")
        yield Level("namespaces+rlimits", (), "namespaces")
        yield Level("landlock+seccomp+rlimits", (), "landlock")
    elif sys.platform == "darwin":
        yield Level("sandbox-exec+rlimits", ("/usr/bin/sandbox-exec", "-p", _seatbelt()), "none")


def _bubblewrap(program: str) -> tuple[str, ...]:
    command = [program, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
    if os.getuid() == 0:
        # Without a user namespace root may become another user inside, and the limit on processes binds only then.
        command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user"]
    for path in _visible_paths():
        for folder in reversed(Path(path).parents[:-1]):
            command += ["--dir", str(folder)]  # made implicitly, it would be as closed as the original
        command += ["--ro-bind", path, path]
    return (*command, "--dev-bind", "/dev/null", "/dev/null", "--remount-ro", "/", "--chdir", "/")


def _seatbelt() -> str:
    readable = " ".join(f'(subpath "{path}")' for path in [*_visible_paths(), "/usr/lib", "/System/Library"])
    return (
        "(version 1)(deny default)(allow process-exec*)(allow sysctl-read)(allow file-read-metadata)"
        f'(allow file-read* {readable})(allow file-read* file-write-data (literal "/dev/null"))'
    )


@cache
def _interpreter() -> str:
    """The real executable below any virtual environment: the environment's packages stay outside."""
    return os.path.realpath(sys.executable)


@cache
def _visible_paths() -> list[str]:
    """The interpreter, its standard library and the shared libraries of the system."""
    wanted = [_interpreter(), sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    wanted += [str(path) for path in Path(sys.base_prefix, "lib").glob("lib*python*")]
    wanted += ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/nix/store"]
    # os.path.exists is False, where Path.exists raises, for what this user may not look at.
    return list(dict.fromkeys(path for path in wanted if os.path.exists(path)))  # noqa: PTH110


@cache
def _child_text() -> str:
    text = Path(__file__).with_name("sandbox_child.py").read_text(encoding="utf-8")
    return re.sub(r"(?m)^\s*#.*\n", "", text)


def _read(process: subprocess.Popen[bytes], deadline: float) -> tuple[str, str]:
    """Standard output and error until both end, one outgrows a report, or the deadline."""
    assert process.stdout is not None
    assert process.stderr is not None
    texts = {process.stdout: b"", process.stderr: b""}
    with selectors.DefaultSelector() as selector:
        for stream in texts:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map() and (remaining := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(remaining):
                stream = process.stdout if key.fileobj is process.stdout else process.stderr
                chunk = os.read(key.fd, REPORT_BYTES)
                texts[stream] += chunk
                if not chunk:
                    selector.unregister(stream)
            if max(map(len, texts.values())) > REPORT_BYTES:
                break
    stdout, stderr = (text.decode("utf-8", "replace") for text in texts.values())
    return stdout, stderr


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
