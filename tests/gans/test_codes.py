"""Codes of GANs: the search against least squares, what it depends on, styles, and the critic's score."""

import pytest
import torch
from torch import Tensor, nn

from trilemma import rng
from trilemma.config import make
from trilemma.errors import UserError
from trilemma.gans import codes as gan_codes
from trilemma.gans.codes import CodesModel
from trilemma.gans.config import GANConfig
from trilemma.gans.gan import GAN
from trilemma.gans.inversion import nearest, search
from trilemma.types import Condition, DrawsCodes, Encodes, HasStyles, Inverts, JudgesRealness, Reconstructs

SHAPE = (1, 4, 4)
N_CLASSES = 3


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Linear(CodesModel):
    """G(z) = A z + b, and b + k for class k; not within [0, 1]."""

    def __init__(self, latent: int = 3, n_classes: int = 0) -> None:
        super().__init__()
        self.config = make(GANConfig, {"shape": SHAPE, "latent": latent})
        self.n_classes = n_classes
        self.weight, self.bias = nn.Parameter(numbers(16, latent)), nn.Parameter(numbers(16, seed=1))
        self.dropout = nn.Dropout()

    def from_z(self, z: Tensor, label: Tensor | None) -> Tensor:
        image = self.dropout(z @ self.weight.T) + self.bias
        return (image if label is None else image + label[:, None]).unflatten(1, SHAPE)

    def solution(self, image: Tensor) -> Tensor:
        """The least squares solution for images (B, C, H, W) of no class: (B, latent)."""
        return torch.linalg.lstsq(self.weight.detach(), (image.flatten(1) - self.bias.detach()).T).solution.T


class Styled(Linear):
    """w = 2 z + 5 (+ the class), with one number more that is 0; G(w) = A w."""

    def __init__(self, n_classes: int = 0) -> None:
        super().__init__(4, n_classes)
        self.config = make(GANConfig, {"shape": SHAPE, "latent": 3})

    def to_w(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        w = torch.cat([2 * z + 5, torch.zeros_like(z[:, :1])], 1)
        return w if label is None else w + label[:, None]

    def mean_w(self) -> Tensor:
        return torch.tensor([5.0, 5.0, 5.0, 0.0]).double()

    def from_w(self, w: Tensor) -> Tensor:
        return Linear.from_z(self, w, None)


@pytest.fixture(scope="module")
def image() -> Tensor:
    return numbers(5, *SHAPE, seed=2)


def tiny(**settings: object) -> GAN:
    with rng.isolated(0):
        return GAN(make(GANConfig, {"shape": (1, 8, 8), "latent": 6, "width": 4, **settings}))


# the search


@pytest.mark.parametrize("kind", [Linear, Styled])
def test_the_code_under_a_linear_generator_is_the_least_squares_solution(kind: type[Linear], image: Tensor) -> None:
    model = kind()
    torch.testing.assert_close(model.invert(image, steps=400), model.solution(image), rtol=0, atol=1e-4)


def test_more_steps_come_nearer_and_the_default_is_the_number_stated(
    image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Linear()
    apart = [(model.invert(image, steps=n) - model.solution(image)).abs().max().item() for n in (5, 50)]
    assert apart[1] < apart[0] / 2
    monkeypatch.setattr(gan_codes, "STEPS", 5)
    assert torch.equal(model.invert(image), model.invert(image, steps=5))


def test_an_image_does_not_depend_on_its_batch_and_the_seed_chooses_the_start(image: Tensor) -> None:
    model = Linear()
    z = model.invert(image, steps=3)
    alone = torch.cat([model.invert(image[k : k + 1], steps=3) for k in range(5)])
    torch.testing.assert_close(alone, z, rtol=0, atol=1e-12)
    assert torch.equal(model.invert(image, steps=3), z)
    assert (model.invert(image, steps=3, seed=1) - z).abs().amax(1).min() > 1e-3


def test_the_start_is_the_nearest_image_and_the_best_step_counts() -> None:
    drawn = torch.tensor([0.0, 1.0, 5.0])[:, None, None, None]
    assert nearest(drawn, torch.tensor([0.4, 0.6, 9.0])[:, None, None, None]).tolist() == [0, 1, 2]
    best = search(lambda z: z[:, None, None], torch.zeros(2, 1, 1, 1), torch.tensor([[0.0], [0.3]]), rate=1.0, steps=1)
    assert best.tolist() == [[0.0], [pytest.approx(0.3)]]
    best = search(lambda z: z[:, None, None], torch.zeros(2, 1, 1, 1), torch.tensor([[0.0], [0.7]]), rate=1.0, steps=2)
    assert best.tolist() == [[0.0], [pytest.approx(-0.3, abs=1e-5)]]  # the first step of Adam is as long as the rate


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_without_gradients_and_leaves_the_model_as_it_was(mode: type, image: Tensor) -> None:
    model = Linear()
    model.bias.requires_grad_(False)
    expected = model.invert(image, steps=3)
    with mode():
        z = model.invert(image.clone(), steps=3)
    assert torch.equal(z, expected)  # though there is dropout
    assert model.training and model.weight.requires_grad and not model.bias.requires_grad and model.weight.grad is None
    before = torch.get_rng_state()
    model.invert(image, steps=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_codes_are_for_the_class_of_each_image(image: Tensor) -> None:
    """An image of class k is one of class 0 and k more."""
    model, label = Linear(n_classes=N_CLASSES), torch.tensor([2, 0, 1, 2, 0])
    z = model.invert(image + label[:, None, None, None], Condition(label), steps=300)
    torch.testing.assert_close(z, model.solution(image), rtol=0, atol=1e-4)
    steps = model.generate(z, Condition(label)) - model.generate(z, Condition(torch.zeros_like(label)))
    torch.testing.assert_close(steps, label[:, None, None, None].double().expand(-1, *SHAPE))
    with pytest.raises(UserError, match="needs the class of each image or code; give labels"):
        model.invert(image)
    with pytest.raises(UserError, match="was trained without labels; leave label out"):
        Linear().generate(z, Condition(label))


def test_images_and_codes_of_other_shapes_are_refused(image: Tensor) -> None:
    with pytest.raises(UserError, match=r"images were given as .*takes \(B, 1, 4, 4\)"):
        Linear().invert(image[:, :, 1:])
    for model, length in ((Linear(), 3), (Styled(), 4)):
        with pytest.raises(UserError, match=rf"codes were given as .*takes floats \(B, {length}\)"):
            model.generate(image.flatten(1))


# styles


def test_with_styles_they_are_the_codes(image: Tensor) -> None:
    model = Styled(N_CLASSES)
    assert isinstance(model, HasStyles) and model.code_length == 4 and model.codes_need == ()
    torch.testing.assert_close(model.generate(model.mean_w()[None]), model.eval().from_w(model.mean_w()[None]).detach())
    w = model.draw_codes(3000, seed=0)
    assert w[:, 3].tolist() == [float(k % N_CLASSES) for k in range(3000)]  # classes in turn
    torch.testing.assert_close(w[:, :3].mean(0), torch.full((3,), 6.0).double(), rtol=0, atol=0.2)
    torch.testing.assert_close(w[:, :3].var(0), torch.full((3,), 4 + 2 / 3).double(), rtol=0.1, atol=0)
    only = model.draw_codes(4, seed=0, condition=Condition(torch.full((4,), 2)))
    torch.testing.assert_close(only, model.draw_codes(4, seed=0) - w[:4, 3:] + 2)


def test_a_search_may_begin_at_the_mean_of_the_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gan_codes, "STARTS", 4)
    model = Styled()
    image = model.generate(model.mean_w()[None])
    assert torch.equal(model.invert(image, steps=1), model.mean_w()[None])


def test_styles_can_be_left_for_latents(image: Tensor) -> None:
    model = Styled().eval()
    latent = model.in_z()
    assert not isinstance(latent, HasStyles) and latent.code_length == 3 and Linear().in_z().code_length == 3
    z = latent.invert(image, steps=400)
    weight, at_zero = 2 * model.weight.detach()[:, :3], model.generate(model.mean_w()[None]).flatten(1)
    expected = torch.linalg.lstsq(weight, (image.flatten(1) - at_zero).T).solution.T
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(latent.generate(z), model.generate(model.to_w(z)))
    assert not model.training


# GANs


def test_what_a_gan_can_do() -> None:
    model = tiny(network="mlp")
    assert isinstance(model, Inverts) and isinstance(model, DrawsCodes) and isinstance(model, JudgesRealness)
    assert not isinstance(model, Encodes) and not isinstance(model, Reconstructs)
    assert model.code_length == 6 and torch.equal(model.draw_codes(2, seed=0), model.draw_codes(5, seed=0)[:2])


def test_a_gan_draws_from_a_code_what_it_samples() -> None:
    model = tiny(classes=True, n_classes=2)
    label = torch.tensor([0, 1, 1])
    z = rng.normal(torch.arange(3), (6,), 4, "latent")
    drawn = model.sample(3, seed=4, condition=Condition(label))
    torch.testing.assert_close(model.generate(z, Condition(label)), drawn)


def test_the_score_is_the_logit_and_with_classes_its_mean() -> None:
    images = rng.uniform(torch.arange(4), (1, 8, 8), 0, "test")
    model = tiny(network="dcgan-28")  # with dropout
    expected = model.eval().critic(images).detach()
    assert torch.equal(model.train().realness(images), expected) and model.critic.training
    torch.testing.assert_close(torch.cat([model.realness(x[None]) for x in images]), expected, rtol=0, atol=1e-6)
    model = tiny(network="dcgan-28", classes=True, n_classes=3).eval()
    each = [model.critic(images, torch.full((4,), k)).detach() for k in range(3)]
    torch.testing.assert_close(model.realness(images), (each[0] + each[1] + each[2]) / 3)
    with pytest.raises(UserError, match="images were given as"):
        model.realness(images[:, :, 1:])
