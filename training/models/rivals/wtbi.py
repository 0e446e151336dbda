"""WTBI: whether two frozen features show one item, as a network says of the pair.

Hadi Kiapour et al., Where to Buy It: Matching Street Clothing Photos in Online Shops (ICCV 2015).
Kept: a frozen feature f, three layers over the pair, a picture of the same item against three of
others. Heads that name categories and values, which the paper has not and Table 1 must have had,
are linear on f. Left out: AlexNet, which F is here; street and shop, since nothing here says which
is which, so both orders of a pair are averaged; a copy of the network fine-tuned for each category,
detection and proposals. Where nothing is known of items the pairs teach nothing.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.losses import item_pairs
from training.models.backbones import backbone_channels
from training.models.config import ModelConfig
from training.models.embedder import Given
from training.models.rivals.classifier import Classifier

WIDTH, NEGATIVES = 512, 3


class WTBI(Classifier):
    """I is f [B, channels, 1, 1], the mean of F."""

    architecture = "wtbi"
    title = "WTBI"
    paper = "Hadi Kiapour et al., ICCV 2015"
    wants_pairs = True

    @classmethod
    def settled(cls, config: ModelConfig) -> ModelConfig:
        """With d as of F."""
        config = replace(super().settled(config), lower_stages=False)
        return replace(config, dim=backbone_channels(config.backbone, config.stage))

    def build(self, channels: int) -> None:
        """The network of pairs [f_q; f_g] -> 512 -> 512 -> 1; its first layer comes in two."""
        self.reduce = nn.AdaptiveAvgPool2d(1)
        self.query = nn.Linear(channels, WIDTH)
        self.gallery = nn.Linear(channels, WIDTH, bias=False)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.score = nn.Linear(WIDTH, 1)

    def pair_logits(self, queries: Tensor, gallery: Tensor) -> Tensor:
        """Whether they show one item [Q, G], both orders averaged, of f [Q, channels] and
        [G, channels]."""
        orders = (
            self.query(queries)[:, None] + self.gallery(gallery)[None],
            self.gallery(queries)[:, None] + self.query(gallery)[None],
        )
        found = [self.score(self.hidden(x.relu()).relu())[..., 0] for x in orders]
        return torch.stack(found).mean(0)

    def own_losses(self, trunk: Tensor, given: Given) -> dict[str, Tensor]:
        """Both heads, and the pairs of the batch."""
        f = self.reduce(trunk)[:, :, 0, 0].float()
        pairs = item_pairs(given.shows)
        same, other = pairs.positive[0], pairs.negative[0]
        draws = torch.rand(same.shape, generator=given.generator).to(f.device)
        ranks = draws.masked_fill(~other, 2).argsort(1).argsort(1)
        asked = same | (other & same.any(1, keepdim=True) & (ranks < NEGATIVES))
        logits = self.pair_logits(f, f)
        if bool(asked.any()):
            told = F.binary_cross_entropy_with_logits(logits[asked], same[asked].float())
        else:
            told = logits.sum() * 0
        return self.head_losses(f, given) | {"pairs": told}
