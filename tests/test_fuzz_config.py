"""Damaged and malicious configurations: one line, or a valid configuration; nothing is executed."""

import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from hrm.checkpoint import save_config
from hrm.cli import evaluate, report, serve, solve, train
from hrm.cli.build import find as find_builder
from hrm.config import RECIPES
from hrm.errors import UserError
from hrm.training.config import PretrainConfig, load_pretrain_config, load_train_config

from .mutations import BYTE_MUTATIONS, NASTY_VALUES, Rng, assert_one_line, pick

SAVED_CASES = 220
COMPOSED_CASES = 60
FORBIDDEN = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.", "pickle.")
NASTY_LINES = (
    "${oc.env:HOME}",
    "${lr}",
    "${lr",
    "$" * 50,
    "&a [*a]",
    "*nowhere",
    "!!python/object/apply:os.system ['true']",
    "!!binary aGVsbG8=",
    "? [a, b]",
    "1: 2",
    "<<: {lr: 1}",
    "lr: 1",
    "{" * 5000,
    "[" * 5000,
    "- " * 5000,
    "9" * 5000,
    "0x" + "f" * 5000,
    "1:" * 3000 + "1",
    "2026-99-99",
    "--- {}",
    "%YAML 9.9",
    "\t",
    "a\0b",
    "\x1b[2J",
    "\ufeff",
    '"\\ud800\\x00\\n"',
    "'",
    "| x",
    "@",
    "defaults: [nowhere]",
    "_target_: os.system",
    "hydra: {run: {dir: /}}",
)
SHORT_LINES = [line for line in NASTY_LINES if len(line) < 1000]

_calls: list[str] | None = None


def _audit(event: str, _: object) -> None:
    if _calls is not None and event.startswith(FORBIDDEN):
        _calls.append(event)


sys.addaudithook(_audit)


@pytest.fixture(autouse=True)
def nothing_is_executed():
    global _calls
    _calls = calls = []
    yield
    _calls = None
    assert not calls


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> list[bytes]:
    """What runs of ours and of the original leave beside their weights."""
    path = tmp_path_factory.mktemp("saved") / "all_config.yaml"
    texts = []
    for name in ("cfg_pretrain", "quickstart_9x9"):
        save_config(load_pretrain_config(["run_name=x"], name), path)
        texts.append(path.read_bytes())
    values = yaml.safe_load(texts[0])
    original = {key: values[key] for key in ("arch", "data_path", "lr", "epochs", "eval_interval")}
    return [*texts, yaml.dump(original).encode()]


def damaged(text: bytes, rng: Rng) -> bytes:
    if rng.integers(2):
        return pick(rng, BYTE_MUTATIONS)(text, rng)
    lines = text.decode().split("\n")
    number = int(rng.integers(len(lines)))
    line = lines[number]
    kind = rng.integers(4)
    if kind == 0:
        lines.insert(number, pick(rng, NASTY_LINES))
    elif kind == 1 and ":" in line:
        lines[number] = f"{line.partition(':')[0]}: {pick(rng, NASTY_LINES)}"
    elif kind == 2 and ":" in line:
        value = pick(rng, NASTY_VALUES)
        shown = hex(value) if isinstance(value, int) else yaml.safe_dump(value).split("\n...")[0]
        lines[number] = f"{line.partition(':')[0]}: {shown.strip()}"
    else:
        lines[number] = pick(
            rng, (" " + line, line.lstrip(), line + line, "", line[: len(line) // 2])
        )
    return "\n".join(lines).encode(errors="surrogatepass")


def assert_valid(config: PretrainConfig, folder: Path) -> None:
    """Frozen, within its folder, and what it says survives being saved."""
    with pytest.raises(ValidationError):
        config.lr = 0.0  # type: ignore[misc]
    for name in (config.run_name, config.project_name):
        assert name is None or Path(name).name == name
    path = folder / "again.yaml"
    save_config(config, path)
    assert load_train_config(path) == config


@pytest.mark.parametrize("seed", range(3))
def test_damage_to_a_saved_configuration(saved, tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path / "all_config.yaml"
    valid = 0
    for _ in range(SAVED_CASES):
        text = damaged(saved[seed], rng)
        path.write_bytes(text)
        begin = time.process_time()
        try:
            assert_valid(load_train_config(path), tmp_path)
            valid += 1
        except UserError as error:
            assert_one_line(error)
        assert time.process_time() - begin < 5, text
    assert SAVED_CASES / 20 < valid < SAVED_CASES * 0.9


def test_damage_to_a_recipe(tmp_path):
    recipes = shutil.copytree(RECIPES, tmp_path / "config")
    path_of = dict(enumerate(["cfg_pretrain.yaml", "quickstart_4x4.yaml", "arch/quickstart.yaml"]))
    rng = np.random.default_rng(3)
    refused = 0
    for case in range(COMPOSED_CASES):
        path = recipes / path_of[case % 3]
        text = path.read_bytes()
        path.write_bytes(damaged(text, rng))
        try:
            assert_valid(load_pretrain_config([], "quickstart_4x4", recipes), tmp_path)
        except UserError as error:
            assert_one_line(error)
            refused += 1
        path.write_bytes(text)
    assert refused > COMPOSED_CASES / 10


def refused(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        load_train_config(path)
    assert_one_line(caught.value, str(path))
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no keys and values"),
        ("- a", "no keys and values"),
        ("text", "no keys and values"),
        ("lr: 1\nlr: 2", "key 'lr' stands there twice"),
        ("1: 2", "key 1 is not a word"),
        ("? [a]\n: 1", "key ['a'] is not a word"),
        ("a: &a [1]\nb: *a", "aliases are not read"),
        ("a: &a [*a]", "aliases are not read"),
        ("<<: {lr: 1}", "not a configuration"),
        ("lr: !!float 1", "tags are not read"),
        ("lr: !!python/object/apply:os.system ['true']", "tags are not read"),
        ("lr: !!python/name:os.system", "tags are not read"),
        ("!!python/object/new:os.system ['true']", "tags are not read"),
        ("[" * 100_000, "recursion"),
        ("a: " * 30_000, "not a configuration"),
        ("a" * 100_001, "larger than"),
        ("lr: " + "9" * 5000, "not a configuration"),
        (b"\x80\x81\xff", "not a configuration"),
        (b"lr: 1\0", "not a configuration"),
        (bytes(1000), "not a configuration"),
        ("a: 1\n---\nb: 2", "not a configuration"),
    ],
)
def test_what_is_not_plain_yaml_is_refused(tmp_path, text, words):
    assert words in refused(tmp_path / "all_config.yaml", text)


def test_a_folder_or_nothing_is_refused(tmp_path):
    for name, words in ((".", "not a file"), ("nowhere", "nowhere: not found")):
        with pytest.raises(UserError, match=words):
            load_train_config(tmp_path / name)


def changed(saved: list[bytes], **values: object) -> str:
    return yaml.safe_dump(yaml.safe_load(saved[0]) | values)


@pytest.mark.parametrize(
    "values",
    [
        {"run_name": "../../outside"},
        {"run_name": "/outside"},
        {"run_name": ".."},
        {"run_name": "x\n"},
        {"project_name": "a/b"},
        {"project_name": "${oc.env:HOME}"},
        {"lr": "${oc.env:HOME}"},
        {"lr": "${lr_min_ratio}"},
        {"lr": float("inf")},
        {"lr": True},
        {"epochs": [[[1]]] * 1000},
        {"eval_save_outputs": ["x" * 100_000]},
        {"data_path": "a\0b"},
        {"checkpoint_path": "a\nb"},
        {"data_path": ["a"]},
        {"x" * 1000: 1},
        {"a\x1b[2Jb\n": 1},
        {"_target_": "os.system", "_args_": ["true"]},
        {"arch": {"_target_": "os.system"}},
        {"arch": "hrm_v1"},
    ],
)
def test_malicious_values_are_refused(saved, tmp_path, values):
    refused(tmp_path / "all_config.yaml", changed(saved, **values))


@pytest.mark.parametrize("key", ["seed", "epochs", "log_interval", "run_name"])
def test_a_huge_number_is_refused(saved, tmp_path, key):
    text = changed(saved, **{key: 12345}).replace("12345", hex(16**5000))
    assert f": {key}: " in refused(tmp_path / "all_config.yaml", text)


def test_an_interpolation_is_only_text(saved, tmp_path):
    path = tmp_path / "all_config.yaml"
    path.write_text(changed(saved, data_path="${oc.env:HOME}/x"))
    assert load_train_config(path).data_path == Path("${oc.env:HOME}/x")


def test_numbers_are_read_as_omegaconf_wrote_and_read_them(saved, tmp_path):
    path = tmp_path / "all_config.yaml"
    path.write_text(changed(saved).replace("lr: 7.0e-05", "lr: 7e-5", 1))
    assert "lr: 7e-5" in path.read_text()
    assert load_train_config(path).lr == 7e-5
    path.write_text(changed(saved, run_name="1e5"))
    assert load_train_config(path).run_name == "1e5"


def load_train_words(words: list[str]) -> PretrainConfig:
    """As `hrm train` reads them."""
    fields = PretrainConfig.model_fields
    return load_pretrain_config(train.overrides_of(words, fields, "hrm train"))


READERS = {
    "train": load_train_words,
    "evaluate": evaluate.command.read,
    "solve": solve.command.read,
    "serve": serve.command.read,
    "report": report.command.read,
    "build": find_builder("sudoku").read,
}


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("value", [*SHORT_LINES, "a\nb", "${a.b", "[a,{b", "=", "'"])
def test_nasty_arguments(command, value):
    for argument in (f"checkpoint={value}", f"data_path={value}", value, f"{value}={value}"):
        try:
            READERS[command]([argument])
        except UserError as error:
            assert_one_line(error)
