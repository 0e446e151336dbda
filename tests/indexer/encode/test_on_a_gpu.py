"""What only a CUDA GPU can show: encoding there. Its search is in `test_search.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_onnx_runtime import MODELS, lively_model

from indexer.encode.encode import encode, torch_forward
from training.images.preprocessing import Preprocessing

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def test_images_are_encoded_as_on_a_cpu() -> None:
    config, size = MODELS["resnet18"]
    model = lively_model(config, size)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, size, size), dtype=np.uint8)
    preprocessing = Preprocessing(size=size)
    right = encode(torch_forward(model), pixels, preprocessing, "cpu")
    found = encode(torch_forward(model.to("cuda")), pixels, preprocessing, "cuda")
    np.testing.assert_allclose(found.chances, right.chances, atol=0.01)
    np.testing.assert_allclose(found.nuance, right.nuance, atol=0.01)
