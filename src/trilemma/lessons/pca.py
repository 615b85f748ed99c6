"""A linear autoencoder beside principal component analysis: its decoder spans the directions of the first principal
components (Baldi & Hornik 1989, "Neural networks and principal component analysis")."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trilemma.errors import UserError
from trilemma.explore.images import pick_images
from trilemma.lessons.held_out import reconstructed, rmse
from trilemma.pictures import plots
from trilemma.pictures.levels import to_float
from trilemma.run.run import Run
from trilemma.types import Decodes, Encodes, Reconstructs

if TYPE_CHECKING:
    from PIL import Image

MEASURED = 2000  # images of a split
SHOWN = 200  # points


def principal_axes(points: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and principal axes as rows (min(N, D), D), that of the largest variance first; points (N, D)."""
    mean = points.mean(0)
    return mean, torch.linalg.svd(points - mean, full_matrices=False).Vh


def largest_angle(one: Tensor, other: Tensor) -> float:
    """Radians between two subspaces with orthonormal rows (k, D), from the sine, which is exact for small angles."""
    across = other - other @ one.T @ one
    return math.asin(min(1.0, float(torch.linalg.svdvals(across)[0])))


def decoded_directions(run: Run, image: Tensor) -> Tensor:
    """Orthonormal rows (Z, D) that span the derivative of the decoder by the code, at the code of an image
    (1, C, H, W)."""
    decode: Any = run.model.decode
    code = run.encode(image)[0].to(run.device)
    jacobian = torch.autograd.functional.jacobian(lambda z: decode(z[None]).flatten(), code)  # (D, Z)
    return torch.linalg.qr(torch.as_tensor(jacobian).cpu().double()).Q.T


def pca(run: Run) -> "Image.Image":
    """Held-out points and their reconstructions, seen from above the principal subspace and along its edge."""
    run.require("reconstruct from codes", Encodes, Decodes, Reconstructs)
    train, held = to_float(run.data.train.images), pick_images(run, None, MEASURED)
    x, learned = held.image.cpu().flatten(1).double(), reconstructed(run, held).flatten(1).double()
    mean, axes = principal_axes(train.flatten(1).double())
    directions = decoded_directions(run, train.mean(0, keepdim=True))
    k = len(directions)
    if k >= len(axes):
        raise UserError(
            f"{run.path}: a code of {k} numbers for {x.shape[1]} values leaves nothing to see; give latent="
        )
    flat = mean + (x - mean) @ axes[:k].T @ axes[:k]
    angle = largest_angle(axes[:k], directions)
    figure, views = plots.row_of_plots(2, height=3.6)
    points, results = ((part[:SHOWN] - mean) @ axes.T for part in (x, learned))
    for ax, second in zip(views, (1, k), strict=True):
        ax.plot(*_pairs(points, results, second), color=plots.GREY, linewidth=0.5)
        ax.plot(
            points[:, 0], points[:, second], "o", markersize=6, alpha=0.45, label="held out", color=plots.style(0)[0]
        )
        ax.plot(results[:, 0], results[:, second], "o", markersize=2.5, label="reconstructed", color=plots.style(1)[0])
        ax.set_aspect("equal", adjustable="datalim")
    views[0].legend(fontsize=8, frameon=False)
    plots.label_axes(views[0], "from above", "principal component 1", "component 2")
    plots.label_axes(
        views[1], f"edge on: {math.degrees(angle):.2f} degrees from PCA", "principal component 1", f"component {k + 1}"
    )
    figure.suptitle(f"RMSE {rmse(learned, x):.4f}, of PCA {rmse(flat, x):.4f}", fontsize=10)
    return plots.pixels(figure)


def _pairs(points: Tensor, results: Tensor, second: int) -> tuple[Tensor, Tensor]:
    """Lines from each point to its result: first and second coordinates, (2, N) each."""
    both = torch.stack([points, results])
    return both[:, :, 0], both[:, :, second]
