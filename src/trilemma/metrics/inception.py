"""Inception Score (Salimans et al. 2016, "Improved techniques for training GANs", section 4), by any classifier.

    IS = exp(mean over images of KL(p(y | x), p(y))) = exp(H(p(y)) - mean H(p(y | x))),    p(y) the mean of p(y | x)

from 1, where all images look alike to the classifier or it is sure of none, to the number of its classes, where it is
sure of each image and all classes are equally frequent. It looks at no real image: one perfect image of each class,
over and over, has the best score, and what is not among the classes does not count. It compares only with scores by the
same classifier. The published one is Inception v3 on ImageNet (features=inception), and published values are the mean
over 10 parts of 5,000 images each, which are not comparable to one of all images.

Standard error: the infinitesimal jackknife (Efron 1982). Moving weight to an image x changes log IS at the rate

    -H(p(y | x)) + mean H - sum_y (p(y | x) - p(y)) log p(y)
"""

import math

import torch
from torch import Tensor

from trilemma.metrics.intervals import Spread, infinitesimal_jackknife

INTERVAL_IS = "infinitesimal jackknife over the generated images, the classifier held fixed"


def inception_score(logits: Tensor) -> Spread:
    """The score of images by a classifier's logits for them, (N, K), with its spread; N at least 2."""
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    mean = p.mean(0)
    negative_entropy = (p * log_p).sum(1)
    log_mean = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
    most = float(logits.shape[1])
    score = min(max(1.0, math.exp(float(negative_entropy.mean() - (mean * log_mean).sum()))), most)
    rate = negative_entropy - negative_entropy.mean() - (p - mean) @ log_mean
    own = score * infinitesimal_jackknife(rate)
    return Spread(score, own.new_zeros(0), own, least=1.0, most=most)
