"""`hrm doctor` says what a machine has, and what is odd about it."""

from collections import namedtuple

import pytest
import torch

import hrm
from hrm.cli import doctor

from ..conftest import Call

Disk = namedtuple("Disk", "total used free")


@pytest.fixture
def sane(monkeypatch):
    """A machine about which nothing is odd."""
    monkeypatch.setattr(doctor, "cores", lambda: 64)
    monkeypatch.setattr(doctor, "load", lambda: 0.5)
    monkeypatch.setattr(doctor, "memory", lambda: 64e9)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Disk(1e12, 0, 1e12))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: True)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr("hrm.device.has_compiler", lambda device: True)
    monkeypatch.setattr("hrm.device.has_fast_bfloat16", lambda device: True)


def test_it_says_what_there_is(call: Call):
    code, out, err = call("doctor")
    assert (code, err) == (0, "")
    for found in (hrm.__version__, torch.__version__, "GB free", "generate (", "sudoku-9x9"):
        assert found in out
    assert max(map(len, out.splitlines())) < 250


def test_nothing_is_odd(sane, call: Call):
    assert list(doctor.oddities()) == []
    assert call("doctor")[1].endswith("\n\nNothing is odd.\n")


@pytest.mark.parametrize(
    "place, value, said",
    [
        ("hrm.cli.doctor.cores", lambda: 0, "threads on 0 cores: set OMP_NUM_THREADS=0"),
        ("hrm.cli.doctor.load", lambda: 70.0, "other programs want cores, too (load 70.0 of 64)"),
        ("hrm.cli.doctor.memory", lambda: 1e9, "less than 2 GB of memory"),
        ("hrm.cli.doctor.shutil.disk_usage", lambda path: Disk(1e12, 0, 1e9), "2 GB of disk"),
        ("hrm.cli.doctor.shutil.which", lambda name: "/bin/x", "torch is built for CPUs"),
        ("hrm.cli.doctor.os.access", lambda path, mode: False, "cannot be written"),
        ("torch.version.cuda", "12.8", "built for CUDA 12.8, but no GPU is usable"),
        ("torch.__version__", "2.4.1", "torch 2.4.1 is older than 2.7"),
        ("hrm.device.has_compiler", lambda device: False, "no compiler"),
        ("hrm.device.has_fast_bfloat16", lambda device: False, "bfloat16 is emulated"),
        ("hrm.checkpoint.shipped_models", dict, "models of the package are missing"),
    ],
)
def test_what_is_odd_is_said_once(sane, monkeypatch, place, value, said):
    if place == "torch.version.cuda" and torch.cuda.is_available():
        pytest.skip("a GPU is usable")
    monkeypatch.setattr(place, value)
    [oddity] = doctor.oddities()
    assert said in oddity


def test_a_driver_that_does_not_work_is_odd_and_no_crash(sane, call: Call, monkeypatch):
    def broken(number):
        raise RuntimeError("the driver is too old")

    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.get_device_name", broken)
    monkeypatch.setattr("torch.version.cuda", "12.8")
    assert "built for CUDA 12.8, but no GPU is usable" in call("doctor")[1]


def test_a_damaged_model_of_the_package_is_named(sane, monkeypatch, tmp_path):
    monkeypatch.setattr("hrm.checkpoint.shipped_models", lambda: {"mine": tmp_path})
    [oddity] = doctor.oddities()
    assert "manifest.json: missing" in oddity and oddity.endswith("install hrm again")
