"""A model with each batch norm folded into the convolution before it."""

from __future__ import annotations

from typing import cast

from torch import Tensor, fx, nn
from torch.nn.utils import fuse_conv_bn_eval

from indexer.encode import Forward, ModelOutput, output_of, torch_forward
from training.models.conditioned import ConditionedEmbedder, Embedder


def fused_forward(model: Embedder) -> Forward:
    """As `torch_forward`, without a pass over the backbone's maps for each batch norm.

    What it gives differs in the last bits, far less than bytes round off.

    Args:
        model: in channels-last order. A `ConditionedEmbedder` is put in eval mode and keeps its
            weights, those of the backbone's convolutions are copied; another embedder, which nobody
            knows how to take apart, runs as it is.
    """
    if not isinstance(model, ConditionedEmbedder):
        return torch_forward(model)
    trunk = _fused(fx.symbolic_trace(_Trunk(model.eval())))

    def forward(images: Tensor) -> ModelOutput:
        # The first convolution turns them to channels-last; pixels are averaged faster as they are.
        return output_of(model, trunk(images))

    return forward


class _Trunk(nn.Module):
    def __init__(self, model: ConditionedEmbedder) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.trunk(images)


def _fused(traced: fx.GraphModule) -> fx.GraphModule:
    """Its batch norms folded where they follow a convolution that nothing else reads."""
    for norm in traced.graph.nodes:
        before = norm.args[0] if norm.args else None
        batch_norm, convolution = _module(traced, norm), _module(traced, before)
        if not isinstance(batch_norm, nn.BatchNorm2d) or not isinstance(convolution, nn.Conv2d):
            continue
        assert isinstance(before, fx.Node)
        if len(before.users) > 1:
            continue
        target = cast(str, before.target)
        parent, _, name = target.rpartition(".")
        # A copy, and set in the trace alone, whose containers are its own.
        setattr(traced.get_submodule(parent), name, fuse_conv_bn_eval(convolution, batch_norm))
        norm.replace_all_uses_with(before)
        traced.graph.erase_node(norm)
    traced.recompile()
    traced.delete_all_unused_submodules()
    return traced


def _module(traced: fx.GraphModule, node: object) -> nn.Module | None:
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    return traced.get_submodule(cast(str, node.target))
