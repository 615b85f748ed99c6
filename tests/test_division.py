"""Work that several processes divide has the result of one process, to the bit."""

from importlib import import_module
from pathlib import Path

import pytest
import torch
from threads import SELF, in_threads

import trilemma
from trilemma import rng
from trilemma.errors import ReportedElsewhere, UserError
from trilemma.explore.sample import sample
from trilemma.metrics import frechet
from trilemma.metrics.evaluate import evaluate
from trilemma.metrics.features import extract, feature_network
from trilemma.metrics.receipt import Score
from trilemma.run.run import Run
from trilemma.team import ALONE, Team, by_batches


@pytest.mark.parametrize(("size", "total"), [(1, 10), (2, 10), (3, 10), (4, 10), (5, 10), (2, 9)])
def test_rows_are_computed_in_the_same_batches_and_joined(size: int, total: int) -> None:
    """Each once, unless there are fewer batches than processes: then each process computes all."""
    batch, calls = 3, list[tuple[int, int]]()

    def compute(first: int, count: int) -> torch.Tensor:
        calls.append((first, count))
        return torch.arange(first, first + count)[:, None] * torch.tensor([1, 10])

    results = in_threads(size, lambda team: by_batches(team, total, batch, compute))
    expected = torch.arange(total)[:, None] * torch.tensor([1, 10])
    assert all(torch.equal(result, expected) for result in results)
    batches = [(first, min(batch, total - first)) for first in range(0, total, batch)]
    assert sorted(calls) == sorted(batches * (size if size > len(batches) else 1))


def test_a_batch_that_fails_in_one_process_ends_all() -> None:
    def compute(first: int, count: int) -> torch.Tensor:
        if first == 6:
            raise UserError("not finite")
        return torch.zeros(count)

    def run(team: Team) -> type[Exception]:
        with pytest.raises(UserError) as error:
            by_batches(team, 9, 3, compute)
        return error.type

    assert in_threads(3, run) == [ReportedElsewhere, ReportedElsewhere, UserError]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "vae"
    return trilemma.train("vae", "digits", steps=20, out=out, quiet=True, sample_every=10**6).path


@pytest.fixture
def in_team(monkeypatch: pytest.MonkeyPatch) -> None:
    """In each thread of a team, its team is that of the verbs, too."""
    for name in ("trilemma.explore.sample", "trilemma.metrics.evaluate"):
        monkeypatch.setattr(import_module(name), "current_team", lambda: getattr(SELF, "team", ALONE))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "batch", "first", "exact"), [(10, 3, 0, False), (450, 64, 5, False), (70, 32, 40, True)])
def test_samples_are_those_of_one_process(
    n: int, batch: int, first: int, exact: bool, run: Path, tmp_path: Path, in_team: None
) -> None:
    """The same files, byte by byte: pictures, and what they say of how they were made."""
    keys = {"n": n, "batch": batch, "first": first, "exact": exact, "seed": 2}
    one = sample(Run(run), out=tmp_path / "one", **keys)
    others = in_threads(3, lambda team: sample(Run(run), out=tmp_path / "three", **keys))
    assert [other.images for other in others] == [others[0].images] * 3 and len(one.images) == n
    for own, other in zip([one.grid, *one.images], [others[0].grid, *others[0].images], strict=True):
        assert own.name.replace("one", "three") == other.name and own.read_bytes() == other.read_bytes()


def test_features_are_those_of_one_process() -> None:
    network = feature_network("auto", (1, 8, 8), "digits")
    images = rng.uniform(torch.arange(1300), (1, 8, 8), 0, "test")
    one, others = extract(network, images), in_threads(3, lambda team: extract(network, images, team=team))
    assert all(torch.equal(one, other) for other in others)


def test_a_frechet_distance_is_that_of_one_process() -> None:
    """To 1e-10, of as many images as it needs; each process has computed some of the features."""
    network, count = feature_network("auto", (1, 8, 8), "digits"), frechet.MINIMUM + 52
    real, fake = (rng.uniform(torch.arange(first, first + count), (1, 8, 8), 0, "test") for first in (0, count))
    fake = fake.square()  # which is far from the real ones

    def distance(team: Team) -> float:
        features = {"real": extract(network, real, team=team), "fake": extract(network, fake, team=team)}
        return frechet.frechet_distance(**features).value

    one = distance(ALONE)
    assert one > 0.1
    assert in_threads(2, distance) == pytest.approx([one, one], rel=1e-10)


@pytest.mark.slow
def test_scores_are_those_of_one_process(run: Path, in_team: None) -> None:
    """All that do not depend on the clock, to 1e-10; of so few images no Frechet distance is given."""

    def scores(_: Team) -> dict[str, float]:
        evaluation = evaluate(Run(run), against="digits", n=300, batch=64, bound_samples=2, bound_images=4)
        return {score.name: score.value for score in evaluation.scores if isinstance(score.value, float)}

    (one,), two = in_threads(1, scores), in_threads(2, scores)
    timed = {name for name in one if "ms_" in name or name in ("peak_memory_mb", "joules_per_image")}
    assert {"kernel_distance", "coverage", "calls_per_image"} <= one.keys() - timed
    for other in two:
        assert {k: v for k, v in other.items() if k not in timed} == pytest.approx(
            {k: v for k, v in one.items() if k not in timed}, rel=1e-10
        )


@pytest.mark.slow
def test_scores_that_cannot_be_written_are_an_error_of_the_first_process(
    run: Path, in_team: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, score: Score) -> None:
        raise UserError("cannot write it")

    def refused(team: Team) -> tuple[type[Exception], str]:
        with pytest.raises(UserError) as error:
            evaluate(Run(run), against="digits", n=20, bound_samples=0)
        return error.type, str(error.value)

    monkeypatch.setattr(import_module("trilemma.metrics.evaluate"), "write_score", full)
    elsewhere = "process 0 of 2 reports an error"
    assert in_threads(2, refused) == [(UserError, "cannot write it"), (ReportedElsewhere, elsewhere)]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["sample", "evaluate"])
def test_a_run_that_one_process_does_not_see_is_an_error_of_that_one(
    verb: str, run: Path, in_team: None, tmp_path: Path
) -> None:
    """As on a machine without the shared disk: it says so, and the others do not wait for it."""
    function = {"sample": sample, "evaluate": evaluate}[verb]

    def refused(team: Team) -> tuple[type[Exception], list[str]]:
        with pytest.raises(UserError) as error:
            function(run if team.rank == 0 else tmp_path / "run", n=20)
        return error.type, getattr(error.value, "__notes__", [])

    assert in_threads(2, refused) == [(ReportedElsewhere, []), (UserError, ["process 1 of 2"])]
