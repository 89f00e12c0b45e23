"""Rights that a process gives up permanently before it runs a generated program. See `harness.sandbox.run`.

Runs in the processes of the sandbox: it imports little of the standard library and nothing else of this package. Every restriction is
requested from the kernel directly; a restriction that the kernel does not support is skipped and reported as missing.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

TYPE_CHECKING = False  # importing `typing` takes longer than everything else here
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

PYTHON = "refused only by Python (audit hook); foreign functions (ctypes) can evade it"
ARCHITECTURES = {"x86_64": (0xC000003E, 1), "aarch64": (0xC00000B7, 2)}
# Refused system calls: name, number on x86_64, number on aarch64. From 424 on, the numbers are the same on all
# architectures; these calls (io_uring, pidfd, new mounts, and those of future kernels) are answered "not implemented",
# except the ones in LATER.
CALLS = """
fork 57 -  vfork 58 -  execve 59 221  execveat 322 281
kill 62 129  tkill 200 130  rt_sigqueueinfo 129 138  rt_tgsigqueueinfo 297 240
socket 41 198
chmod 90 -  fchmod 91 52  fchmodat 268 53  chown 92 -  fchown 93 55  lchown 94 -  fchownat 260 54  truncate 76 45
utime 132 -  utimes 235 -  futimesat 261 -  utimensat 280 88  mknod 133 -  mknodat 259 33  setxattr 188 5
lsetxattr 189 6  fsetxattr 190 7  removexattr 197 14  lremovexattr 198 15  fremovexattr 199 16
ptrace 101 117  process_vm_readv 310 270  process_vm_writev 311 271  kcmp 312 272  setpriority 141 140
ioprio_set 251 30  sched_setaffinity 203 122  sched_setscheduler 144 119  sched_setparam 142 118
sched_setattr 314 274  migrate_pages 256 238  move_pages 279 239
setuid 105 146  setgid 106 144  setreuid 113 145  setregid 114 143  setresuid 117 147  setresgid 119 149
setgroups 116 159  setfsuid 122 151  setfsgid 123 152  capset 126 91
memfd_create 319 279  shmget 29 194  msgget 68 186  semget 64 190  mq_open 240 180  io_setup 206 0
userfaultfd 323 282
mount 165 40  umount2 166 39  pivot_root 155 41  chroot 161 51  unshare 272 97  setns 308 268  bpf 321 280
perf_event_open 298 241  keyctl 250 219  add_key 248 217  request_key 249 218  init_module 175 105
finit_module 313 273  delete_module 176 106  kexec_load 246 104  kexec_file_load 320 294  reboot 169 142
swapon 167 224  swapoff 168 225  acct 163 89  quotactl 179 60  sethostname 170 161  setdomainname 171 162
setsid 112 157  setpgid 109 154  settimeofday 164 170  clock_settime 227 112  adjtimex 159 171  clock_adjtime 305 266  syslog 103 116  iopl 172 -
ioperm 173 -  vhangup 153 58  fanotify_init 300 262  name_to_handle_at 303 264  open_by_handle_at 304 265
"""
WRITES = """
creat 85 -  unlink 87 -  unlinkat 263 35  rename 82 -  renameat 264 38  renameat2 316 276  mkdir 83 -  mkdirat 258 34
rmdir 84 -  link 86 -  linkat 265 37  symlink 88 -  symlinkat 266 36
"""
SPECIAL = "clone 56 220  tgkill 234 131  prlimit64 302 261  prctl 157 167  open 2 -  openat 257 56"
LATER = (436, 439, 449)  # close_range, faccessat2, futex_waitv

libc = ctypes.CDLL(None, use_errno=True)


def enter(job: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    """Moves this process, and those it starts later, into the folder of the program.

    Args:
        job: The limits, folders and layers that `harness.sandbox.run` sends.

    Returns:
        The namespaces that are its own (`_unshare`), and the version of Landlock, or 0.
    """
    private = _unshare(job["folder"], job["disk_bytes"]) if "namespaces" in job["layers"] else ()
    os.chdir(job["folder"])
    return private, _landlock(job["folder"], job["readable"]) if "landlock" in job["layers"] else 0


def give_up(job: Mapping[str, Any], entered: tuple[tuple[str, ...], int], parent: int) -> dict[str, str]:
    """Gives up rights of this process permanently; it dies when its parent dies.

    Args:
        job: The limits, folders and layers that `harness.sandbox.run` sends.
        entered: The result of `enter`.
        parent: The number of the parent process.

    Returns:
        The active protections: aspect (`network`, `memory` …) to description.
    """
    private, landlock = entered
    limits = _limit(job)
    _drop_capabilities()
    if sys.platform == "linux":
        libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL
    if os.getppid() != parent:
        os._exit(1)
    seccomp = "seccomp" in job["layers"] and _seccomp(write_nothing=not landlock)
    threads = job["threads"] if seccomp else 0  # RLIMIT_NPROC counts processes as well: without seccomp, allow neither
    # Counts in this user namespace only, in which there are two processes: the program's and the tests'.
    counted = "mapped" in private and _set_limit(resource.RLIMIT_NPROC, threads + 2)
    networks = [name for name, active in (("network namespace", private), ("seccomp", seccomp)) if active]
    processes = "none can be started (seccomp)" if seccomp else "none can be started (limit)" if counted else PYTHON
    files = "nothing can be written, everything can be read (seccomp)" if seccomp else PYTHON
    if landlock:
        files = f"written only in its folder, read only there and in Python's folders (Landlock {landlock})"
    in_memory = "tmpfs" in private
    return {
        "network": f"none ({', '.join(networks)})" if networks else PYTHON,
        "processes": processes,
        "threads": str(threads) if counted else "limited only by memory",
        "files": files,
        "folder": f"{job['disk_bytes'] >> 20} MiB in memory" if in_memory else "on the disk, deleted afterwards",
        **limits,
    }


def hide() -> None:
    """Hides the memory of this process from others of this user: the program's process shares its user and namespaces."""
    if sys.platform == "linux":
        libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE


def _unshare(folder: str, size: int) -> tuple[str, ...]:
    """Moves this process to new namespaces.

    Returns:
        What succeeded: `mapped` (user namespace with this user), `unmapped` or `root`, and `tmpfs` (a disk in memory);
        empty if the kernel refuses.
    """
    user, net, ipc, mounts = 0x10000000, 0x40000000, 0x08000000, 0x00020000
    uid, gid = os.geteuid(), os.getegid()
    if not hasattr(libc, "unshare"):
        return ()
    if uid == 0:
        libc.setresuid(
            65534, 0, 0
        )  # the limit on processes does not apply to a real user id of 0; the effective id stays
    if libc.unshare(user | net | ipc | mounts) == 0:
        try:
            for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
                file = os.open(f"/proc/self/{name}", os.O_WRONLY)
                os.write(file, text.encode())
                os.close(file)
            done: tuple[str, ...] = ("mapped",)
        except OSError:  # without a mapping, this user cannot own files on a tmpfs
            return ("unmapped",)
    elif libc.unshare(net | ipc | mounts) == 0:
        done = ("root",)
        if (
            libc.mount(b"none", b"/", None, 0x44000, None) != 0
        ):  # MS_REC | MS_PRIVATE: new mounts are not visible outside
            return done
    else:
        return ()
    options = f"size={size},nr_inodes=4096,mode=700".encode()
    if libc.mount(b"tmpfs", folder.encode(), b"tmpfs", 6, options) == 0:  # MS_NOSUID | MS_NODEV
        done += ("tmpfs",)
    return done


def _landlock(folder: str, readable: list[str]) -> int:
    """Restricts reading and writing of files, and TCP, with Landlock.

    Returns:
        The version of Landlock; 0 if the kernel does not have it.
    """
    if sys.platform != "linux":
        return 0
    create, add, restrict = 444, 445, 446
    version = libc.syscall(create, None, 0, 1)
    if version < 1:
        return 0
    every = (1 << (13, 14, 15, 15)[min(version, 4) - 1]) - 1 | (version >= 5) << 15
    rights = (ctypes.c_uint64 * 3)(every, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    ruleset = libc.syscall(create, rights, 8 if version < 4 else 16 if version < 6 else 24, 0)
    if ruleset < 0:
        return 0
    read, read_folder, of_a_file = 1 << 2, 1 << 3, (1 << 1 | 1 << 2 | 1 << 14) & every
    rules = [(folder, every), ("/dev/null", of_a_file), *((path, read | read_folder) for path in readable)]
    for path, allowed in rules:
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        if not os.path.isdir(path):  # noqa: PTH112
            allowed &= of_a_file
        rule = allowed.to_bytes(8, "little") + handle.to_bytes(4, "little")
        libc.syscall(add, ruleset, 1, rule, 0)
        os.close(handle)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    done = libc.syscall(restrict, ruleset, 0)
    os.close(ruleset)
    return int(version) if done == 0 else 0


def _limit(job: Mapping[str, Any]) -> dict[str, str]:
    """Sets the resource limits that every POSIX system has.

    Returns:
        A description of each limit.
    """
    _set_limit(resource.RLIMIT_CORE, 0)
    _set_limit(resource.RLIMIT_NOFILE, 64)
    return {
        "memory": _described(_set_limit(resource.RLIMIT_AS, job["memory_bytes"]), f"{job['memory_bytes'] >> 20} MiB"),
        "cpu": _described(_set_limit(resource.RLIMIT_CPU, job["cpu_seconds"], 1), f"{job['cpu_seconds']} s"),
        "file size": _described(_set_limit(resource.RLIMIT_FSIZE, job["file_bytes"]), f"{job['file_bytes'] >> 20} MiB"),
    }


def _described(is_limited: bool, limit: str) -> str:
    return limit if is_limited else "not limited: the system refuses"


def _set_limit(what: int, value: int, grace: int = 0) -> bool:
    hard = resource.getrlimit(what)[1]
    ceiling = value + grace if hard == resource.RLIM_INFINITY else min(value + grace, hard)
    try:
        resource.setrlimit(what, (min(value, ceiling), ceiling))
    except (ValueError, OSError):
        return False
    return True


def _drop_capabilities() -> None:
    """Drops all capabilities, so that user id 0 has no special rights, inside a namespace or outside."""
    architecture = sys.platform == "linux" and _architecture()
    if architecture:
        header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        libc.syscall((126, 91)[architecture[1] - 1], header, nothing)


def _architecture() -> tuple[int, int] | None:
    return ARCHITECTURES.get(os.uname().machine) if sys.maxsize > 2**32 else None


def _numbers(table: str, column: int) -> dict[str, int]:
    words = table.split()
    rows = [words[start : start + 3] for start in range(0, len(words), 3)]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def _seccomp(write_nothing: bool) -> bool:
    """Installs a filter that refuses system calls which a single-process program does not need.

    Returns:
        Whether the filter is active.
    """
    architecture = sys.platform == "linux" and _architecture()
    if not architecture:
        return False
    filter_ = _filter(*architecture, write_nothing)
    code = ctypes.create_string_buffer(filter_, len(filter_))

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    program = Filter(len(filter_) // 8, ctypes.addressof(code))
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    return bool(libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _filter(audit: int, column: int, write_nothing: bool) -> bytes:
    """The filter in the kernel's byte code (classic BPF).

    Args:
        audit: The kernel's number of the architecture (AUDIT_ARCH_…).
        column: The column of its call numbers in CALLS.
        write_nothing: Whether to refuse all writing: without Landlock, a folder cannot be an exception.
    """
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    kill, allow = 0x80000000, 0x7FFF0000
    refuse, unknown = 0x00050000 | 1, 0x00050000 | 38  # EPERM, ENOSYS
    special = _numbers(SPECIAL, column)
    code = [(load, 0, 0, 4), (equal, 1, 0, audit), (give, 0, 0, kill), (load, 0, 0, 0)]
    for number in LATER:
        code += [(equal, 0, 1, number), (give, 0, 0, allow)]
    code += [(at_least, 0, 1, 424), (give, 0, 0, unknown)]
    for number in _numbers(CALLS + (WRITES if write_nothing else ""), column).values():
        code += [(equal, 0, 1, number), (give, 0, 0, refuse)]

    def unless(name: str, argument: int, test: int, value: int) -> None:
        """Refuses a call unless its argument passes the test."""
        if name in special:
            code.extend([(equal, 0, 4, special[name]), (load, 0, 0, 16 + 8 * argument), (test, 1, 0, value)])
            code.extend([(give, 0, 0, refuse), (give, 0, 0, allow)])

    unless("clone", 0, any_bit, 0x00010000)  # CLONE_THREAD
    unless("tgkill", 0, equal, os.getpid())
    unless("prlimit64", 0, equal, 0)
    unless("prctl", 0, at_least, 5)  # smaller numbers: whether it dies with its parent, and is hidden
    if write_nothing:
        for name, argument in (("open", 1), ("openat", 2)):
            if name in special:  # allowed only without O_WRONLY, O_RDWR, O_CREAT and O_TRUNC
                code += [(equal, 0, 4, special[name]), (load, 0, 0, 16 + 8 * argument), (any_bit, 0, 1, 0o1103)]
                code += [(give, 0, 0, refuse), (give, 0, 0, allow)]
    code += [(give, 0, 0, allow)]
    return b"".join(
        operation.to_bytes(2, "little") + bytes((true, false)) + value.to_bytes(4, "little")
        for operation, true, false, value in code
    )
