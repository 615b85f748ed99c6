"""Small runs that several tests draw from; none of the tests writes into them."""

import pytest

import trilemma


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Folders of short trainings by model's name."""
    base = tmp_path_factory.mktemp("lessons")

    def short(model, data="digits", name=None, **keys):
        out = base / (name or model)
        return trilemma.train(model, data, steps=3, batch=16, out=out, device="cpu", quiet=True, **keys).path

    return {
        "vae": short("vae"),
        "ae-stacked": short("ae-stacked"),
        "ae-sparse": short("ae-sparse"),
        "ae-linear": short("ae-linear", "ellipse"),
        "diffusion": short("diffusion", width=8, multipliers=(1,), depth=1, attention_px=0),
        "classes": short("diffusion", name="classes", classes=True, width=8, multipliers=(1,), depth=1, attention_px=0),
        "diffusion-small": short("diffusion-small", widths=(8, 8)),
        "gan-style": short("gan-style", width=4, styles=8, latent=4),
        "vae-hierarchical": short("vae-hierarchical", "digits"),
    }
