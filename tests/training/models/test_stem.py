"""The last stage trained on what the stem below it gave once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_catalogue import write_tiny_catalogue

from training.checkpoint import load_checkpoint
from training.datasets import load_dataset
from training.datasets.dataset import Dataset
from training.errors import UsageError
from training.images.batches import Reading
from training.images.preprocessing import Preprocessing
from training.images.tensors import normalise
from training.maps import MapBank
from training.models.config import ModelConfig, build_model
from training.recipe import Recipe, RunConfig
from training.resume import read_last
from training.run import Setting, run_training
from training.sampling import BatchPlan
from training.schema import Attribute, Schema
from training.sources import StoredMaps
from training.step import Batch, Objective, set_mode
from training.trainer import build_optimizer

SCHEMA = Schema((Attribute("pattern", ("floral", "striped")),))
SMALL = Preprocessing(size=32)
CONFIG = RunConfig(
    ModelConfig("small", "layer3", 2, 8),
    Recipe(epochs=1, batch_size=10, freeze="stem", backbone_learning_rate=0.01, copies=1),
    SMALL,
)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return load_dataset(str(write_tiny_catalogue(tmp_path / "shapes", 42)))


@pytest.mark.parametrize("lower_stages", [True, False])
@pytest.mark.parametrize(
    ("backbone", "stage"), [("resnet18", "layer3"), ("resnet50v2", "layer2"), ("small", "layer3")]
)
def test_stem_and_last_stage_are_the_trunk(backbone: str, stage: str, lower_stages: bool) -> None:
    torch.manual_seed(0)
    config = ModelConfig(backbone, stage, 3, 8, lower_stages=lower_stages)
    model = build_model(SCHEMA, config)
    with torch.inference_mode():
        for _ in range(3):  # batch norms that have seen something
            model.backbone(torch.randn(2, 3, 72, 72))
        model.eval()
        images = torch.randn(2, 3, 72, 72)
        found = model.above_stem(model.run_stem(images))
        torch.testing.assert_close(found, model.trunk(images), rtol=1e-4, atol=1e-4)


def test_stored_stems_are_those_of_the_pictures_and_of_no_use_as_maps(
    dataset: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = build_model(dataset.schema, CONFIG.model, 2).eval()
    reading, order = Reading(SMALL), BatchPlan([4, 0, 11], [0, 0, 0])
    pictures = [SMALL.open(dataset.root / dataset.paths[row]) for row in order.rows]
    pixels = torch.from_numpy(np.stack(pictures))
    with torch.inference_mode():
        expected = model.trunk(normalise(pixels, SMALL))
        for freeze in ("stem", "all"):
            recipe = replace(CONFIG.recipe, freeze=freeze)
            source = StoredMaps(model, dataset, reading, tmp_path / "cache", recipe)
            rows, inputs = next(source.batches(iter([order])))
            assert (rows, inputs.ndim) == (order.rows, 2 if freeze == "stem" else 4)
            found = model.trunk_from(inputs, source.freeze)
            torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)  # float16
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 4


def test_the_last_stage_alone_is_trained_and_its_batch_norms_note_nothing() -> None:
    torch.manual_seed(0)
    recipe = replace(CONFIG.recipe, drop_maps=0.0)
    model = build_model(SCHEMA, CONFIG.model)
    set_mode(model, recipe)
    optimizer = build_optimizer(model, recipe)
    stems = model.run_stem(torch.randn(4, 3, 32, 32)).detach()
    labels = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 1)
    batch = Batch(stems, labels, torch.full((4,), -1), torch.arange(4) // 2)
    before = {name: of.clone() for name, of in model.backbone.named_buffers()}
    Objective(model, recipe, "stem")(batch, torch.Generator()).total.backward()
    reached = {n for n, p in model.backbone.named_parameters() if p.grad is not None}
    assert reached == {n for n, _ in model.backbone.named_parameters() if n.startswith("layer3.")}
    assert all(bool(p.grad.any()) for p in model.backbone.layer3.parameters())
    assert all(torch.equal(of, before[name]) for name, of in model.backbone.named_buffers())
    tuned = optimizer.param_groups[1]
    assert tuned["peak"] == recipe.backbone_learning_rate
    assert {id(p) for p in tuned["params"]} == {id(p) for p in model.backbone.layer3.parameters()}


def test_what_is_validated_and_kept_is_the_tuned_last_stage_on_the_loaded_stem(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.run.export_checkpoint", lambda *_: None)
    validated: dict[str, np.ndarray] = {}

    def validate(bank: MapBank, _: Dataset) -> float:
        validated.update({name: of.numpy().copy() for name, of in bank.model.state_dict().items()})
        return 50.0

    torch.manual_seed(CONFIG.seed)
    loaded = build_model(dataset.schema, CONFIG.model, len(dataset.category_names)).state_dict()
    run_training(dataset, CONFIG, tmp_path / "run", Setting(validate=validate))
    tuned = read_last(tmp_path / "run").model
    kept = load_checkpoint(tmp_path / "run").model.state_dict()
    assert not torch.equal(tuned["reduce.weight"], loaded["reduce.weight"])
    for name, weights in tuned.items():
        if name.startswith("backbone.layer3."):
            assert torch.equal(weights, loaded[name]) == ("running" in name or "num_" in name)
        elif name.startswith("backbone."):
            assert torch.equal(weights, loaded[name])
        np.testing.assert_array_equal(validated[name], weights.numpy())
        if name != "values.temperatures":  # set after the last epoch
            np.testing.assert_array_equal(kept[name].numpy(), validated[name])


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(UsageError, match="copies = 0"):
        replace(CONFIG.recipe, copies=0)
    assert replace(CONFIG.recipe, copies=0, flip=False, crop=1.0).stored_copies == 0
    for backbone, words in (
        ("resnet18", "no stage below"),
        ("timm:resnet18", "cannot be run in two pieces"),
    ):
        with pytest.raises(UsageError, match=words):
            replace(CONFIG, model=ModelConfig(backbone, "layer1"))
