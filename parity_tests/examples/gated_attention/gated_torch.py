"""The port: the same block in PyTorch, and the table from the original's variables to its parameters."""

import numpy as np
import torch
from torch import Tensor, nn

from port.core.variable_table import Row

MAPPING = (Row("block/qkv/kernel", "qkv.weight", "transpose"),
           Row("block/gate/kernel", "gate.weight", "transpose"),
           Row("block/gate/bias", "gate.bias"))


def gated_attention(query: Tensor, key: Tensor, value: Tensor, gate: Tensor, presence: Tensor) -> Tensor:
    """softmax(q kᵀ / √d + ln p) v · sigmoid(g); an absent element (p = 0) gets no weight.

    q, k, v and g are `[batch, n, d]`; p is `[batch, n]` in [0, 1], not 0 for a whole example.
    """
    scale = query.shape[-1] ** -0.5
    logits = query @ key.transpose(1, 2) * scale + torch.log(presence.clamp(min=1e-30))[:, None]
    return torch.softmax(logits, -1) @ value * torch.sigmoid(gate)


class GatedAttention(nn.Module):
    """x + attention of three linear maps of x, gated by a fourth; `rng` draws what the original draws."""

    def __init__(self, features: int, rng: np.random.Generator) -> None:
        super().__init__()

        def drawn(*shape: int) -> nn.Parameter:
            values = (rng.standard_normal(shape) * features ** -0.5).astype(np.float32)
            return nn.Parameter(torch.from_numpy(values.T.copy()))
        self.qkv = nn.Linear(features, 3 * features, bias=False)
        self.gate = nn.Linear(features, features)
        self.qkv.weight, self.gate.weight = drawn(features, 3 * features), drawn(features, features)
        self.gate.bias = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor, presence: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, -1)
        return x + gated_attention(query, key, value, self.gate(x), presence)
