from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from training.errors import DataError, UsageError
from training.models.backbones import CHANNELS, ResNet50V2, backbone_channels, build_backbone
from training.torchvision_shim import models

WEIGHTS = Path(__file__).resolve().parents[4] / "shared" / "weights"


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("stage", ["layer1", "layer2", "layer3"])
def test_shapes_by_stage(name: str, stage: str) -> None:
    stride = {"layer1": 4, "layer2": 8, "layer3": 16}[stage]
    with torch.inference_mode():
        out = build_backbone(name, stage).eval()(torch.zeros(1, 3, 64, 64))
    assert out.shape == (1, backbone_channels(name, stage), 64 // stride, 64 // stride)


def test_equals_torchvision_up_to_the_stage(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = models.resnet18().eval()
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    ours = build_backbone("resnet18", "layer3", str(tmp_path / "w.safetensors")).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        y = whole.maxpool(whole.relu(whole.bn1(whole.conv1(x))))
        expected = whole.layer3(whole.layer2(whole.layer1(y)))
        torch.testing.assert_close(ours(x), expected)


def test_preactivation_block_by_hand() -> None:
    """Batch norm and ReLU before each convolution; the first shortcut branches after them."""
    torch.manual_seed(0)
    block = ResNet50V2("layer1").eval().stage1[0]
    for norm in (block.bn1, block.bn2, block.bn3):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(1, 64, 5, 5)

    def normed(norm: torch.nn.BatchNorm2d, value: torch.Tensor) -> torch.Tensor:
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        shift = norm.bias - norm.running_mean * scale
        return (value * scale[:, None, None] + shift[:, None, None]).clamp(min=0)

    with torch.inference_mode():
        first = normed(block.bn1, x)
        y = block.conv3(normed(block.bn3, block.conv2(normed(block.bn2, block.conv1(first)))))
        torch.testing.assert_close(block(x), y + block.down(first))


@pytest.mark.parametrize(
    ("name", "stage", "weights"),
    [
        ("resnet19", "layer3", None),
        ("resnet18", "layer5", None),
        ("resnet50v2", "layer4", None),
        ("resnet18", "layer3", "IMAGENET1K_V7"),
        ("resnet50v2", "layer3", "imagenet"),
        ("small", "layer4", None),
        ("small", "layer3", "imagenet"),
    ],
)
def test_unknown_names_are_usage_errors(name: str, stage: str, weights: str | None) -> None:
    with pytest.raises(UsageError):
        build_backbone(name, stage, weights)


def test_bad_weight_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        build_backbone("resnet18", "layer1", str(tmp_path / "none.safetensors"))
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"\x80\x04pickle")
    with pytest.raises(DataError, match="not a readable safetensors"):
        build_backbone("resnet18", "layer1", str(garbage))
    state = build_backbone("resnet18", "layer1").state_dict()
    for change, message in (
        ({"conv1.weight": None}, "lacks 1 tensors"),
        ({"conv1.weight": torch.zeros(3)}, "has shape"),
        ({"conv1.weight": torch.full((64, 3, 7, 7), float("nan"))}, "NaN"),
    ):
        changed = {k: v for k, v in (state | change).items() if v is not None}
        save_file(changed, tmp_path / "w.safetensors")
        with pytest.raises(DataError, match=message):
            build_backbone("resnet18", "layer1", str(tmp_path / "w.safetensors"))


@pytest.mark.shared
@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="needs ../shared/weights beside the checkout")
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet18", "resnet18-imagenet-layer3.safetensors"),
        ("resnet50v2", "resnet50v2-imagenet-stage3.safetensors"),
    ],
)
def test_pretrained_files_load_and_give_sane_features(name: str, file: str) -> None:
    backbone = build_backbone(name, "layer3", str(WEIGHTS / file)).eval()
    with torch.inference_mode():
        out = backbone(torch.randn(2, 3, 224, 224))
    assert out.shape == (2, backbone_channels(name, "layer3"), 14, 14)
    assert torch.isfinite(out).all()
    assert 0.005 < out.std() < 10
    assert (out > 0).float().mean() > 0.02
