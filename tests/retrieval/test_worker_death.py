"""A decoding process that is killed is told of, wherever the main thread is at the time."""

import pytest

from training.errors import ResourceError
from training.images.batches import worker_death


def test_only_the_death_of_a_worker_is_one() -> None:
    died = RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. \nmore")
    told = worker_death(died)
    assert isinstance(told, ResourceError)
    assert "(DataLoader worker (pid 12) is killed by signal: Killed. )" in str(told)
    assert worker_death(RuntimeError("size mismatch")) is None
    assert worker_death(ValueError("DataLoader worker (pid 12)")) is None
    assert worker_death(RuntimeError("Caught RuntimeError in DataLoader worker process 0.")) is None


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed."), 6, "--workers"),
        (RuntimeError("Error calling __set_name__"), 1, "This is a bug"),
    ],
)
def test_the_command_line_tells_it(
    error: Exception, code: int, words: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from retrieval import cli

    def fail(context: object) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "invoke", fail)
    assert cli._run(["doctor"], debug=False) == code
    assert words in capsys.readouterr().err


def test_an_interrupted_import_is_an_interruption(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrieval import cli

    def fail(context: object) -> None:
        raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt()

    monkeypatch.setattr(cli.cli, "invoke", fail)
    assert cli._run(["doctor"], debug=False) == 130
    assert capsys.readouterr().err == "retrieve: interrupted\n"
