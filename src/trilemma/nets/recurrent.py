"""An image as a sequence: H steps, each a row of C * W pixels, read and written by an LSTM.

Hochreiter & Schmidhuber (1997), "Long short-term memory"; Srivastava, Mansimov & Salakhutdinov (2015), "Unsupervised
learning of video representations using LSTMs", for the pair of encoder and decoder.
"""

from torch import Tensor, nn

HIDDEN = 128  # numbers in the state of each layer


class Rows(nn.Module):
    """The rows of an image as a signal of length H: (B, C, H, W) -> (B, C * W, H)."""

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C * W, H)."""
        return image.transpose(2, 3).flatten(1, 2)


class RowEncoder(nn.Module):
    """Signals (B, inputs, H) -> two LSTM layers, the last state of the second -> linear (B, outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, HIDDEN, num_layers=2)
        self.linear = nn.Linear(HIDDEN, outputs)

    def forward(self, signal: Tensor) -> Tensor:
        """(B, inputs, H) -> (B, outputs)."""
        _, (state, _) = self.lstm(signal.permute(2, 0, 1))  # steps first
        return self.linear(state[-1])


class RowDecoder(nn.Module):
    """A code at each of H steps -> LSTM -> linear, one row of pixels for each step."""

    def __init__(self, inputs: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.lstm = nn.LSTM(inputs, HIDDEN)
        self.linear = nn.Linear(HIDDEN, shape[0] * shape[2])

    def forward(self, z: Tensor) -> Tensor:
        """(B, inputs) -> (B, C, H, W)."""
        channels, height, width = self.shape
        states, _ = self.lstm(z.expand(height, *z.shape))  # (H, B, HIDDEN)
        return self.linear(states).unflatten(2, (channels, width)).permute(1, 2, 0, 3)
