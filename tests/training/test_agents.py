"""Several torchrun agents, as on several machines; processes that are killed, hang or err alone."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT, SMALL_MODEL
from tests.forked_ranks import free_port, run_ranks
from tests.training.test_ranks import losses
from tests.watching import LONG

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

CHECKPOINT_STEPS, KILL_STEP, STEPS = 10, 25, 62
LOOPBACK = ("127.0.0.1", "127.0.0.2")


def arguments(data: Path | str, run_dir: Path, *more: str) -> tuple[str, ...]:
    return (
        f"data_path={data}",
        f"checkpoint_path={run_dir}",
        "global_batch_size=16",
        "epochs=10",
        "eval_interval=null",
        "puzzle_emb_lr=1e-2",
        "ema=true",
        "resume=auto",
        f"checkpoint_interval={CHECKPOINT_STEPS}",
        "keep_checkpoints=null",
        *SMALL_MODEL,
        *more,
    )


class Agent:
    """One torchrun with its workers."""

    def __init__(
        self, folder: Path, flags: tuple[str, ...], arguments: tuple[str, ...], interface: str,
        namespace: str | None = None,
    ):  # fmt: skip
        folder.mkdir(exist_ok=True)
        self._log = folder / f"agent-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "torch.distributed.run", "--monitor-interval=0.1", *flags]
        if namespace is not None:
            command = ["ip", "netns", "exec", namespace, *command]
        env = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": interface}
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, str(ROOT / "pretrain.py"), *arguments], cwd=folder, env=env,
                stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def told(self) -> str:
        return self._log.read_text()

    def errors(self) -> list[str]:
        return [line for line in self.told.splitlines() if line.startswith("error: ")]

    def workers(self) -> dict[int, int]:
        """Rank -> process."""
        found = {}
        for folder in Path("/proc").iterdir():
            try:
                parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
                variables = (folder / "environ").read_bytes().split(b"\0")
            except (OSError, IndexError):
                continue
            ranks = [v for v in variables if v.startswith(b"RANK=")]
            if parent == str(self.process.pid) and ranks:
                found[int(ranks[0][5:])] = int(folder.name)
        return found

    def send(self, number: signal.Signals) -> None:
        for pid in self.workers().values():
            os.kill(pid, number)

    def kill(self) -> None:
        workers = self.workers().values()
        self.process.kill()
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def wait(self) -> int:
        return self.process.wait(LONG)


Start = Callable[..., Agent]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts agents; those that still run at the end of the test are killed."""
    agents: list[Agent] = []

    def start(*args, **kwargs) -> Agent:
        agents.append(Agent(*args, **kwargs))
        return agents[-1]

    yield start
    for agent in agents:
        if agent.process.poll() is None:
            agent.kill()


def wait_for(condition: Callable[[], bool], what: str, agent: Agent) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert agent.process.poll() is None and time.monotonic() < deadline, (what, agent.told)
        time.sleep(0.05)


def logged_steps(run_dir: Path) -> int:
    file = run_dir / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def rendezvous(host: str, addresses: tuple[str, str] = LOOPBACK, nodes: str = "2", conf: str = ""):
    """torchrun's flags on each of two machines, of which the first keeps the rendezvous."""
    shared = (f"--nnodes={nodes}", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=test")
    shared += (f"--rdzv-endpoint={host}:{free_port()}", "--max-restarts=3")
    return [
        (*shared, f"--local-addr={address}", f"--rdzv-conf=is_host={is_host}{conf}")
        for address, is_host in zip(addresses, ("true", "false"), strict=True)
    ]


def assert_same(run_dir: Path, expected: Path) -> None:
    """Same metrics and weights, to the bit."""
    assert (run_dir / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()
    for file in ("model.safetensors", "ema.safetensors"):
        ours, theirs = (load_file(d / f"step_{STEPS}" / file) for d in (run_dir, expected))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), file


@pytest.fixture(scope="module")
def undisturbed(data_4x4, tmp_path_factory) -> Path:
    """Two ranks, from beginning to end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    words = arguments(data_4x4, folder / "run")
    result = run_ranks(ROOT / "pretrain.py", words, 2, folder, {"GLOO_SOCKET_IFNAME": "lo"})
    assert result.returncode == 0, result.stderr
    assert logged_steps(folder / "run") == STEPS + 1  # and an evaluation
    return folder / "run"


@contextmanager
def joined_namespaces() -> Iterator[tuple[list[str], list[str], tuple[str, str]]]:
    """Two network namespaces joined by a cable: their names, interfaces, addresses."""
    if shutil.which("ip") is None:
        pytest.skip("no `ip` command to make network namespaces with")
    names = [f"hrm{os.getpid()}{end}" for end in "ab"]
    addresses = ("10.213.97.1", "10.213.97.2")
    cable = f"link add {names[0]} netns {names[0]} type veth peer name {names[1]}"
    commands = [f"netns add {name}" for name in names] + [f"{cable} netns {names[1]}"]
    for name, address in zip(names, addresses, strict=True):
        commands += [f"-n {name} address add {address}/30 dev {name}"]
        commands += [f"-n {name} link set {device} up" for device in ("lo", name)]
    try:
        for command in commands:
            result = subprocess.run(["ip", *command.split()], capture_output=True, text=True)
            if result.returncode != 0:
                pytest.skip(f"no rights to make network namespaces: {result.stderr.strip()}")
        yield names, names, addresses
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.slow
def test_two_namespaces(undisturbed, data_4x4, tmp_path, start):
    with joined_namespaces() as (names, interfaces, addresses):
        flags = rendezvous(addresses[0], addresses)
        job = arguments(data_4x4, tmp_path / "run")
        agents = [
            start(tmp_path, flags[node], job, interfaces[node], names[node]) for node in (0, 1)
        ]
        for agent in agents:
            assert agent.wait() == 0, agent.told
    assert_same(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_two_loopback_addresses(undisturbed, data_4x4, tmp_path, start):
    job = arguments(data_4x4, tmp_path / "run")
    agents = [start(tmp_path, flags, job, "lo") for flags in rendezvous("127.0.0.1")]
    for agent in agents:
        assert agent.wait() == 0, agent.told
    assert_same(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_killed_worker(undisturbed, data_4x4, tmp_path, start):
    """torchrun starts all workers again, and they go on from the last checkpoint."""
    run_dir = tmp_path / "run"
    job = arguments(data_4x4, run_dir)
    agents = [start(tmp_path, flags, job, "lo") for flags in rendezvous("127.0.0.1")]
    wait_for(lambda: logged_steps(run_dir) >= KILL_STEP, f"step {KILL_STEP}", agents[0])
    agents[1].send(signal.SIGKILL)
    for agent in agents:
        assert agent.wait() == 0, agent.told
    assert f"going on from {run_dir / 'step_'}" in agents[0].told + agents[1].told
    assert_same(run_dir, undisturbed)


@pytest.mark.slow
def test_lost_machine(undisturbed, data_4x4, tmp_path, start):
    """`--nnodes 1:2`: the machine that is left goes on alone."""
    run_dir = tmp_path / "run"
    job = arguments(data_4x4, run_dir, "rank_timeout=20")
    quick = ",last_call_timeout=5,keep_alive_interval=1,keep_alive_max_attempt=3"
    flags = rendezvous("127.0.0.1", nodes="1:2", conf=quick)
    agents = [start(tmp_path, f, job, "lo") for f in flags]
    wait_for(lambda: logged_steps(run_dir) >= KILL_STEP, f"step {KILL_STEP}", agents[0])
    agents[1].kill()
    assert agents[0].wait() == 0, agents[0].told

    (line,) = [x for x in agents[0].told.splitlines() if x.startswith("going on from ")]
    checkpoint = Path(line.removeprefix("going on from "))
    alone = tmp_path / "alone"
    job = arguments(data_4x4, alone, f"resume={checkpoint}")
    agent = start(tmp_path, ("--standalone", "--nproc-per-node=1"), job, "lo")
    assert agent.wait() == 0, agent.told
    assert_same(run_dir, alone)

    first = int(checkpoint.name.removeprefix("step_"))
    ours, theirs = losses(run_dir), losses(undisturbed)
    assert torch.equal(ours[:first], theirs[:first])
    difference = (ours - theirs).abs() / theirs.abs()
    print(f"from step {first}: largest relative difference {difference.max():.1e}")
    assert difference[: first + 20].max() <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("hung", [2, 0])
def test_hung_rank_is_named(data_4x4, tmp_path, start, hung):
    run_dir = tmp_path / "run"
    job = arguments(data_4x4, run_dir, "global_batch_size=15", "rank_timeout=20", "epochs=1000")
    agent = start(tmp_path, ("--standalone", "--nproc-per-node=3"), job, "lo")
    wait_for(lambda: logged_steps(run_dir) >= 2, "steps", agent)
    process = agent.workers()[hung]
    os.kill(process, signal.SIGSTOP)
    begin = time.monotonic()
    wait_for(lambda: len(agent.errors()) == 2, "errors", agent)
    assert time.monotonic() - begin < 200
    os.kill(process, signal.SIGKILL)
    assert agent.wait() != 0

    host, left = socket.gethostname(), {0, 1, 2} - {hung}
    expected = {f"error: rank {r} on {host}: no answer from rank {hung} on {host}" for r in left}
    assert set(agent.errors()) == expected
    assert 'pretrain.py", line' not in agent.told


def test_mistake_on_one_machine(data_4x4, tmp_path, start):
    """The data set is missing on the second one."""
    first, second = tmp_path / "first", tmp_path / "second"
    job = arguments("data", tmp_path / "run")
    shutil.copytree(data_4x4, first / "data")
    flags = [[x for x in f if "restarts" not in x] for f in rendezvous("127.0.0.1")]
    agents = [start(folder, f, job, "lo") for folder, f in zip((first, second), flags, strict=True)]
    assert all(agent.wait() != 0 for agent in agents)
    (error,) = [line for agent in agents for line in agent.errors()]
    assert error.startswith("error: rank ") and f" on {socket.gethostname()}: data" in error
    assert not any('pretrain.py", line' in agent.told for agent in agents)
