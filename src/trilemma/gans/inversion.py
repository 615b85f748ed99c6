"""From an image to a code that a generator draws it from, by search: a GAN has no encoder.

The generator g is held, and for each image x by itself

    e(z) = mean over pixels of (g(z) - x)**2

is lowered by Adam, from the nearest image of g(z_1), ..., g(z_S), which are drawn once for all images (Zhu et al. 2016,
"Generative visual manipulation on the natural image manifold", section 3.1; in styles w, Abdal et al. 2019,
"Image2StyleGAN", and Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN", appendix D). The rate
falls from RATE standard deviations of the drawn codes to 0 along half a cosine. The best code on the way counts.

Nothing keeps a code near those that are drawn: the error alone is lowered. Images far from what g draws may have codes
far outside, whose neighbours are no good images. An image does not depend on its batch, but for rounding: along
directions in which g hardly changes it may move a code visibly, and the image not.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Generate = Callable[[Tensor], Tensor]  # codes (B, Z) -> images (B, C, H, W)

RATE = 0.1  # of the first steps, in standard deviations of the codes that are drawn


def nearest(drawn: Tensor, image: Tensor) -> Tensor:
    """Which of drawn images (S, C, H, W) is nearest to each image (B, C, H, W) in mean squared error: int64 (B,)."""
    return torch.stack([(drawn - x).square().flatten(1).mean(1).argmin() for x in image])


def search(generate: Generate, image: Tensor, z: Tensor, rate: float, steps: int) -> Tensor:
    """The code of the least error for each image (B, C, H, W), among `steps` steps from z (B, Z) on: (B, Z).

    The gradient of the sum of the errors is for each code that of its own error, so that no image depends on another.
    """
    z = z.clone().requires_grad_()
    best, least = z.detach().clone(), image.new_full((len(image),), torch.inf)
    adam = torch.optim.Adam([z], rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        error = (generate(z) - image).square().flatten(1).mean(1)
        (z.grad,) = torch.autograd.grad(error.sum(), z)
        better = error.detach() < least
        least = torch.where(better, error.detach(), least)
        best = torch.where(better[:, None], z.detach(), best)
        adam.step()
        falling.step()
    return best
