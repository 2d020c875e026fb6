"""What is read from the environment that torchrun sets."""

import socket

import pytest

from hrm.errors import UserError
from hrm.ranks import ENVIRONMENT, RankLost, Ranks, _meet

WHOLE = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "h", "MASTER_PORT": "1"}


def ranks_of(monkeypatch, variables: dict[str, str]) -> Ranks:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    return Ranks.from_environment()


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": "1"}, {"MASTER_ADDR": "h"}])
def test_alone(monkeypatch, variables):
    assert ranks_of(monkeypatch, variables) == Ranks(0, 1, 0)


def test_under_torchrun(monkeypatch):
    assert ranks_of(monkeypatch, WHOLE) == Ranks(1, 2, 1)


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"WORLD_SIZE": None}, "RANK is set and WORLD_SIZE is not"),
        ({"WORLD_SIZE": None, "RANK": None}, "LOCAL_RANK is set and WORLD_SIZE is not"),
        ({"RANK": None}, "WORLD_SIZE is 2 and RANK is not set"),
        ({"MASTER_ADDR": None}, "WORLD_SIZE is 2 and MASTER_ADDR is not set"),
        ({"MASTER_ADDR": ""}, "WORLD_SIZE is 2 and MASTER_ADDR is not set"),
        ({"MASTER_PORT": None}, "WORLD_SIZE is 2 and MASTER_PORT is not set"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT is 70000, not within 1 to 65535"),
        ({"RANK": "2"}, "RANK is 2, not within 0 to 1"),
        ({"RANK": "-1"}, "RANK is '-1', not a number"),
        ({"RANK": ""}, "RANK is '', not a number"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK is 'x', not a number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is 0, not within"),
        ({"WORLD_SIZE": "٢"}, "not a number"),
        ({"WORLD_SIZE": "9" * 5000}, "not a number"),
    ],
)
def test_half_set_or_odd(monkeypatch, changed, reason):
    variables = {k: v for k, v in (WHOLE | changed).items() if v is not None}
    with pytest.raises(UserError) as error:
        ranks_of(monkeypatch, variables)
    assert reason in str(error.value)
    assert "torchrun" in str(error.value) and "unset RANK WORLD_SIZE" in str(error.value)


def test_a_port_that_is_taken_is_told_by_rank_0(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(RankLost, match="rank 0: cannot listen .*give another MASTER_ADDR"):
            _meet(0, 2)
