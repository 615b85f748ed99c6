"""Which of a model's scores flags, chosen without any abnormal image.

Normal images are altered in two ways: a patch of one is replaced by a patch of another (CutPaste; Li et al. 2021,
"CutPaste: self-supervised learning for anomaly detection and localization"), a fault in a place; and its quarters
change places (Noroozi & Favaro 2016, "Unsupervised learning of visual representations by solving jigsaw puzzles"), a
strange whole of familiar parts. A score is worth the mean over both of the AUROC with which it ranks altered images
above images as they are. The unaltered ones are held out, so a score that rises on images which the model has not seen
is worth less. Real anomalies may look otherwise: the choice is a default, and score= overrules it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from trilemma import rng
from trilemma.explore.detection.scores import AnomalyScore, score_all
from trilemma.metrics.ranking import auroc

MOST = 256  # images that are altered
SIDES = 0.25, 0.5  # of a patch, as shares of the image's sides


def altered_aurocs(
    scores: Mapping[str, AnomalyScore], images: Tensor, normal: Mapping[str, Tensor], seed: int
) -> dict[str, float]:
    """The mean AUROC of each of the model's own scores over both alterations.

    Args:
        images: normal ones, uint8 (N, C, H, W), of which at most MOST, drawn at random, are altered.
        normal: the scores of normal images as they are, by name.
    """
    own = {name: score for name, score in scores.items() if not score.baseline} or scores
    some = images[rng.permutation(len(images), seed, "detect altered")[:MOST]]
    altered = [score_all(own, part) for part in (patched(some, seed), quartered(some))]
    return {
        name: sum(auroc(normal=normal[name], abnormal=values[name]) for values in altered) / len(altered)
        for name in own
    }


def patched(images: Tensor, seed: int) -> Tensor:
    """Each image with a patch of the next one at a random place; the last one has a patch of the first."""
    generator, result = rng.generator(seed, "detect patches"), images.clone()
    for k, image in enumerate(images.roll(-1, 0)):
        low, high = SIDES
        share = low + (high - low) * torch.rand(2, generator=generator, dtype=torch.float32)
        height, width = (max(1, round(float(s) * side)) for s, side in zip(share, images.shape[2:], strict=True))
        (y, v), (x, u) = (
            torch.randint(side - length + 1, (2,), generator=generator).tolist()
            for side, length in ((images.shape[2], height), (images.shape[3], width))
        )
        result[k, :, y : y + height, x : x + width] = image[:, v : v + height, u : u + width]
    return result


def quartered(images: Tensor) -> Tensor:
    """Each image with its opposite quarters in each other's place."""
    return images.roll((images.shape[2] // 2, images.shape[3] // 2), (2, 3))
