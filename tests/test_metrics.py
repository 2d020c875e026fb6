"""Lines of metrics on a disk that is full or read-only for a while, from two threads."""

import json
from threading import Thread

from hrm.training.loggers import JsonLinesLogger


def test_two_threads_lose_and_repeat_nothing(tmp_path):
    logger = JsonLinesLogger(tmp_path / "metrics.jsonl")
    stop = []

    def write() -> None:
        while not stop:
            logger.write_pending()

    thread = Thread(target=write)
    thread.start()
    for step in range(500):
        logger.log({"x": 1.0}, step)
    stop.append(True)
    thread.join()
    lines = logger.path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(500))


def test_lines_wait_for_room(tmp_path, monkeypatch, capsys):
    logger = JsonLinesLogger(tmp_path / "metrics.jsonl")
    original = JsonLinesLogger._append
    full = [False]

    def append(self, data: bytes) -> None:
        if full[0]:
            raise OSError(28, "No space left on device")
        original(self, data)

    monkeypatch.setattr(JsonLinesLogger, "_append", append)
    for step in range(6):
        full[0] = step in (2, 3)
        logger.log({}, step)
    assert capsys.readouterr().err.count("training goes on") == 1
    lines = logger.path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(6))


def test_a_file_that_cannot_be_made_is_made_later(tmp_path, capsys):
    logger = JsonLinesLogger(tmp_path / "later" / "metrics.jsonl")
    logger.log({}, 1)
    logger.path.parent.mkdir()
    logger.log({}, 2)
    assert capsys.readouterr().err.count("training goes on") == 1
    assert [json.loads(line)["step"] for line in logger.path.read_text().splitlines()] == [1, 2]
