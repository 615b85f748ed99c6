"""Scores from nearest neighbours: precision, recall, density, coverage.

A ball around each point of a set reaches to its k-th nearest other point of the set.

    precision   share of generated images inside a ball of a real one       Kynkaanniemi et al. 2019, k = 3
    recall      share of real images inside a ball of a generated one
    density     number of real balls around a generated image, on average, over k   Naeem et al. 2020, eq. 4, k = 5
    coverage    share of real balls that hold a generated image             Naeem et al. 2020, eq. 5

A real image far from the others has a ball that may hold everything between, so precision can be fooled, by flat grey
for one. Density asks how many balls hold an image: about 1 on average for real images, and it may exceed 1. A point on
a ball's surface is inside (<=), so that a set is always inside itself.

Balls shrink as images are added, so all values depend on the number of images: the two sets are brought to the same
size, and only values at equal size compare. Distances are differences squared and summed in float64. The quicker
|x|^2 + |y|^2 - 2 x.y, a product of matrices in float32, loses the distance between near duplicates; but its error is
bounded by gamma (|x|^2 + |y|^2) of the centred points (Higham 2002, "Accuracy and Stability of Numerical
Algorithms", section 3.1). So it only says which pairs are near enough to count and which comparisons it may have wrong,
and these are made again with exact distances: all scores equal those of exact distances.

Intervals: both sets are cut in halves at random, SPLITS times. The scores T_1 and T_2 of the two pairs of halves are
independent of each other, so E (T_1 - T_2)^2 / 4 = Var(T_1) / 2, which is the variance at all images where it falls as
1 / n. A jackknife would need scores that change smoothly with their images. Of half as many images a fraction p is
p_half, and its variance is scaled by p (1 - p) / (p_half (1 - p_half)).
"""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from trilemma import rng
from trilemma.errors import UserError
from trilemma.metrics.intervals import Spread
from trilemma.modes import in_float32

K_PRECISION, K_DENSITY = 3, 5
SCORES = ("precision", "recall", "density", "coverage")
LEAST = 2 * (K_DENSITY + 1)  # images: half of them have a K_DENSITY-th neighbour
ROUGH = 200  # images a side below which the values are rough
SPLITS = 40
PAIRS = 4096  # compared with all cuts at a time: few enough for a processor's cache
LOOKED_AT = 40  # nearest points, of which K_DENSITY lie in one half but for odds of 10^-7
SPARE = 8  # further ones, so that products in float32 miss none of these
FLOOR = 2.0**-100  # of the error, above what float32 takes for 0
ROWS = 16  # whose nearest points are held at a time, in a processor's cache
CROWD = 64  # such pairs for each ball or point, above which it is worth telling the sure ones apart
CANDIDATES = 8  # of a block, whose distances are computed exactly
INTERVAL_IS = "over both sets of images, at this number of images; holds the truth in 86 to 100% of simulated draws"


class Sorted(NamedTuple):
    """The nearest points of each point, ascending: distances and numbers, (n, LOOKED_AT)."""

    distance: Tensor
    index: Tensor


class Block(NamedTuple):
    """Some points (B, D) and others (P, D), float64, and a lower bound of their squared distances by products of
    matrices, float32 (B, P), in units of scale**2; these are at most 2 (of_row + of_column) larger, (B, 1), (1, P)."""

    rows: Tensor
    columns: Tensor
    lower: Tensor
    of_row: Tensor
    of_column: Tensor
    scale: float

    def exact(self, i: Tensor, j: Tensor) -> Tensor:
        """Distances of the rows i (Q,) and the columns j (Q, K), float64 (Q, K)."""
        return distances(self.rows[i, None], self.columns[j])[:, 0]

    def swapped(self) -> "Block":
        """The same with rows and columns exchanged."""
        return Block(self.columns, self.rows, self.lower.T, self.of_column.T, self.of_row.T, self.scale)


class Balls(NamedTuple):
    """Points (N, D), the half of each in each cut, and the radii of their balls with K_PRECISION and K_DENSITY
    neighbours, (1 + SPLITS, N) each."""

    points: Tensor
    half: Tensor
    narrow: Tensor
    wide: Tensor


def refusal(n: int) -> str | None:
    """Why n images on either side have no scores from nearest neighbours, or None."""
    if n >= LEAST:
        return None
    return f"nearest neighbours need at least {LEAST} images on either side, not {n}; give more images"


@in_float32()
def real_balls(real: Tensor, block: int = 1024) -> Balls:
    """The balls around real images, which are the same for all that is measured by them: features (N, D)."""
    x, half = real.double(), _halves(len(real), "real")
    near = _among(x, block)
    return Balls(x, half, _radii(near, K_PRECISION, half), _radii(near, K_DENSITY, half))


def balls_of(real: Tensor, narrow: Tensor, wide: Tensor) -> Balls:
    """The balls around real images (N, D) whose radii are known, (1 + SPLITS, N) each."""
    return Balls(real.double(), _halves(len(real), "real"), narrow, wide)


@in_float32()
def neighbour_scores(*, real: Tensor | Balls, fake: Tensor, block: int = 1024) -> dict[str, Spread]:
    """Precision, recall, density and coverage of two sets of features.

    Args:
        real, fake: features, (N, D) and (M, D); the larger set is thinned to the size of the smaller one. Of the real
            images their balls serve, too, where there are as many generated ones.
        block: rows of the distance matrix held at a time; bounds the memory, changes nothing else.
    Raises:
        UserError: if a set has fewer than LEAST images.
    """
    points = real.points if isinstance(real, Balls) else real
    n = min(len(points), len(fake))
    if refused := refusal(n):
        raise UserError(refused)
    balls = real if isinstance(real, Balls) and len(points) == n else real_balls(_thin(points, n), block)
    x, half_x, narrow, wide = balls
    y, half_y = _thin(fake.double(), n), _halves(n, "generated")
    drawn = _radii(_among(y, block), K_PRECISION, half_y)
    in_narrow, in_wide, in_drawn, nearest = torch.zeros_like(narrow), torch.zeros_like(wide), [], []
    for rows, pairs in zip(torch.arange(n).split(block), _blocks(x, y, block), strict=True):
        in_narrow += _held(pairs, narrow[:, rows], half_x[:, rows], half_y, count=False)
        in_wide += _held(pairs, wide[:, rows], half_x[:, rows], half_y)
        in_drawn.append(_held(pairs.swapped(), drawn, half_y, half_x[:, rows], count=False))
        nearest.append(_nearest(pairs))
    return {
        "precision": _fraction(in_narrow > 0, half_y),
        "recall": _fraction(torch.cat(in_drawn, 1) > 0, half_x),
        "density": _mean(in_wide / K_DENSITY, half_y),
        "coverage": _fraction(_first(_joined(nearest), half_x, half_y) <= wide, half_x),
    }


def recall(*, real: Tensor, fake: Tensor, k: int) -> float:
    """Share of real points (N, D) inside the ball of a generated one (M, D)."""
    radii = distances(fake, fake).kthvalue(k + 1, dim=1).values
    return float((distances(real, fake) <= radii).any(dim=1).double().mean())


def coverage(*, real: Tensor, fake: Tensor, k: int) -> float:
    """Share of real points (N, D) with a generated one (M, D) as near as their k-th nearest other real one."""
    radii = distances(real, real).kthvalue(k + 1, dim=1).values
    return float((distances(real, fake).amin(1) <= radii).double().mean())


def nearest(queries: Tensor, blocks: Iterable[Tensor], without: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """For each of the queries (N, D) the nearest of the points that come in blocks (B, D).

    Products of matrices find the few nearest in a block, whose distances are then computed without cancellation.

    Args:
        without: for each query, the number of the point that does not count, (N,).
    Returns:
        Its number, int64 (N,), the first of equals; and the Euclidean distance, float64 (N,).
    """
    queries = queries.double()
    least = torch.full((len(queries),), torch.inf, dtype=torch.float64)
    index, start = torch.zeros(len(queries), dtype=torch.int64), 0
    for block in blocks:
        points = block.double()
        near = torch.addmm(points.square().sum(1), queries, points.T, alpha=-2)  # less |query|**2
        if without is not None:
            inside = ((without >= start) & (without < start + len(points))).nonzero()[:, 0]
            near[inside, without[inside] - start] = torch.inf
        few = near.topk(min(CANDIDATES, len(points)), dim=1, largest=False).indices.sort(dim=1).values
        d = (points[few] - queries[:, None]).square().sum(2).sqrt()
        d = d.masked_fill(near.gather(1, few).isinf(), torch.inf)
        best = d.argmin(1, keepdim=True)
        d, where = d.gather(1, best)[:, 0], few.gather(1, best)[:, 0]
        closer = d < least
        least, index = torch.where(closer, d, least), torch.where(closer, where + start, index)
        start += len(points)
    return index, least


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances (N, M) of x (N, D) and y (M, D); exactly 0 between equal points."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _thin(x: Tensor, n: int) -> Tensor:
    """n rows, chosen by a fixed permutation where there are more."""
    return x if len(x) == n else x[rng.permutation(len(x), 0, "precision and recall")[:n]]


def _halves(n: int, which: str) -> Tensor:
    """The half of each of n images: all in one, then SPLITS cuts in two; bool (1 + SPLITS, n)."""
    cuts = [rng.permutation(n, 0, f"halves of the {which} images", s) < n // 2 for s in range(SPLITS)]
    return torch.stack([torch.zeros(n, dtype=torch.bool), *cuts])


def _blocks(x: Tensor, y: Tensor, block: int, *, upper: bool = False) -> Iterator[Block]:
    """Points x (N, D), `block` at a time, with all of y (M, D); `upper`: with those from the first of x onwards."""
    centre = (x.mean(0) + y.mean(0)) / 2
    longest = max(float(side) for z in (x, y) for side in ((z.amax(0) - centre).max(), (centre - z.amin(0)).max()))
    scale = 2.0 ** math.frexp(longest)[1] if longest else 1.0  # by which a division is exact
    (short_x, length_x), (short_y, length_y) = (_shortened(z, centre, scale, block) for z in (x, y))
    error_x, error_y = (_rounding(x.shape[1]) * length for length in (length_x, length_y))
    for rows in torch.arange(len(x)).split(block):
        columns = slice(int(rows[0]) if upper else 0, None)
        lower = torch.addmm((length_y - error_y)[columns].float(), short_x[rows], short_y[columns].T, alpha=-2)
        of_row = error_x[rows, None] + FLOOR
        lower += (length_x[rows, None] - of_row).float()
        yield Block(x[rows], y[columns], lower, of_row.float(), error_y[None, columns].float(), scale)


def _rounding(width: int) -> float:
    """By how much a squared distance of points with so many numbers may be off, over the sum of their squared lengths:
    gamma of Higham, for the products, what goes into them and what is made of them, twice over."""
    k = (2 * width + 16) * torch.finfo(torch.float32).eps / 2
    return k / (1 - k)


def _shortened(x: Tensor, centre: Tensor, scale: float, block: int) -> tuple[Tensor, Tensor]:
    """Centred points in units of scale, float32 (N, D), and their squared lengths, float64 (N,)."""
    centred = ((part - centre) / scale for part in x.split(block))
    short, length = zip(*((part.float(), part.square().sum(1)) for part in centred), strict=True)
    return torch.cat(short), torch.cat(length)


def _among(x: Tensor, block: int) -> Sorted:
    """The nearest other points of each point of a set; distances are symmetric, so half of the products are enough."""
    n, scale = len(x), 1.0
    least = torch.full((n, min(LOOKED_AT + SPARE, n - 1)), torch.inf, dtype=torch.float32)
    few = torch.zeros_like(least, dtype=torch.int64)
    for start, pairs in zip(range(0, n, block), _blocks(x, x, block, upper=True), strict=True):
        end, scale = start + len(pairs.rows), pairs.scale
        pairs.lower.diagonal().fill_(torch.inf)  # no point is its own neighbour
        for points, lower in ((slice(start, end), pairs.lower), (slice(end, n), pairs.lower[:, end - start :].T)):
            least[points], few[points] = _least(least[points], few[points], lower, start)
    return _sorted(x, x, least, few, scale, one_set=True)


def _least(least: Tensor, few: Tensor, lower: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """The K least bounds of each of some points, and the numbers of the other points: of those known, (P, K) each, and
    of bounds with the points from number `start` onwards, (P, Q)."""
    k = least.shape[1]
    least, place = torch.cat([least, lower], 1).topk(k, dim=1, largest=False)
    return least, torch.where(place < k, few.gather(1, place.clamp(max=k - 1)), place - k + start)


def _nearest(pairs: Block) -> Sorted:
    """The nearest columns of each row."""
    least, few = pairs.lower.topk(min(LOOKED_AT + SPARE, pairs.lower.shape[1]), dim=1, largest=False)
    return _sorted(pairs.rows, pairs.columns, least, few, pairs.scale)


def _sorted(x: Tensor, y: Tensor, least: Tensor, few: Tensor, scale: float, *, one_set: bool = False) -> Sorted:
    """The nearest points of y (M, D) to each of x (N, D), by exact distances.

    Args:
        least, few: the least lower bounds of their squared distances, ascending, in units of scale**2, and with which
            points, (N, K) each.
        one_set: whether y is x; no point is its own neighbour then.
    """
    others, rows = len(y) - one_set, torch.arange(len(x))
    d = torch.cat([distances(x[i, None], y[few[i]])[:, 0] for i in rows.split(ROWS)])
    d, order = d.topk(min(LOOKED_AT, others), dim=1, largest=False)
    near = Sorted(d, few.gather(1, order))
    last = (d[:, -1] / scale).square()
    missed = (last > 0) & (last > least[:, -1]) & (few.shape[1] < others)
    for i in rows[missed].split(ROWS):
        d = distances(x[i], y)
        if one_set:
            d[torch.arange(len(i)), i] = torch.inf
        near.distance[i], near.index[i] = d.topk(near.index.shape[1], dim=1, largest=False)
    return near


def _joined(parts: list[Sorted]) -> Sorted:
    return Sorted(torch.cat([part.distance for part in parts]), torch.cat([part.index for part in parts]))


def _radii(near: Sorted, k: int, half: Tensor) -> Tensor:
    """Distance to the k-th nearest other point of the same half, for each cut, (1 + SPLITS, n)."""
    last = near.distance.shape[1] - 1
    radii = []
    for side in half:
        rank = (side[near.index] == side[:, None]).cumsum(1, dtype=torch.int16)
        place = (rank < k).sum(1).clamp(max=last)
        radii.append(near.distance.gather(1, place[:, None])[:, 0])
    return torch.stack(radii)


def _held(pairs: Block, radii: Tensor, half_balls: Tensor, half_points: Tensor, count: bool = True) -> Tensor:
    """How many balls of its own half hold each point, for each cut.

    Pairs up to the largest radius of the ball over the cuts are compared cut by cut; where there are many, only those
    beyond the smallest.

    Args:
        pairs: the centres of the balls and the points.
        radii, half_balls: of the balls in each cut, (1 + SPLITS, B).
        half_points: of the points in each cut, bool (1 + SPLITS, P).
        count: False where it only matters whether the number is above 0; it may then be too small.
    Returns:
        Whole numbers, float32 (1 + SPLITS, P).
    """
    least, most = ((r / pairs.scale).square().float()[:, None] for r in (radii.amin(0), radii.amax(0)))
    unsure, held = pairs.lower <= most, radii.new_zeros(len(radii), pairs.lower.shape[1], dtype=torch.float32)
    if unsure.sum() > CROWD * min(unsure.shape):
        sure = pairs.lower + 2 * pairs.of_column <= least - 2 * pairs.of_row
        held = _held_in_all(sure, half_balls, half_points)
        unsure &= ~sure if count else ~sure & (held == 0).any(0)
    ball, point = unsure.nonzero(as_tuple=True)
    held, radii, half_balls, half_points = (a.T.contiguous() for a in (held, radii, half_balls, half_points))
    for i, j in zip(ball.split(PAIRS), point.split(PAIRS), strict=True):
        d = _between(pairs, i, j, radii[i])
        held.index_add_(0, j, _inside(d, radii[i], half_balls[i], half_points[j]).float())
    return held.T.contiguous()


def _between(pairs: Block, i: Tensor, j: Tensor, radii: Tensor) -> Tensor:
    """Distances of the rows i and the columns j, (Q,), which are exact where one of the radii (Q, 1 + SPLITS) is as
    near as the products may be off."""
    error = pairs.of_row[i, 0] + pairs.of_column[0, j]
    square = pairs.lower[i, j].double() + error
    d = pairs.scale * square.clamp(min=0).sqrt()
    close = ((square[:, None] - (radii / pairs.scale).square()).abs() <= error[:, None]).any(1)
    d[close] = pairs.exact(i[close], j[close, None])[:, 0]
    return d


def _held_in_all(sure: Tensor, half_balls: Tensor, half_points: Tensor) -> Tensor:
    """Counts of pairs (B, P) that are inside in each cut where both share a half, float32 (1 + SPLITS, P).

    Products of zeros and ones, exact below 2^24 balls. In cut 0 all balls are in the first half.
    """
    first = (~half_balls).float() @ sure.float()
    return torch.where(half_points, first[0] - first, first)


def _inside(d: Tensor, radii: Tensor, half_balls: Tensor, half_points: Tensor) -> Tensor:
    """Whether the ball holds the point and shares its half, pairs at distances (Q,) by cuts, bool (Q, 1 + SPLITS)."""
    return (d[:, None] <= radii) & (half_balls == half_points)


def _first(nearest: Sorted, half_x: Tensor, half_y: Tensor) -> Tensor:
    """Distance of each real image to the nearest generated one of its own half, for each cut, (1 + SPLITS, n)."""
    least = []
    for of_x, of_y in zip(half_x, half_y, strict=True):
        same = of_y[nearest.index] == of_x[:, None]
        least.append(torch.where(same, nearest.distance, torch.inf).amin(1))
    return torch.stack(least)


def _mean(values: Tensor, half: Tensor, scale: float = 1.0) -> Spread:
    """Mean of values (1 + SPLITS, n), and its spread from what the halves of each cut differ by."""
    first, second = _half_means(values, half)
    deviations = scale * (first - second) / (2 * math.sqrt(SPLITS))
    return Spread(float(values[0].double().mean()), deviations, least=0.0, halves=True)


def _fraction(values: Tensor, half: Tensor) -> Spread:
    """A fraction, whose spread at half as many images is scaled to where the fraction lies at all of them."""
    p, p_half = float(values[0].double().mean()), float(torch.stack(_half_means(values, half)).mean())
    scattered = 0 < p < 1 and 0 < p_half < 1
    spread = _mean(values, half, math.sqrt(p * (1 - p) / (p_half * (1 - p_half))) if scattered else 1.0)
    return Spread(spread.value, spread.shared, n=values.shape[1], halves=True)


def _half_means(values: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Means over the two halves of each cut, (SPLITS,) each."""
    values, half = values[1:].double(), half[1:]
    size = half.sum(1)
    return (values * ~half).sum(1) / (half.shape[1] - size), (values * half).sum(1) / size
