"""Train a model. The same as `hrm train`."""

from hrm.cli.main import run

if __name__ == "__main__":
    run("train", "pretrain.py")
