"""The death of a decoding process, as torch tells of it."""

from __future__ import annotations

from training.errors import ResourceError


def worker_death(error: BaseException) -> ResourceError | None:
    """What a user is told if an error says that a decoding process died; None if it does not.

    Torch raises it wherever the main thread is: from the handler of the signal that a child ended.
    """
    if not isinstance(error, RuntimeError) or "DataLoader worker (pid" not in str(error):
        return None
    return ResourceError(
        f"a decoding process ended unexpectedly ({str(error).splitlines()[0]}); run again with "
        "fewer --workers: a build goes on where it stopped, training with --resume"
    )
