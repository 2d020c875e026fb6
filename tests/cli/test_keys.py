"""The page of all keys is what the schemas say."""

from hrm.cli import keys
from hrm.config import dotted_keys
from hrm.training.config import PretrainConfig

from ..conftest import ROOT


def test_the_page_is_not_stale():
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == keys.page(), "run: python -m hrm.cli.keys > docs/configuration.md"


def test_every_key_stands_there_once():
    page = keys.page()
    for key in dotted_keys(PretrainConfig):
        if key not in ("arch", "arch.loss"):
            assert page.count(f"\n| `{key}` |") == 1, key


def test_values_and_defaults_are_as_they_are_typed():
    page = keys.page()
    for row in (
        "| `weight_decay` | number ≥ 0 | `1.0` |",
        "| `ema` | true, false | `false` |",
        "| `grad_clip` | number > 0 or `null` | `null` |",
        "| `--generate` | `RxC` or `null` | `null` |",
        "| `--halting` | `max_steps`, `learned` | `learned` |",
        "| `beta1` | number ≥ 0, < 1 | `0.9` |",
    ):
        assert f"\n{row} " in page, row


def test_the_keys_of_training_are_listed_without_the_page(call):
    code, out, _ = call("train", "--keys")
    assert code == 0
    assert "global_batch_size = 384: rows of a step, over all ranks (whole number > 0)" in out
    assert {line.split(" = ")[0].split(": ")[0] for line in out.splitlines()} >= {
        "lr",
        "arch.hidden_size",
        "arch.loss.loss_type",
    }
