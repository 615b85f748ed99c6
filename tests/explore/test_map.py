"""A map puts codes where its mathematics says, its thumbnails apart, and its files in the formats others read."""

import csv
import io
import json
import math

import numpy as np
import pytest
import torch
from explore.stand_ins import Pixels
from PIL import Image
from torch import nn

import trilemma
from trilemma import rng
from trilemma.errors import UserError
from trilemma.explore.images import pick_images, rows_of
from trilemma.explore.map import _nearest, latent_map, perplexity_for, project
from trilemma.explore.map_files import NEAREST, map_files
from trilemma.explore.map_plot import FRAME, clear_places, thumbnail
from trilemma.explore.projector import projector_files, sprite
from trilemma.pictures.plots import CLASS_COLOURS, MARKERS, class_style
from trilemma.pictures.png import read_metadata


def groups(n=20):
    """Three far groups of n codes of 5 numbers each."""
    codes = rng.normal(torch.arange(3 * n), (5,), 0, "groups")
    return codes + 50 * torch.eye(5)[:3].repeat_interleave(n, 0)


# --- the places -----------------------------------------------------------------------------------------------------


def test_pca_is_the_projection_on_the_first_singular_vectors():
    codes = rng.normal(torch.arange(40), (6,), 1, "codes") * torch.arange(1.0, 7) + 3
    points = project(codes, "pca").double()
    centred = codes.double() - codes.double().mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    expected = u[:, :2] * s[:2]
    signs = (points * expected).sum(0).sign()
    torch.testing.assert_close(points * signs, expected, rtol=0, atol=1e-5)


def test_tsne_keeps_groups_together_and_depends_on_the_seed_alone():
    codes = groups()
    points = project(codes, "tsne", perplexity=10, seed=4)
    centres = points.unflatten(0, (3, 20)).mean(1)
    nearest = torch.cdist(points, centres).argmin(1)
    assert torch.equal(nearest, torch.arange(3).repeat_interleave(20))
    assert torch.equal(points, project(codes, "tsne", perplexity=10, seed=4))


def test_codes_of_one_number_lie_on_a_line():
    codes = torch.linspace(-1, 3, 30)[:, None]
    points = project(codes, "pca")
    torch.testing.assert_close(points[:, 0].abs(), (codes[:, 0] - 1).abs(), rtol=0, atol=1e-5)
    assert points[:, 1].abs().max() < 1e-6
    assert project(codes, "tsne", perplexity=5).isfinite().all()


def test_too_few_points_are_refused():
    codes = groups(10)  # 30 codes
    for perplexity in (30, 31.5, 0, -1, math.nan):
        with pytest.raises(UserError, match=r"perplexity=.* with 30 images: .*below the number of images.*how=pca"):
            project(codes, "tsne", perplexity=perplexity)
    assert project(codes, "tsne", perplexity=29).shape == project(codes, "pca", perplexity=99).shape == (30, 2)
    with pytest.raises(UserError, match="a map of 2 images shows nothing"):
        project(codes[:2], "pca")
    with pytest.raises(UserError, match="all 9 images have the same code"):
        project(torch.ones(9, 4), "pca")


@pytest.mark.parametrize(("images", "expected"), [(3, 1), (4, 1), (10, 2.5), (100, 25), (121, 30), (9999, 30)])
def test_the_perplexity_follows_the_number_of_points(images, expected):
    assert perplexity_for(images) == expected < images
    if images <= 10:
        assert project(torch.randn(images, 4, generator=torch.Generator().manual_seed(0))).isfinite().all()


# --- thumbnails -----------------------------------------------------------------------------------------------------


def test_thumbnails_do_not_overlap_and_none_that_fits_is_missing():
    centres = rng.uniform(torch.arange(300), (2,), 0, "centres") * 400
    width, height = 50.0, 30.0
    taken = clear_places(centres, (width, height))
    assert taken[0] == 0 and taken == sorted(taken)

    def overlap(i, j):
        dx, dy = (centres[i] - centres[j]).abs().tolist()
        return dx < width and dy < height

    assert not any(overlap(i, j) for i in taken for j in taken if i < j)
    for k in set(range(300)) - set(taken):
        assert any(overlap(k, j) for j in taken if j < k)
    assert clear_places(torch.tensor([[0.0, 0], [0, 30], [50, 0], [49, 29]]), (width, height)) == [0, 1, 2]


@pytest.mark.slow
def test_frames_are_whole_and_as_many_as_there_are_places(run, tmp_path, monkeypatch):
    """Frames in the colours of the classes are the only lines in them that are as long as a thumbnail is wide."""
    places = []

    def spied(centres, size):
        places.append(clear_places(centres, size))
        return places[-1]

    monkeypatch.setattr("trilemma.explore.map_plot.clear_places", spied)
    result = latent_map(run, how="pca", n=40, out=tmp_path / "map.png")
    page, side, count = np.asarray(Image.open(result.picture)).astype(int), 8 * 5 + 2 * FRAME, 0
    for kind in run.data.held_out[1].labels[result.index].unique().tolist():
        colour = np.array([int(CLASS_COLOURS[kind][i : i + 2], 16) for i in (1, 3, 5)])
        mask = (np.abs(page - colour) <= 1).all(-1)
        count += np.lib.stride_tricks.sliding_window_view(mask, side, axis=1).all(-1).sum()
    (taken,) = places
    assert count == 2 * FRAME * len(taken) and 8 <= len(taken) < 40  # FRAME lines above and FRAME below each
    plain = latent_map(run, how="pca", n=40, thumbnails=False, out=tmp_path / "plain.png").picture
    assert len(places) == 1 and (np.asarray(Image.open(plain)) != page).any()


def test_thumbnails_are_enlarged_by_whole_factors_or_reduced():
    image = torch.rand(1, 8, 8)
    assert thumbnail(image).size == (40, 40)
    assert thumbnail(torch.rand(3, 28, 20)).size == (20, 28)
    assert thumbnail(torch.rand(3, 64, 128)).size == (44, 22)


def test_many_classes_look_different():
    assert len({class_style(k) for k in range(len(CLASS_COLOURS) * len(MARKERS))}) == len(CLASS_COLOURS) * len(MARKERS)


# --- neighbours -----------------------------------------------------------------------------------------------------


def test_nearest_codes_come_in_order_after_the_query():
    codes = torch.tensor([[0.0], [10], [1], [4], [0]])
    assert _nearest(codes, [0, 1], 3).tolist() == [[0, 4, 2, 3], [1, 3, 2, 0]]
    assert _nearest(codes, [4], 9).tolist() == [[4, 0, 2, 3, 1]]  # itself first; no more than there are


def test_neighbours_of_a_map_are_the_nearest_of_its_images(run, tmp_path):
    result = latent_map(run, how="pca", n=60, neighbours=3, out=tmp_path / "map.png")
    split = run.data.held_out[1]
    pixels = split.images[result.index].flatten(1).double()
    for row in result.nearest.tolist():
        distance = (pixels - pixels[row[0]]).square().sum(1)
        assert row[0] == int(distance.argmin()) and distance[row[1:]].tolist() == distance.sort().values[1:4].tolist()
    labels = split.labels[result.index][result.nearest[:, 0]]
    assert len(labels) == 8 and len(labels.unique()) == 8  # one of each of the first classes
    assert result.neighbours == tmp_path / "map-neighbours.png" and result.neighbours.is_file()


# --- files ----------------------------------------------------------------------------------------------------------


def test_the_table_has_every_point_with_its_image(run, tmp_path):
    result = latent_map(run, how="pca", n=50, out=tmp_path / "map.png")
    with open(result.coordinates, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["x", "y", "index", "class"] and result.coordinates == tmp_path / "map.csv"
    assert [int(row["index"]) for row in rows] == result.index.tolist()
    assert [int(row["class"]) for row in rows] == run.data.held_out[1].labels[result.index].tolist()
    torch.testing.assert_close(torch.tensor([[float(r["x"]), float(r["y"])] for r in rows]), result.points)
    pixels = run.data.held_out[1].images[result.index].flatten(1).float() / 255
    torch.testing.assert_close(result.points, project(pixels, "pca"))
    receipt = read_metadata(result.picture)
    assert (receipt["verb"], receipt["how"], receipt["n"], receipt["split"]) == ("map", "pca", 50, run.data.held_out[0])


def test_a_folder_of_images_without_classes_keeps_their_names(run, tmp_path):
    (tmp_path / "photos").mkdir()
    for k in range(40):
        Image.fromarray(np.full((8, 8), 6 * k, np.uint8)).save(tmp_path / "photos" / f"{k:02d}.png")
    result = latent_map(run, how="pca", data=tmp_path / "photos", split="train", projector=True, out=tmp_path / "m.png")
    with open(result.coordinates, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["x", "y", "index", "file"] and len(rows) == 40 - 13  # a third is held out
    assert len(result.nearest) == 8
    assert (result.projector / "metadata.tsv").read_text().splitlines()[0] == "index\tfile"


def test_a_map_of_other_images_shows_all_of_them(run, tmp_path):
    for k in range(30):
        path = tmp_path / "photos" / f"{k:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), 8 * k, np.uint8)).save(path)
    result = latent_map(run, how="pca", data=tmp_path / "photos", out=tmp_path / "m.png")
    with open(result.coordinates, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"][-6:] for row in rows] == [f"{k:02d}.png" for k in range(30)]
    assert read_metadata(result.picture)["split"] == "all"


def test_files_for_the_projector():
    """10 images of 6 x 4: squares of 6 px, four rows of four."""
    codes, images = rng.normal(torch.arange(10), (3,), 0, "codes"), torch.arange(10)[:, None, None, None] / 10
    rows = [{"index": k, "class": "a\tb" if k else "c"} for k in range(10)]
    files = projector_files(codes, images.expand(10, 1, 6, 4), rows)
    values = [[float(v) for v in line.split("\t")] for line in files["vectors.tsv"].splitlines()]
    torch.testing.assert_close(torch.tensor(values), codes, rtol=1e-6, atol=0)
    assert files["metadata.tsv"].splitlines() == [
        "index\tclass",
        "0\tc",
        *(f"{k}\ta b" for k in range(1, 10)),
    ]
    config = json.loads(files["projector_config.json"])
    assert config == {
        "embeddings": [
            {
                "tensorName": "codes", "tensorShape": [10, 3], "tensorPath": "vectors.tsv",
                "metadataPath": "metadata.tsv", "sprite": {"imagePath": "sprite.png", "singleImageDim": [6, 6]},
            }
        ]
    }  # fmt: skip
    assert files["projector_config.pbtxt"].count("single_image_dim: 6\n") == 2
    sheet = np.asarray(Image.open(io.BytesIO(files["sprite.png"])))
    assert sheet.shape == (24, 24)
    for k in range(16):
        tile = sheet[k // 4 * 6 :, k % 4 * 6 :][:6, :6]
        assert (tile[:, 1:5] == (round(255 * k / 10) if k < 10 else 255)).all() and (tile[:, [0, 5]] == 255).all()


def test_one_column_of_metadata_has_no_header():
    files = projector_files(torch.rand(4, 2), torch.rand(4, 3, 8, 8), [{"index": k} for k in range(4)])
    assert files["metadata.tsv"] == "0\n1\n2\n3\n"


def test_a_sprite_never_exceeds_what_the_projector_shows(monkeypatch):
    monkeypatch.setattr("trilemma.explore.projector.SPRITE", 40)
    sheet, side = sprite(torch.rand(10, 3, 32, 16))
    assert side == 10 and sheet.size == (40, 40)


def test_files_for_the_page_of_the_studio(run):
    """Codes are images here, so that nearest codes are nearest images, and each thumbnail is its image."""
    batch, part = pick_images(run, n=50, seed=0), run.data.held_out[1]
    rows, codes = rows_of(batch, run.data, part), batch.image.flatten(1)
    points = rng.normal(torch.arange(50), (2,), 0, "points")
    files = map_files(points, codes, batch, rows, run.data, {"how": "pca"})
    content = json.loads(files["points.json"])
    torch.testing.assert_close(torch.tensor([content["x"], content["y"]]).T, points, rtol=1e-4, atol=0)
    assert content["index"] == batch.index.tolist() and content["file"] is None and content["how"] == "pca"
    labels = part.labels[batch.index]
    names = [content["classes"][k]["name"] for k in content["class"]]
    assert names == [run.data.classes[label] for label in labels.tolist()]
    apart = torch.cdist(codes.double(), codes.double()).fill_diagonal_(math.inf)
    wanted = apart.topk(NEAREST, largest=False).values
    torch.testing.assert_close(torch.tensor(content["distance"]).double(), wanted, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(apart.gather(1, torch.tensor(content["nearest"])), wanted, rtol=1e-6, atol=1e-6)
    sheet = np.asarray(Image.open(io.BytesIO(files["thumbnails.png"])))
    side, columns = content["side_px"], content["columns"]
    assert side == 8 and sheet.shape == (8 * columns, 8 * columns)
    for k, image in enumerate(part.images[batch.index, 0].numpy()):
        x, y = k % columns * side, k // columns * side
        assert (sheet[y : y + side, x : x + side] == image).all()


@pytest.mark.slow
def test_codes_are_searched_where_there_is_no_encoder(run, tmp_path):
    class Searched(nn.Module):
        """Inverts to the pixels, and has no encoder."""

        def invert(self, image, condition=None, *, steps=None, seed=0):
            return image.flatten(1)

        def generate(self, z, condition=None):
            return z.clamp(0, 1).unflatten(1, (1, 8, 8))

    run.model = Searched()
    result = latent_map(run, how="pca", thumbnails=False, interactive=True, out=tmp_path / "m.png")
    assert sorted(path.name for path in result.interactive.iterdir()) == ["points.json", "thumbnails.png"]
    held_out = run.data.held_out[1].images
    assert len(result.points) == min(200, len(held_out))
    pixels = held_out[result.index].flatten(1).float() / 255
    torch.testing.assert_close(result.points, project(pixels, "pca"))


def test_the_model_of_a_run_and_the_default_place(folder):
    result = latent_map(folder, perplexity=5, n=50, seed=3, projector=True)
    assert result.picture == folder / "map-tsne.png" and result.projector == folder / "map-tsne-projector"
    run = trilemma.load(folder, device="cpu")
    with torch.no_grad():
        codes = run.model.encode(run.data.held_out[1].images[result.index].float() / 255)
    vectors = np.loadtxt(result.projector / "vectors.tsv", dtype=np.float32)
    torch.testing.assert_close(torch.tensor(vectors), codes, rtol=1e-4, atol=1e-5)


def test_a_class_for_images_without(run, tmp_path):
    """Where the codes need a class: that of each image, or one for all, which moves no point past another."""

    class Classes(Pixels):
        n_classes = 10

        def encode(self, image, condition=None):
            seen.append(condition.label.tolist())
            return super().encode(image)

    seen, run.model = [], Classes()
    out = tmp_path / "map.png"
    own = latent_map(run, how="pca", n=30, thumbnails=False, out=out)
    assert seen.pop() == run.data.held_out[1].labels[own.index].tolist()
    np.save(tmp_path / "images.npy", run.data.held_out[1].images.numpy()[:, 0])
    with pytest.raises(UserError, match="needs the class of each image or code; give label="):
        latent_map(run, how="pca", n=30, data=tmp_path / "images.npy", out=out)
    result = latent_map(run, how="pca", n=30, data=tmp_path / "images.npy", thumbnails=False, label="4", out=out)
    assert seen == [[4] * len(result.points)]
    assert read_metadata(result.picture)["label"] == "4"


def test_what_is_refused(run, tmp_path):
    out = tmp_path / "none" / "map.png"
    for keys, message in (
        ({"how": "tnse"}, 'how=tnse: give one of .*did you mean "tsne"'),
        ({"n": 20, "perplexity": 30}, "perplexity=30 with 20 images"),
        ({"n": 0}, "at least 1"),
        ({"neighbours": 0}, "at least 1"),
        ({"split": "test2"}, "split=test2: give one of train, valid, test"),
    ):
        with pytest.raises(UserError, match=message):
            latent_map(run, out=out, **keys)
    run.model = nn.Linear(1, 1)
    with pytest.raises(UserError, match=r"does not encode images: it has no encoder; models that do: .*vae"):
        latent_map(run, out=out)
    assert not out.parent.exists()
