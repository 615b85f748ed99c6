"""What the exploring verbs share: images, labels and codes by every name a user may give them."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from explore.stand_ins import Pixels, WithClasses
from PIL import Image
from torch import nn

import trilemma
from trilemma.data import Split, load_data
from trilemma.errors import UserError
from trilemma.explore.codes import decode_alike
from trilemma.explore.edit import load_vector
from trilemma.explore.images import is_own, name_of, pick_images, run_receipt, source_of, unseen
from trilemma.explore.naming import find_code, load_image, pick_image
from trilemma.pictures.png import read_metadata
from trilemma.pictures.table import table
from trilemma.run.condition import needed
from trilemma.types import UNCONDITIONAL, Condition, Decodes, Encodes, Reconstructs


@pytest.fixture
def conditional(folder):
    run = trilemma.load(folder, device="cpu")
    run.model = WithClasses()
    return run


# --- labels ---------------------------------------------------------------------------------------------------------


def test_labels_are_for_models_that_take_them():
    given = Condition(torch.tensor([0, 9, 3]), caption=("a", "b", "c"))
    assert all(value is None for value in vars(needed(Pixels(), given)).values())
    assert needed(WithClasses(), given).label is given.label and needed(WithClasses(), given).caption is None
    with pytest.raises(UserError, match=r"needs the class of each image or code; give label=, or images with classes$"):
        needed(WithClasses(), UNCONDITIONAL, advise=["label"])
    with pytest.raises(UserError, match=r"code; give images with classes$"):  # no label= there
        needed(WithClasses(), UNCONDITIONAL)
    reading = Pixels()
    reading.takes, reading.null_condition = ("caption",), False  # it was never without
    assert needed(reading, given).caption is given.caption and needed(reading, given).label is None
    for advise, advice in ((["caption"], "caption=, or "), ([], "")):
        with pytest.raises(UserError, match=rf"the caption of each image or code; give {advice}images with captions$"):
            needed(reading, UNCONDITIONAL, advise=advise)
    drawing = WithClasses()
    drawing.codes_need = ()  # it draws classes, and its codes are the same for all
    assert needed(drawing, UNCONDITIONAL).label is needed(drawing, given).label is None
    for wrong in (10, -1):
        with pytest.raises(UserError, match=f"label {wrong} is not a class of this model; choose from 0 to 9"):
            needed(WithClasses(), Condition(torch.tensor([3, wrong])))


def test_classes_of_other_data_are_matched_by_name(conditional, tmp_path):
    """Folders 7 and 2 are numbered 0 and 1 by themselves ("2", "7"), but are the classes 2 and 7 of the run."""
    for name in ("7", "2"):
        (tmp_path / "some" / name).mkdir(parents=True)
        for k in range(6):
            Image.new("L", (8, 8), 20 * int(name) + k).save(tmp_path / "some" / name / f"{k}.png")
    source = source_of(conditional, tmp_path / "some")
    assert source.classes == tuple(conditional.config["classes"])
    for part in source.splits.values():
        assert torch.equal(part.labels, part.images[:, 0, 0, 0].long() // 20)
    (tmp_path / "some" / "2").rename(tmp_path / "some" / "cat")
    with pytest.raises(UserError, match='unknown class "cat"; choose one of 0, 1'):
        source_of(conditional, tmp_path / "some")
    conditional.model = Pixels()  # a model without classes does not mind
    assert source_of(conditional, tmp_path / "some").classes == ("7", "cat")


def test_class_by_name_or_number(conditional, run):
    assert conditional.condition(None, 2) is UNCONDITIONAL
    labels = conditional.condition("7", 2).label, conditional.condition(7, 2).label
    assert [label.tolist() for label in labels] == [[7, 7], [7, 7]]
    with pytest.raises(UserError, match="11"):
        conditional.condition(11, 1)
    with pytest.raises(UserError, match="does not take a class: it was trained without labels"):
        run.condition(1, 1)
    with pytest.raises(UserError, match="give one of them"):
        conditional.condition(1, 1, Condition(torch.tensor([1])))


# --- images ---------------------------------------------------------------------------------------------------------


def test_the_first_images_or_some_by_the_seed(run):
    held = run.data.held_out[1]
    first = pick_images(run, n=7)
    assert torch.equal(first.image, held.images[:7].float() / 255) and torch.equal(
        first.condition.label, held.labels[:7]
    )
    drawn = pick_images(run, n=7, seed=3)
    assert torch.equal(drawn.index, drawn.index.sort().values) and len(drawn.index.unique()) == 7
    assert torch.equal(drawn.image, held.images[drawn.index].float() / 255)
    assert torch.equal(drawn.index, pick_images(run, n=7, seed=3).index)
    assert not torch.equal(drawn.index, pick_images(run, n=7, seed=4).index)
    assert drawn.index.max() > len(held) / 2 > drawn.index.min()
    assert len(pick_images(run).image) == len(pick_images(run, n=10**6).image) == len(held)
    assert torch.equal(pick_images(run, n=2, split="train").image, run.data.train.images[:2].float() / 255)


def photos(folder):
    """20 files in three splits, whose levels rise with their names."""
    for k in range(20):
        path = folder / ("test" if k % 5 == 0 else "train") / f"{k:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 10 * k, np.uint8)).save(path)
    return folder


def test_all_images_of_other_data_are_unseen(run, tmp_path):
    """In the order of their names with the folder: test/00, 05, 10, 15, then train/01 ..."""
    files = sorted(path.relative_to(tmp_path) for path in photos(tmp_path / "photos").glob("*/*"))
    source = load_data(tmp_path / "photos", size=8, channels=1)
    assert set(source.splits) == {"train", "valid", "test"}
    levels = torch.tensor([10 * int(file.stem) for file in files])
    part = unseen(run, source)
    everything = part.take(torch.arange(20))
    assert part.name == "all" and len(part) == 20 and torch.equal(everything.images[:, 0, 0, 0].long(), levels)
    assert [name.endswith(file.name) for name, file in zip(everything.names, files, strict=True)] == [True] * 20
    some = torch.tensor([13, 2, 2, 19])
    assert torch.equal(part.take(some).images[:, 0, 0, 0].long(), levels[some])
    batch = pick_images(run, tmp_path / "photos", 7, seed=0)
    assert torch.equal((batch.image[:, 0, 0, 0] * 255).round().long(), levels[batch.index])
    assert len(pick_images(run, tmp_path / "photos").image) == 20
    assert float(load_image(run, 4, tmp_path / "photos")[0, 0, 0, 0]) == pytest.approx(10 / 255)
    with pytest.raises(UserError, match="image 20 not found in photos: choose from 0 to 19"):
        load_image(run, 20, tmp_path / "photos")
    assert len(pick_images(run, tmp_path / "photos", split="test").image) == 4


def test_labels_and_captions_go_with_their_images(run):
    """Of splits laid end to end; where one split has none of them, none are known."""
    labels = [torch.tensor([3, 1]), torch.tensor([2])]
    splits = [Split(torch.full((len(y), 1, 8, 8), 9), y, tuple(f"a {int(k)}" for k in y)) for y in labels]
    source = replace(
        run.data, source="elsewhere", fingerprint="", splits=dict(zip(("train", "valid"), splits, strict=True))
    )
    part = unseen(run, source)
    taken = part.take(torch.tensor([2, 0]))
    assert part.labels.tolist() == [3, 1, 2] and taken.labels.tolist() == [2, 3]
    assert taken.captions == ("a 2", "a 3") and taken.names is None
    plain = replace(source, splits={**source.splits, "valid": replace(splits[1], labels=None)})
    assert unseen(run, plain).labels is None and unseen(run, plain).take(torch.tensor([2, 0])).labels is None


def test_of_the_runs_own_data_the_held_out_split_is_unseen(run):
    """However it is named: by its word, by the images, or divided in another way."""
    name, held = run.data.held_out
    renamed = replace(run.data, source="elsewhere", name="elsewhere")
    for data in (None, "digits", run.data, renamed):
        part = unseen(run, source_of(run, data))
        assert part.name == name and torch.equal(part.take(torch.arange(len(part))).images, held.images)
    other = load_data("digits", size=8, channels=1, valid=0.3)
    assert unseen(run, other).name == name
    assert not is_own(run, replace(renamed, fingerprint=""))


def test_drawn_data_are_the_same_in_any_number(run, monkeypatch):
    data = run.data
    monkeypatch.setitem(run.config, "data", "shapes")
    for word, own in (("shapes:40", True), ("shapes", True), ("elsewhere", False)):
        assert is_own(run, replace(data, source=word, fingerprint="")) is own


def test_named_by_its_path_the_runs_own_data_are_divided_as_in_training(tmp_path):
    """A third held out, not the tenth that is the rule: two thirds were trained on."""
    path = photos(tmp_path / "photos") / "train"
    run = trilemma.train("vae", path, steps=1, batch=4, valid=0.4, out=tmp_path / "run", device="cpu", quiet=True)
    held = run.data.valid
    assert len(held) == round(0.4 * 16)
    for word in (path, str(path)):
        batch = pick_images(run, word)
        assert torch.equal(batch.image, held.images.float() / 255)


def test_what_cannot_be_picked(run):
    with pytest.raises(UserError, match="at least 1"):
        pick_images(run, n=0)
    with pytest.raises(UserError, match=r'unknown split "tset"; .*did you mean "test"'):
        pick_images(run, run_with_test(run), split="tset")


def run_with_test(run):
    return replace(run.data, splits={**run.data.splits, "test": run.data.valid})


def test_an_image_by_number_or_file(run, tmp_path):
    held = run.data.held_out[1]
    for number in (5, "5"):
        batch = pick_image(run, number)
        assert torch.equal(batch.image, held.images[5:6].float() / 255)
        assert batch.condition.label.tolist() == [int(held.labels[5])] and batch.index.tolist() == [5]
    Image.fromarray(held.images[5, 0].numpy()).save(tmp_path / "five.png")
    assert torch.equal(load_image(run, tmp_path / "five.png"), load_image(run, 5))
    assert pick_image(run, str(tmp_path / "five.png")).condition.label is None


def test_a_file_of_another_size_and_colour_goes_by_the_rules_for_data(run, tmp_path):
    """Red, 16 x 36, black at its sides: the middle 16 x 16 is scaled to 8 x 8; grey is the luma 0.299 R."""
    pixels = np.zeros((16, 36, 3), np.uint8)
    pixels[:, 5:31, 0] = 200  # beyond the 10 ... 25 that are kept, as far as the filter reaches
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    image = load_image(run, tmp_path / "wide.png")
    assert image.shape == (1, 1, 8, 8)
    torch.testing.assert_close(image, torch.full((1, 1, 8, 8), 60 / 255), rtol=0, atol=1.5 / 255)


def test_a_file_that_is_changed_is_said_to_be(run, tmp_path, capsys):
    """33 x 90 to a square: the middle 33 of 90 columns are kept, so 57 / 90 = 63% is lost. 11 x 8 loses 27%, which is
    within the factor of 1.5; 13 x 8 is beyond it."""
    cut = "% of it is cut off: it is scaled to cover, its centre kept"
    for (height, width), mode, sentence in (
        ((33, 90), "RGB", f"33x90 colour (height x width), brought to 8x8 grey; 63{cut}"),
        ((90, 33), "L", f"90x33 grey (height x width), brought to 8x8 grey; 63{cut}"),
        ((11, 8), "L", "11x8 grey (height x width), brought to 8x8 grey"),
        ((13, 8), "L", f"13x8 grey (height x width), brought to 8x8 grey; 38{cut}"),
        ((8, 8), "RGB", "8x8 colour (height x width), brought to 8x8 grey"),
        ((8, 8), "L", None),
    ):
        Image.new(mode, (width, height)).save(tmp_path / "some.png")
        load_image(run, tmp_path / "some.png")
        out, err = capsys.readouterr()
        assert not out and err == (f"some.png: {sentence}\n" if sentence else "")


def test_images_that_are_not_there(run, tmp_path):
    last = len(run.data.held_out[1]) - 1
    for number in (last + 1, -1, str(last + 1), "-1"):
        with pytest.raises(UserError, match=rf"image {number} not found in the \w+ split: choose from 0 to {last}"):
            load_image(run, number)
    with pytest.raises(UserError, match=r"image file nowhere\.png not found"):
        load_image(run, "nowhere.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match=r"cannot read the image .*text\.png"):
        load_image(run, tmp_path / "text.png")


# --- codes ----------------------------------------------------------------------------------------------------------


def test_a_code_in_every_form(run, tmp_path):
    values = np.arange(64, dtype=np.float64) / 64
    np.save(tmp_path / "code.npy", values)
    np.save(tmp_path / "row.npy", values[None])
    text = ",".join(map(str, values))
    for what in (values, values[None], values.tolist(), torch.tensor(values), tmp_path / "row.npy", text,
                 str(tmp_path / "code.npy")):  # fmt: skip
        code, condition, image = find_code(run, what)
        assert code.shape == (1, 64) and code.dtype == torch.float32 and condition.label is None and image is None
        torch.testing.assert_close(code[0].double(), torch.tensor(values), rtol=1e-6, atol=0)


def test_the_code_of_an_image_in_every_form(run, tmp_path):
    image = run.data.held_out[1].images[3]
    np.save(tmp_path / "image.npy", image.numpy())
    for what in (3, "3", image, image[None], image.float() / 255, tmp_path / "image.npy"):
        code, _, shown = find_code(run, what)
        assert torch.equal(code, image.float().flatten()[None] / 255)
        assert torch.equal(shown[0], image.float() / 255)


def test_codes_and_images_of_other_shapes_are_refused(run, tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    for what, message in (
        ("1,2,3", "the code has 3 numbers; codes of vae in .* have 64"),
        ("0.5", "the code has 1 numbers"),
        (np.zeros((2, 64)), r"one row of numbers.*got shape \(2, 64\)"),
        (np.zeros((1, 9, 8)), "the image is 1 x 9 x 8 .*takes 1 x 8 x 8"),
        (np.zeros((3, 8, 8)), "the image is 3 x 8 x 8"),
        (np.zeros((2, 1, 8, 8)), "^got 2 images instead of one"),
        (np.full((1, 8, 8), 1.5), "outside 0 to 1"),
        (np.full(64, np.nan), "NaN"),
        (tmp_path / "objects.npy", "cannot be read"),
        (["a"], "neither an image nor a code"),
        ("1,b", "image file 1,b not found"),
        ("1,b" * 999, "image file 1,b1,b"),
    ):
        with pytest.raises(UserError, match=message):
            find_code(run, what)


def hostile_arrays(folder):
    """Empty; 128 bytes that state 40 TB; an .npz by the name of an .npy; Python objects."""
    (folder / "empty.npy").touch()
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (5 * 10**12,)})
    (folder / "states.npy").write_bytes(head.getvalue())
    np.savez(folder / "packed.npz", np.zeros(64))
    (folder / "packed.npz").rename(folder / "packed.npy")
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    return [folder / f"{name}.npy" for name in ("empty", "states", "packed", "objects")]


def test_a_hostile_file_in_place_of_a_code_or_a_vector(run, tmp_path):
    for path in hostile_arrays(tmp_path):
        with pytest.raises(UserError, match=r"\.npy cannot be read: .*; it must hold a plain array \(np\.save\)"):
            find_code(run, path)
        with pytest.raises(UserError, match=r"\.npy cannot be read: .*; it must hold a plain array \(np\.save\)"):
            load_vector(path, 64)


def test_a_large_array_in_place_of_a_code_or_a_vector_is_not_read(run, tmp_path):
    path, numbers = tmp_path / "large.npy", 2**24 + 1
    np.lib.format.open_memmap(path, "w+", np.float64, (numbers,))  # sparse
    with pytest.raises(UserError, match="holds 134,217,736 bytes; a code or an image has at most 134,217,728"):
        find_code(run, path)
    with pytest.raises(UserError, match="holds 16777217 values"):
        load_vector(path, 64)


def test_the_class_of_a_code_comes_from_the_image_or_the_label(conditional):
    held = conditional.data.held_out[1]
    pixels, own = held.images[2].float().flatten()[None] / 255, int(held.labels[2])
    code, condition, _ = find_code(conditional, 2)
    assert condition.label.tolist() == [own] and torch.equal(code, pixels + own)
    code, condition, _ = find_code(conditional, 2, label="4")
    assert condition.label.tolist() == [4] and torch.equal(code, pixels + 4)
    code, condition, _ = find_code(conditional, [0.0] * 64, label=6)
    assert condition.label.tolist() == [6]
    with pytest.raises(UserError, match="needs the class"):
        find_code(conditional, [0.0] * 64)
    with pytest.raises(UserError, match="needs the class"):
        find_code(conditional, held.images[2])


def test_parts_are_put_together_with_their_labels(conditional):
    """More images than go through at a time; decoding takes away what encoding added."""
    batch = pick_images(conditional, n=600, split="train")
    codes = conditional.encode(batch.image, condition=batch.condition)
    assert torch.equal(codes, batch.image.flatten(1) + batch.condition.label[:, None])
    torch.testing.assert_close(conditional.decode(codes, condition=batch.condition), batch.image, rtol=0, atol=1e-6)
    one = decode_alike(conditional, codes, Condition(torch.tensor([3])))
    assert torch.equal(one.flatten(1), (codes - 3).clamp(0, 1))


def test_codes_that_are_not_finite_are_refused(run):
    run.model.encode = lambda image, condition=None: image.flatten(1) / 0
    with pytest.raises(UserError, match=r"codes of .* hold NaN or infinite"):
        run.encode(torch.zeros(2, 1, 8, 8))


def test_through_keeps_no_gradients(run):
    weight = torch.ones(1, requires_grad=True)
    assert not run.apply(lambda x, _: x * weight, torch.ones(3, 2)).requires_grad


# --- the rest -------------------------------------------------------------------------------------------------------


def test_what_a_model_lacks(run):
    run.require("encode", Encodes, Decodes)
    with pytest.raises(UserError, match=r"^vae does not reconstruct; models that do: .*ae-stacked"):
        run.require("reconstruct", Reconstructs)
    run.model.decode = None
    run.model = nn.Linear(1, 1)
    run.model.encode = lambda image, condition=None: image
    with pytest.raises(UserError, match="it has no decoder"):
        run.require("walk", Encodes, Decodes)


def test_metadata_name_the_run_and_its_weights(run):
    receipt = run_receipt(run, "walk", steps=3)
    assert receipt == {
        "trilemma": trilemma.__version__, "verb": "walk", "model": "vae", "run": str(run.path.resolve()),
        "weights": run.weights_id, "steps": 3,
    }  # fmt: skip


DRAWN_FROM_DATA = {
    "edit": lambda run, **keys: trilemma.edit(run, 0, towards="bright", steps=2, **keys),
    "interpolate": lambda run, **keys: trilemma.interpolate(run, 0, 1, frames=2, animate=False, **keys),
    "traverse": lambda run, **keys: trilemma.traverse(run, image=0, units=0, steps=2, **keys),
    "map": lambda run, **keys: trilemma.latent_map(run, how="pca", **keys),
    "reconstruct": lambda run, **keys: trilemma.reconstruct(run, **keys),
}


@pytest.mark.parametrize("verb", DRAWN_FROM_DATA)
def test_receipts_name_the_images_that_numbers_count_in(run, tmp_path, verb):
    run.model.reconstruct = lambda image, condition=None: image
    photos, levels = tmp_path / "photos", np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    for k, image in enumerate(levels):
        path = photos / ("bright" if k < 6 else "dark") / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    for data, name in ((photos, str(photos)), (load_data(photos), str(photos))):
        picture = DRAWN_FROM_DATA[verb](run, data=data, out=tmp_path / "o.png").picture
        assert (receipt := read_metadata(picture))["verb"] == verb and receipt["data"] == name


def test_images_in_memory_are_named_by_their_content():
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    names = {name_of(given) for given in (images, torch.from_numpy(images), load_data(images))}
    assert names == {load_data(images).source} and name_of(None) is None and name_of(255 - images) not in names


def test_a_class_that_an_edit_is_decoded_with_is_in_its_receipt(conditional, tmp_path):
    np.save(tmp_path / "vector.npy", np.zeros(64, np.float32))
    result = trilemma.edit(conditional, 3, towards=tmp_path / "vector.npy", steps=2, label="7", out=tmp_path / "o.png")
    assert read_metadata(result.picture)["label"] == "7"


def test_a_table_holds_its_images_beside_their_names():
    """Tiles of 8 px become 64 px; the page is white but for them and the letters, which lie left and above."""
    images = torch.zeros(6, 1, 8, 8)
    images[4] = 0.5
    page = np.asarray(table(images, ["one", "a longer name"], ["x", "y", "z"]))
    assert page.shape[1] > 3 * 65 + 1
    body = page[-(2 * 65 + 6) : -6, -(3 * 65 + 6) : -6]  # within the gap of 6 px
    tiles = body.reshape(2, 65, 3, 65).transpose(0, 2, 1, 3)[:, :, :-1, :-1]
    assert (tiles.reshape(6, -1) == np.array([0, 0, 0, 0, 128, 0])[:, None]).all()
    left, top = page[-(2 * 65 + 6) :, : -(3 * 65 + 7)], page[: -(2 * 65 + 7)]
    assert left.min() < 128 and top.min() < 128
    assert left[:, 0].min() == 255 and top[0].min() == 255  # no letter is cut


def test_heads_that_are_too_wide_are_thinned_out():
    images = torch.ones(40, 1, 2, 64)[:, :, :, :2]  # tiles of 64 px
    heads = [f"{k} million and some more" for k in range(40)]
    assert np.asarray(table(images, ["x"], heads))[3:14].min() < 255


def test_paths_with_a_home_are_expanded(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("L", (8, 8), 51).save(tmp_path / "grey.png")
    assert torch.equal(load_image(run, Path("~/grey.png")), torch.full((1, 1, 8, 8), 51 / 255))
