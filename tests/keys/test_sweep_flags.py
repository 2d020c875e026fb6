"""Every flag of `hrm sweep` acts."""

from .commands import KEYS, command, done
from .registry import Registry
from .training import TINY

acts = Registry()
WORDS = (*TINY, "seed=0,1,2", "run_name=night")


@acts("dry_run")
def test_a_dry_run_lists_and_writes_nothing(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = done("sweep", data, *WORDS, "--dry-run")
    assert out.count("not begun\n") == 3 and "3 runs in checkpoints/small-4x4/night, " in out
    assert list(tmp_path.iterdir()) == []


@acts("jobs")
def test_so_many_runs_go_at_a_time(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for jobs, told in ((1, "one at a time"), (2, "2 at a time"), (9, "3 at a time")):
        assert told in done("sweep", data, *WORDS, "--dry-run", "--jobs", jobs)
    code, _, err = command("sweep", data, *WORDS, "--jobs", 0)
    assert code == 2 and "--jobs 0: " in err and err.count("\n") == 1


def test_every_flag_has_a_test():
    acts.check(KEYS["sweep"])
