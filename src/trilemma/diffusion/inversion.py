"""From an image to the noise that it is drawn from, along the probability-flow path (Song et al. 2021, section 4.3).

The solvers go up a grid as they go down it, h < 0. The first step leaves sigma = 0, where a step has no log(alpha /
sigma) to begin at: with r = sigma / alpha and y = x / alpha, the path is dy / dr = eps_hat, which is 0 at r = 0 and
grows in proportion to r for data with a density, so

    y(r) = x0 + r / 2 eps_hat(y, r),     eps_hat = (y - x0_hat) / r

The path of one image of a data set of one is straight, eps_hat = 0, and is followed exactly.
"""

from torch import Tensor

from trilemma.diffusion.schedule import Schedule
from trilemma.diffusion.solvers import unipc
from trilemma.diffusion.steps import Denoise


def invert(denoise: Denoise, schedule: Schedule, times: Tensor, x0: Tensor) -> Tensor:
    """The noisy image at times[0] that a sampler takes to x0: a call for each step.

    Args:
        times: as of a sampler, decreasing.
        x0: the image at times[-1], (B, C, H, W).
    """
    up, x = times.flip(0), x0
    if up[0] == 0:
        up, t = up[1:], float(up[1])
        alpha = float(schedule.alpha(t))
        x0_hat = denoise(alpha * x0, x0.new_full((len(x0),), t))
        x = alpha * (x0 + (x0 - x0_hat) / 2)
    return unipc(denoise, schedule, up, x, no_noise, order=3)


def no_noise(step: int) -> Tensor:
    """For samplers that add none."""
    raise AssertionError(f"step {step} of a deterministic sampler asked for noise")
