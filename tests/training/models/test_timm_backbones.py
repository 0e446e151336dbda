"""Trunks of timm against timm's own features; trained, exported, indexed and asked."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_catalogue import write_tiny_catalogue
from torch.nn import functional as F

from indexer.build.build import BuildOptions, build_index
from retrieval.cli import _run
from retrieval.engine import Engine
from retrieval.request import Request
from training import torchvision_shim  # noqa: F401
from training.checkpoint import OUTPUTS, load_checkpoint
from training.datasets import load_dataset
from training.device import open_session
from training.errors import DataError, ResourceError, UsageError
from training.images.preprocessing import Preprocessing
from training.images.tensors import normalise
from training.models.backbones import backbone_source, build_backbone, pictures_of, stage_channels
from training.models.config import ModelConfig
from training.models.timm_backbones import timm_stages
from training.recipe import Recipe
from training.run import RunConfig, run_training

timm = pytest.importorskip("timm")
from timm.models import generate_default_cfgs, register_model  # noqa: E402

WEIGHTS = Path(__file__).resolve().parents[4] / "shared" / "weights"
SIDE = 64

TOWERS = {
    "tiny_dinov2": "vit_small_patch14_reg4_dinov2",
    "tiny_dinov3": "vit_small_patch16_dinov3",
    "tiny_siglip": "vit_base_patch16_siglip_224",
    "tiny_clip": "vit_base_patch32_clip_224",
}
"""Families without a tiny member: these with four narrow blocks."""

default_cfgs = generate_default_cfgs(
    {
        name: timm.get_pretrained_cfg(base).to_dict(remove_source=True) | {"tag": None}
        for name, base in TOWERS.items()
    }
)


def _register(name: str, base: str) -> None:
    def build(pretrained: bool = False, **given: object) -> torch.nn.Module:
        sizes = {key: given[key] for key in given if "img" in key}
        return timm.create_model(base, depth=4, embed_dim=48, num_heads=3, **sizes)

    build.__name__ = name
    register_model(build)


sys.modules[__name__].__all__ = []  # type: ignore[attr-defined]
for _name, _base in TOWERS.items():
    _register(_name, _base)

FAMILIES = {  # the stage that is kept, whether the trunk is frozen
    "test_resnet": ("layer3", False),
    "test_vit": ("layer2", True),
    "test_convnext": ("layer4", True),
    "test_efficientnet": ("layer3", True),
    "test_nfnet": ("layer3", False),  # the weights of its convolutions are computed
    **dict.fromkeys(TOWERS, ("layer4", False)),
    "tiny_dinov2": ("layer3", True),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_catalogue(tmp_path_factory.mktemp("timm") / "shapes", 30)


def whole(name: str, path: Path) -> torch.nn.Module:
    """A random model as timm makes it, its weights in a file."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    save_file(model.state_dict(), path)
    return model


def timms_maps(name: str, model: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """What timm itself gives: of tokens by a model made for this size of pictures, its positions
    resampled when it is loaded; of others all maps of the model as it is."""
    stages = timm_stages(f"timm:{name}").values()
    places = [stage.place for stage in stages]
    if len({stage.stride for stage in stages}) > 1:
        return model.forward_intermediates(images, indices=places, intermediates_only=True)
    patch = next(iter(stages)).stride
    side = -(-SIDE // patch) * patch
    fitting = timm.create_model(name, img_size=side).eval()
    change = sys.modules[type(model).__module__].checkpoint_filter_fn
    fitting.load_state_dict(change(model.state_dict(), fitting))
    images = F.pad(images, (0, side - SIDE, 0, side - SIDE))
    return fitting.forward_intermediates(images, indices=places, norm=True, intermediates_only=True)


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_maps_are_timms_own(name: str, tmp_path: Path) -> None:
    model = whole(name, tmp_path / "w.safetensors")
    images = torch.randn(2, 3, SIDE, SIDE)
    right = timms_maps(name, model, images)
    stages = stage_channels(f"timm:{name}")
    assert list(stages)[-1] == "layer4"
    kept = []
    for number in (2, len(stages)):
        stage = list(stages)[number - 1]
        ours = build_backbone(f"timm:{name}", stage, str(tmp_path / "w.safetensors")).eval()
        found = ours.stages(images)
        assert len(found) == number
        for own, theirs, channels in zip(found, right, stages.values(), strict=False):
            assert own.shape[1] == channels
            torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours(images), found[-1])
        parameters = sum(p.numel() for p in ours.parameters())
        kept.append(parameters)
    assert kept[0] < kept[1]  # what comes after the stage is cut


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_byobnet"])
@torch.inference_mode()
def test_stages_are_those_of_features_only(name: str) -> None:
    torch.manual_seed(0)
    ours = build_backbone(f"timm:{name}", "layer4").eval()
    torch.manual_seed(0)
    theirs = timm.create_model(name, features_only=True).eval()
    images = torch.randn(1, 3, SIDE, SIDE)
    for own, right in zip(ours.stages(images), theirs(images)[-4:], strict=True):
        torch.testing.assert_close(own, right)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_trunk_trains_exports_and_is_asked(name: str, pictures: Path, tmp_path: Path) -> None:
    stage, frozen = FAMILIES[name]
    weights = str(tmp_path / "w.safetensors") if frozen else None
    if weights:
        whole(name, Path(weights))
    dataset = load_dataset(str(pictures))
    shown = {**pictures_of(f"timm:{name}", weights), "size": SIDE}
    recipe = Recipe(epochs=1, batch_size=10, copies=0, freeze="all" if frozen else "none")
    model = ModelConfig(f"timm:{name}", stage, grid=3, dim=16, nuance=4, garment_nuance=8)
    config = RunConfig(model, recipe, Preprocessing(**shown), weights)
    report = run_training(dataset, config, tmp_path / "run")
    assert report.export is not None
    loaded = load_checkpoint(tmp_path / "run")
    start = build_backbone(f"timm:{name}", stage, weights).state_dict()
    after = loaded.model.backbone.state_dict()
    assert all(torch.equal(start[key], after[key]) for key in start) == frozen
    card = (loaded.folder / "README.md").read_text()
    mean = ", ".join(f"{value:.4g}" for value in timm.get_pretrained_cfg(name).mean)
    assert f"timm:{name} up to {stage}" in card
    assert f"pictures: {SIDE} px, mean {mean}," in card
    assert ("licence: " in card) == frozen

    images = [loaded.preprocessing.open(dataset.root / path) for path in dataset.paths[:7]]
    pixels = np.stack(images)
    session = open_session((loaded.folder / "model.onnx").read_bytes())
    asked = loaded.model.type_conditions.numpy()
    found = session.run(list(OUTPUTS), {"images": pixels, "conditions": asked})
    with torch.inference_mode():
        trunk = loaded.model.trunk(normalise(torch.from_numpy(pixels), loaded.preprocessing))
        right = loaded.model.describe(trunk)
    np.testing.assert_allclose(found[0], right.chances, atol=1e-4)
    np.testing.assert_allclose(found[1], right.nuance, atol=1e-3)

    rows = np.arange(len(dataset))
    build_index(dataset, rows, loaded, tmp_path / "index", BuildOptions(workers=0))
    engine = Engine.open(tmp_path / "index", "cpu")
    first = dataset.root / dataset.paths[4]
    hits = engine.query(Request(first, top_k=3, include_query=True))
    assert hits[0].path == first


def test_names_that_are_none_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"knows no 'test_vitt'; .*test_vit"):
        stage_channels("timm:test_vitt")
    with pytest.raises(UsageError, match="no weights 'in22k' of test_vit, but those of r160_in1k"):
        build_backbone("timm:test_vit.in22k", "layer4")
    with pytest.raises(UsageError, match="no weights 'in22k' of test_vit, but those of r160_in1k"):
        build_backbone("timm:test_vit", "layer4", "in22k")
    with pytest.raises(UsageError, match="has no weights of test_vit4"):
        build_backbone("timm:test_vit4", "layer4", "imagenet")
    with pytest.raises(UsageError, match="no maps of stride 4, 8, 16 or 32, but of 12"):
        stage_channels("timm:crossvit_tiny_240")
    with pytest.raises(UsageError, match="has no stage 'layer1', but layer3, layer4"):
        build_backbone("timm:shvit_s1", "layer1")
    trunk = build_backbone("timm:test_maxvit", "layer2")
    with pytest.raises(UsageError, match="takes pictures of 160 px alone, not 64"):
        trunk(torch.zeros(1, 3, 64, 64))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"m2fashion-retrieval\[timm\]"):
        pictures_of("timm:test_vit", None)


@pytest.mark.parametrize("weights", ["imagenet", "r160_in1k"])
def test_without_a_network_weights_are_a_resource_error(
    weights: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ResourceError, match=r"weights of test_vit\.r160_in1k .*--weights FILE"):
        build_backbone("timm:test_vit", "layer4", weights)


def test_files_that_do_not_fit_are_data_errors(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    state = whole("test_resnet", path).state_dict()
    save_file({k: v for k, v in state.items() if not k.startswith("layer2.")}, path)
    build_backbone("timm:test_resnet", "layer1", str(path))
    with pytest.raises(DataError, match=r"lacks .* tensors of this backbone, first 'layer2"):
        build_backbone("timm:test_resnet", "layer2", str(path))
    save_file(build_backbone("timm:test_resnet", "layer2").state_dict(), path)
    build_backbone("timm:test_resnet", "layer2", str(path))  # as written by us


def test_the_records_of_a_tag_are_its_own() -> None:
    name = "timm:vit_base_patch16_clip_224"
    openai, augmented = pictures_of(f"{name}.openai", None), "vit_base_patch16_224.augreg_in21k"
    assert openai["mean"] == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)
    assert pictures_of(f"timm:{augmented}", None)["std"] == (0.5, 0.5, 0.5)
    assert pictures_of("timm:vit_small_patch14_dinov2", None)["size"] == 518
    assert pictures_of("resnet18", "imagenet") == {}
    source = backbone_source("timm:convnextv2_atto", "models/any.safetensors")
    assert source["licence"] == "cc-by-nc-4.0"
    assert source["origin"] == "timm/convnextv2_atto.fcmae_ft_in1k"
    assert source["paper"] == "arXiv:2301.00808"
    assert source["weights"] == "any.safetensors"
    assert backbone_source("timm:vit_small_patch14_dinov2", "imagenet")["weights"] == "lvd142m"


def test_the_command_line_shows_pictures_as_the_records_tell(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "given.toml"
    given.write_text("[preprocessing]\nstd = [0.3, 0.3, 0.3]\n[model]\ngrid = 2\ndim = 16\n")
    words = ["train", "--dataset", str(pictures), "--config", str(given), "--epochs", "1"]
    words += ["--backbone", "timm:test_convnext", "--variant", "triplet", "--freeze", "none"]
    words += ["--workers", "0", "--batch-size", "10"]
    assert _run([*words, "--out", str(tmp_path / "run")], debug=False) == 0
    shown = load_checkpoint(tmp_path / "run").preprocessing
    assert (shown.size, shown.mean, shown.std) == (160, (0.5, 0.5, 0.5), (0.3, 0.3, 0.3))
    assert "timm:test_convnext to layer3 (trained) at 160 px" in capsys.readouterr().err


def test_constraints_name_what_timm_needs() -> None:
    home = Path(__file__).resolve().parents[3]
    extras = tomllib.loads((home / "pyproject.toml").read_text())["project"]
    assert "timm" in extras["optional-dependencies"]
    assert f"timm=={timm.__version__}" in (home / "constraints.txt").read_text().split()


@pytest.mark.shared
@pytest.mark.skipif(not WEIGHTS.is_dir(), reason="needs ../shared/weights beside the checkout")
@torch.inference_mode()
def test_a_pretrained_file_gives_what_timm_gives_with_it() -> None:
    name, file = "tf_efficientnet_lite2", WEIGHTS / "tf_efficientnet_lite2-imagenet.safetensors"
    model = timm.create_model(name, num_classes=0).eval()
    model.load_state_dict(load_file(file), strict=True)
    images = torch.randn(1, 3, 128, 128)
    right = model.forward_intermediates(images, intermediates_only=True)
    ours = build_backbone(f"timm:{name}", "layer3", str(file)).eval()
    for own, theirs in zip(ours.stages(images), right[1:4], strict=True):
        assert torch.equal(own, theirs)
