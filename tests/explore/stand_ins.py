"""Models of 8x8 images whose results are known, in the place of a trained one."""

from torch import nn


class Pixels(nn.Module):
    """The code is the image."""

    def encode(self, image, condition=None):
        return image.flatten(1)

    def decode(self, z, condition=None):
        return z.clamp(0, 1).unflatten(1, (1, 8, 8))


class WithClasses(Pixels):
    """The code is the image plus its label, which decoding takes away again."""

    n_classes = 10

    def encode(self, image, condition=None):
        return super().encode(image) + condition.label[:, None]

    def decode(self, z, condition=None):
        return super().decode(z - condition.label[:, None])


class Shaded(Pixels):
    """Images of a class k have the constant brightness k / 9."""

    n_classes = 10

    def decode(self, z, condition=None):
        return (condition.label / 9)[:, None, None, None].expand(-1, 1, 8, 8)

    def reconstruct(self, image, condition=None):
        return (condition.label / 9)[:, None, None, None].expand_as(image)
