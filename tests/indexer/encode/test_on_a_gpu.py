"""What only a CUDA GPU can show: encoding there. Its search is in `test_search.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_onnx_runtime import SHOWN, lively_model, noise

from indexer.encode.encode import encode
from indexer.encode.on_torch import torch_forward
from training.models.config import ModelConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def test_images_are_encoded_as_on_a_cpu() -> None:
    model = lively_model(ModelConfig("resnet18", "layer2", grid=4, dim=16), 32)
    right = encode(torch_forward(model, SHOWN, "cpu"), noise(6))
    found = encode(torch_forward(model.to("cuda"), SHOWN, "cuda"), noise(6))
    np.testing.assert_allclose(found.chances, right.chances, atol=0.01)
    np.testing.assert_allclose(found.nuance, right.nuance, atol=0.01)
