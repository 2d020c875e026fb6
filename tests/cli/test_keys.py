"""The page of all keys is what the schemas say."""

import re

from hrm.cli import keys
from hrm.config import dotted_keys
from hrm.models.registry import CORES
from hrm.training.config import PretrainConfig

from ..conftest import ROOT


def test_the_page_is_not_stale():
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == keys.page(), "run: python -m hrm.cli.keys > docs/configuration.md"


def test_every_key_stands_there_once_or_once_per_core():
    page = keys.page()
    for key in dotted_keys(PretrainConfig):
        if key in ("arch", "arch.loss"):
            continue
        found = [line for line in page.splitlines() if line.startswith(f"| `{key}` |")]
        meanings = [line.split(" | ")[3] for line in found]
        named = [re.match(r"\((`\w+`(?:, `\w+`)*)\) ", meaning) for meaning in meanings]
        cores = [name for match in named if match for name in match[1].replace("`", "").split(", ")]
        assert found and (len(found) == 1 or all(named)), key
        assert len(cores) == len(set(cores)) and set(cores) <= set(CORES), key
    assert "\n| `arch.mlp_t` | true, false | `false` | (`trm`) an MLP over positions" in page
    assert "\n| `arch.backprop` | `one_step`, `last_cycle` | `last_cycle` | (`trm`, `sy" in page
    assert "\n| `arch.L_cycles` | whole number > 0 | required | L calls" in page


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
