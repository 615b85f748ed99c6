"""The values that exercises ask for, by the equations of the course."""

import math


def divergence(mu: float, std: float) -> float:
    """KL(N(mu, std**2) || N(0, 1)) in nats.  (std**2 + mu**2 - 1 - ln std**2) / 2

    >>> divergence(0, 1)
    0.0
    """
    return (std**2 + mu**2 - 1 - 2 * math.log(std)) / 2


def best_critic(mean: float, x: float) -> float:
    """p / (p + q) at x, for data of N(0, 1) and generated points of N(mean, 1).

    >>> best_critic(2, 1)
    0.5
    """
    return 1 / (1 + math.exp((x**2 - (x - mean) ** 2) / 2))


def clean_mean(mean: float, std: float, alpha: float, sigma: float, x: float) -> float:
    """E[x0 | x_t = x] of data of N(mean, std**2).

    >>> clean_mean(mean=1, std=0.5, alpha=0.5, sigma=0, x=2)
    4.0
    """
    return mean + alpha * std**2 * (x - alpha * mean) / (alpha**2 * std**2 + sigma**2)


def heun_calls(steps: int) -> int:
    """Network calls of Heun's method: two for each step, but one for the last."""
    return 2 * steps - 1


def fewer_numbers(side: int, colours: int, factor: int, channels: int) -> float:
    """Numbers of an image over those of its map of codes.

    >>> fewer_numbers(side=8, colours=3, factor=2, channels=3)
    4.0
    """
    return colours * side**2 / (channels * (side // factor) ** 2)


def guided(weak: float, strong: float, scale: float) -> float:
    """weak + scale (strong - weak)"""
    return weak + scale * (strong - weak)


def frechet(mean: float, std: float) -> float:
    """The Frechet distance of N(0, 1) and N(mean, std**2).  mean**2 + (std - 1)**2"""
    return mean**2 + (std - 1) ** 2


FORMULAS = {  # by the name of the exercise
    "divergence": divergence,
    "critic": best_critic,
    "estimate": clean_mean,
    "calls": heun_calls,
    "numbers": fewer_numbers,
    "guided": guided,
    "frechet": frechet,
}
