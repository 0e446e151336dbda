"""Any trunk of timm as a backbone: `timm:NAME`, or `timm:NAME.TAG`, the tag one of its weights.

Stages are found by stride where a trunk narrows its maps (convolutional networks, hierarchical
transformers): layer1 to layer4 end at the last map of stride 4, 8, 16 and 32. A plain transformer
has one stride throughout: they end after a quarter, a half, three quarters and all of its blocks,
layer4 after the last, and each map is read through the final norm, as DINOv2 reads its own. What
comes after the last stage that is kept is cut off.

Where a trunk has learned embeddings of positions they are resampled to the picture's size, which is
padded to whole patches; where timm cannot do that, the size is the trunk's own.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from training.errors import ResourceError, UsageError
from training.models.backbones import StagedBackbone, is_file, load_state, read_weights
from training.models.config import TIMM

_STRIDES = {4: "layer1", 8: "layer2", 16: "layer3", 32: "layer4"}
_SIZES: tuple[dict[str, Any], ...] = (
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"dynamic_img_size": True},
    {},
)
"""Options that let a trunk of fixed size take others, best first; `{}`: it cannot."""


class TimmStage(NamedTuple):
    """Where a stage ends."""

    place: int  # among timm's feature maps
    channels: int
    stride: int  # pixels from cell to cell


class _Trunk(NamedTuple):
    """What is known of a trunk without its weights."""

    stages: dict[str, TimmStage]  # lowest first
    plain: bool  # one stride throughout
    options: dict[str, Any]  # that it is made with
    side: int  # of the only pictures that it takes, in pixels; 0: any


def timm_stages(backbone: str) -> dict[str, TimmStage]:
    """The stages of `timm:NAME`, lowest first; nothing of its size is allocated.

    Raises UsageError: timm is not installed, knows no such name (near ones are named), or the
    trunk gives no map at any of these strides.
    """
    return _known(backbone).stages


def timm_record(backbone: str, weights: str | None = None) -> Any:
    """timm's own record of a trunk and of the `weights` that it is given (`PretrainedCfg`): mean,
    std, input_size, license, hf_hub_id and others; a file is taken for those of the name's tag.
    Raises UsageError: no such trunk or weights."""
    timm, name = _timm(), backbone.removeprefix(TIMM)
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        near = ", ".join(difflib.get_close_matches(base, timm.list_models(), 5)) or "none is near"
        raise UsageError(f"timm {timm.__version__} knows no {base!r}; {near}")
    if weights is not None and weights != "imagenet" and not is_file(weights):
        tag = weights
    tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        known = f"those of {', '.join(tags)}" if tags else "none"
        raise UsageError(f"timm has no weights {tag!r} of {base}, but {known}")
    if weights is not None and not tags and not is_file(weights):
        raise UsageError(f"timm has no weights of {base}; pass a file, --weights FILE.safetensors")
    return timm.get_pretrained_cfg(f"{base}.{tag}" if tag else base)


class TimmTrunk(StagedBackbone):
    """A trunk of timm up to `stage`; weights and errors are those of `build_backbone`."""

    def __init__(self, backbone: str, stage: str, weights: str | None = None) -> None:
        super().__init__()
        known, record = _known(backbone), timm_record(backbone, weights)
        ends = list(known.stages)
        kept = ends[: ends.index(stage) + 1]
        self.name, self.plain, self.side = backbone, known.plain, known.side
        self.indices = [known.stages[one].place for one in kept]
        name, file = ".".join(filter(None, (record.architecture, record.tag))), None
        if weights is None or is_file(weights):
            self.trunk: Any = _created(name, known.options)
        else:
            self.trunk = _downloaded(name, known.options)
        if weights is not None and is_file(weights):
            file = _in_todays_keys(read_weights(Path(weights)), self.trunk)
        self.trunk.prune_intermediate_layers(self.indices[-1:], prune_norm=not self.plain)
        if file is not None:
            load_state(self.trunk, file, str(weights))

    def stages(self, images: Tensor) -> list[Tensor]:
        """The map of every stage, lowest first: [B, 3, S, S] -> [B, channels, S / stride,
        S / stride], rounded up; UsageError for a size S that it cannot take."""
        side = int(images.shape[-1])
        if self.side and side != self.side:
            raise UsageError(
                f"{self.name} takes pictures of {self.side} px alone, not {side}; "
                f"pass --image-size {self.side}"
            )
        try:
            maps: list[Tensor] = self.trunk.forward_intermediates(
                images, indices=self.indices, norm=self.plain, intermediates_only=True
            )
        except AssertionError as error:  # such as a size that is no multiple of its patches
            raise UsageError(f"{self.name}, at {side} px: {error}") from error
        # An export loses the shapes of tokens that were laid out as a map.
        if self.plain:
            shapes = [tuple(map(int, m.shape[1:])) for m in maps]
            maps = [torch.unflatten(m.flatten(1), 1, s) for m, s in zip(maps, shapes, strict=True)]
        return maps


def timm_source(backbone: str, weights: str | None) -> dict[str, str]:
    """Where a trunk and its weights are from, in words, by timm's records: for the model card."""
    record = timm_record(backbone, weights)
    name = ".".join(filter(None, (record.architecture, weights and record.tag)))
    source = {"trunk": f"{name} of timm {_timm().__version__}", "weights": "random"}
    if weights is not None:
        papers = record.paper_ids or record.paper_name or ()
        source["weights"] = Path(weights).name if is_file(weights) else record.tag
        source["origin"] = record.hf_hub_id or record.url or record.origin_url or ""
        source["licence"] = record.license or "not in timm's records"
        source["paper"] = papers if isinstance(papers, str) else ", ".join(papers)
    return {key: words for key, words in source.items() if words}


@cache
def _known(backbone: str) -> _Trunk:
    record, name = timm_record(backbone), backbone.removeprefix(TIMM)
    options, model = _first_that_fits(name, _SIZES if record.fixed_input_size else ({},))
    ends = [(one["num_chs"], int(one["reduction"])) for one in model.feature_info]
    plain = len(ends) > 1 and len({stride for _, stride in ends}) == 1
    stages: dict[str, TimmStage] = {}
    for place, (channels, stride) in enumerate(ends):
        if plain:  # of fewer than four blocks some end two quarters
            own = [f"layer{n}" for n in range(1, 5) if place == max(len(ends) * n // 4 - 1, 0)]
            # A final norm may project, as SAM's does.
            channels = model.feature_info[place].get("num_chs_norm", channels)
        else:  # the last map of a stride stays
            own = [_STRIDES[stride]] if stride in _STRIDES else []
        stages |= dict.fromkeys(own[-1:], TimmStage(place, channels, stride))
    if not stages:
        found = ", ".join(str(stride) for _, stride in ends)
        raise UsageError(f"{backbone} has no maps of stride 4, 8, 16 or 32, but of {found}")
    fixed = record.fixed_input_size and not options
    return _Trunk(stages, plain, options, record.input_size[-1] if fixed else 0)


def _first_that_fits(name: str, choices: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], Any]:
    """The first options that a trunk takes, and the trunk with them, on the meta device."""
    for options in choices[:-1]:
        try:
            with torch.device("meta"):
                return options, _created(name, options)
        except TypeError as error:
            if "dynamic_img" not in str(error):
                raise
    with torch.device("meta"):
        return choices[-1], _created(name, choices[-1])


def _created(name: str, options: dict[str, Any]) -> nn.Module:
    model: nn.Module = _timm().create_model(name, **options)
    return model


def _downloaded(name: str, options: dict[str, Any]) -> nn.Module:
    try:
        return _created(name, options | {"pretrained": True})
    except Exception as error:  # what the hub and the network raise has no class in common
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ResourceError(
            f"timm could not load the weights of {name} ({reason}); "
            "pass a local file with --weights FILE.safetensors"
        ) from error


def _in_todays_keys(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A file of timm's hub with the keys and shapes of the trunk, which may have changed since: by
    timm's own filter, which stands beside the model. Also what `state_dict` of a backbone gives."""
    state = {key.removeprefix("trunk."): tensor for key, tensor in state.items()}
    change = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    whole = all(key in state and state[key].shape == t.shape for key, t in _needed(model))
    return state if change is None or whole else dict(change(state, model))


def _needed(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [(k, t) for k, t in model.state_dict().items() if not k.endswith("num_batches_tracked")]


def _timm() -> Any:
    """The package; UsageError if it is not installed. It imports torchvision, which needs us."""
    try:
        importlib.import_module("training.torchvision_shim")
        return importlib.import_module("timm")
    except ImportError as error:
        raise UsageError(
            f'timm is not installed ({error}); pip install "m2fashion-retrieval[timm]"'
        ) from error
