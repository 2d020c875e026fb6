"""`hrm` as a whole: one grammar, short helps, one-line mistakes, and scripts that do the same."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hrm.cli import check, evaluate, models, report, serve, solve, train
from hrm.cli.build import BUILDERS
from hrm.cli.build import find as find_builder
from hrm.cli.launch import next_command
from hrm.cli.main import COMMANDS, SHELLS
from hrm.cli.options import SchemaCommand
from hrm.data.format import read_split
from hrm.errors import UserError
from hrm.training.config import PretrainConfig, load_pretrain_config

from ..conftest import ROOT, SMALL_MODEL, Call, Run, saved_run

HELPS = [
    [],
    *([name] for name in COMMANDS),
    *(["build", name] for name in BUILDERS),
]
SCHEMA_COMMANDS = [
    check.command,
    evaluate.command,
    solve.command,
    serve.command,
    report.command,
    models.command,
]
MOST_LINES = 40
FIELDS = PretrainConfig.model_fields


@pytest.fixture(scope="module")
def run_dir(data_4x4, tmp_path_factory):
    return saved_run(data_4x4, tmp_path_factory.mktemp("runs") / "fresh")


# ---- help ----


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_help_begins_with_an_example_and_fits_a_screen(call: Call, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = call(*words, "--help")
    lines = out.splitlines()
    assert (code, err) == (0, "") and len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= 80 and "--help" in out
    example = lines[0].removeprefix('eval "$(')
    assert example.startswith(" ".join(["hrm", *words])), "begins with a command to try"
    assert call(*words, "-h") == (0, out, "")


def test_the_help_lists_the_commands(call: Call):
    code, out, _ = call()
    assert code == 0 and all(f"\n  {name} " in out for name in COMMANDS)
    assert call("build")[0] == 0 and "\n  sudoku " in call("build")[1]


@pytest.mark.parametrize("command", [*SCHEMA_COMMANDS, *map(find_builder, BUILDERS)])
def test_every_key_of_a_schema_is_a_flag_with_description_and_default(command: SchemaCommand):
    shown = command.get_help(click.Context(command, info_name="x", terminal_width=200))
    usage, _, options = shown.partition("Options:")
    flags = " ".join(options.replace("-h, --help", " --help").split()).split("--")
    for key, field in command.schema.model_fields.items():
        if key in (*command.places, command.rest):
            assert key.upper().removesuffix("S") in usage
            continue
        [line] = [text.strip() for text in flags if text.split()[:1] == [key.replace("_", "-")]]
        assert f" {field.description}" in line
        if not field.is_required() and field.default not in (None, (), False):
            assert line.endswith(f"(default {field.default})"), line


def test_examples_in_the_helps_are_understood():
    words = 0
    for command in [*SCHEMA_COMMANDS, *map(find_builder, BUILDERS)]:
        for line in (command.help or "").splitlines():
            if line.startswith("hrm ") and line.split()[-1] != "…":
                start = 3 if command.name in BUILDERS else 2
                command.read(line.partition("  #")[0].split()[start:])
                words += 1
    assert words > 8
    for line in (train.command.help or "").splitlines():
        if line.startswith("hrm train "):
            name, *given = line.partition("  #")[0].split()[1:]
            ctx = train.command.make_context(name, given)
            overrides = train.overrides_of(ctx.params["words"], FIELDS, name)
            load_pretrain_config(overrides, ctx.params["config_name"])


# ---- grammar ----


def same(command: SchemaCommand, *lines: str) -> None:
    first, *others = (command.read(line.split()) for line in lines)
    assert others and all(other == first for other in others)


def test_inputs_flags_and_words_say_the_same():
    same(
        evaluate.command,
        "a/step_1 --halting learned --halt-probability 0.9 --eval-save-outputs labels,steps",
        "checkpoint=a/step_1 halting=learned halt_probability=0.9 eval_save_outputs=[labels,steps]",
        "halting=learned a/step_1 --halt-probability=0.9 eval_save_outputs=labels,steps",
    )
    same(
        solve.command,
        "run 1... ...2 --votes 3 --trace",
        "checkpoint=run 1... --votes 3 ...2 --trace",
        "--trace run 1... votes=3 ...2",
        "1... checkpoint=run ...2 trace=true votes=3",
    )
    same(serve.command, "run --port 0", "checkpoint=run port=0", "--port 0 run host=127.0.0.1")
    same(report.command, "a b --limit 5", "a limit=5 b", "--limit=5 -- a b")
    same(
        find_builder("sudoku"),
        "--generate 2x3 --givens 18 --output-dir x --overwrite",
        "generate=2x3 givens=18-18 output_dir=x overwrite=true",
    )


def test_null_and_lists_are_read_as_in_hydra():
    config = evaluate.command.read(["x", "data_path=null", "eval_save_outputs=[]", "compile=true"])
    assert (config.data_path, config.eval_save_outputs, config.compile) == (None, (), "true")


def test_a_path_may_contain_an_equals_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(evaluate.command.read(["runs/lr=1/step_1"]).checkpoint) == "runs/lr=1/step_1"
    assert str(evaluate.command.read(["checkpoint=a=b"]).checkpoint) == "a=b"
    with pytest.raises(UserError, match="lr=1: unknown key"):
        evaluate.command.read(["lr=1"])
    (tmp_path / "lr=1").mkdir()
    assert str(evaluate.command.read(["lr=1"]).checkpoint) == "lr=1"
    assert [str(p) for p in report.command.read(["lr=1", "x/y=2"]).runs] == ["lr=1", "x/y=2"]
    (tmp_path / "data=x").mkdir()
    assert train.overrides_of(["data=x", "lr=1"], FIELDS, "") == ["data_path='data=x'", "lr=1"]


@pytest.mark.parametrize("path", ["plain", "with space", "it's", "a\\", "a\\'b", "${x}", "[a,b]"])
def test_a_data_set_is_taken_literally(path):
    for word in (path, f"data_path={path}", f"++data_path={path}"):
        overrides = train.overrides_of([word, "lr=1e-4"], FIELDS, "hrm train")
        config = load_pretrain_config(overrides)
        assert (str(config.data_path), config.lr) == (path, 1e-4)


@pytest.mark.parametrize(
    "name", ["2026_11_25", "1e-4", "1.50", "0x10", "true", "lr=0.1", "a,b", "[x]", "it's", "é (1)"]
)
def test_names_are_taken_literally(name):
    words = ["data_path=d", f"run_name={name}", f"project_name={name}", f"resume={name}"]
    config = load_pretrain_config(train.overrides_of(words, FIELDS, ""))
    assert (config.run_name, config.project_name, str(config.resume)) == (name, name, name)
    assert config.run_dir.parts == ("checkpoints", name, name)
    nothing = train.overrides_of(["data_path=d", "run_name=null"], FIELDS, "")
    assert load_pretrain_config(nothing).run_name is None


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "a\\b", "a\nb", "${lr}"])
def test_a_name_that_is_no_folders_is_refused(name):
    with pytest.raises(UserError, match="run_name: must be a name without /, "):
        load_pretrain_config(train.overrides_of(["d", f"run_name={name}"], FIELDS, ""))


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    words = ["data_path=~/d", "checkpoint_path=~/r", "resume=~/r/step_1", "run_name=~x"]
    config = load_pretrain_config(train.overrides_of(words, FIELDS, ""))
    paths = (config.data_path, config.checkpoint_path, config.resume)
    assert list(map(str, paths)) == ["/home/ann/d", "/home/ann/r", "/home/ann/r/step_1"]
    assert config.run_name == "~x"
    read = evaluate.command.read(["checkpoint=~/r", "--data-path", "~/d"])
    assert (str(read.checkpoint), str(read.data_path)) == ("/home/ann/r", "/home/ann/d")
    assert str(solve.command.read(["~/r", "file=~/p"]).file) == "/home/ann/p"
    assert list(map(str, report.command.read(["~/a", "b~"]).runs)) == ["/home/ann/a", "b~"]
    assert str(find_builder("sudoku").read(["output_dir=~/d"]).output_dir) == "/home/ann/d"


def test_what_to_do_next_can_be_pasted(monkeypatch):
    """It is run as the command before was."""
    path = Path("checkpoints/my data/it's")
    quoted = "'checkpoints/my data/it'\"'\"'s'"
    python = shlex.quote(sys.orig_argv[0])
    for program, expected in (
        ("hrm", f"hrm evaluate {quoted}"),
        ("bin/hrm", f"bin/hrm evaluate {quoted}"),
        (str(ROOT / "hrm/__main__.py"), f"{python} -m hrm evaluate {quoted}"),
    ):
        monkeypatch.setattr(sys, "argv", [program])
        assert next_command("evaluate", path) == expected
    monkeypatch.setattr(sys, "argv", [str(ROOT / "pretrain.py")])
    words = [sys.orig_argv[0], str(ROOT / "evaluate.py"), f"checkpoint={path}"]
    assert shlex.split(next_command("evaluate", path)) == words
    monkeypatch.setattr(sys, "argv", ["hrm"])
    assert next_command("evaluate", Path("device=x")) == "hrm evaluate checkpoint=device=x"


def test_train_reads_all_kinds_of_overrides():
    words = ["arch=quickstart", "arch.H_cycles=3", "+arch.qk_norm=false", "lr=1", "~ema"]
    assert train.overrides_of(words, FIELDS, "") == words
    assert load_pretrain_config(train.overrides_of(["d"], FIELDS, "")) == load_pretrain_config(
        ["data_path=d"]
    )


# ---- mistakes ----


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("slove", ["slove", "hrm --help"]),
        ("--colour", ["--colour"]),
        ("build maize", ["maize"]),
        ("evaluate", ["hrm evaluate: checkpoint: is required"]),
        ("evaluate x y", ["'y'", "key=value"]),
        ("evaluate x haltin=learned", ["haltin=learned: unknown key; did you mean halting?"]),
        (
            "evaluate x zzz=1",
            ["zzz=1: unknown key; known here: checkpoint, data_path"],
        ),
        ("evaluate x --haltin learned", ["--haltin", "--halting", "hrm evaluate --help"]),
        ("evaluate x --halting", ["--halting", "argument"]),
        ("evaluate x --halting never", ["hrm evaluate: --halting never: ", "'max_steps'"]),
        ("evaluate x halting=never", ["hrm evaluate: halting=never: "]),
        ("evaluate x eval_save_outputs=[a]", ["eval_save_outputs", "'inputs'"]),
        ("evaluate x --halt-probability 0.5", ["halt_probability counts only with"]),
        ("evaluate x --global-batch-size null --split ../x", ["--split ../x"]),
        ("solve 1...x...........", ["puzzle 1, column 5", "'x'"]),
        ("solve x --votes=0", ["--votes 0: Input should be greater than 0"]),
        ("solve x votes=true", ["votes=true: Input should be a valid integer"]),
        ("solve x --serve 1...", ["'1...'", "serve takes no puzzles"]),
        ("serve x --port 70000", ["--port 70000"]),
        ("report", ["hrm report: runs: "]),
        ("train a b", ["'b'", "data set"]),
        ("train a data_path=b", ["'a'", "data set"]),
        ("train a --lr 1", ["--lr", "hrm train --help"]),
        ("train a lrr=1", ["lrr: unknown key; did you mean lr?"]),
        ("train a --config-name none", ["none"]),
        ("train a hydra.run.dir=out", ["hydra.run.dir=out: keys of Hydra itself"]),
        ("train a +hydra/launcher=x", ["+hydra/launcher=x: keys of Hydra itself"]),
        ("build sudoku 4x4", ["'4x4'"]),
        ("build sudoku --generate 2x2 --box 2x2", ["--box does not go with --generate"]),
        ("build sudoku givens=4", ["--givens needs --generate"]),
        ("completion tcsh", ["tcsh", "bash"]),
        ("completion", ["bash"]),
    ],
)
def test_mistakes_are_one_line(call: Call, tmp_path, monkeypatch, line, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*line.split())
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_reported_once_by_all_ranks(call: Call, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert call("evaluate", "--colour") == (2, "", "")


# ---- scripts, processes ----


def test_scripts_and_hrm_give_the_same(call: Call, run_dir, call_script: Run, tmp_path):
    def hrm(*words: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "hrm", *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    puzzle = "." * 15 + "1"
    for script, *words in (
        ("evaluate.py", f"checkpoint={run_dir}", "halting=learned", "device=cpu"),
        ("solve.py", f"checkpoint={run_dir}", puzzle, "--format", "line"),
    ):
        code, out, err = call(script.removesuffix(".py"), str(run_dir), *words[1:])
        theirs = call_script(script, *words)
        assert code in (0, 1) and out, err
        assert (code, out) == (theirs.returncode, theirs.stdout)

    built = ("--generate", "2x2", "--num-train", "12", "--num-test", "4", "--num-aug", "2")
    script = "dataset/build_sudoku_dataset.py"
    assert call_script(script, *built, "--output-dir", "a").returncode == 0
    assert hrm("build", "sudoku", *built, "--output-dir", "b").returncode == 0
    for split in ("train", "test"):
        (_, ours), (_, theirs) = (read_split(tmp_path / name / split) for name in "ab")
        assert (ours[split].inputs == theirs[split].inputs).all()

    given = (*SMALL_MODEL, "global_batch_size=6", "epochs=2", "eval_interval=2", "run_name=x")
    one = call_script("pretrain.py", "data_path=a", *given, "checkpoint_path=one")
    two = hrm("train", "a", *given, "checkpoint_path=two")
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    python = shlex.quote(sys.executable)
    for done, name, following in (
        (one, "one", f"{shlex.quote(str(ROOT / 'evaluate.py'))} checkpoint=one"),
        (two, "two", "-m hrm evaluate two"),
    ):
        assert done.stderr.splitlines()[-1] == f"saved in {name}; next: {python} {following}"
    metrics = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("one", "two")]
    assert metrics[0] == metrics[1] and metrics[0]


def test_what_is_not_installed_is_said_in_one_line(tmp_path):
    """With a Python that has nothing but its own modules."""
    commands = [
        [sys.executable, "-S", str(ROOT / script)]
        for script in ("pretrain.py", "solve.py", "dataset/build_sudoku_dataset.py")
    ]
    for command in [*commands, [sys.executable, "-S", "-m", "hrm", "serve", "x"]]:
        env = {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        [line] = done.stderr.splitlines()
        assert f" is not installed for {sys.executable}; " in line
        assert line.endswith(f"-m pip install {shlex.quote(str(ROOT))}")


def test_messages_of_a_script_name_the_script(run_script: Run):
    done = run_script("evaluate.py")
    assert done.stderr == "error: evaluate.py: checkpoint: is required\n"
    assert done.returncode == 2


LAZY = """
import sys
from hrm.cli.main import main
sys.argv[0] = "hrm"
try:
    main()
finally:
    assert "torch" not in sys.modules, "torch was imported"
    is_quick = sys.argv[1:] in (["--help"], ["--version"])
    assert not (is_quick and "pydantic" in sys.modules), "pydantic was imported"
"""
QUICK = [
    ["--version"],
    ["--help"],
    *([*words, "--help"] for words in HELPS if words),
    ["solve", "x", "--votes", "many"],
    ["completion", "zsh"],
]


@pytest.mark.parametrize("words", QUICK, ids=" ".join)
def test_torch_is_not_imported(words):
    command = [sys.executable, "-c", LAZY, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "AssertionError" not in done.stderr
    assert done.returncode == (2 if "many" in words else 0), done.stderr


def test_version(call: Call):
    import hrm

    assert call("--version") == (0, f"hrm {hrm.__version__}\n", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_script_is_printed(call: Call, shell):
    code, out, err = call("completion", shell)
    assert (code, err) == (0, "") and "_HRM_COMPLETE" in out and shell in out


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("hrm ev", {"evaluate"}),
        ("hrm build s", {"sudoku"}),
        ("hrm solve x --hal", {"--halting"}),
        ("hrm solve x --halting l", {"learned"}),
        ("hrm train --config-name quickstart_4", {"quickstart_4x4"}),
        ("hrm completion z", {"zsh"}),
    ],
)
def test_completion_knows_commands_flags_and_values(typed, expected):
    words = typed.split()
    env = {**os.environ, "_HRM_COMPLETE": "bash_complete", "COMP_WORDS": typed}
    done = subprocess.run(
        [sys.executable, "-c", LAZY],
        cwd=ROOT,
        env=env | {"COMP_CWORD": str(len(words) - 1)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert {line.partition(",")[2] for line in done.stdout.split()} == expected
