"""Two writers, readers beside a writer, and no usable GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from flips import FACTORY
from read_everything import read_everything
from small_gallery import SmallGallery

from indexer.search.index import open_search
from indexer.store.manifest import writer_lock
from indexer.store.store import open_store
from training.errors import ResourceError

REPOSITORY = Path(__file__).resolve().parents[2]


def test_fault_14_a_second_builder_ends_within_a_second_naming_the_pid(
    own: SmallGallery,
) -> None:
    index = own.folder / "index"
    code = (
        "import sys, time; from retrieval.cli import _run\n"
        "import retrieval.commands.build_index, retrieval.commands.add, retrieval.commands.remove\n"
        "for words in sys.argv[1:]:\n"
        "    start = time.process_time()\n"
        "    assert _run(words.split('|'), False) == 5, words\n"
        "    assert time.process_time() - start < 1, words\n"
        "assert 'torch' not in sys.modules\n"
    )
    commands = [
        ["build-index", "--dataset", own.shop, "--checkpoint", own.model, "--out", index],
        ["add", index, own.shop / "images/000.png"],
        ["remove", index, "images/000.png"],
    ]
    with writer_lock(index):
        done = subprocess.run(
            [sys.executable, "-c", code, *("|".join(map(str, words)) for words in commands)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"process {os.getpid()} is writing") == 3


def test_fault_15_readers_see_one_version_while_builds_run(own: SmallGallery) -> None:
    """Two galleries take turns in one index; whoever reads meanwhile sees the one or the other."""
    index = own.folder / "index"
    first, second = own.folder / "index", own.folder / "second"
    pictures = sorted((own.shop / "images").iterdir())
    contents = [pictures[0].read_bytes(), pictures[1].read_bytes()]
    truths = [read_everything(first)]
    pictures[0].write_bytes(contents[1])
    own.build(second, index_factory=FACTORY)
    truths.append(read_everything(second))
    builder = os.fork()
    if builder == 0:
        try:
            for turn in range(6):
                pictures[0].write_bytes(contents[turn % 2])
                own.build(index, index_factory=FACTORY)
        finally:
            os._exit(0)
    seen = []
    while os.waitpid(builder, os.WNOHANG)[0] == 0:
        store = open_store(index)
        time.sleep(0.01)
        descriptors = store.descriptors()
        weights = descriptors[:1].astype(np.float32) - 100
        _, scores = open_search(store).search(weights, 1, exact=True)
        products = descriptors.astype(float) @ weights[0]
        np.testing.assert_allclose(scores[0], products.max(), rtol=1e-6)
        assert len(descriptors) == len(store) == 40
        seen.append(store.digests()[0].tobytes())
    assert read_everything(index) in truths
    assert 1 <= len(set(seen)) <= 2


def test_fault_32_without_a_usable_gpu_the_cpu_answers_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    from training import device
    from training.device import choose_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    choice = choose_device("auto")
    assert choice.device == "cpu"
    assert "no usable GPU" in str(choice.remark)
    monkeypatch.setattr(device, "_has_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def no_kernel(self: torch.Tensor, *arguments: object) -> torch.Tensor:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(torch.Tensor, "to", no_kernel)
    choice = choose_device("auto")
    assert choice.device == "cpu"
    assert "no kernel image" in str(choice.remark)
    with pytest.raises(ResourceError, match="choose --device cpu"):
        choose_device("cuda")


def test_fault_16_a_forked_child_answers_as_its_parent_did(own: SmallGallery) -> None:
    own.build(own.folder / "index")
    code = """
import os, sys, threading
from retrieval import Engine, Request
engine = Engine.open(sys.argv[1], device="cpu")
ask = lambda: [(hit.row, hit.score) for hit in engine.query(Request(sys.argv[2]))]
before = ask()
ends, child = os.pipe(), os.fork()
if not child:
    engine._encode._recent.clear()  # it encodes, too
    os.write(ends[1], repr(ask()).encode())
    os._exit(0)
os.waitpid(child, 0)
assert os.read(ends[0], 1 << 16).decode() == repr(before)
assert ask() == before
print(len(before))
"""
    words = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        code,
        own.folder / "index",
        own.shop / "images/000.png",
    ]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, int(done.stdout)) == (0, 10), done.stderr
