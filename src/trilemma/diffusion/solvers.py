"""Solvers of the probability-flow equation, for few network calls; arguments as in `samplers`.

With l = log(alpha / sigma), which grows towards the image, a step from t to s has h = l_s - l_t and is exactly

    x_s = (sigma_s / sigma_t) x_t + alpha_s * integral of exp(l - l_s) x0_hat(l) from l_t to l_s
                                                          (Lu et al. 2022, "DPM-Solver++", proposition 4.1)

Each solver puts a polynomial through estimates of x0_hat in place of the unknown function:

    euler, heun   steps of Euler and Heun for d(x / alpha) / d(sigma / alpha)   (Karras et al. 2022, algorithm 1)
    dpm++2m       a line through this estimate and the one before, exact to order 2; eta > 0 adds noise (its SDE form)
                                                                       (Lu et al. 2022, algorithm 2 and appendix)
    dpm++3m       three estimates as published, whose second divided difference lacks a factor of 2: order 2
    eab3          the parabola through three estimates, integrated exactly: order 3  (exponential Adams-Bashforth,
                                                                       Hochbruck & Ostermann 2010, section 2.5)
    unipc         predictor of that kind, then a corrector with the estimate at the new point, which is the next step's,
                  so that a step costs one call: order + 1                      (Zhao et al. 2023, algorithms 5 to 8)

The last step, to sigma = 0, has an infinite h: its polynomial is a constant, in every solver. What was estimated before
is a local variable.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trilemma.diffusion.schedule import Schedule
from trilemma.diffusion.steps import Denoise, Noise, Step, steps_of
from trilemma.errors import UserError

ORDERS = (2, 3)  # of unipc


def euler(denoise: Denoise, schedule: Schedule, times: Tensor, x_T: Tensor, noise: Noise) -> Tensor:
    """Euler's method in sigma / alpha, which is ddim with eta = 0."""
    x = x_T
    for step in steps_of(schedule, times):
        x = _first_order(x, denoise(x, x.new_full((len(x),), step.t)), step)
    return x


def heun(denoise: Denoise, schedule: Schedule, times: Tensor, x_T: Tensor, noise: Noise) -> Tensor:
    """Heun's method in sigma / alpha: two calls a step, one in the last."""
    x, ends = x_T, times.tolist()[1:]
    for step, s in zip(steps_of(schedule, times), ends, strict=True):
        x0_hat = denoise(x, x.new_full((len(x),), step.t))
        guess = _first_order(x, x0_hat, step)
        if step.sigma_s > 0 and step.alpha_t > 0:
            # y = x / alpha, r = sigma / alpha, dy / dr = (y - x0_hat) / r, averaged over both ends
            end_hat = denoise(guess, guess.new_full((len(x),), s))
            r_t, r_s = step.sigma_t / step.alpha_t, step.sigma_s / step.alpha_s
            slope = (x / step.alpha_t - x0_hat) / r_t + (guess / step.alpha_s - end_hat) / r_s
            guess = step.alpha_s * (x / step.alpha_t + (r_s - r_t) / 2 * slope)
        x = guess
    return x


def dpmpp_2m(
    denoise: Denoise, schedule: Schedule, times: Tensor, x_T: Tensor, noise: Noise, *, eta: float = 0.0
) -> Tensor:
    """DPM-Solver++(2M); with eta > 0 its SDE form, which has the law of the reverse diffusion.

    Args:
        eta: 0 deterministic ... 1 the variance of the reverse diffusion.
    """
    if not 0 <= eta <= 1:
        raise UserError(f"eta={eta}: give a number from 0 (deterministic) to 1 (the reverse diffusion)")
    x, before, last_h = x_T, None, math.inf
    for i, step in enumerate(steps_of(schedule, times)):
        x0_hat = denoise(x, x.new_full((len(x),), step.t))
        estimate = x0_hat
        if before is not None and math.isfinite(step.h) and math.isfinite(last_h):
            estimate = x0_hat + step.h / (2 * last_h) * (x0_hat - before)
        decay_eta = step.decay**eta  # exp(-eta h)
        x = step.sigma_s / step.sigma_t * decay_eta * x + step.alpha_s * (1 - step.decay * decay_eta) * estimate
        if eta > 0 and step.sigma_s > 0:
            x = x + step.sigma_s * math.sqrt(1 - decay_eta**2) * noise(i)
        before, last_h = x0_hat, step.h
    return x


def dpmpp_3m(denoise: Denoise, schedule: Schedule, times: Tensor, x_T: Tensor, noise: Noise) -> Tensor:
    """DPM-Solver++(3M) as published and as every library has it. Its measured order is 2: see `eab3`."""
    x, history, widths = x_T, [], []
    for step in steps_of(schedule, times):
        x0_hat = denoise(x, x.new_full((len(x),), step.t))
        estimates, spans = [x0_hat, *history][:3], [w for w in widths if math.isfinite(w)][:2]
        x = _first_order(x, x0_hat, step)
        if math.isfinite(step.h) and spans:
            x = x + _published_terms(estimates, spans, step)
        history, widths = [x0_hat, *history][:2], [step.h, *widths][:2]
    return x


def _published_terms(estimates: Sequence[Tensor], spans: Sequence[float], step: Step) -> Tensor:
    """What the differences of the estimates add to a step of order 1."""
    h, phi_1 = step.h, math.expm1(-step.h)
    first = (estimates[0] - estimates[1]) / (spans[0] / h)
    if len(spans) == 1:
        return -step.alpha_s * phi_1 / 2 * first
    r0, r1 = spans[0] / h, spans[1] / h
    second = (first - (estimates[1] - estimates[2]) / r1) / (r0 + r1)
    slope = first + r0 * second
    return step.alpha_s * ((phi_1 / h + 1) * slope - ((phi_1 + h) / h**2 - 0.5) * second)


def eab3(denoise: Denoise, schedule: Schedule, times: Tensor, x_T: Tensor, noise: Noise) -> Tensor:
    """Exponential Adams-Bashforth of order 3."""
    x, history = x_T, []
    for step in steps_of(schedule, times):
        x0_hat = denoise(x, x.new_full((len(x),), step.t))
        history = [(step.log_ratio, x0_hat), *history][:3]
        x = _through(x, _usable(history, step), step)
    return x


def unipc(denoise: Denoise, schedule: Schedule, times: Tensor, x_T: Tensor, noise: Noise, *, order: int = 2) -> Tensor:
    """UniPC in its form for x0_hat, with B(h) = exp(h) - 1; the step after the last correction is a prediction.

    Args:
        order: 2 or 3, of the predictor; corrected, it is one higher.
    """
    if order not in ORDERS:
        raise UserError(f"order={order}: give {' or '.join(map(str, ORDERS))}")
    x, history, before = x_T, [], None
    for step in steps_of(schedule, times):
        x0_hat = denoise(x, x.new_full((len(x),), step.t))
        if before is not None:
            start, last = before
            x = _correct(start, (step.log_ratio, x0_hat), _usable(history, last), last)
        history = [(step.log_ratio, x0_hat), *history][:order]
        before = (x, step) if math.isfinite(step.h) else None
        usable = _usable(history, step)
        x = _half_rule(x, usable, step) if len(usable) == 2 else _through(x, usable, step)
    return x


def _half_rule(x: Tensor, history: Sequence[tuple[float, Tensor]], step: Step) -> Tensor:
    """The predictor of order 2 in the published form: half the difference, with B(h) in place of its integral."""
    (l_t, now), (l_before, before) = history
    ratio = (l_t - l_before) / step.h
    return _first_order(x, now, step) + step.alpha_s * (1 - step.decay) / (2 * ratio) * (now - before)


def _correct(x: Tensor, new: tuple[float, Tensor], history: Sequence[tuple[float, Tensor]], step: Step) -> Tensor:
    """The step again, now with the estimate at its end; that of order 1 by half the difference, as published."""
    if len(history) > 1:
        return _through(x, [new, *history], step)
    now = history[0][1]
    return _first_order(x, now, step) + step.alpha_s * (1 - step.decay) / 2 * (new[1] - now)


def _usable(history: Sequence[tuple[float, Tensor]], step: Step) -> list[tuple[float, Tensor]]:
    """The estimates that a step can use: the newest alone where h is infinite, those at finite l otherwise."""
    return list(history[:1]) if math.isinf(step.h) else [entry for entry in history if math.isfinite(entry[0])]


def _first_order(x: Tensor, x0_hat: Tensor, step: Step) -> Tensor:
    """A step with a constant estimate."""
    return step.sigma_s / step.sigma_t * x + step.alpha_s * (1 - step.decay) * x0_hat


def _through(x: Tensor, points: Sequence[tuple[float, Tensor]], step: Step) -> Tensor:
    """A step with the polynomial through (l, x0_hat), integrated exactly."""
    if len(points) == 1:
        return _first_order(x, points[0][1], step)
    end = step.log_ratio + step.h
    weights = integral_weights([level - end for level, _ in points], step.h)
    total = sum((w * x0_hat for w, (_, x0_hat) in zip(weights, points, strict=True)), start=torch.zeros_like(x))
    return step.sigma_s / step.sigma_t * x + step.alpha_s * total


def integral_weights(places: Sequence[float], h: float) -> list[float]:
    """w with: sum of w_i p(places_i) = integral of exp(u) p(u) from -h to 0, for each polynomial p that they determine.

    By moments: m_0 = 1 - exp(-h), m_j = -exp(-h) (-h)**j - j m_(j-1).
    """
    moments = [-math.expm1(-h)]
    for j in range(1, len(places)):
        moments.append(-math.exp(-h) * (-h) ** j - j * moments[-1])
    powers = torch.tensor([[u**j for u in places] for j in range(len(places))], dtype=torch.float64)
    return torch.linalg.solve(powers, torch.tensor(moments, dtype=torch.float64)).tolist()
