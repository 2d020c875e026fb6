"""Values of `training.json` that no run has written: what is told, and what a step cannot know."""

import json

import pytest

from hrm.checkpoint import load_checkpoint
from hrm.checkpoint.manifest import Damaged, write_manifest
from hrm.errors import UserError

from ..mutations import NASTY_VALUES, assert_one_line
from .conftest import Fixture

RECORD_KEYS = (
    *("step", "iteration", "batch", "since_log", "best_step", "best_exact_accuracy"),
    *("evaluations_since_best", "ema_updates", "is_sound", "ranks", "data"),
)
ABSENT = object()
TAKEN = {  # of nasty values, those that a step cannot contradict
    "iteration": (0, 2**31),
    "since_log": (0, 2**31),
    "best_step": (None, 0, 2**31),
    "best_exact_accuracy": (None, -1, 0, 1.5, 2**31, 2**63),
    "evaluations_since_best": (0, 2**31),
    "ema_updates": (0, 2**31),
    "is_sound": (True,),
}


@pytest.mark.parametrize("key", RECORD_KEYS)
def test_hostile_values(run, key):
    path = run.newest / "training.json"
    values = json.loads(path.read_text())
    for value in (*NASTY_VALUES, 1.5, ABSENT):
        changed = {k: v for k, v in {**values, key: value}.items() if v is not ABSENT}
        path.write_text(json.dumps(changed))
        write_manifest(run.newest)
        if key == "step":
            assert_set_aside(run)
            continue
        assert load_checkpoint(run.newest).step == 6
        if value in TAKEN.get(key, ()):
            assert run.resume() == 6, value
            continue
        words = "not the data" if key == "data" and isinstance(value, str) else "cannot be resumed"
        with pytest.raises(UserError, match=f"{words}|is not batch") as caught:
            run.resume()
        assert_one_line(caught.value)


def assert_set_aside(run: Fixture) -> None:
    """The newest checkpoint is damaged, and the one before it is taken; both are restored."""
    with pytest.raises(Damaged) as caught:
        load_checkpoint(run.newest)
    assert_one_line(caught.value)
    assert run.resume() == 3 and not run.newest.exists()
    run.restore()


@pytest.mark.parametrize("text", ["[]", "1", "{", "9" * 5000], ids=lambda text: text[:2])
def test_a_record_of_another_kind_is_set_aside(run, text):
    (run.newest / "training.json").write_text(text)
    write_manifest(run.newest)
    assert_set_aside(run)


def test_a_step_elsewhere_in_the_data_is_refused(run):
    path = run.newest / "training.json"
    for changes in ({"batch": 5}, {"batch": 7}, {"iteration": 0, "batch": 0}):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        write_manifest(run.newest)
        with pytest.raises(UserError, match="is not batch"):
            run.resume()
