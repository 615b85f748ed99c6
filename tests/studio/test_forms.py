"""Forms are the schemas of the verbs; what they send becomes a command line, and nothing else."""

import ast
import itertools

import pytest

from trilemma import UserError, vocabulary
from trilemma.studio.forms import (
    MOST,
    MOST_OF_MODEL,
    RUN_KIND,
    check_text,
    fields_of,
    is_data_word,
    is_offered,
    python_line,
    words_of,
)
from trilemma.verbs import VERBS, find, kind_of

PATHS = ("../x", "/etc/passwd", "~/x", "a\\b", "x/../y", "file:///x", "..")


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_key_but_paths_is_a_field_and_no_field_takes_a_path(verb):
    names = [field.name for field in fields_of(verb, {})]
    assert not {"out", "run", "data", "source", "against", "image", "runs"} & {*names}
    assert set(names) == {name for name in verb.keys if is_offered(verb, name)}
    for name in names:
        for path in PATHS:
            if name != "caption":
                with pytest.raises(UserError):
                    check_text(name, path, verb.keys[name])


def test_a_key_that_takes_a_path_besides_takes_numbers_codes_and_seeds():
    schema = find("interpolate").keys["a"]
    for text in ("3", "seed:3", "1.5,-0.3,1e-3"):
        check_text("a", text, schema)
    for text in ("photo.png", "runs", "config.json", "x"):
        with pytest.raises(UserError, match="paths are not taken"):
            check_text("a", text, schema)


def test_words_are_what_differs_from_the_defaults():
    sample = find("sample")
    assert words_of(sample, {"n": "64", "seed": " 3 ", "label": "", "exact": "true", "singles": "true"}) == [
        "seed=3",
        "exact=true",
    ]
    assert words_of(sample, {"temperature": "0.7"}, "vae") == ["temperature=0.7"]
    for key, said in [
        ("temperature", 'unknown key "temperature", which is for '),
        ("sede", r'unknown key "sede" \(did you mean "seed"\?\)'),
        ("out", "out= is not a field here.*give it in a terminal"),
        ("run", "run= is not a field here"),
        *((key, "unknown key .*sample takes n, ") for key in ("--import", "x=y", "", "data")),
    ]:
        with pytest.raises(UserError, match=said):
            words_of(sample, {key: "1"})


@pytest.mark.parametrize("key", MOST)
def test_a_page_cannot_ask_too_much(key):
    verb = next(verb for verb in VERBS if key in verb.keys)
    assert words_of(verb, {key: "2"}) in ([f"{key}=2"], [])
    for text in (f"{MOST[key] + 1:.0f}", f"{MOST[key] * 1e6:.0f}"):
        with pytest.raises(UserError):
            words_of(verb, {key: text})


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "0", "1e999", "x", "1;2", "1 2", "1\n1", "0x10"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(UserError):
        words_of(find("sample"), {"n": text})


@pytest.mark.parametrize("key, text", [("minutes", "1E9"), ("steps", "1e+9"), ("n", "1_000_000"), ("vae.steps", "1e9")])
def test_a_number_is_too_much_however_it_is_written(key, text):
    with pytest.raises(UserError, match="the most that the studio asks for"):
        check_text(key, text, None)


def test_sizes_count_both_sides():
    check_text("size", "48x64", find("train").keys["size"])
    with pytest.raises(UserError, match="the most that the studio asks for"):
        check_text("size", "8x9999", find("train").keys["size"])


def test_basic_keys_come_first_with_what_was_filled_in():
    fields = fields_of(find("train"), {"lr": "0.1", "beta": "4"}, "vae")
    assert [field.name for field in fields[:3]] == ["minutes", "epochs", "size"] and all(f.basic for f in fields[:3])
    values = {field.name: field.value for field in fields}
    assert (values["lr"], values["beta"], values["seed"]) == ("0.1", "4", "")
    assert len({field.name for field in fields}) == len(fields)
    choice = next(field for field in fields if field.name == "precision")
    assert (choice.choices, choice.default) == (["auto", "float32", "bf16"], "auto")


def test_the_line_of_python_is_the_call():
    line = python_line(find("sample"), ['runs/a "b"'], ["n=4", "label=7", "exact=true", "temperature=0.5"])
    assert line == 'trilemma.sample("runs/a \\"b\\"", n=4, label="7", exact=True, temperature=0.5)'
    call = ast.parse(line).body[0].value
    assert call.args[0].value == 'runs/a "b"'
    assert python_line(find("train"), ["diffusion-latent", "digits"], ["autoencoder.steps=5"]).endswith(
        '**{"autoencoder.steps": 5})'
    )


def test_data_words_need_no_path():
    assert all(is_data_word(word) for word in vocabulary.data_words())
    assert is_data_word("shapes:500")
    for text in ("shapes:9999999", "shapes:x", "hf:NAME", "data", "/tmp", "", "shapes:5:6"):
        assert not is_data_word(text)


def test_each_kind_of_key_has_a_field():
    kinds = {kind_of(schema) for verb in VERBS for name, schema in verb.keys.items() if is_offered(verb, name)}
    assert {"int", "float", "bool", "str"} <= kinds


def test_no_key_of_a_model_takes_a_path():
    """Also not one in the folder, as of a run: those are chosen from a list."""
    listed = set()
    for verb, model in itertools.product([find("train"), find("sample")], vocabulary.models()):
        for field in fields_of(verb, {}, model):
            if field.kind == RUN_KIND:
                listed.add(field.name)
                with pytest.raises(UserError, match="choose from its list"):
                    words_of(verb, {field.name: "link"}, model)
            elif field.name not in verb.keys:
                for path in PATHS:
                    with pytest.raises(UserError):
                        check_text(field.name, path, None)
    assert listed == {"guide", "init", "autoencoder"}


def test_keys_that_take_a_run_or_a_file_as_a_word_take_no_text():
    for verb, model, filled in [
        ("sample", "diffusion", {"guide": "link"}),
        ("train", "diffusion-few", {"init": "diffusion-dit"}),  # by the service alone, as a choice
        ("train", "diffusion-latent", {"autoencoder": "link"}),
        ("sample", "diffusion", {"x": "guide:link"}),
        ("sample", "diffusion", {"y": "guide :link"}),
        ("edit", "diffusion", {"mask": "mask.png"}),
        ("edit", "diffusion", {"mask": "link"}),
        ("edit", "diffusion", {"mask": "0,0,4"}),
    ]:
        with pytest.raises(UserError):
            words_of(find(verb), filled, model)
    assert words_of(find("edit"), {"mask": "outside:0,0, 4,4"}, "diffusion") == ["mask=outside:0,0, 4,4"]
    assert words_of(find("sample"), {"x": "steps:1,2"}, "diffusion") == ["x=steps:1,2"]


def test_numbers_that_fit_one_by_one_may_be_too_much_together():
    for verb, model, filled, sides in [
        ("sample", "vae", {"n": "10000"}, (512, 512)),
        ("sample", "vae", {"n": "1000", "x": "seed:1,2,3", "y": "temperature:0.5,1"}, (256, 256)),
        ("sample", "diffusion", {"n": "10000", "steps": "5000"}, (64, 64)),
        ("sample", "diffusion", {"n": "5000", "x": "steps:10,3000"}, (64, 64)),
        ("sample", "diffusion", {"steps": "100000"}, (512, 512)),
        ("evaluate", "vae", {"n": "5000", "size": "256x512"}, (8, 8)),
        ("train", "vae", {"batch": "65536", "size": "512"}, (1, 1)),
    ]:
        with pytest.raises(UserError, match=r"images of .* pixels.* are more than .*, the most that"):
            words_of(find(verb), filled, model, sides)
    for verb, model, filled, sides in [
        ("sample", "vae", {"n": "10000"}, (64, 64)),
        ("sample", "diffusion", {"n": "1000", "steps": "1000"}, (64, 64)),
        ("sample", "diffusion", {"n": "32", "steps": "many"}, (512, 512)),  # the job says what is wrong with it
        ("augment", "vae", {"steps": "5000"}, (64, 64)),  # of the classifiers
        ("train", "vae", {"batch": "256", "size": "512", "steps": "10000000"}, (1, 1)),
        ("train", "vae", {"size": "large"}, (1, 1)),
    ]:
        assert len(words_of(find(verb), filled, model, sides)) == len(filled)


def test_networks_have_bounds_and_every_default_is_within_them():
    """Of every key of a model that is a width, a length of codes or a depth."""
    seen = set()
    for model in vocabulary.models():
        for field in fields_of(find("train"), {}, model):
            if field.name in MOST_OF_MODEL:
                seen.add(field.name)
                check_text(field.name, field.default, None)
                with pytest.raises(UserError, match="the most that the studio asks for"):
                    words_of(find("train"), {field.name: f"2,{MOST_OF_MODEL[field.name] + 1:.0f}"}, model)
    assert seen == {*MOST_OF_MODEL}
