"""One process beside each container: its parent, its reaper and its witness. Run as a script, never imported.

    python -I -S shim ATTEMPT_FOLDER

What a PID namespace and containerd's shim give on a real node, done with what an unprivileged process has:

- the shim holds `lock` while it lives and creates `claimed` with O_EXCL before it starts anything, so that of any
  number of shims given one folder exactly one ever runs the container;
- `running` stands on disk before the container's program does: it waits on a pipe until then, and a shim that dies
  takes it along (PR_SET_PDEATHSIG), so that no process exists that no file names;
- the shim is the subreaper of all that the program starts (PR_SET_CHILD_SUBREAPER): children that forked twice and
  made sessions of their own still end with it;
- `exit` appears only when the last of them is gone.

It outlives the kubelet. Standard library only and no json (whose import costs as long as the interpreter's start):
`spec` is fields separated by NUL, `running` and `exit` are numbers separated by spaces. `containers` has the other end.
"""

import ctypes
import fcntl
import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LOCK_TRIES = 50  # the kubelet looks at the lock for an instant only: 0.5 s outlasts it
LOCK_PAUSE_SECONDS = 0.01
REAP_PAUSE_SECONDS = 0.002
FULL_DISK_PAUSE_SECONDS = 0.2
START_ERROR_EXIT_CODE = 128  # what Kubernetes shows for a program that could not be executed
IGNORED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)


def main() -> None:
    """Run the container of the folder given as the only argument."""
    folder = sys.argv[1]
    lock = os.open(folder + "/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not claim(lock, folder + "/claimed"):
        report(b"taken\n")
        return
    for ignored in IGNORED_SIGNALS:
        signal.signal(ignored, signal.SIG_IGN)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    with open(folder + "/spec", "rb") as file:  # noqa: PTH123 - pathlib costs half the shim's start
        fields = file.read().split(b"\0")

    go_read, go_write = os.pipe()
    error_read, error_write = os.pipe()
    shim_pid = os.getpid()
    started_at = time.time()
    pid = os.fork()
    if pid == 0:
        os.close(go_write)
        become(fields, go=go_read, error=error_write, shim_pid=shim_pid)
    os.close(go_read)
    os.close(error_write)
    write_atomically(
        folder + "/running",
        f"{shim_pid} {start_time(shim_pid)} {pid} {start_time(pid)} {started_at:.6f}\n",
    )
    os.write(go_write, b"g")
    os.close(go_write)
    error = os.read(error_read, 32)
    os.close(error_read)
    if error:
        os.waitpid(pid, 0)
        write_atomically(
            folder + "/exit", f"{START_ERROR_EXIT_CODE} 0 {started_at:.6f} {time.time():.6f} {int(error)}\n"
        )
        report(b"failed\n")
        return
    report(b"started\n")
    status = wait_for(pid)
    finished_at = time.time()
    end_descendants(shim_pid)
    code = os.waitstatus_to_exitcode(status)
    exit_code, number = (code, 0) if code >= 0 else (128 - code, -code)
    end = f"{exit_code} {number} {started_at:.6f} {finished_at:.6f} 0\n"
    while not wrote(folder + "/exit", end):
        time.sleep(FULL_DISK_PAUSE_SECONDS)  # nobody else knows the exit code


def wrote(path: str, text: str) -> bool:
    """Whether it could be written: not where the disk is full. Without the folder nobody asks any more."""
    try:
        write_atomically(path, text)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def claim(lock: int, marker: str) -> bool:
    """Whether this shim is the one that runs the container. It then holds the lock until it ends."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_SECONDS)
        else:
            return True
    return False


def become(fields: list[bytes], *, go: int, error: int, shim_pid: int) -> None:
    """In the forked child: wait for the word, then turn into the container's program. Never returns."""
    working_directory, log, count = fields[0], fields[1], int(fields[2])
    argv = fields[3 : 3 + count]
    environment = dict(field.split(b"=", 1) for field in fields[3 + count :] if field)
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # As a container engine does: whatever the shim, or who started the cluster, ignored.
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if os.getppid() != shim_pid or os.read(go, 1) != b"g":
            os._exit(1)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.umask(0o022)
        os.chdir(working_directory)
        os.execvpe(argv[0], argv, environment)  # noqa: S606 - a container runtime runs what it is given
    except OSError as reason:
        os.write(error, str(reason.errno or 1).encode())
    os._exit(START_ERROR_EXIT_CODE - 1)


def wait_for(pid: int) -> int:
    """Reap every child that ends until `pid` does; its wait status."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            return status


def end_descendants(root: int) -> None:
    """Kill all below `root` and reap them, until none is left. New ones may be born meanwhile: look again."""
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for pid in descendants(root):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(REAP_PAUSE_SECONDS)


def descendants(root: int) -> list[int]:
    """Every process whose chain of parents leads to `root`."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib costs half the shim's start
        if name.isdigit() and (fields := stat_fields(int(name))):
            children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def stat_fields(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the state on; empty if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - as above
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot: with the pid it names one process for good."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else 0


def write_atomically(path: str, text: str) -> None:
    """The whole text or nothing at all, whenever we are killed."""
    temporary = path + ".tmp"
    with open(temporary, "w") as file:  # noqa: PTH123 - as above
        file.write(text)
    os.rename(temporary, path)  # noqa: PTH104 - as above


def report(line: bytes) -> None:
    """Tell the kubelet that spawned us, if it still lives, and let go of its pipe."""
    try:
        os.write(1, line)
    except OSError:  # it died: `running` and `exit` tell the next one
        line = b""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)


def prctl(option: int, argument: int) -> None:
    """Set an attribute of this process; the standard library wraps no prctl."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    main()
