"""Every flag of `hrm models` acts, and it lists what is shipped."""

from hrm.config import RECIPES

from .commands import KEYS, done
from .registry import Registry

acts = Registry()


def row(printed: str, arch: str) -> str:
    [found] = [line for line in printed.splitlines() if line.startswith(f"{arch} ")]
    return found


def test_all_architectures_and_recipes_are_listed():
    printed = done("models")
    for arch in (RECIPES / "arch").glob("*.yaml"):
        assert row(printed, arch.stem)
    for recipe in RECIPES.glob("*.yaml"):
        assert any(line.split(" (")[0] == recipe.stem for line in printed.splitlines())
    assert "87.4% of the test puzzles" in printed and "not run here" in printed


@acts("seq_len", "vocab_size")
def test_sizes_are_of_the_data_that_are_named():
    usual, other = done("models"), done("models", "--seq-len", 900, "--vocab-size", 12)
    assert " 27,275,266 " in row(usual, "hrm_v1") and " 6,828,034 " in row(usual, "trm")
    assert " 5,028,866 " in row(usual, "trm_mlp") and " 18,801,666 " in row(other, "trm_mlp")
    assert " 6,829,058 " in row(other, "trm")
    assert "needs grid_shape" in row(other, "quickstart")  # boxes of a 30x30 grid are not known
    # 42 calls of a block with 3,407,872 weights on 97 positions, and its attention
    assert (
        row(usual, "trm").split()[3] == f"{42 * (2 * 97 * 3_407_872 + 4 * 97**2 * 512) / 1e9:.2f}"
    )


def test_every_flag_has_a_test():
    acts.check(KEYS["models"])
