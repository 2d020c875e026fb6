"""Jobs done by several processes, whose results come in the order of the jobs."""

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, TypeVar, cast

from hrm.errors import UserError

Job = TypeVar("Job")
Message = TypeVar("Message")
Work = Callable[[Job], Iterable[Message]]
END = None  # of the messages of a job


def in_order(
    work: Work[Job, Message],
    jobs: Iterable[Job],
    workers: int,
    heard: Callable[[Message], None],
) -> Generator[list[Message]]:
    """The messages of each job, in the order of the jobs. To be closed when no more are wanted.

    Args:
        work: a function of a module, which other processes can import.
        jobs: may be without end.
        workers: processes; where it is 1, this one does the work.
        heard: is called with each message when it comes, in no particular order of the jobs.

    Raises:
        UserError: `work` raised it, or a process was killed.
    """
    if workers > 1:
        with _processes(work, workers) as pipes:
            yield from _shared_out(jobs, pipes, heard)
        return
    for job in jobs:
        messages = []
        for message in work(job):
            heard(message)
            messages.append(message)
        yield messages


def _shared_out(
    jobs: Iterable[Job], pipes: list[Connection], heard: Callable[[Message], None]
) -> Generator[list[Message]]:
    """Whoever has nothing to do gets the next job."""
    numbered = enumerate(jobs)
    messages: dict[int, list[Message]] = {}  # of each job that was begun
    busy: dict[Connection, int] = {}
    turn = 0

    def begin(pipe: Connection) -> None:
        for number, job in numbered:
            busy[pipe], messages[number] = number, []
            _send(pipe, job)
            break

    for pipe in pipes:
        begin(pipe)
    while busy:
        for ready in wait(list(busy)):
            pipe = cast(Connection, ready)
            message = _received(pipe)
            if message is END:
                del busy[pipe]
                begin(pipe)
            else:
                messages[busy[pipe]].append(message)
                heard(message)
        while turn in messages and turn not in busy.values():
            yield messages.pop(turn)
            turn += 1


@contextmanager
def _processes(work: Work[Any, Any], workers: int) -> Generator[list[Connection]]:
    """Pipes to so many processes, which are ended when this is left.

    They begin with Ctrl-C blocked, which a terminal sends to all of them: this process hears of it.
    """
    spawn = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # which would unblock signals if it were started below
    pipes, processes = [], []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        for _ in range(workers):
            own, others = Pipe()
            process = spawn.Process(target=_serve, args=(work, others), daemon=True)
            process.start()
            others.close()
            pipes.append(own)
            processes.append(process)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield pipes
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
            process.close()
        for pipe in pipes:
            pipe.close()


def _serve(work: Work[Any, Any], pipe: Connection) -> None:
    """Do the jobs that come, until the other end is gone."""
    with suppress(EOFError, ConnectionError):
        while True:
            job = pipe.recv()
            try:
                for message in work(job):
                    pipe.send(message)
            except UserError as error:
                pipe.send(error)
            except Exception:
                pipe.send(RuntimeError(traceback.format_exc()))
            pipe.send(END)


def _send(pipe: Connection, job: object) -> None:
    try:
        pipe.send(job)
    except ConnectionError:
        raise _killed() from None


def _received(pipe: Connection) -> Any:
    try:
        message = pipe.recv()
    except (EOFError, ConnectionError):
        raise _killed() from None
    if isinstance(message, Exception):
        raise message
    return message


def _killed() -> UserError:
    return UserError(
        "a process that did part of the work has ended, perhaps for want of memory; start again "
        "with a smaller --workers"
    )
