"""One writer a folder: a lock that dies with its owner, and a note in the folder that says who the owner is."""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from varlab.errors import VarlabError

try:
    import fcntl
except ImportError:  # no Unix: the owner's note alone decides
    fcntl = None  # type: ignore[assignment]

LOCK, OWNER = ".lock", ".owner.json"
BEAT = 5.0  # seconds between two touches of the owner's note
NO_WAIT = "VARLAB_NO_WAIT"  # set to anything: no process waits, as if each were told not to
STALE = 60.0  # seconds without a touch after which an owner on another host counts as dead
LOOK, REPEAT = 0.3, 30.0  # seconds between two looks at a held folder, and between two messages


@dataclass(frozen=True)
class Owner:
    """Who writes in a folder. ``started`` tells a process from a later one with the same number."""

    host: str
    pid: int
    started: float
    since: str
    token: str

    @classmethod
    def this_process(cls) -> "Owner":
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time(), now, uuid4().hex)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


def owner_of(folder: Path) -> Owner | None:
    """The living owner of a folder, if there is one: it beats, and on this host its process exists."""
    note = folder / OWNER
    try:
        last = note.stat().st_mtime
        owner = Owner(**json.loads(note.read_text("utf-8")))
    except (OSError, ValueError, TypeError):  # none, or cut while it was written
        return None
    if owner.host == socket.gethostname():
        return owner if _runs(owner) and time.time() - last < STALE else None
    return owner if _time_of(folder) - last < STALE else None


def _time_of(folder: Path) -> float:
    """Now, by the clock that dates the files of a folder: those of two hosts may differ by more than ``STALE``."""
    probe = folder / f"{OWNER}.{uuid4().hex[:8]}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:  # a folder that can only be read
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()


def _runs(owner: Owner) -> bool:
    try:
        return abs(psutil.Process(owner.pid).create_time() - owner.started) < 1
    except psutil.Error:
        return False


@contextmanager
def one_writer(
    folder: Path, *, wait: bool = True, done: Callable[[], str] = str, tell: Callable[[str], Any] | None = None
) -> Iterator[None]:
    """Write in a folder alone; it is made where it does not exist, and removed again if nothing was written.

    The kernel frees the lock when its process ends, however it ends. On another host, where that lock may not reach,
    an owner counts as dead after ``STALE`` seconds without a sign of life.

    Parameters
    ----------
    wait: whether to wait for a living owner; else it is an error, and so it is where ``$VARLAB_NO_WAIT`` is set.
    done: how far the owner is, for the message.
    tell: takes the message that this process waits; by default it goes to stderr.

    Raises
    ------
    VarlabError: the folder has a living owner and ``wait`` is off, or it cannot be written in.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    lock = _acquire(folder, wait, done, tell or (lambda line: sys.stderr.write(f"varlab: {line}\n")))
    ended = threading.Event()
    try:
        _write_owner(folder)
        threading.Thread(target=_beat, args=(folder / OWNER, ended), daemon=True).start()
        yield
    finally:
        ended.set()
        for name in (OWNER, LOCK):  # while the lock is held: whoever opened this file before finds that it is gone
            (folder / name).unlink(missing_ok=True)
        for place in made:
            with suppress(OSError):  # not empty, as a rule
                place.rmdir()
        os.close(lock)


def _acquire(folder: Path, wait: bool, done: Callable[[], str], tell: Callable[[str], Any]) -> int:
    """The descriptor of the lock, once there is no living owner."""
    last = -REPEAT
    while True:
        lock = _try(folder)
        owner = owner_of(folder)
        if lock is not None and owner is None:
            return lock
        if lock is not None:  # the lock does not reach the host of the owner
            os.close(lock)
        who = str(owner) if owner else "another process"
        if not wait or os.environ.get(NO_WAIT):
            raise VarlabError(f"{folder} is being written by {who}. Wait for it, or give another folder.")
        if owner and time.monotonic() - last >= REPEAT:
            progress = done()
            tell(f"{folder} is being written by {who}{f', {progress}' if progress else ''}; waiting for it")
            last = time.monotonic()
        time.sleep(LOOK)


def _try(folder: Path) -> int | None:
    """The descriptor of the lock file, locked; None where another process has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        gone = isinstance(error, FileExistsError) and not os.path.lexists(folder)
        if gone or isinstance(error, FileNotFoundError):  # the last owner removed the empty folder in between
            return None
        raise VarlabError(f"{folder} cannot be written in ({error.strerror}). Give another folder.") from error
    try:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_nlink:
            return lock
    except BlockingIOError:
        pass
    except OSError:  # a file system without locks: the owner's note alone decides
        return lock
    os.close(lock)  # held, or removed by its last owner between the two calls
    return None


def _write_owner(folder: Path) -> None:
    draft = folder / f"{OWNER}.{uuid4().hex[:8]}"
    draft.write_text(json.dumps(asdict(Owner.this_process())), "utf-8")
    draft.replace(folder / OWNER)


def _beat(note: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        with suppress(OSError):
            os.utime(note)
