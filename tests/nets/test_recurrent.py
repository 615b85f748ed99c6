"""The recurrent networks: rows are steps, and an LSTM follows its equations."""

import torch
from torch import Tensor

from trilemma.nets.recurrent import HIDDEN, RowDecoder, RowEncoder, Rows


def lstm_by_hand(x: Tensor, w_ih: Tensor, w_hh: Tensor, b: Tensor) -> Tensor:
    """Hochreiter & Schmidhuber (1997) with a forget gate; x (T, B, I) -> states (T, B, H)."""
    h = c = torch.zeros(x.shape[1], w_hh.shape[1], dtype=x.dtype)
    states = []
    for step in x:
        i, f, g, o = (step @ w_ih.T + h @ w_hh.T + b).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        states.append(h)
    return torch.stack(states)


def layer(lstm: torch.nn.LSTM, k: int) -> tuple[Tensor, Tensor, Tensor]:
    p = dict(lstm.named_parameters())
    return p[f"weight_ih_l{k}"], p[f"weight_hh_l{k}"], p[f"bias_ih_l{k}"] + p[f"bias_hh_l{k}"]


def test_the_encoder_reads_an_image_row_by_row() -> None:
    torch.manual_seed(0)
    image = torch.rand(4, 2, 6, 5, dtype=torch.float64)
    encoder = RowEncoder(2 * 5, 3).double()
    steps = torch.stack([image[:, :, y].flatten(1) for y in range(6)])  # a row holds all of its channels
    states = lstm_by_hand(lstm_by_hand(steps, *layer(encoder.lstm, 0)), *layer(encoder.lstm, 1))
    expected = states[-1] @ encoder.linear.weight.T + encoder.linear.bias
    assert (encoder(Rows()(image)) - expected).abs().max() < 1e-12


def test_the_decoder_writes_an_image_row_by_row_from_the_code_at_each_step() -> None:
    torch.manual_seed(0)
    z, decoder = torch.rand(4, 3, dtype=torch.float64), RowDecoder(3, (2, 6, 5)).double()
    states = lstm_by_hand(torch.stack([z] * 6), *layer(decoder.lstm, 0))
    rows = states @ decoder.linear.weight.T + decoder.linear.bias  # (6, 4, 10)
    expected = torch.stack([row.view(4, 2, 5) for row in rows], dim=2)
    assert (decoder(z) - expected).abs().max() < 1e-12


def test_weights_start_orthogonal_and_the_forget_gate_open() -> None:
    lstm = RowEncoder(10, 3).lstm
    for k in range(2):
        _, w_hh, bias = (value.detach() for value in layer(lstm, k))
        for gate in w_hh.chunk(4):
            assert (gate @ gate.T - torch.eye(HIDDEN)).abs().max() < 1e-4
        assert [float(gate.mean()) for gate in bias.chunk(4)] == [0, 1, 0, 0]
