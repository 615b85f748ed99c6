"""`imagine` with Shap-E: views that turn, and a surface where there is one."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from trilemma import again, imagine
from trilemma.errors import UserError
from trilemma.pictures.png import read_metadata
from trilemma.pretrained.solid import as_shown, side_of

VIEWS = 19  # the twentieth is the first


@pytest.fixture
def tetrahedron(monkeypatch):
    """What the renderer makes of any object: random weights make nothing."""
    from diffusers.pipelines.shap_e import ShapERenderer

    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    channels = {name: torch.full((4,), value) for name, value in {"R": 0.0, "G": 0.2140411, "B": 1.0}.items()}
    mesh = SimpleNamespace(verts=corners, faces=faces, vertex_channels=channels)
    monkeypatch.setattr(ShapERenderer, "decode_to_mesh", lambda self, latents, device: mesh)


@pytest.mark.slow
def test_an_object_is_shown_from_all_round_and_an_empty_surface_is_said(folder_of, capsys):
    result = imagine("a chair", model=folder_of("shap-e"), steps=1, size=32, out="o.png", film="webp")
    assert result.images.shape == (VIEWS, 3, 32, 32) and result.files == [result.picture]
    with Image.open(result.animation) as film:
        assert film.n_frames <= VIEWS and film.size == (32, 32)  # alike frames are one in the file
    assert result.mesh is None and "the surface of this object is empty" in capsys.readouterr().err
    assert read_metadata(result.picture)["pipeline"] == "ShapEPipeline"
    torch.rand(3)  # what the caller draws changes no view
    assert again(result.picture).equal


@pytest.mark.slow
def test_a_surface_lies_beside_the_views(folder_of, tetrahedron, tmp_path):
    image = tmp_path / "chair.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(image)
    result = imagine("", model=folder_of("shap-e-image"), image=image, steps=1, size=32, out="o.png", mesh="obj")
    assert result.mesh.name == "o.obj"
    lines = result.mesh.read_text("utf-8").splitlines()
    assert lines[1] == "v 0 0 0 0 0.5 1"  # 0.214 of light is half of a level: ((0.5 + 0.055) / 1.055) ** 2.4
    assert len([line for line in lines if line.startswith("f ")]) == 4
    assert set(read_metadata(result.picture)["files"]) == {"o.gif", "o.obj"}
    with pytest.raises(UserError, match="reads no text, only an image"):
        imagine("a chair", model=folder_of("shap-e-image"), image=image)
    with pytest.raises(UserError, match="draws from an image; give image="):
        imagine("", model=folder_of("shap-e-image"))


def test_light_becomes_levels_as_the_standard_says():
    """Both branches meet, and each point is taken back by the inverse."""
    levels = np.linspace(0, 1, 101)
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    assert np.abs(as_shown(light) - levels).max() < 1e-4


def test_what_objects_do_not_take_is_refused(folder_of, tiny):
    with pytest.raises(UserError, match="makes one object"):
        imagine("a chair", model=folder_of("shap-e"), n=2)
    with pytest.raises(UserError, match="squares with a side of 32 px or a multiple"):
        imagine("a chair", model=folder_of("shap-e"), size=40)
    with pytest.raises(UserError, match="mesh=ply"):
        imagine("a chair", model=tiny, mesh="ply")
    assert (side_of((64, 64)), side_of(None)) == (64, None)
