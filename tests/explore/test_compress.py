"""Compression with codes whose loss is known, PCA against its definition, and codecs that stay within their bytes."""

import json
import math

import numpy as np
import pytest
import torch
from explore.stand_ins import Pixels
from oracles import principal_components
from PIL import Image
from torch import nn

import trilemma
from trilemma.errors import UserError
from trilemma.explore.compress import (
    CODECS,
    LOWEST,
    best_file,
    by_codec,
    by_pca,
    code_bytes,
    compress,
    fit_pca,
    jpeg_data_bytes,
    webp_data_bytes,
)


class Scaled(Pixels):
    """The code is the image, times a factor and above an offset."""

    factor, offset = 1.0, 0.0

    def encode(self, image, condition=None):
        return super().encode(image) * self.factor + self.offset

    def decode(self, z, condition=None):
        return super().decode((z - self.offset) / self.factor)


@pytest.fixture
def run(folder):
    run = trilemma.load(folder, device="cpu")
    run.model = Scaled()
    return run


def smooth(n, shape, seed=0):
    """uint8 images of a few waves and some noise."""
    random = np.random.default_rng(seed)
    channels, height, width = shape
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [sum(np.sin(a * x + b * y + c) for a, b, c in random.normal(0, 6, (4, 3))) for _ in range(n * channels)]
    images = 128 + 30 * np.reshape(waves, (n, *shape)) + random.normal(0, 8, (n, *shape))
    return torch.from_numpy(images.clip(0, 255).astype(np.uint8))


def rows_by(compression):
    return {(row.name, row.counted): row for row in compression.rows}


def test_a_code_of_all_pixels_loses_nothing_and_saves_nothing(run):
    """Half precision has 11 bits for values in [0.5, 1], enough for 256 levels; 64 numbers take 128 bytes."""
    compression = compress(run, n=50)
    row = compression.rows[0]
    assert (row.name, row.bytes, row.ratio, row.rmse, row.psnr_db, row.within) == (
        "vae",
        128,
        0.5,
        0,
        math.inf,
        1,
    )
    assert (compression.numbers, compression.bytes, compression.raw_bytes, compression.n) == (64, 128, 64, 50)


def test_codes_are_really_rounded(run):
    """Around 1024 half precision has steps of 1: pixels become 0 or 1, rounded."""
    run.model.offset = 1024.0
    images = run.data.held_out[1].images[:50].double() / 255
    expected = (images.round() - images).square().mean()
    row = compress(run, n=50).rows[0]
    assert row.rmse == pytest.approx(expected.sqrt().item(), rel=1e-6)
    assert row.psnr_db == pytest.approx(-10 * math.log10(expected), rel=1e-6)


def test_codes_beyond_half_precision_are_refused(run):
    run.model.factor = 1e5
    with pytest.raises(UserError, match=r"codes reach 1e\+05; half precision holds up to 65,504"):
        compress(run, n=20)


def test_a_discrete_code_says_its_bits(run):
    run.model.code_bits = 36.0
    run.model.offset = 1024.0  # these codes are not rounded
    compression = compress(run, n=20)
    assert (
        compression.bytes == 4.5 and compression.rows[0].counted == "discrete code" and compression.rows[0].rmse < 1e-3
    )
    assert compression.rows[1].bytes == 4  # two components


def test_a_discrete_model_says_its_bits():
    assert code_bytes(trilemma.create("vae-discrete", variables=5, categories=8), 40) == (15 / 8, "discrete code")


def test_pca_is_its_definition():
    """Error of k components = the discarded share of the covariance, on the images it was fitted on."""
    images = smooth(60, (1, 6, 7))
    x = images.flatten(1).double() / 255
    values = principal_components(x)[0]
    for k in (1, 5, 20):
        error = (by_pca(fit_pca(images, k), images, half=False).double() - images.double() / 255).square().mean().item()
        assert error == pytest.approx(values[k:].sum().item() / 42, rel=1e-4)


def test_the_components_are_rounded_to_half_precision():
    images = smooth(60, (1, 6, 7))
    pca = fit_pca(images, 5)
    codes = pca.transform(images.flatten(1).numpy() / np.float32(255)).astype(np.float16).astype(np.float32)
    expected = (codes @ pca.components_ + pca.mean_) * 255
    assert np.abs(by_pca(pca, images).flatten(1).numpy() - expected.clip(0, 255)).max() <= 0.5 + 1e-3


def test_no_more_components_than_there_can_be():
    assert fit_pca(smooth(3, (1, 6, 7)), 20).n_components_ == 3
    assert fit_pca(smooth(60, (1, 2, 3)), 20).n_components_ == 6


# the highest quality within a budget


def of_sizes(sizes):
    return lambda quality: b"x" * sizes[quality]


@pytest.mark.parametrize("budget", [10, 11, 57, 109, 110, 10_000])
def test_the_highest_quality_within_the_budget(budget):
    sizes = [10 + q for q in range(101)]
    assert len(best_file(of_sizes(sizes), len, budget)) == min(budget, 110)


def test_the_smallest_file_where_none_is_small_enough():
    sizes = [20, 19, 18, 22, *range(30, 127)]
    assert len(best_file(of_sizes(sizes), len, 17)) == 18
    assert len(best_file(of_sizes(sizes), len, 18)) == 18


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize("shape", [(1, 20, 24), (3, 16, 16)], ids=str)
@pytest.mark.parametrize("whole", [True, False])
def test_never_above_the_budget_where_one_of_the_lowest_qualities_is_within(codec, shape, whole):
    import io

    from trilemma.pictures.grid import to_image

    def size(image, quality):
        buffer = io.BytesIO()
        to_image(image).save(buffer, codec.format, quality=quality)
        return count(buffer.getvalue())

    count = len if whole else codec.data_bytes
    images = smooth(8, shape)
    table = [[size(image, quality) for quality in range(101)] for image in images]
    budget = float(np.median([min(row[:LOWEST]) for row in table]) + 10)  # within reach of some
    _, sizes = by_codec(images, codec, count, budget)
    for result, row in zip(sizes, table, strict=True):
        reachable = min(row[:LOWEST]) <= budget
        assert result <= budget if reachable else result == min(row[:LOWEST])
        if reachable:  # sizes rise almost steadily with quality, so bisection ends close below the budget
            assert result >= max(s for s in row if s <= budget) * 0.8


def test_a_better_quality_shows():
    images = smooth(6, (1, 32, 32))
    for codec in CODECS:
        errors = []
        for budget in (150, 400, 1200):
            decoded, sizes = by_codec(images, codec, codec.data_bytes, budget)
            assert decoded.shape == images.shape and max(sizes) <= budget
            errors.append((decoded.double() - images.double()).square().mean().item())
        assert errors[0] > errors[1] > errors[2]


def test_the_header_of_a_jpeg_is_the_same_for_all_images_of_a_quality():
    import io

    headers = set()
    for image in smooth(5, (1, 24, 24)):
        buffer = io.BytesIO()
        Image.fromarray(image[0].numpy()).save(buffer, "jpeg", quality=30)
        file = buffer.getvalue()
        size = jpeg_data_bytes(file)
        headers.add(file[: len(file) - 2 - size])
        assert 0 < size < len(file) and file[-2:] == b"\xff\xd9"
    assert len(headers) == 1


def test_the_header_of_a_webp_is_known():
    """12 bytes of RIFF, 8 of the chunk, 7 of start code and size in the frame; chunks are padded to even length."""
    import io

    for image in smooth(5, (3, 24, 20)):
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "webp", quality=30)
        file = buffer.getvalue()
        assert file[23:26] == b"\x9d\x01\x2a"  # the start code, behind 3 bytes of the frame
        assert len(file) - webp_data_bytes(file) in (27, 28)


# the verb


def test_the_rows_and_the_files(folder, tmp_path):
    run = trilemma.load(folder, device="cpu")
    compression = compress(run, n=30, out=tmp_path / "it.png")
    rows = rows_by(compression)
    assert [row.name for row in compression.rows] == ["vae", "PCA", "JPEG", "JPEG", "WebP", "WebP"]
    assert (
        compression.rows[0].bytes == compression.rows[1].bytes == compression.bytes == 64
        and compression.rows[0].ratio == 1
    )
    for name in ("JPEG", "WebP"):
        assert rows[name, "whole file"].rmse > rows[name, "compressed data, without headers and tables"].rmse
    assert rows["JPEG", "whole file"].within == 0  # 64 bytes do not hold its tables
    saved = json.loads(compression.file.read_text())
    assert compression.file == tmp_path / "it.json" and saved["rows"][1]["rmse"] == compression.rows[1].rmse
    assert saved["numbers"] == 32 and Image.open(compression.picture).width > 12 * 64


def test_the_model_of_the_run_is_used(folder):
    run = trilemma.load(folder, device="cpu")
    compression = compress(run, n=30)
    images = run.data.held_out[1].images[:30].float() / 255
    with torch.no_grad():
        results = run.model.decode(run.model.encode(images).half().float())
    results = (results * 255).round() / 255
    assert compression.rows[0].rmse == pytest.approx((results - images).square().mean().sqrt().item(), rel=1e-5)
    assert compression.picture == folder / "compression.png" and compression.picture.is_file()


def test_other_images_are_all_compressed(run, tmp_path):
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8))
    assert compress(run, data=tmp_path / "images.npy", out=tmp_path / "it.png").n == 20


def test_an_exact_result_is_none_in_json(run):
    assert json.loads(compress(run, n=20).file.read_text())["rows"][0]["psnr_db"] is None


def test_what_is_refused(run):
    with pytest.raises(UserError, match="n=0: give a whole number of at least 1"):
        compress(run, n=0)
    run.model = nn.Linear(1, 1)
    with pytest.raises(UserError, match=r"does not store images as codes: .*ae-stacked"):
        compress(run)
