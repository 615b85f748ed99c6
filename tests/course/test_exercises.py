"""The exercises: values are those of the toolkit's own code, tolerances have two sides, wrong input is explained."""

import json
import shutil

import pytest
import torch
from oracles import gaussian_denoiser
from torch.distributions import Normal, kl_divergence

import trilemma
from trilemma.autoencoders.losses import kl_to_standard_normal
from trilemma.cli import main as cli
from trilemma.course.closed_forms import FORMULAS, best_critic
from trilemma.course.exercises import FILE, exercises, find_exercise
from trilemma.course.runs import CODE, COVERAGE, LONGEST_S
from trilemma.diffusion.guidance import guided_denoiser
from trilemma.diffusion.samplers import SAMPLERS
from trilemma.diffusion.schedule import get_schedule
from trilemma.errors import UserError
from trilemma.language import in_language
from trilemma.metrics.frechet import frechet_of_gaussians

ENTRIES = json.loads(FILE.read_text("utf-8"))
NUMBERS = [name for name, entry in ENTRIES.items() if "decimals" in entry]
WORDS = [name for name, entry in ENTRIES.items() if "words" in entry]


def right(name, answer, lang="en"):
    return trilemma.quiz("check", name, answer, lang=lang).right


def test_every_exercise_has_one_kind_of_answer_and_both_languages():
    assert set(NUMBERS) == set(FORMULAS)
    for name, entry in ENTRIES.items():
        assert sum(key in entry for key in ("decimals", "words", "run")) == 1, name
        assert set(entry["en"]) == set(entry["vi"]) == {"task", "hint", "why"}
    for lang in ("en", "vi"):
        with in_language(lang):
            texts = [exercise.task for exercise in exercises()]
        assert len(set(texts)) == len(ENTRIES) and not any("{" in text for text in texts)
        assert all(text in trilemma.quiz("check", lang=lang).text for text in texts)


# --- the values, by other ways --------------------------------------------------------------------------------------


def by_the_loss(mu, std):
    one = torch.tensor([[float(mu)]], dtype=torch.float64)
    return kl_to_standard_normal(one, torch.full_like(one, std).square().log()).item()


def by_distributions(mu, std):
    return kl_divergence(Normal(float(mu), std), Normal(0.0, 1.0)).item()


def by_densities(mean, x):
    p, q = (Normal(float(m), 1.0).log_prob(torch.tensor(x, dtype=torch.float64)).exp().item() for m in (0, mean))
    return p / (p + q)


def by_the_oracle(mean, std, alpha, sigma, x):
    class Fixed:
        def alpha(self, t):
            return torch.full_like(t, alpha)

        def sigma(self, t):
            return torch.full_like(t, sigma)

    x_t = torch.full((1, 1, 1, 1), x, dtype=torch.float64)
    return gaussian_denoiser(Fixed(), mean, std)(x_t, torch.zeros(1, dtype=torch.float64)).item()


def by_counting(steps):
    calls = []

    def denoise(x_t, t):
        calls.append(t)
        return 0.5 * x_t

    x_T, times = torch.ones(1, 1, 2, 2), torch.linspace(0.95, 0, steps + 1, dtype=torch.float64)
    SAMPLERS["heun"](denoise, get_schedule("cosine"), times, x_T, lambda _: torch.zeros_like(x_T))
    return len(calls)


def by_shapes(side, colours, factor, channels):
    image, places = torch.zeros(colours, side, side), torch.zeros(1, side, side)[:, ::factor, ::factor]
    return image.numel() / places.expand(channels, -1, -1).numel()


def by_guidance(weak, strong, scale):
    def constant(value):
        return lambda x_t, t: torch.full_like(x_t, value)

    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    denoise = guided_denoiser(constant(strong), constant(weak), scale, get_schedule("cosine"))
    return denoise(x, torch.full((1,), 0.5, dtype=torch.float64)).item()


def by_the_metric(mean, std):
    def moments(m, s):
        return torch.tensor([float(m)], dtype=torch.float64), torch.tensor([[s**2]], dtype=torch.float64)

    return frechet_of_gaussians(*moments(0, 1.0), *moments(mean, std))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("divergence", by_the_loss),
        ("divergence", by_distributions),
        ("critic", by_densities),
        ("estimate", by_the_oracle),
        ("calls", by_counting),
        ("numbers", by_shapes),
        ("guided", by_guidance),
        ("frechet", by_the_metric),
    ],
)
def test_the_value_is_that_of_the_toolkit(name, other):
    exercise = find_exercise(name)
    assert exercise.solution == pytest.approx(other(**exercise.values), rel=1e-6)


def test_the_best_critic_knows_nothing_half_way():
    assert best_critic(2, 1) == 0.5 and best_critic(2, 0) > 0.5 > best_critic(2, 2)


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_right_within_half_a_unit_of_its_last_decimal(name):
    exercise, decimals = find_exercise(name), ENTRIES[name]["decimals"]
    answer, unit = round(exercise.solution, decimals), 10.0**-decimals
    assert right(name, f"{answer:.{decimals}f}") == 1 and right(name, answer) == 1
    assert right(name, f"{answer:.{decimals}f}".replace(".", ","), lang="vi") == 1
    for wrong in (answer + unit, answer - unit, -answer, 0):
        assert right(name, wrong) == 0
    if decimals:
        assert right(name, exercise.solution + 0.49 * unit) == 1 and right(name, exercise.solution + 0.51 * unit) == 0
    else:
        assert right(name, answer + 0.25) == 0


@pytest.mark.parametrize("name", WORDS)
def test_a_word_is_right_in_any_spelling(name):
    for word in ENTRIES[name]["words"]:
        assert right(name, word) == right(name, f" {word.upper()} ") == 1
    assert right(name, "speed") == right(name, "") == 0
    assert right("missing", "da dang") == right("network", "U-Net") == 1
    assert right("network", "scheduler") == right("missing", "quality") == 0


def test_the_right_answer_is_explained_and_a_wrong_one_gets_a_hint():
    texts = ENTRIES["frechet"]["vi"]
    assert texts["why"] in trilemma.quiz("check", "frechet", 0.34, lang="vi").text
    assert texts["hint"] in trilemma.quiz("check", "frechet", 0.5, lang="vi").text
    assert trilemma.quiz("check", "frechet").right is None


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["check", "divergence", "0.82"], 0, "0.82 is right."),
        (["check", "divergence", "-0.82"], 1, "-0.82 is not right."),
        (["check", "calls"], 0, "How many network calls"),
        (["check", "calls", "many"], 2, "error: answer=many: the exercise asks for a number, as 0.25"),
        (["check", "calls", "nan"], 2, "answer=nan: the exercise asks for a number"),
        (["check", "call", "19"], 2, 'unknown exercise "call"'),
        (["check", "code", "no-run"], 2, "run no-run not found"),
        (["check", "calls", "19", "question=1"], 2, "question= is not a key of check"),
        (["calls", "19"], 2, "part=calls: give one of questions, check"),
        (["check", "calls", "19", "20"], 2, "20 is more than that"),
    ],
)
def test_the_command_says_one_sentence_and_exits_with_the_verdict(words, code, said, capsys):
    assert cli.main(["quiz", *words]) == code
    output = capsys.readouterr()
    text = output.err if code == 2 else output.out
    assert said in text and text.count("\n") == 1 and not (output.out if code == 2 else output.err)


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("course") / "short"
    return trilemma.train("ae-stacked", "digits", latent=CODE, steps=3, batch=16, out=out, device="cpu", quiet=True)


def changed(run, folder, file, **values):
    """A copy of a run, of which a file says something else."""
    path = shutil.copytree(run.path, folder / "copy")
    content = json.loads((path / file).read_text("utf-8"))
    (path / file).write_text(json.dumps(content | values), "utf-8")
    return path


def test_a_short_code_is_right_below_half_of_the_error_of_the_mean_image(run, tmp_path):
    bound = run.summary["mean_image_rmse"] ** 2 / 2
    assert right("code", run.path) == 0  # after three steps
    path = changed(run, tmp_path, "summary.json", valid_mse=0.999 * bound)
    assert right("code", path) == 1
    (path / "summary.json").write_text(json.dumps(run.summary | {"valid_mse": 1.001 * bound}), "utf-8")
    result = trilemma.quiz("check", "code", path)
    assert result.right == 0 and f"{1.001 * bound:.4f}" in result.text and f"{bound:.4f}" in result.text


def test_another_run_does_not_answer(run, tmp_path):
    config = run.config
    path = changed(run, tmp_path, "config.json", model_config=config["model_config"] | {"latent": 3})
    with pytest.raises(UserError, match=r"ae-stacked on digits with latent=3; the exercise is about an autoencoder"):
        right("code", path)
    (path / "config.json").write_text(json.dumps(config | {"data": "mnist"}), "utf-8")
    for name in ("code", "covered"):
        with pytest.raises(UserError, match="on mnist"):
            right(name, path)


def test_the_coverage_is_that_of_an_evaluation(run, tmp_path):
    with pytest.raises(UserError, match=r"measure it first: trilemma evaluate"):
        right("covered", run.path)
    path = shutil.copytree(run.path, tmp_path / "copy")
    file = path / "metrics" / COVERAGE
    file.parent.mkdir()
    for interval, verdict in (([0.51, 0.6], 1), ([0.49, 0.9], 0), ([0.5, 0.9], 0)):
        file.write_text(json.dumps({"interval": interval}), "utf-8")
        assert right("covered", path) == verdict
    for content in ({"interval": None}, {"interval": ["0.6", "0.7"]}, [1], {}):
        file.write_text(json.dumps(content), "utf-8")
        with pytest.raises(UserError, match="holds no interval"):
            right("covered", path)
    (path / "summary.json").write_text(json.dumps(run.summary | {"seconds": LONGEST_S + 1}), "utf-8")
    with pytest.raises(UserError, match=r"trained for 61 s; the exercise allows 60"):
        right("covered", path)
