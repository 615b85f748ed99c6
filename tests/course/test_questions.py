"""The ten questions: both languages agree, answers are right where they can be computed, and marking counts them."""

import json

import pytest
import torch
from oracles import principal_components

import trilemma
from trilemma.autoencoders.losses import kl_to_standard_normal
from trilemma.cli import main as cli
from trilemma.cli import self_test
from trilemma.course.questions import COUNT, FILE, LETTERS, questions
from trilemma.errors import UserError
from trilemma.language import in_language

ENTRIES = json.loads(FILE.read_text("utf-8"))
RIGHT = [entry["right"] for entry in ENTRIES]


def right_choice(number):
    return questions(number)[0].choices[LETTERS.index(RIGHT[number - 1])]


def test_there_are_ten_questions_with_four_choices_in_both_languages():
    assert len(ENTRIES) == COUNT == 10
    for entry in ENTRIES:
        assert set(entry) == {"right", "en", "vi"} and entry["right"] in LETTERS
        for own in (entry["en"], entry["vi"]):
            assert set(own) == {"question", "choices", "why"}
            assert len(own["choices"]) == len(set(own["choices"])) == len(LETTERS)
            assert all([own["question"].strip(), own["why"].strip(), *own["choices"]])
    assert set(RIGHT) == set(LETTERS)  # no letter is right by habit


@pytest.mark.parametrize("lang", ["en", "vi"])
def test_all_right_and_all_wrong_answers_are_counted(lang):
    wrong = [LETTERS[(LETTERS.index(letter) + 1) % 4] for letter in RIGHT]
    result = trilemma.quiz(answers=RIGHT, lang=lang)
    assert (result.right, result.count) == (10, 10)
    assert all(entry[lang]["why"] in result.text for entry in ENTRIES)
    assert trilemma.quiz(answers=wrong, lang=lang).right == 0
    assert trilemma.quiz(answers=[*RIGHT[:9], wrong[9]], lang=lang).right == 9
    one = trilemma.quiz(question=4, answers=wrong[3], lang=lang)
    assert (one.right, one.count) == (0, 1)
    assert ENTRIES[3][lang]["choices"][LETTERS.index(RIGHT[3])] in one.text


def test_questions_are_printed_without_their_answers():
    text = trilemma.quiz(lang="vi").text
    for number, entry in enumerate(ENTRIES, 1):
        assert f"{number}. {entry['vi']['question']}" in text and entry["vi"]["why"] not in text
    assert "lang=vi" in text
    only = trilemma.quiz(question=2).text
    assert ENTRIES[1]["en"]["question"] in only and ENTRIES[2]["en"]["question"] not in only


# --- answers that can be computed -----------------------------------------------------------------------------------


def test_no_plane_has_a_smaller_error_than_that_of_the_principal_components():
    """Question 3: the error of a plane is the variance that it leaves out, least for the first components."""
    assert "principal components" in right_choice(3)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 2, 1, 0.5, 0.2])
    x = x - x.mean(0)
    variances, directions = principal_components(x)

    def error(axes):
        return float((x - x @ axes @ axes.T).square().sum(1).mean())

    best = error(directions[:, :2])
    assert best == pytest.approx(float(variances[2:].sum()), rel=1e-9)
    random = [torch.linalg.qr(torch.randn(5, 2, generator=generator, dtype=torch.float64)).Q for _ in range(50)]
    assert min(map(error, random)) > best
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    assert error(directions[:, :2] @ turn) == pytest.approx(best)  # the axes inside may differ


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_both_losses_are_least_where_the_output_is_the_image(loss):
    """Question 5: for each pixel x, over outputs y."""
    assert "squared error" in right_choice(5) and "cross-entropy" in right_choice(5)
    y = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    for x in (0.1, 0.5, 0.9):
        values = (y - x).square() if loss == "mse" else -(x * y.log() + (1 - x) * (1 - y).log())
        assert float(y[values.argmin()]) == pytest.approx(x, abs=1e-6)


def test_gradients_pass_through_the_draw():
    """Question 7: z = mu + exp(logvar / 2) eps has the derivatives 1 and (z - mu) / 2."""
    assert "Gradients" in right_choice(7)
    mu, logvar = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.3, -1.2))
    z = mu + (logvar / 2).exp() * 1.7
    by_mu, by_logvar = torch.autograd.grad(z, [mu, logvar])
    assert by_mu.item() == 1 and by_logvar.item() == pytest.approx((z - mu).item() / 2)


def test_the_divergence_is_zero_at_the_prior_alone_and_grows_with_the_distance():
    """Question 8, and 10: the cheapest code is the prior, whatever the image."""
    assert "prior" in right_choice(8) and "no information" in right_choice(10)
    mu = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    kl = kl_to_standard_normal(mu, torch.zeros_like(mu))
    assert float(kl[20]) == 0 and (kl[:20].diff() < 0).all() and (kl[20:].diff() > 0).all()
    logvar = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    kl = kl_to_standard_normal(torch.zeros_like(logvar), logvar)
    assert float(kl[20]) == 0 and (kl[:20].diff() < 0).all() and (kl[20:].diff() > 0).all()


def test_the_mean_image_has_the_least_squared_error_of_all_single_images():
    """Question 10: what a decoder that knows nothing of the image gives."""
    x = torch.rand(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    candidates = torch.cat([x.mean(0, keepdim=True), x, x.median(0, keepdim=True).values])
    errors = (x[None] - candidates[:, None]).square().mean((1, 2))
    assert int(errors.argmin()) == 0


# --- wrong input, and a terminal ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"answers": ["a", "b"]}, r"answers=a,b has 2 of them; give 10"),
        ({"answers": ["a", "b"], "question": 1}, r"has 2 of them; give 1, as answers=a"),
        ({"answers": ["e"], "question": 1}, r'"e" is not an answer; give one of the letters a, b, c, d'),
        ({"answers": [""], "question": 1}, r'"" is not an answer'),
        ({"question": 11}, r"question=11: give a whole number of at least 1 and up to 10"),
        ({"lang": "fr"}, r"lang=fr: give one of en, vi"),
        ({"part": "chek"}, r"part=chek: give one of questions, check \(did you mean"),
        ({"exercise": "calls"}, r"exercise= is not a key of the self-test"),
    ],
)
def test_wrong_input_gets_a_sentence(keys, message):
    with pytest.raises(UserError, match=message):
        trilemma.quiz(**keys)


@pytest.fixture
def terminal(monkeypatch):
    """A terminal at which some lines are typed; the input ends after them."""

    def typed(*lines):
        waiting = iter(lines)
        for stream in ("stdin", "stdout"):
            monkeypatch.setattr(getattr(self_test.sys, stream), "isatty", lambda: True, raising=False)

        def read(prompt):
            print(prompt, end="")
            try:
                return next(waiting)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr("builtins.input", read)

    return typed


def test_a_terminal_asks_one_question_after_the_other(terminal, capsys):
    terminal("x", RIGHT[0].upper(), *RIGHT[1:9], LETTERS[(LETTERS.index(RIGHT[9]) + 1) % 4])
    assert cli.main(["quiz"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert '"x" is not an answer; give one of the letters' in text
    assert text.count("your answer:") == 11 and text.endswith("9 of 10 right")
    asked, told = text.index(ENTRIES[1]["en"]["question"]), text.index(" ".join(ENTRIES[0]["en"]["why"].split()))
    assert told < asked  # an answer is explained before the next question


def test_the_end_of_the_input_ends_the_questions(terminal, capsys):
    terminal(RIGHT[0])
    assert cli.main(["quiz", "lang=vi"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.endswith("đúng 1 trên 1 câu") and ENTRIES[1]["vi"]["question"] in text


def test_elsewhere_the_questions_are_printed(capsys):
    assert cli.main(["quiz", "question=1"]) == 0
    assert capsys.readouterr().out == trilemma.quiz(question=1).text + "\n"
    assert cli.main(["quiz", f"answers={','.join(RIGHT)}"]) == 0
    assert capsys.readouterr().out.endswith("10 of 10 right\n")


def test_a_language_ends_with_the_call():
    trilemma.quiz(lang="vi")
    with in_language("en"):
        assert questions(1)[0].text == ENTRIES[0]["en"]["question"]
