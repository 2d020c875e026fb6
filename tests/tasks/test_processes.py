"""Jobs in several processes: results in order, and an end without leftovers."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from hrm.errors import UserError
from hrm.signals import Interrupted, handled_by, interrupt
from hrm.tasks.processes import in_order


def count_to(job: int) -> Iterator[int]:
    """Longer for the first jobs; -1 is a mistake, 666 a process that is killed, -2 a fault."""
    if job == -2:
        raise ZeroDivisionError("of the work")
    if job == -1:
        raise UserError("a mistake")
    if job == 666:
        os.kill(os.getpid(), signal.SIGKILL)
    for number in range(job):
        time.sleep(0.01)
        yield number


def own_process(job: int) -> Iterator[int]:
    time.sleep(0.1)
    yield os.getpid()


def ignore(message: int) -> None:
    pass


@pytest.fixture(autouse=True)
def _no_process_is_left():
    yield
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_jobs(workers):
    heard: list[int] = []
    jobs = [20, 0, 3, 7, 1]
    assert list(in_order(count_to, jobs, workers, heard.append)) == [list(range(n)) for n in jobs]
    assert sorted(heard) == sorted(number for job in jobs for number in range(job))


def test_several_processes_share_the_work():
    found = [pid for [pid] in in_order(own_process, range(6), 2, ignore)]
    assert len(set(found)) == 2 and os.getpid() not in found


def test_a_fault_of_the_work_is_told_as_what_it_is():
    with pytest.raises(RuntimeError, match="ZeroDivisionError: of the work"):
        list(in_order(count_to, [3, -2, 3], 2, ignore))


def test_jobs_may_be_without_end():
    with closing(in_order(count_to, iter(lambda: 2, None), 2, ignore)) as results:
        assert [next(results) for _ in range(5)] == [[0, 1]] * 5


@pytest.mark.parametrize("workers", [1, 2])
def test_a_mistake_is_passed_on(workers):
    with pytest.raises(UserError, match="^a mistake$"):
        list(in_order(count_to, [1, -1, 1], workers, ignore))


def test_a_killed_process_ends_the_work_with_one_line():
    with pytest.raises(UserError, match="--workers") as caught:
        list(in_order(count_to, [3, 666, 3], 2, ignore))
    assert "\n" not in str(caught.value)


def test_an_interruption_ends_all_processes():
    def interrupted(number: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with handled_by(interrupt), pytest.raises(Interrupted):
        list(in_order(count_to, [1000, 1000], 2, interrupted))
