"""Train a model. The same as `hrm train`."""

from hrm.cli.launch import run

if __name__ == "__main__":
    run("train", "pretrain.py")
