"""Train a model: `python pretrain.py data_path=… [--config-name NAME] [key=value …]`."""

import sys

from hrm.device import keep_memory, pick_device
from hrm.errors import OneLineParser
from hrm.ranks import Ranks
from hrm.training.config import RECIPE, load_pretrain_config
from hrm.training.loop import train, with_run_name


def main() -> None:
    parser = OneLineParser(
        description="Train a model. Keys and defaults: config/cfg_pretrain.yaml and config/arch/.",
        allow_abbrev=False,
    )
    parser.add_argument("--config-name", default=RECIPE, help="file in config/, without .yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()

    keep_memory()
    ranks = Ranks.from_environment()
    with ranks.connected():
        config = ranks.agree(
            lambda: with_run_name(load_pretrain_config(arguments.overrides, arguments.config_name))
        )
        device = ranks.together(lambda: pick_device(config.device, ranks.local_rank))
        with ranks.answering_within(config.rank_timeout) as group:
            run_dir = train(config, group, device)
    if ranks.is_first:
        print(f"saved in {run_dir}; next: python evaluate.py checkpoint={run_dir}", file=sys.stderr)
