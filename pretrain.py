"""Train a model: `python pretrain.py data_path=… [key=value …]`. The same as `hrm train`."""

from hrm.cli.train import main
from hrm.errors import run_command

if __name__ == "__main__":
    run_command(main)
