"""What suits a device: dtypes, micro-batches, copies, memory between steps."""

import math
import os
import re
import subprocess
import sys
import tomllib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from hrm.checkpoint import build_for
from hrm.data.format import DatasetMetadata
from hrm.device import (
    COMPILED_CODE,
    CPU_STATE,
    MOST_SHAPES,
    compile_model,
    deterministic,
    free_memory,
    has_compiler,
    has_fast_bfloat16,
    is_compiled,
    micro_batch_size,
    pick_device,
    to_device,
)
from hrm.errors import UserError
from hrm.ranks import Ranks
from hrm.training.config import load_pretrain_config
from hrm.training.loop import train
from hrm.training.sizing import SHARE, MemoryNeed, for_device, largest_fitting, memory_need
from hrm.training.state import TrainState, train_step
from tests.conftest import ROOT
from tests.keys.spies import compiled_modules
from tests.test_rollout import build

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
GIGA = 10**9

needs_compiler = pytest.mark.skipif(not has_compiler(CPU), reason="no compiler here")


def tokens(seq_len: int) -> DatasetMetadata:
    """Data of this many tokens an example."""
    return DatasetMetadata(
        vocab_size=10,
        seq_len=seq_len,
        num_puzzle_identifiers=1000,
        pad_id=0,
        ignore_label_id=0,
        blank_identifier_id=-1,
        total_groups=1000,
        mean_puzzle_examples=1,
        sets=("train",),
    )


def test_the_oldest_torch_knows_the_limit_that_compiling_sets(monkeypatch):
    """`recompile_limit` came with 2.7; before, setting it raised AttributeError."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [torch_needed] = [d for d in project["dependencies"] if re.match(r"torch\b", d)]
    assert torch_needed == "torch>=2.7"
    compiled = compiled_modules(monkeypatch)
    with torch._dynamo.config.patch(recompile_limit=8):
        assert compile_model(build(), "true", CPU) and compiled
        assert torch._dynamo.config.recompile_limit == MOST_SHAPES


@pytest.fixture
def gpu(monkeypatch):
    """As on a machine with one GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    allowed = torch.backends.cuda.cudnn_sdp_enabled()
    yield
    torch.backends.cuda.enable_cudnn_sdp(allowed)


@pytest.mark.parametrize("asked, allowed", [(None, False), ("0", False), ("1", True)])
def test_cudnn_attention_is_off_unless_asked_for(gpu, monkeypatch, asked, allowed):
    if asked is not None:
        monkeypatch.setenv("HRM_CUDNN_ATTENTION", asked)
    assert pick_device("cuda") == torch.device("cuda", 0)
    assert torch.backends.cuda.cudnn_sdp_enabled() == allowed
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()


@pytest.mark.parametrize("device, waits", [(CUDA, False), (MPS, True), (CPU, True)])
def test_only_copies_from_pinned_memory_do_not_wait(monkeypatch, device, waits):
    pinned: list[int] = []
    asked: list[tuple[torch.device, bool, bool]] = []

    def pin(tensor):
        pinned.append(id(tensor))
        return tensor

    def to(tensor, device, non_blocking=False):
        asked.append((device, not non_blocking, id(tensor) in pinned))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", to)
    to_device({"inputs": torch.zeros(3), "labels": torch.ones(3)}, device)
    assert asked == [(device, waits, device == CUDA)] * 2


@pytest.mark.parametrize(
    "capability, dtype", [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")]
)
def test_bfloat16_is_fast_from_ampere_on(monkeypatch, capsys, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_fast_bfloat16(CUDA) == (dtype == "bfloat16")
    small = ("micro_batch_size=null",)
    config = load_pretrain_config([*small, "arch.forward_dtype=auto"])
    assert for_device(config, CUDA, tokens(81), 1, 0).arch.forward_dtype == dtype
    for_device(
        load_pretrain_config([*small, "arch.forward_dtype=bfloat16"]), CUDA, tokens(81), 1, 0
    )
    assert ("very slow on this device" in capsys.readouterr().out) == (dtype == "float32")


def test_float16_is_refused_in_training():
    """Its gradients vanish without scaling; evaluating and solving may use it."""
    config = load_pretrain_config(["arch.forward_dtype=float16"])
    with pytest.raises(UserError, match="float16: .* use bfloat16, float32 or auto"):
        for_device(config, CPU, tokens(81), 1, 0)


@given(rows=st.integers(1, 10_000), numbers=st.integers(1, 2 * CPU_STATE))
def test_a_cpu_s_micro_batch_divides_the_batch_and_nearly_fits(rows, numbers):
    chosen, fitting = micro_batch_size(rows, numbers), CPU_STATE / numbers
    assert rows % chosen == 0
    if rows <= fitting:
        assert chosen == rows
    for n in range(1, rows + 1):
        if rows % n == 0 and rows > fitting:
            assert abs(math.log(chosen / fitting)) <= abs(math.log(n / fitting)) + 1e-9


@pytest.mark.parametrize(
    "overrides, ranks, expected",
    [
        (["global_batch_size=384"], 1, 48),
        (["global_batch_size=384"], 2, 48),
        (["global_batch_size=32"], 1, 32),
        (["global_batch_size=383"], 1, 383),  # a prime: rather all than one by one
        (["global_batch_size=384", "micro_batch_size=null"], 1, None),
        (["global_batch_size=384", "micro_batch_size=96"], 1, 96),
    ],
)
def test_micro_batches_of_the_published_model(overrides, ranks, expected):
    config = load_pretrain_config(overrides)
    assert for_device(config, CPU, tokens(81), ranks, 0).micro_batch_size == expected


def test_a_batch_that_does_not_fit_into_an_accelerator_is_split(monkeypatch):
    """Batch 768 of 900 tokens asked for 143 GB at once."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    config = load_pretrain_config(["global_batch_size=768"])
    fitted = for_device(config, CUDA, tokens(900), 1, 80 * GIGA)
    need = memory_need(config, tokens(900), linear_attention=True)
    assert 130 * GIGA < need.of(768, 768) < 200 * GIGA
    assert fitted.micro_batch_size == largest_fitting(768, need, 80 * GIGA) == 256
    assert largest_fitting(768, need, 16 * GIGA) == 32
    assert largest_fitting(768, need, 400 * GIGA) == 768
    whole = config.model_copy(update={"micro_batch_size": None})
    assert for_device(whole, CUDA, tokens(900), 1, GIGA).micro_batch_size is None


def test_attention_that_holds_all_scores_needs_more():
    small = ("arch.hidden_size=64", "arch.num_heads=4", "arch.H_layers=1", "arch.L_layers=1")
    config = load_pretrain_config([*small, "arch.H_cycles=1", "arch.L_cycles=1"])
    linear, plain = (memory_need(config, tokens(400), kernel) for kernel in (True, False))
    assert plain.passing > linear.passing + 2 * 4 * 401**2  # bfloat16, 4 heads, two calls at least


@given(
    rows=st.integers(1, 3000),
    always=st.integers(0, 10**9),
    kept=st.integers(0, 10**6),
    passing=st.integers(1, 10**8),
    free=st.integers(0, 10**11),
)
def test_the_largest_divisor_that_fits_is_taken(rows, always, kept, passing, free):
    need = MemoryNeed(always, kept, passing)
    chosen = largest_fitting(rows, need, free)
    assert rows % chosen == 0
    assert chosen == 1 or always + rows * kept + chosen * passing <= SHARE * free
    larger = [n for n in range(chosen + 1, rows + 1) if rows % n == 0]
    assert all(always + rows * kept + n * passing > SHARE * free for n in larger)


ARCHS = ["hrm_v1", "quickstart", "trm", "trm_mlp", "symbol_equivariant"]


def small_arch(arch: str, *keys: str) -> list[str]:
    """Those of the keys that the architecture has."""
    if arch == "symbol_equivariant":
        absent = ("num_heads", "puzzle_emb_ndim")
        keys = "arch.first_symbol=1", *(k for k in keys if not any(name in k for name in absent))
    return [f"arch={arch}", *keys]


@pytest.mark.parametrize("arch", ARCHS)
def test_the_estimate_is_what_passes_on_real_tensors_need(arch):
    """On the meta device nothing is computed; here it is, and every tensor has memory."""
    small = ("arch.hidden_size=64", "arch.num_heads=4", "arch.forward_dtype=float32")
    config = load_pretrain_config(small_arch(arch, *small))
    data = tokens(16).model_copy(update={"grid_shape": (4, 4), "box_shape": (2, 2)})
    need = memory_need(config, data, linear_attention=True)
    model = build_for(config, data)
    sizes = []
    for rows in (32, 64):
        batch = {name: torch.zeros(rows, 16, dtype=torch.int32) for name in ("inputs", "labels")}
        batch["puzzle_identifiers"] = torch.zeros(rows, dtype=torch.int32)
        model.zero_grad()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            model(carry=model.initial_carry(batch), batch=batch)[1].backward()
        sizes.append(peak_bytes(seen))
    assert (sizes[1] - sizes[0]) / 32 == pytest.approx(need.passing, rel=0.15)


def peak_bytes(seen: profile) -> int:
    """The most that was allocated at once while a profiler looked."""
    now = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def test_free_memory_is_asked_of_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 9))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 9)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 4)
    assert [free_memory(device) for device in (CUDA, MPS, CPU)] == [7, 5, 0]


def test_the_rank_with_the_least_memory_decides(data_4x4, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr("hrm.training.loop.free_memory", lambda device: 20)
    monkeypatch.setattr(Ranks, "maximum", lambda self, *n: [max(-12, *n)])

    def stop(config, device, metadata, ranks, free):
        asked.append(free)
        raise UserError("seen")

    monkeypatch.setattr("hrm.training.loop.for_device", stop)
    config = load_pretrain_config([f"data_path={data_4x4}", "run_name=x"])
    with pytest.raises(UserError, match="seen"):
        train(config, Ranks(0, 1, 0), CPU)
    assert asked == [12]


@pytest.mark.parametrize("given", [None, ":16:8", ":4096:8"])
def test_deterministic_sets_cublas_up(monkeypatch, given):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", given or "")
    if given is None:
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    with deterministic(CUDA):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == (given or ":4096:8")
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_deterministic_refuses_another_workspace_of_cublas(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:2")
    with pytest.raises(UserError, match="CUBLAS_WORKSPACE_CONFIG is ':4096:2'.*unset it"):
        with deterministic(CUDA):
            pass
    with deterministic(CPU):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:2"
    assert not torch.are_deterministic_algorithms_enabled()


# Of `torch.use_deterministic_algorithms`: what raises on CUDA, so far as a model could use it.
VARYING = re.compile(
    r"aten::(cumsum|nll_loss2d|kthvalue|median|histc|bincount|put_|resize_|grid_sampl|"
    r"scatter_reduce|reflection_pad|replication_pad|upsample|adaptive|avg_pool|max_pool|ctc_loss)"
)


@pytest.mark.parametrize("loss", ["stablemax_cross_entropy", "softmax_cross_entropy"])
@pytest.mark.parametrize("arch", ARCHS)
def test_a_training_step_has_no_operation_that_would_raise(arch, loss):
    used: set[str] = set()

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            used.add(func.name())
            return func(*args, **(kwargs or {}))

    small = ("arch.hidden_size=16", "arch.num_heads=2", "arch.puzzle_emb_ndim=16")
    config = load_pretrain_config(small_arch(arch, *small, f"arch.loss.loss_type={loss}"))
    config = config.model_copy(update={"global_batch_size": 4, "micro_batch_size": 2})
    config = config.model_copy(
        update={"arch": config.arch.model_copy(update={"forward_dtype": "float32"})}
    )
    data = tokens(16).model_copy(update={"grid_shape": (4, 4), "box_shape": (2, 2)})
    alone = Ranks(0, 1, 0)
    state = TrainState.of(build_for(config, data).train(), config, alone, 10)
    batch = {name: torch.ones(4, 16, dtype=torch.int32) for name in ("inputs", "labels")}
    batch["puzzle_identifiers"] = torch.arange(4, dtype=torch.int32)
    with Names():
        train_step(state, batch, config, alone)
    assert ("aten::index_add_" in used) == (arch != "symbol_equivariant") and len(used) > 40
    assert not [name for name in used if VARYING.match(name)]


FAULTS = """
import resource
import torch
from hrm.device import keep_memory
if {keeps}:
    keep_memory()
def step():
    return [torch.ones(4 << 20) for _ in range(8)]  # 16 MB each
for _ in range(10):
    step()  # until no small object takes a place between them any more
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_kept_memory_is_not_faulted_in_again():
    # Without this threshold glibc raises its own, and keeps what happens not to lie at the end.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(128 << 10)}
    faults = [
        int(subprocess.check_output([sys.executable, "-c", FAULTS.format(keeps=keeps)], env=env))
        for keeps in (False, True)
    ]
    assert faults[1] < faults[0] / 40  # less than one of the 40 tensors


def test_compiled_code_is_kept_where_the_next_run_finds_it(tmp_path, monkeypatch):
    compiled_modules(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(COMPILED_CODE, "")  # restored afterwards
    monkeypatch.delenv(COMPILED_CODE)
    assert compile_model(build(), "true", CPU)
    assert os.environ[COMPILED_CODE] == str(tmp_path / "hrm" / "compiled")


def test_a_named_place_for_compiled_code_counts(tmp_path, monkeypatch):
    compiled_modules(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(COMPILED_CODE, str(tmp_path / "own"))
    assert compile_model(build(), "true", CPU)
    assert os.environ[COMPILED_CODE] == str(tmp_path / "own")


def test_without_a_writable_cache_compiled_code_goes_where_torch_puts_it(tmp_path, monkeypatch):
    compiled_modules(monkeypatch)
    (tmp_path / "hrm").write_text("a file, not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(COMPILED_CODE, "")
    monkeypatch.delenv(COMPILED_CODE)
    assert compile_model(build(), "true", CPU)
    assert str(tmp_path) not in os.environ.get(COMPILED_CODE, "")


@needs_compiler
@pytest.mark.filterwarnings("ignore")  # torch warns of its own doings while compiling
def test_a_model_is_known_to_be_compiled_or_not():
    model = build()
    assert not is_compiled(model)
    assert compile_model(model, "true", CPU) and is_compiled(model)
