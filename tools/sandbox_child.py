"""Runs inside the sandbox: isolates itself as its level asks, executes one program, reports how it ended.

Never imported: `hfagent.tools.sandbox` sends this text to a bare interpreter (`python -c`), so it may use nothing but
the standard library. The request comes on standard input; the report, a first line and a detail, goes to standard
output, which the program does not get to see. The first line of success is the request's nonce.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import resource
import signal
import struct
import sys

TYPE_CHECKING = False  # importing typing costs 3 ms of every program
if TYPE_CHECKING:
    from typing import Any, NoReturn

NOBODY = 65534
"""The conventional user without rights; mapped in most containers, which an arbitrary high number is not."""

# linux/sched.h, linux/mount.h, linux/prctl.h
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER = 0x20000, 0x4000000, 0x8000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522
# System calls newer than 5.0 have one number on every architecture.
SYS_MOUNT_SETATTR, SYS_LANDLOCK_CREATE, SYS_LANDLOCK_ADD, SYS_LANDLOCK_RESTRICT = 442, 444, 445, 446

# What a computing Python process needs once it runs: memory, reading files, time, its own signal handlers. No
# process, thread, socket, signal, chmod, ptrace or io_uring. Per architecture: audit number, capset, allowed calls.
SYSCALLS = {
    "x86_64": (
        0xC000003E,
        126,
        "0 1 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 19 20 21 24 25 28 32 33 35 39 60 63 72 79 89 96 97 98 99 100 102 104"
        " 107 108 110 131 186 201 202 204 217 218 219 228 229 230 231 257 262 267 270 271 273 292 318 332 334 439",
    ),
    "aarch64": (
        0xC00000B7,
        91,
        "17 23 24 25 29 48 56 57 61 62 63 64 65 66 67 72 73 78 79 80 93 94 96 98 99 101 113 114 115 123 124 128 132 134"
        " 135 139 153 160 163 165 169 172 173 174 175 176 177 178 179 214 215 216 222 226 233 278 291 293 439",
    ),
}

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    """The result of a C call, or its errno as OSError: an isolation that half works must not run anything."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def drop_user() -> None:
    """Root becomes nobody: the limit on processes does not bind root."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def drop_capabilities() -> None:
    """Give up every capability, for good."""
    machine = os.uname().machine
    if machine not in SYSCALLS:
        raise OSError(f"no list of system calls for {machine!r}, only for {', '.join(SYSCALLS)}")
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITY_VERSION_3, 0))
    capset = SYSCALLS[machine][1]
    check(libc.syscall(capset, header, ctypes.create_string_buffer(24)), "capset")


def enter_namespaces(visible: list[str], timeout_s: float) -> None:
    """Continue as the only process of a world without network, whose files are `visible`, read-only.

    Needs root or unprivileged user namespaces, and Linux 5.12. Returns in a child; the parent waits and kills.
    """
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    if libc.unshare(flags) < 0:
        check(libc.unshare(flags | CLONE_NEWUSER), "unshare")
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - pathlib costs 5 ms of every program
                file.write(text)
    hide_files(visible)
    inside = os.fork()
    if inside:
        wait_and_kill(inside, timeout_s)
    if os.getuid() == 0:
        drop_user()
    drop_capabilities()
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")


def hide_files(visible: list[str]) -> None:
    """A new root that holds only `visible`. No /proc, no /dev, nothing to write to."""
    root = "/proc"  # a folder that always exists and holds no interpreter
    check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount private")
    check(libc.mount(b"tmpfs", root.encode(), b"tmpfs", 0, b"size=64k,mode=755"), "mount tmpfs")
    for path in visible:
        target = root + path
        if os.path.isdir(path):  # noqa: PTH112
            os.makedirs(target, exist_ok=True)  # noqa: PTH103
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        check(libc.mount(path.encode(), target.encode(), None, MS_BIND | MS_REC, None), f"bind {path}")
    attributes = struct.pack("=QQQQ", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0, 0, 0)
    setattr_args = (AT_FDCWD, root.encode(), AT_RECURSIVE, attributes, len(attributes))
    check(libc.syscall(SYS_MOUNT_SETATTR, *setattr_args), "mount read-only")
    # A changed root also forbids user namespaces of the program's own, which would hand it capabilities again.
    os.chroot(root)
    os.chdir("/")


def wait_and_kill(inside: int, timeout_s: float) -> NoReturn:
    """Outlives the program: killing the first process of a process namespace kills all of it."""
    signal.signal(signal.SIGALRM, lambda *_: os.kill(inside, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    os.waitpid(inside, 0)
    os._exit(0)


def restrict_files(visible: list[str]) -> None:
    """Landlock: reading below `visible` and nothing else; no TCP from ABI 4, no signals to others from ABI 6."""
    abi = check(libc.syscall(SYS_LANDLOCK_CREATE, None, 0, 1), "landlock")
    read_file, read_dir = 1 << 2, 1 << 3
    handled = (1 << 13) - 1 | (1 << 13 if abi >= 2 else 0) | (1 << 14 if abi >= 3 else 0) | (1 << 15 if abi >= 5 else 0)
    attributes = struct.pack("=QQQ", handled, 3, 3)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    rules = check(libc.syscall(SYS_LANDLOCK_CREATE, attributes, len(attributes), 0), "landlock ruleset")
    for path in visible:
        beneath = os.open(path, os.O_PATH)
        allowed = read_file | (read_dir if os.path.isdir(path) else 0)  # noqa: PTH112
        rule = struct.pack("=Qi", allowed, beneath)
        check(libc.syscall(SYS_LANDLOCK_ADD, rules, 1, rule, 0), f"landlock rule for {path}")
        os.close(beneath)
    check(libc.syscall(SYS_LANDLOCK_RESTRICT, rules, 0), "landlock restrict")
    os.close(rules)


def restrict_syscalls() -> None:
    """Seccomp: anything not in the list of this architecture fails with EPERM. Irrevocable."""
    audit, _, numbers = SYSCALLS[os.uname().machine]
    allowed = [int(number) for number in numbers.split()]
    load, jump_if_equal, give = 0x20, 0x15, 0x06
    code = [(load, 0, 0, 4), (jump_if_equal, 1, 0, audit), (give, 0, 0, 0x80000000), (load, 0, 0, 0)]
    # Every comparison jumps over those that follow it and over the refusal.
    code += [(jump_if_equal, len(allowed) - i, 0, number) for i, number in enumerate(allowed)]
    code += [(give, 0, 0, 0x00050001), (give, 0, 0, 0x7FFF0000)]
    text = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
    program = struct.pack("HP", len(code), ctypes.addressof(text))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0), "seccomp")


def limit(memory_mib: int, timeout_s: float) -> None:
    """Address space, processor seconds; no process or thread, no file that grows, 64 open files."""
    memory = memory_mib * 2**20
    limits = {
        resource.RLIMIT_CPU: int(timeout_s) + 2,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_CORE: 0,
    }
    if sys.platform != "darwin":  # macOS refuses to limit an address space
        limits[resource.RLIMIT_AS] = memory
    for which, value in limits.items():
        resource.setrlimit(which, (value, value))


def isolate(request: dict[str, Any]) -> None:
    """What the level leaves to this process; a launcher such as bubblewrap has done its own part before."""
    own = request["isolation"]
    if own == "namespaces":
        enter_namespaces(request["visible"], request["timeout_s"])
    elif own == "landlock":
        drop_capabilities()
        restrict_files(request["visible"])
    elif own == "user":
        drop_user()
    limit(request["memory_mib"], request["timeout_s"])
    if own == "landlock":
        restrict_syscalls()


def describe(error: BaseException) -> str:
    """Type, text and line of the program, bounded where the text may be huge or may itself raise."""
    line = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<program>":
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        text = str(error)[:400]
    except Exception:  # noqa: BLE001 - the program's own exception class
        text = ""
    return f"{type(error).__name__}: {text}" + (f" (line {line})" if line else "")


def execute(program: str, success: str) -> tuple[str, str]:
    """How the program ended and its detail; `success` and nothing else means that it reached its end."""
    try:
        code = compile(program, "<program>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, RecursionError) as error:
        return "syntax", describe(error)
    except MemoryError as error:
        return "memory", describe(error)
    try:
        exec(code, {"__name__": "__main__"})  # noqa: S102 - the purpose of this file
    except AssertionError as error:
        return "assertion", describe(error)
    except MemoryError as error:
        return "memory", describe(error)
    except SystemExit as error:
        return "exit", describe(error)
    except BaseException as error:  # noqa: BLE001 - a foreign program may raise anything
        return "exception", describe(error)
    return success, ""


def main() -> NoReturn:
    """Read the request, isolate, execute, report."""
    request = marshal.loads(sys.stdin.buffer.read())  # noqa: S302 - from our own parent
    report = os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)
    isolate(request)
    # Until here standard error tells the parent why an isolation failed.
    os.dup2(null, 2)
    os.close(null)
    os.environ.clear()
    kind, detail = execute(request.pop("program"), request.pop("nonce"))
    os.write(report, f"{kind}\n{detail}".encode("utf-8", "replace")[:4096])
    os._exit(0)


main()
