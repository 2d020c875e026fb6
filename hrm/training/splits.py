"""The splits of the data set that a run reads, and what evaluates them."""

from hrm.data import PuzzleDataset, PuzzleDatasetConfig
from hrm.data.fit import check_fits
from hrm.data.format import TEST_SPLIT, TRAIN_SPLIT, has_split
from hrm.errors import UserError
from hrm.evaluation import evaluators_of
from hrm.ranks import Ranks
from hrm.tasks import Evaluator, VotingEvaluator
from hrm.training.config import PretrainConfig


def open_data(config: PretrainConfig, ranks: Ranks) -> tuple[PuzzleDataset, PuzzleDataset | None]:
    """This rank's share of the training split, and of the test split where there is one."""
    train_set, test_set = open_split(config, ranks, TRAIN_SPLIT), None
    if has_split(config.data_path, TEST_SPLIT):
        test_set = open_split(config, ranks, TEST_SPLIT)
        place, ours, theirs = f"{config.data_path}/test", train_set.metadata, test_set.metadata
        check_fits(ours, theirs, place)
        if theirs.num_puzzle_identifiers > ours.num_puzzle_identifiers:
            raise UserError(
                f"{place}: num_puzzle_identifiers is {theirs.num_puzzle_identifiers}, more than "
                f"the {ours.num_puzzle_identifiers} of train; build the data set again"
            )
    return train_set, test_set


def open_split(
    config: PretrainConfig, ranks: Ranks, split: str, limit: int | None = None
) -> PuzzleDataset:
    """This rank's share of a split; of the test split a sample of `limit` examples, if given.

    The test split comes in micro-batches: an evaluation must not need more memory than a step.
    """
    test, rows = split == TEST_SPLIT, config.local_micro_batch_size(ranks.size)
    return PuzzleDataset(
        PuzzleDatasetConfig(
            seed=config.seed,
            dataset_path=config.data_path,
            global_batch_size=ranks.size * rows if test else config.global_batch_size,
            test_set_mode=test,
            epochs_per_iter=1 if test else config.epochs_per_iteration,
            rank=ranks.rank,
            num_replicas=ranks.size,
            puzzle_emb_dropout=0.0 if test else config.puzzle_emb_dropout,
            limit=limit,
        ),
        split=split,
    )


def open_evaluators(config: PretrainConfig, test_set: PuzzleDataset | None) -> list[Evaluator]:
    """Those of the test split's task.

    Raises:
        UserError: the data set lacks what they need, or votes are to add up and there are none,
            or are to be taken of a sample.
    """
    found = [] if test_set is None else evaluators_of(test_set, config.aggregated_voting)
    votes = any(isinstance(evaluator, VotingEvaluator) for evaluator in found)
    if config.aggregated_voting and not votes:
        raise UserError(
            "aggregated_voting=true: nothing is voted on in this data set; leave it out"
        )
    if config.eval_limit is not None and votes:
        raise UserError(
            f"eval_limit={config.eval_limit}: all versions of a task vote here, so that a sample "
            "says little; leave it out"
        )
    return found
