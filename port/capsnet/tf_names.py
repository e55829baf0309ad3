"""Names and layouts of CapsNet checkpoints: the table that `port.convert`'s functions read.

The official program's variables (Sarasra/models `research/capsules`). Those of XifengGuo's PyTorch
network are no checkpoint of this kind: `[parent, child, out, in]` becomes the class weights by
`transpose(1, 3, 0, 2)` and a reshape.
"""

from __future__ import annotations

from port.core.variable_table import Row

# The official program numbers the decoder's layers from 1.
_DECODER_LAYERS = 8

MAPPING: tuple[Row, ...] = (
    Row("conv1/weights", "conv1.weight", "hwio_oihw"),
    Row("conv1/biases", "conv1.bias"),
    Row("conv_capsule1/weights", "primary.weight", "hwio_oihw"),
    Row("conv_capsule1/biases", "primary.bias"),
    Row("capsule2/weights", "classes.weight"),
    Row("capsule2/biases", "classes.bias"),
    *(row for i in range(_DECODER_LAYERS) for row in (
        Row(f"recons/recons_{i + 1}/weights", f"decoder.linear.{i}.weight", "transpose"),
        Row(f"recons/recons_{i + 1}/biases", f"decoder.linear.{i}.bias"))),
)
