"""The checkpoint's copy inside an index, so that an index opens by itself."""

from __future__ import annotations

import hashlib
from pathlib import Path

from indexer.manifest import FileEntry
from training.errors import DataError
from training.files import write_file

MODEL_FILES = ("model.safetensors", "config.json", "schema.json", "README.md")
"""Files of a checkpoint that are copied, as far as they are there."""


def copy_model(checkpoint: Path, folder: Path) -> tuple[FileEntry, ...]:
    """Copy a checkpoint's files to `<folder>/model/<hash>/`.

    Args:
        checkpoint: the checkpoint's folder.
        folder: the index.

    Returns:
        The copied files.

    Raises:
        DataError: if there is no checkpoint or it cannot be read.
        ResourceError: if the copy cannot be written.
    """
    try:
        contents = {
            name: (checkpoint / name).read_bytes()
            for name in MODEL_FILES
            if (checkpoint / name).exists()
        }
    except OSError as error:
        raise DataError(f"cannot read the checkpoint {checkpoint}: {error}") from error
    if not contents:
        raise DataError(f"{checkpoint} holds no checkpoint")
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    place = "model/" + hashlib.sha256("".join(digests.values()).encode()).hexdigest()[:12]
    for name, content in contents.items():
        write_file(folder / place / name, content)
    return tuple(
        FileEntry(f"{place}/{name}", digests[name], len(content))
        for name, content in contents.items()
    )
