"""Every metric once: what it is called, its unit, which way is better, its axis of the triangle, what it needs."""

from dataclasses import dataclass
from typing import Literal

Needs = Literal["images", "sampler", "likelihood", "classes", "codes", "reconstruction", "classifier"]


@dataclass(frozen=True)
class Metric:
    """A metric.

    title: on a page; short: the same in lines as short as its words allow, at the head of a column.
    word: at the beginning of its protocol.
    needs: generated images alone, a model that samples, one that bounds a likelihood, one that takes a class, one with
        continuous codes, one that reconstructs, or a classifier that learns from images with classes.
    axis: of the triangle, for the three metrics that stand on it.
    detail: whether a comparison lists it beside its columns, and measures no controls by it.
    """

    name: str
    title: str
    short: str
    word: str
    unit: str
    better: Literal["lower", "higher"]
    needs: Needs
    axis: str | None = None
    detail: bool = False


_FRACTION, _NATS = "fraction of images", "nats per image"
CATALOGUE = {
    metric.name: metric
    for metric in (
        Metric(
            "density", "Fidelity: density", "Fidelity\n(density)", "density", "1 for real images", "higher", "images",
            "fidelity",
        ),
        Metric(
            "coverage", "Diversity: coverage", "Diversity\n(coverage)", "coverage", _FRACTION, "higher", "images",
            "diversity",
        ),
        Metric("precision", "Precision", "Precision", "precision", _FRACTION, "higher", "images"),
        Metric("recall", "Recall", "Recall", "recall", _FRACTION, "higher", "images"),
        Metric(
            "kernel_distance", "Kernel distance", "Kernel\ndistance", "kernel", "squared kernel units", "lower",
            "images",
        ),
        Metric(
            "frechet_distance", "Frechet distance", "Frechet\ndistance", "frechet", "squared feature units", "lower",
            "images",
        ),
        Metric(
            "frechet_infinity", "Frechet distance, extrapolated", "Frechet\nextrapolated", "frechet-infinity",
            "squared feature units", "lower", "images", detail=True,
        ),
        Metric(
            "inception_score", "Inception Score", "Inception\nScore", "inception", "classes, at most", "higher",
            "images", detail=True,
        ),
        Metric(
            "authenticity", "Authenticity: no copy of a training image", "Authenticity", "authenticity", _FRACTION,
            "higher", "images", detail=True,
        ),
        Metric(
            "near_copies", "Nearer to a training image than 99% of held-out images", "Near\ncopies", "near-copies",
            _FRACTION, "lower", "images", detail=True,
        ),
        Metric(
            "class_diversity", "Diversity within a class", "Diversity\nin a class", "class-diversity",
            "1 for real images", "higher", "images", detail=True,
        ),
        Metric(
            "path_length", "Perceptual path length", "Path\nlength", "path-length",
            "1 between unrelated images", "lower", "codes", detail=True,
        ),
        Metric(
            "ms_per_image", "Milliseconds per image", "Milliseconds\nper image", "ms", "ms", "lower", "sampler", "speed"
        ),
        Metric(
            "calls_per_image", "Network calls per image", "Network calls\nper image", "calls", "network calls", "lower",
            "sampler",
        ),
        Metric(
            "ms_one_image", "Milliseconds for an image alone", "Milliseconds\nalone", "ms-alone", "ms", "lower",
            "sampler", detail=True,
        ),
        Metric(
            "ms_best_batch", "Milliseconds per image, in the quickest batch", "Milliseconds\nat best", "ms-best", "ms",
            "lower", "sampler", detail=True,
        ),
        Metric(
            "peak_memory_mb", "Memory of a batch", "Memory", "memory", "MB", "lower", "sampler", detail=True
        ),
        Metric(
            "joules_per_image", "Energy per image", "Energy", "energy", "J", "lower", "sampler", detail=True
        ),
        Metric(
            "parameters", "Parameters", "Parameters", "parameters", "numbers", "lower", "sampler", detail=True
        ),
        Metric(
            "training_seconds", "Seconds of training", "Training", "training", "s", "lower", "sampler", detail=True
        ),
        Metric(
            "flops_per_image", "Operations per image", "Operations\nper image", "flops", "operations", "lower",
            "sampler", detail=True,
        ),
        Metric("elbo_nats", "ELBO", "ELBO, nats\nper image", "elbo", _NATS, "higher", "likelihood"),
        Metric("bound_nats", "Likelihood bound", "Bound, nats\nper image", "bound", _NATS, "higher", "likelihood"),
        Metric("bits_per_dim", "Bits per dimension", "Bits per\ndimension", "bits", "bits", "lower", "likelihood"),
        Metric(
            "active_units", "Active units of the code", "Active\nunits", "active-units", "units", "higher", "likelihood"
        ),
        Metric(
            "reconstruction_rmse", "Reconstruction, RMSE", "RMSE", "rmse", "pixel values in [0, 1]", "lower",
            "reconstruction", detail=True,
        ),
        Metric(
            "reconstruction_psnr", "Reconstruction, PSNR", "PSNR", "psnr", "dB", "higher", "reconstruction", detail=True
        ),
        Metric(
            "reconstruction_ssim", "Reconstruction, structural similarity", "SSIM", "ssim", "1 for equal images",
            "higher", "reconstruction", detail=True,
        ),
        Metric(
            "reconstruction_features", "Reconstruction, distance in features", "Feature\ndistance",
            "feature-distance", "1 for another image", "lower", "reconstruction", detail=True,
        ),
        Metric(
            "reconstruction_frechet", "Reconstruction, Frechet distance", "Frechet\nreconstructed",
            "frechet-reconstructed", "squared feature units", "lower", "reconstruction", detail=True,
        ),
        Metric(
            "class_obeyed", "Drawn as the class asked for", "Class\nobeyed", "classes", _FRACTION, "higher", "classes"
        ),
        Metric(
            "class_f_score", "F-score of the classes asked for", "Class\nF-score", "f-score", "1 where all are obeyed",
            "higher", "classes", detail=True,
        ),
        Metric(
            "usefulness", "Gain of a classifier that learns from them, too", "Usefulness", "usefulness",
            "difference of accuracies", "higher", "classifier", detail=True,
        ),
        Metric(
            "usefulness_over_classical", "Gain of a classifier over one with classical augmentation",
            "Gain over\nclassical", "usefulness-over-classical", "difference of accuracies", "higher", "classifier",
            detail=True,
        ),
        Metric(
            "synthetic_accuracy", "Accuracy of a classifier that learns from them alone", "Accuracy\nby them alone",
            "synthetic-accuracy", "fraction of real images", "higher", "classifier", detail=True,
        ),
    )
}  # fmt: skip


def names_that_need(needs: Needs, *, detail: bool = False) -> tuple[str, ...]:
    """The metrics that need the same, in the order of the catalogue.

    >>> names_that_need("sampler"), names_that_need("classes", detail=True)
    (('ms_per_image', 'calls_per_image'), ('class_f_score',))
    """
    return tuple(name for name, metric in CATALOGUE.items() if metric.needs == needs and metric.detail == detail)


QUALITY, COST = names_that_need("images"), names_that_need("sampler")
OF_CLASSIFIER = names_that_need("classifier", detail=True)  # whose protocols differ between runs
DETAILS = tuple(name for name, metric in CATALOGUE.items() if metric.detail)
