"""How near images come back from a model that reconstructs, over held-out images x and what it makes of them, y:

    RMSE        sqrt(mean (y - x)**2), over all images and pixels
    PSNR        -10 log10(mean (y - x)**2) of each image, on average, dB
    SSIM        structural similarity of each image, on average                 (Wang et al. 2004, eq. 13)

                    (2 m_x m_y + c_1) (2 s_xy + c_2) / ((m_x**2 + m_y**2 + c_1) (s_x**2 + s_y**2 + c_2)),

                means m, variances s**2 and the covariance s_xy in Gaussian windows of 11 x 11 pixels with standard
                deviation 1.5 that lie inside the image (smaller ones for smaller images); c_1 = 0.01**2, c_2 = 0.03**2
    features    mean |f(y) - f(x)|**2, over that of two different images x and x'
    Frechet     the distance of both sets (frechet.py), of the autoencoder of a model that draws codes

Pixels are in [0, 1]. Intervals are those of the mean over images (Student's t), and say nothing of another training.
"""

import math
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trilemma.data.selection import part_named
from trilemma.errors import UserError, check_finite
from trilemma.metrics import frechet
from trilemma.metrics.catalogue import CATALOGUE
from trilemma.metrics.features import extract, to_levels
from trilemma.metrics.intervals import Estimate, Spread, mean_estimate
from trilemma.metrics.likelihood import IMAGES, INTERVAL_IS, refusal, some_images
from trilemma.metrics.quality import Setup
from trilemma.metrics.reals import real_images
from trilemma.metrics.receipt import Score, protocol_name, score_of
from trilemma.pictures.levels import to_float
from trilemma.run.compute import MOST_NUMBERS, in_batches
from trilemma.types import Coder, Inverts, Reconstructs, UsesCodeMap, codes_need, for_codes, needs_caption

WINDOW, DEVIATION = 11, 1.5  # px
C_1, C_2 = 0.01**2, 0.03**2
FEATURES_INTERVAL_IS = f"{INTERVAL_IS}; the distance of two different images held fixed"
PAIRS_INTERVAL_IS = "infinitesimal jackknife over pairs of an image and its reconstruction, without the bias"


def reconstruction_scores(
    model: nn.Module, setup: Setup, n: int = IMAGES, inverted: int = 0
) -> tuple[list[Score], list[str]]:
    """The scores of a model that reconstructs, on at most n real images, and notes; none of another model.

    Args:
        inverted: images whose codes are searched where a model has no encoder; so many are also taken of one that has,
            unless it is 0.
    """
    coder, by_search = model, not isinstance(model, Reconstructs)
    if by_search:
        if not inverted or not isinstance(model, Inverts):
            return [], []
        coder = Coder(model)
    n = min(n, inverted or n)
    assert isinstance(coder, Reconstructs)
    is_asked = "label" in codes_need(model) or (by_search and needs_caption(model))
    if is_asked and (refused := refusal(model, setup.data, setup.split, own=setup.own)):
        return [], [f"no reconstructions: {refused}"]
    image, given = some_images(model, part_named(setup.data, setup.split), n, setup.seed)
    condition = for_codes(model, given)

    def compute(start: int, count: int) -> Tensor:
        part = slice(start, start + count)
        return coder.reconstruct(image[part], condition.rows(part)).float().cpu()

    rows, start = max(1, MOST_NUMBERS // image[0].numel()), time.perf_counter()
    with torch.no_grad():
        result = torch.cat([part for _, part in in_batches(compute, 0, len(image), rows)])
    advice = "nothing is measured. The model has diverged: train it again with a lower lr="
    check_finite(result, "reconstructions", advice)
    seconds = (time.perf_counter() - start) / len(image)
    notes = [f"the codes of {len(image)} images were searched: {seconds:.2g} s for each"] if by_search else []
    return list(_scores(setup, image.cpu(), result)), notes


@torch.no_grad()
def code_map_scores(model: nn.Module, setup: Setup, real: frechet.Gaussian) -> list[Score]:
    """The Frechet distance of the reconstructions of the real images themselves, for a model that draws codes: what
    its autoencoder has of the distance of its samples. None of another model."""
    if not isinstance(model, UsesCodeMap):
        return []
    value: Estimate | str | None = frechet.refusal(setup.n, setup.n)
    if value is None:
        images = real_images(setup.data, setup.split, setup.n, setup.seed)
        autoencoder, device = model.autoencoder, next(model.parameters()).device

        def compute(start: int, count: int) -> Tensor:
            part = to_float(images[start : start + count].to(device))
            return to_levels(autoencoder.from_map(autoencoder.to_map(part))).cpu()

        rows = max(1, MOST_NUMBERS // images[0].numel())
        rebuilt = torch.cat([part for _, part in in_batches(compute, 0, len(images), rows)])
        value = frechet_of_pairs(real=real, fake=extract(setup.network, rebuilt, team=setup.team)).estimate()
    return [_score(setup, "reconstruction_frechet", setup.n, value, features=True, interval_is=PAIRS_INTERVAL_IS)]


def frechet_of_pairs(*, real: Tensor | frechet.Gaussian, fake: Tensor, minimum: int = frechet.MINIMUM) -> Spread:
    """Frechet distance of features (N, D) of images and of their reconstructions in the same order, with the spread of
    pairs."""
    spread = frechet.frechet_distance(real=real, fake=fake, minimum=minimum)
    return Spread(spread.value, spread.shared + spread.own, least=0.0)


def check_inverted(n: int) -> None:
    """Raises UserError for a number of images to be inverted that has no interval."""
    if n == 1:
        raise UserError("inverted=1: an interval takes at least 2 images; give more, or 0")


def _scores(setup: Setup, image: Tensor, result: Tensor) -> Iterator[Score]:
    """Of images and what the model makes of them, (N, C, H, W)."""
    network = setup.network
    for name, value in reconstruction_values(image, result).items():
        yield _score(setup, name, len(image), value)
    real, made = extract(network, image), extract(network, result)
    value = feature_distance(real=real, fake=made)
    yield _score(setup, "reconstruction_features", len(image), value, features=True, interval_is=FEATURES_INTERVAL_IS)


def _score(
    setup: Setup,
    name: str,
    n: int,
    value: Estimate | str,
    *,
    features: bool = False,
    interval_is: str = INTERVAL_IS,
) -> Score:
    of_features = (
        {
            "features": setup.network.name,
            "resize": setup.network.resize_rule(setup.data.shape),
            "used": setup.network.receipt,
        }
        if features
        else {}
    )
    parts = [CATALOGUE[name].word, *([setup.network.name] if features else []), n, setup.split_label]
    return score_of(
        name,
        protocol_name(*parts),
        value,
        interval_is=interval_is,
        n_real=n,
        split=setup.split,
        seed=setup.seed,
        data=setup.data.name,
        data_fingerprint=setup.data.fingerprint,
        **of_features,
    )


def reconstruction_values(image: Tensor, result: Tensor) -> dict[str, Estimate | str]:
    """RMSE, PSNR and SSIM of images and results (N, C, H, W) in [0, 1], N at least 2; or why one is refused."""
    mse = torch.stack([(y.double() - x.double()).square().mean() for x, y in zip(image, result, strict=True)])
    of_mse = mean_estimate(mse.tolist())
    low, high = (math.sqrt(max(0.0, end)) for end in of_mse.interval)
    exact, rows = int((mse == 0).sum()), max(1, MOST_NUMBERS // image[0].numel())
    parts = zip(image.split(rows), result.split(rows), strict=True)
    return {
        "reconstruction_rmse": Estimate(math.sqrt(of_mse.value), (low, high)),
        "reconstruction_psnr": f"{exact} of {len(mse)} images are reconstructed exactly, with an infinite PSNR"
        if exact
        else mean_estimate(psnr_db(mse).tolist()),
        "reconstruction_ssim": mean_estimate([value for part in parts for value in ssim(*part).tolist()]),
    }


def psnr_db(mse: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, dB, of the mean squared error of pixels in [0, 1]; infinite where that is 0."""
    return -10 * mse.log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of images (N, C, H, W) in [0, 1], float64 (N,): the mean over windows and channels."""
    x, y = x.double(), y.double()
    kernels = [_gaussian(side) for side in x.shape[2:]]
    kernel = torch.outer(*kernels).expand(x.shape[1], 1, -1, -1)

    def mean(z: Tensor) -> Tensor:
        return F.conv2d(z, kernel, groups=z.shape[1])

    m_x, m_y = mean(x), mean(y)
    v_x, v_y, v_xy = mean(x * x) - m_x**2, mean(y * y) - m_y**2, mean(x * y) - m_x * m_y
    values = (2 * m_x * m_y + C_1) * (2 * v_xy + C_2) / ((m_x**2 + m_y**2 + C_1) * (v_x + v_y + C_2))
    return values.flatten(1).mean(1)


def _gaussian(side: int) -> Tensor:
    """Weights of a window along a side of so many pixels, with the sum 1."""
    size = min(WINDOW, side - 1 + side % 2)
    place = torch.arange(size, dtype=torch.float64) - size // 2
    weights = (-(place**2) / (2 * DEVIATION**2)).exp()
    return weights / weights.sum()


def feature_distance(*, real: Tensor, fake: Tensor) -> Estimate | str:
    """Mean squared distance of features (N, D) of images and reconstructions, over that of two different images."""
    between = 2 * real.var(0).sum().item()  # E|f - f'|**2
    if between == 0:
        return "all images have the same features"
    value, (low, high) = mean_estimate((fake - real).square().sum(1).tolist())
    return Estimate(value / between, (max(0.0, low / between), high / between))
