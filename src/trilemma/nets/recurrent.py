"""An image as a sequence: H steps, each a row of C * W pixels, read and written by an LSTM.

Hochreiter & Schmidhuber (1997), "Long short-term memory"; Srivastava, Mansimov & Salakhutdinov (2015), "Unsupervised
learning of video representations using LSTMs", for the pair of encoder and decoder.

Weights of the input start as in Glorot & Bengio (2010), those of the state orthogonal (Saxe, McClelland & Ganguli
2014), and the bias of the forget gate 1 higher (Jozefowicz, Zaremba & Sutskever 2015), so that what the first steps
bring lasts to the last one.
"""

import torch
from torch import Tensor, nn

from trilemma.hardware import supports_fast_bf16

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
        self.lstm = _lstm(inputs, layers=2)
        self.linear = nn.Linear(HIDDEN, outputs)

    def forward(self, signal: Tensor) -> Tensor:
        """(B, inputs, H) -> (B, outputs)."""
        _, (state, _) = _through(self.lstm, signal.permute(2, 0, 1))  # steps first
        return self.linear(state[-1])


class RowDecoder(nn.Module):
    """A code at each of H steps -> LSTM -> linear, one row of pixels for each step."""

    def __init__(self, inputs: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.lstm = _lstm(inputs)
        self.linear = nn.Linear(HIDDEN, shape[0] * shape[2])

    def forward(self, z: Tensor) -> Tensor:
        """(B, inputs) -> (B, C, H, W)."""
        channels, height, width = self.shape
        states, _ = _through(self.lstm, z.expand(height, *z.shape))  # (H, B, HIDDEN)
        return self.linear(states).unflatten(2, (channels, width)).permute(1, 2, 0, 3)


def _through(lstm: nn.LSTM, steps: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """What an LSTM makes of (H, B, inputs); in float32 on a processor without bfloat16, where torch has no other."""
    if steps.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not supports_fast_bf16("cpu"):
        with torch.autocast("cpu", enabled=False):
            return lstm(steps.float())
    return lstm(steps)


@torch.no_grad()
def _lstm(inputs: int, layers: int = 1) -> nn.LSTM:
    """An LSTM whose memory lasts; the rows of its weights are the input, forget, cell and output gates."""
    lstm = nn.LSTM(inputs, HIDDEN, num_layers=layers)
    for name, value in lstm.named_parameters():
        for number, gate in enumerate(value.chunk(4)):
            if name.startswith("weight_ih"):
                nn.init.xavier_uniform_(gate)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(gate)
            else:
                gate.fill_(1.0 if number == 1 and name.startswith("bias_ih") else 0.0)
    return lstm
