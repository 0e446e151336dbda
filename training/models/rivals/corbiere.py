"""Corbiere: a picture's vector, drawn to the words that were written of it.

Corbiere et al., Leveraging Weakly Annotated Data for Fashion Image Retrieval and Label Prediction
(ICCV Workshops 2017). Kept: a linear layer to z, a vector a word, the product as the score; one
word of the picture, drawn uniformly so that rare ones count, against sampled ones. Left out: the
crawled texts, whose 30,000 words no data set here has: words are the values and the categories, and
a negative is one that the picture is known to lack. Never words of titles: attributes may have been
made of them. Words have a bias. The paper's row of Table 1 did not train on DeepFashion; ours does.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.config import ModelConfig
from training.models.embedder import Given
from training.models.rivals.classifier import Classifier

NEGATIVES = 100
"""Sampled words a picture, if it lacks so many."""


class Corbiere(Classifier):
    """I is z [B, 512, 1, 1]."""

    architecture = "corbiere"
    title = "Corbiere"
    paper = "Corbiere et al., ICCV Workshops 2017"

    @classmethod
    def settled(cls, config: ModelConfig) -> ModelConfig:
        """With d = 512."""
        return replace(super().settled(config), dim=512)

    def build(self, channels: int) -> None:
        """The linear layer."""
        pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Sequential(pool, nn.Conv2d(channels, self.dim, 1))

    def head_losses(self, z: Tensor, given: Given) -> dict[str, Tensor]:
        """The drawn word against sampled ones, of z [B, 512]."""
        scores, states = self.attribute_head(z), given.labels
        if self.category_head is not None:
            own = F.one_hot(given.category.clamp(min=0), self.category_head.out_features)
            known = (given.category >= 0)[:, None]
            states = torch.cat([states, (2.0 * own - 1) * known], 1)
            scores = torch.cat([scores, self.category_head(z)], 1)
        word, negatives, sampled = draw_words(states, NEGATIVES, given.generator)
        has = word >= 0
        if not bool(has.any()):
            return {"words": scores.sum() * 0}
        against = scores.gather(1, negatives).masked_fill(~sampled, -torch.inf)
        drawn = torch.cat([scores.gather(1, word.clamp(min=0)[:, None]), against], 1)[has]
        return {"words": F.cross_entropy(drawn, word.new_zeros(len(drawn)))}


def draw_words(
    states: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """One word that each picture has [B] int64, -1 if it has none; at most `count` different ones
    that it lacks [B, M]; and which of those count [B, M] bool. Of label states [B, W]."""
    draws = torch.rand(2, *states.shape, generator=generator).to(states.device)
    highest, word = draws[0].masked_fill(states <= 0, -1).max(1)
    lacking = draws[1].masked_fill(states >= 0, -1)
    drawn, negatives = lacking.topk(min(count, states.shape[1]), dim=1)
    return word.masked_fill(highest < 0, -1), negatives, drawn >= 0
