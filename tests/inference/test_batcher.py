"""Puzzles that think side by side answer as each would alone, whoever joins, leaves and fails."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hrm.attempts import Attempt, Plan, plan_attempts
from hrm.inference import Solution, Solver
from hrm.inference.batcher import Batcher, Closed, Question, QueueFull, Step, Ticket
from hrm.models.act import Carry
from hrm.tasks.sudoku.task import SudokuTask

from .test_solver import halting_solver, make_solver

PATIENCE = 60.0  # seconds until a test gives up
HALTINGS = ("learned", "max_steps")
PUZZLES = np.random.default_rng(0).integers(5, size=(12, 16)).astype(np.int32)


class ThirdsAreValid(SudokuTask):
    """Its answers are valid where the tokens' sum is a multiple of three."""

    def are_valid(self, answers: np.ndarray, inputs: np.ndarray) -> list[bool | None]:
        return (answers.sum(axis=1) % 3 == 0).tolist()


class Gate:
    """Holds a model before each ACT step until it is let through; notes the rows of each."""

    def __init__(self, solver: Solver):
        self.rows: list[int] = []
        self._passes, self._arrived = threading.Semaphore(0), threading.Semaphore(0)
        self._error: Exception | None = None
        self._act, self._step = solver.model.model, solver.model.model.step
        self._act.step = self._hold  # type: ignore[method-assign]

    def _hold(self, carry: Carry) -> tuple[Carry, dict[str, torch.Tensor]]:
        self.rows.append(len(carry.steps))
        self._arrived.release()
        assert self._passes.acquire(timeout=PATIENCE)
        if self._error is not None:
            raise self._error
        return self._step(carry)

    def wait_for_step(self) -> int:
        """Rows of the ACT step that is about to run."""
        assert self._arrived.acquire(timeout=PATIENCE)
        return self.rows[-1]

    def let_through(self, steps: int = 1) -> None:
        self._passes.release(steps)

    def fail(self, error: Exception) -> None:
        """Let all steps through, but to an error."""
        self._error = error
        self.let_through(10_000)

    def open(self) -> None:
        self._error = None
        self._act.step = self._step  # type: ignore[method-assign]
        self.let_through(10_000)


class Listener:
    """What was delivered to one ticket, by question."""

    def __init__(self, batcher: Batcher, questions: list[Question]):
        self.questions = questions
        self.told: list[list[Step | Exception]] = [[] for _ in questions]
        self._arrived: queue.Queue[tuple[int, Step | Exception]] = queue.Queue()
        self.ticket: Ticket = batcher.submit(questions, lambda *item: self._arrived.put(item))

    def receive(self) -> Step | Exception:
        number, item = self._arrived.get(timeout=PATIENCE)
        self.told[number].append(item)
        return item

    def until_ended(self) -> list[list[Step | Exception]]:
        """Everything, until the last word on each question."""
        left = len(self.questions)
        while left:
            item = self.receive()
            left -= isinstance(item, Exception) or item.last
        return self.told

    def rest(self) -> list[list[Step | Exception]]:
        """Everything until now."""
        while not self._arrived.empty():
            self.receive()
        return self.told


def question(
    number: int = 0, steps: int = 4, halting: str = "max_steps", every_step: bool = True
) -> Question:
    return Question(PUZZLES[number], 0, steps, halting, every_step)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def alone() -> Callable[[Question], Solution]:
    """The solver's answer to a question alone; its weights are those of `halting_solver`."""
    solver = halting_solver(PUZZLES)

    @cache
    def solve(puzzle: bytes, steps: int, halting: str) -> Solution:
        inputs = np.frombuffer(puzzle, np.int32)[None]
        return solver.solve(inputs, steps=steps, halting=halting, trace=True)[0]  # type: ignore[arg-type]

    return lambda asked: solve(asked.inputs.tobytes(), asked.steps, asked.halting)


@pytest.fixture
def make() -> Iterator[Callable[..., Batcher]]:
    """Make batchers; they are closed in the end, and their threads have ended then."""
    made: list[Batcher] = []

    def make(solver: Solver | None = None, **limits: int) -> Batcher:
        made.append(Batcher(solver or make_solver(), **limits))
        return made[-1]

    yield make
    for batcher in made:
        batcher.close()
        assert not batcher._thread.is_alive()


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def assert_begins_as(solution: Solution, asked: Question, steps: list[Step | Exception]) -> None:
    """The steps are the first ones of the solution, or its last one alone."""
    trace = solution.trace
    assert trace is not None
    if not asked.every_step:
        assert [s.number for s in steps] in ([], [solution.steps])
    else:
        assert [s.number for s in steps] == list(range(1, len(steps) + 1))
    for step in steps:
        assert isinstance(step, Step)
        place = step.number - 1
        assert step.halted == (step.number == solution.steps)
        assert step.tokens.dtype == np.int32 and step.confidence.dtype == np.float32
        np.testing.assert_array_equal(step.tokens, trace.tokens[place])
        np.testing.assert_allclose(step.confidence, trace.probabilities[place].max(-1), atol=1e-5)
        assert step.halt_probability == pytest.approx(trace.halt_probability[place], abs=1e-5)


questions = st.lists(
    st.builds(
        question,
        st.integers(0, len(PUZZLES) - 1),
        st.integers(1, 9),  # four in training
        st.sampled_from(HALTINGS),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)
events = st.lists(st.one_of(questions, st.integers(0, 9), st.just("step")), min_size=1, max_size=20)


@given(events, st.integers(1, 6))
@settings(max_examples=60, derandomize=True)
def test_each_answers_as_alone_whoever_joins_and_leaves(alone, events, max_batch):
    """An event is a submission, the number of one that is cancelled, or one more ACT step."""
    solver = halting_solver(PUZZLES)
    gate, batcher = Gate(solver), Batcher(solver, max_batch, max_waiting=100)
    listeners: list[Listener] = []
    for event in events:
        if event == "step":
            gate.let_through()
            time.sleep(0.001)  # mostly the step runs now; nothing depends on it
        elif isinstance(event, int):
            for listener in listeners[event : event + 1]:
                listener.ticket.cancel()
        else:
            listeners.append(Listener(batcher, event))
    gate.open()
    for listener in listeners:
        if not listener.ticket.cancelled:
            for asked, steps in zip(listener.questions, listener.until_ended(), strict=True):
                assert_begins_as(alone(asked), asked, steps)
                assert steps[-1].halted
    eventually(lambda: batcher.running == batcher.waiting == 0)
    batcher.close()
    assert max(gate.rows, default=0) <= max_batch
    for listener in listeners:
        for asked, steps in zip(listener.questions, listener.rest(), strict=True):
            assert_begins_as(alone(asked), asked, steps)


def test_puzzles_share_the_steps_and_join_in_the_order_they_came(make):
    solver = make_solver()
    gate, batcher = Gate(solver), make(solver, max_batch=3)
    first = Listener(batcher, [question(n, steps=n + 1) for n in range(2)])
    assert gate.wait_for_step() == 2
    second, third = Listener(batcher, [question(2)]), Listener(batcher, [question(3, steps=1)])
    assert (batcher.running, batcher.waiting) == (2, 2)
    gate.let_through()
    assert gate.wait_for_step() == 3
    assert (batcher.running, batcher.waiting) == (3, 0)
    assert not third.rest()[0] and not second.rest()[0] and len(first.rest()[1]) == 1
    gate.let_through()
    assert third.until_ended()[0][0].number == 1
    assert gate.wait_for_step() == 1
    gate.open()
    assert len(second.until_ended()[0]) == 4


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("max_batch", [1, 5, 64])
@pytest.mark.parametrize(
    "tries",
    [
        {"rollouts": 14, "noise": 1.0},
        {"votes": 2, "restarts": 1, "rollouts": 4, "noise": 0.5, "select": "majority", "seed": 9},
        {"rollouts": 5, "noise": 1.0, "select": "q_halt"},
    ],
)
def test_rollouts_side_by_side_are_those_of_the_solver(make, tries, max_batch, every_step):
    solver = halting_solver(PUZZLES)
    solver.task = ThirdsAreValid(solver.metadata)
    plan = plan_attempts(solver.task, **tries)
    expected = solver.solve(PUZZLES, **tries)
    asked = [Question(inputs, 0, 4, every_step=every_step, plan=plan) for inputs in PUZZLES]
    batcher = make(solver, max_batch=max_batch)
    listener = Listener(batcher, asked)
    tried = listener.until_ended()
    for steps, alone in zip(tried, expected, strict=True):
        assert [step.last for step in steps] == [False] * (len(steps) - 1) + [True]
        ends = [step for step in steps if step.halted]
        assert len({step.attempt for step in ends}) == len(ends)
        best = plan.choose(ends)
        np.testing.assert_array_equal(best.tokens, alone.tokens)
        assert (best.attempt, best.valid, best.steps) == (alone.attempt, alone.valid, alone.steps)
        assert plan.cost(ends)[1] == alone.total_steps
        for number in {step.attempt for step in steps} if every_step else ():
            own = [step.number for step in steps if step.attempt == number]
            assert own == list(range(1, len(own) + 1))
    assert max(alone.attempt for alone in expected) > 2
    eventually(lambda: batcher.idle)
    assert listener.rest() == tried


@pytest.mark.parametrize("max_batch", [1, 5, 64])
@pytest.mark.parametrize(
    "tries", [{"guesses": 3}, {"votes": 2, "guesses": 30}, {"guesses": 30, "steps": 2}]
)
def test_guesses_are_those_of_the_solver(make, tries, max_batch):
    puzzles = np.stack([np.roll(np.eye(16, dtype=np.int32)[0] * 3, n) for n in range(12)])
    solver = halting_solver(puzzles)
    solver.task = ThirdsAreValid(solver.metadata)
    expected = solver.solve(puzzles, **tries)
    plan = plan_attempts(solver.task, **{k: n for k, n in tries.items() if k != "steps"})
    steps = tries.get("steps", 4)
    batcher = make(solver, max_batch=max_batch)
    tried = Listener(batcher, [Question(p, 0, steps, plan=plan) for p in puzzles]).until_ended()
    for ends, alone in zip(tried, expected, strict=True):
        assert [step.last for step in ends] == [False] * (len(ends) - 1) + [True]
        assert len({step.attempt for step in ends}) == len(ends)
        best = plan.choose(ends)
        np.testing.assert_array_equal(best.tokens, alone.tokens)
        assert (best.attempt, best.valid, best.steps) == (alone.attempt, alone.valid, alone.steps)
        assert best.guessed == alone.guessed
        assert plan.cost(ends) == (len(ends), alone.total_steps)
    assert any(alone.guessed for alone in expected)
    eventually(lambda: batcher.idle)


def test_rollouts_need_places_for_the_widest_wave(make):
    solver = make_solver()
    gate, batcher = Gate(solver), make(solver, max_batch=2, max_waiting=6)
    wide = plan_attempts(solver.task, rollouts=8, noise=1.0)
    assert wide.width == 4
    for _ in range(2):
        Listener(batcher, [Question(PUZZLES[0], 0, 1, plan=wide)])
    with pytest.raises(QueueFull):
        Listener(batcher, [question()])
    gate.open()


def test_a_model_that_fails_tells_a_puzzle_once_whose_rollouts_wait(make):
    solver = make_solver()
    gate, batcher = Gate(solver), make(solver, max_batch=1)
    plan = plan_attempts(solver.task, rollouts=5, noise=1.0, select="q_halt")
    listener = Listener(batcher, [Question(PUZZLES[0], 0, 1, plan=plan)])
    gate.wait_for_step()
    gate.let_through()
    gate.wait_for_step()
    gate.fail(RuntimeError("out of memory"))
    [[first, error]] = listener.until_ended()
    assert first.attempt == 1 and isinstance(error, RuntimeError)
    eventually(lambda: batcher.idle)
    assert listener.rest() == [[first, error]]


@pytest.mark.parametrize("max_batch", [1, 5, 64])
def test_attempts_follow_one_another_as_in_the_solver(make, max_batch):
    solver = halting_solver(PUZZLES)
    solver.task = ThirdsAreValid(solver.metadata)
    tries = {"votes": 3, "restarts": 3, "seed": 5}
    plan = plan_attempts(solver.task, **tries)
    expected = solver.solve(PUZZLES, **tries)
    asked = [Question(inputs, 0, 4, plan=plan) for inputs in PUZZLES]
    tried = Listener(make(solver, max_batch=max_batch), asked).until_ended()
    for steps, alone in zip(tried, expected, strict=True):
        assert [step.attempt for step in steps] == list(range(1, len(steps) + 1))
        assert [step.last for step in steps] == [False] * (len(steps) - 1) + [True]
        assert all(step.halted for step in steps)
        best = plan.choose(steps)
        np.testing.assert_array_equal(best.tokens, alone.tokens)
        np.testing.assert_allclose(best.confidence, alone.confidence, atol=1e-5)
        assert (best.valid, best.number) == (alone.valid, alone.steps)
        assert sum(step.number for step in steps) == alone.total_steps
    assert len({len(steps) for steps in tried}) > 2


def test_another_attempt_waits_behind_those_who_came(make):
    solver = make_solver()
    gate, batcher = Gate(solver), make(solver, max_batch=1, max_waiting=1)
    plan = Plan(tuple((Attempt(start_seed=seed),) for seed in (None, 1, 2)))
    first = Listener(batcher, [Question(PUZZLES[0], 0, 1, plan=plan)])
    gate.wait_for_step()
    second = Listener(batcher, [question(1, steps=1)])
    gate.let_through()
    assert first.receive().attempt == 1
    gate.wait_for_step()
    assert (batcher.running, batcher.waiting, batcher.idle) == (1, 1, False)
    with pytest.raises(QueueFull):
        Listener(batcher, [question()])
    gate.let_through()
    assert second.receive().last
    gate.wait_for_step()
    first.ticket.cancel()
    gate.open()
    eventually(lambda: batcher.idle)
    assert [step.attempt for step in first.rest()[0]] == [1, 2]


def test_identifiers_reach_the_model(make):
    solver = make_solver(num_puzzle_identifiers=9)
    told = Listener(make(solver), [Question(PUZZLES[0], n, 1) for n in (-1, 3, 3)]).until_ended()
    unseen, known, again = (steps[0].halt_probability for steps in told)
    assert known == pytest.approx(again) and unseen != pytest.approx(known)


def test_cancelling_frees_places_at_once(make):
    solver = make_solver()
    gate, batcher = Gate(solver), make(solver, max_batch=2, max_waiting=2)
    running = Listener(batcher, [question(n) for n in range(2)])
    gate.wait_for_step()
    waiting = Listener(batcher, [question(n) for n in range(2)])
    with pytest.raises(QueueFull):
        Listener(batcher, [question()])
    waiting.ticket.cancel()
    after = Listener(batcher, [question(n, steps=1) for n in range(2)])
    with pytest.raises(QueueFull):
        Listener(batcher, [question()])
    running.ticket.cancel()
    Listener(batcher, [question(n, steps=1) for n in range(2)]).ticket.cancel()
    gate.let_through()
    gate.wait_for_step()
    assert (batcher.running, batcher.waiting) == (2, 0)
    gate.open()
    assert [len(steps) for steps in after.until_ended()] == [1, 1]
    eventually(lambda: batcher.running == 0)
    assert waiting.rest() == [[], []] and [len(steps) for steps in running.rest()] == [1, 1]
    running.ticket.cancel()


def test_those_who_wait_and_leave_are_not_counted_after_the_next_step(make):
    solver = make_solver()
    gate, batcher = Gate(solver), make(solver, max_batch=1)
    Listener(batcher, [question()])
    gate.wait_for_step()
    left = Listener(batcher, [question(n) for n in range(5)])
    left.ticket.cancel()
    gate.let_through()
    gate.wait_for_step()
    assert (batcher.running, batcher.waiting) == (1, 0)
    gate.open()


def test_a_queue_takes_all_or_none_and_the_largest_request(make):
    solver = make_solver()
    gate, batcher = Gate(solver), make(solver, max_batch=2, max_waiting=3)
    with pytest.raises(QueueFull):
        Listener(batcher, [question()] * 6)
    assert (batcher.running, batcher.waiting) == (0, 0)
    Listener(batcher, [question()] * 5)
    gate.open()
    largest = Listener(make(max_batch=1), [question(steps=1)] * 256)
    assert len(largest.until_ended()) == 256


def test_a_model_that_fails_tells_all_its_puzzles_and_goes_on(make):
    solver = make_solver()
    gate, batcher = Gate(solver), make(solver, max_batch=2)
    listeners = [Listener(batcher, [question(n)]) for n in range(3)]
    gate.fail(RuntimeError("out of memory"))
    for listener in listeners:
        [[error]] = listener.until_ended()
        assert isinstance(error, RuntimeError) and str(error) == "out of memory"
    gate.open()
    assert [len(steps) for steps in Listener(batcher, [question()]).until_ended()] == [4]


def test_a_model_that_fails_later_keeps_what_had_halted(make):
    solver = make_solver()
    gate, batcher = Gate(solver), make(solver, max_batch=2)
    listener = Listener(batcher, [question(0, steps=1), question(1, steps=3)])
    gate.wait_for_step()
    gate.let_through()
    gate.wait_for_step()
    gate.fail(RuntimeError("out of memory"))
    [[short], [step, error]] = listener.until_ended()
    assert short.halted and not step.halted and isinstance(error, RuntimeError)


def test_a_diverged_model_is_sure_of_nothing(make):
    solver = make_solver()
    with torch.no_grad():
        for weight in solver.model.parameters():
            weight.fill_(torch.nan)
    [[step]] = Listener(make(solver), [question(steps=1)]).until_ended()
    assert step.halt_probability == 0 and (step.confidence == 0).all() and step.halted


def test_closing_tells_everybody_and_ends_the_thread(make):
    solver = make_solver()
    gate, batcher = Gate(solver), make(solver, max_batch=1)
    running, waiting = Listener(batcher, [question()]), Listener(batcher, [question()] * 2)
    gate.wait_for_step()
    closing = threading.Thread(target=batcher.close)
    closing.start()
    eventually(lambda: batcher._closed)
    with pytest.raises(Closed):
        Listener(batcher, [question()])
    gate.open()
    closing.join(PATIENCE)
    assert not closing.is_alive() and not batcher._thread.is_alive()
    [[step, closed]] = running.until_ended()
    assert step.number == 1 and isinstance(closed, Closed)
    assert [[type(item) for item in told] for told in waiting.until_ended()] == [[Closed]] * 2
    assert batcher.running == batcher.waiting == 0
    batcher.close()
    with pytest.raises(Closed):
        Listener(batcher, [question()])


def test_many_threads_at_once(make, alone):
    batcher = make(halting_solver(PUZZLES), max_batch=5, max_waiting=1000)
    answers: list[tuple[Question, list[Step | Exception]]] = []
    cancelled = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(5):
            asked = [
                question(int(n), int(random.integers(1, 6)), str(random.choice(HALTINGS)))
                for n in random.integers(len(PUZZLES), size=3)
            ]
            listener = Listener(batcher, asked)
            if random.random() < 0.3:
                listener.receive()
                listener.ticket.cancel()
                cancelled.append(listener)
            else:
                answers.extend(zip(asked, listener.until_ended(), strict=True))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(answers) + 3 * len(cancelled) == 8 * 5 * 3 and cancelled
    for asked, steps in answers:
        assert_begins_as(alone(asked), asked, steps)
        assert steps[-1].halted
    eventually(lambda: batcher.running == batcher.waiting == 0)


def test_threads_that_submit_while_it_closes_are_told_or_refused(make):
    for _ in range(20):
        batcher = make(max_batch=2)
        told: list[Listener] = []
        refused = []

        def work(batcher: Batcher = batcher, told: list = told, refused: list = refused) -> None:
            try:
                while True:
                    told.append(Listener(batcher, [question(steps=1)] * 2))
            except (Closed, QueueFull) as error:
                refused.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        batcher.close()
        for thread in threads:
            thread.join(PATIENCE)
        assert len(refused) == 3
        for listener in told:
            assert all(len(steps) == 1 for steps in listener.until_ended())
