"""What Triton's compiler makes of the template decoder's kernels for an H100 or H200 (sm_90), with no GPU.

Registers of a thread, bytes it spills to local memory, shared memory of a program, instructions of its loop
for a tile that a template covers and for one that it does not, and the bytes that a step moves:

    python -m pipelines.bench.triton --presets mnist svhn cifar10
"""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Annotated

import torch
import typer

from pipelines.support import settings
from pipelines.support.command_line import Params, Program, among, several, to_write
from pipelines.support.output import write_json
from pipelines.support.values import BadInput
from port.scae import pixel_kernel_triton as programs
from port.scae import pixel_launch
from port.scae.pixel_likelihood import Sizes

CAPABILITY, WARP = 90, 32
POINTERS = {"float32": "*fp32", "float64": "*fp64"}


def sizes_of(name: str, params: str = "params.yaml", dtype: str = "float32") -> tuple[Sizes, int]:
    """A preset's sizes, and its batch.

    Raises:
        BadInput: its model has no template decoder with alpha.
    """
    preset = settings.load_preset(name, None, params)
    config = preset.config()
    decoder = getattr(config, "part_decoder", None)
    if decoder is None or not decoder.use_alpha_channel or decoder.learn_output_scale:
        raise BadInput(f"preset {name}: no template decoder with an alpha channel and unit scale")
    sizes = Sizes(config.part_encoder.n_caps, decoder.n_channels, tuple(decoder.template_size),
                  (config.canvas, config.canvas), decoder.colorize_templates, getattr(torch, dtype))
    return sizes, preset.train(0)[0].batch_size


def moved_bytes(sizes: Sizes, batch: int) -> dict[str, int]:
    """Bytes of the arrays that each kernel reads and writes, every array once (the caches hold the rest).

    The plain path's arrays of [B, K + 1, …] are counted by `scae bench`, operation by operation.
    """
    pixels, plane = math.prod(sizes.canvas), math.prod(sizes.template)
    image = batch * sizes.channels * pixels
    templates = (batch if sizes.per_example else 1) * sizes.parts * sizes.channels * plane
    given = image + templates + sizes.parts * plane + batch * sizes.parts * 7
    sums = 2 * batch * pixels + image  # shift, mixing and joint sums
    gradients = batch * sizes.parts * (sizes.channels * plane + plane + 7)
    # The gradients of what serves the whole batch are summed over the examples afterwards.
    summed = batch * sizes.parts * plane * (1 if sizes.per_example else 1 + sizes.channels)
    width = sizes.dtype.itemsize
    return {"forward": width * (given + image + sums), "backward": width * (
        given + sums + image + gradients + summed)}


def compiled(sizes: Sizes, backward: bool) -> dict[str, int]:
    """Compile one kernel and read its needs off the machine code."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = pixel_launch.options(sizes, backward)
    launch = {name: constants.pop(name) for name in ("num_warps", "enable_fp_fusion")}
    kernel = programs.backward_kernel if backward else programs.forward_kernel
    names = kernel.arg_names
    pointer = POINTERS[str(sizes.dtype).removeprefix("torch.")]
    types = {name: "constexpr" if name in constants else pointer for name in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name not in constants}
    source = ASTSource(kernel, types, constants, aligned)
    found = triton.compile(source, target=GPUTarget("cuda", CAPABILITY, WARP), options=launch)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(found.asm["cubin"])
        file.flush()
        usage, code = (subprocess.run(
            [tool, option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("--dump-resource-usage", "--dump-sass"))
    registers, stack, shared = (int(re.search(rf"{word}:(\d+)", usage)[1])
                                for word in ("REG", "STACK", "SHARED"))
    return {"registers": registers, "spilled": stack, "shared": max(shared, found.metadata.shared),
            "warps": found.metadata.num_warps, **loop(code)}


def loop(code: str) -> dict[str, int]:
    """Instructions of the kernel's one loop, with its branch over the taps and without.

    The loop is the longest jump back; what it may jump over is the longest jump ahead within it, less the
    other branch that a jump at its end leaves out.
    """
    jumps = [(int(at, 16) // 16, int(to, 16) // 16) for at, to in re.findall(
        r"/\*([0-9a-f]{4,5})\*/\s+(?:@!?U?P\d )?BRA(?:\.\S+)? (?:!?U?P\d, )?.*?0x([0-9a-f]+)", code)]
    end, start = max(((at, to) for at, to in jumps if to < at), key=lambda jump: jump[0] - jump[1],
                     default=(0, 0))
    inside = [(at, to) for at, to in jumps if start <= at < to <= end]
    skipped = max((to - at - 1 for at, to in inside), default=0)
    other = sum(to - at - 1 for at, to in inside if to - at - 1 != skipped)
    every = end - start + 1
    return {"loop_covered": every - other, "loop_uncovered": every - skipped}


def table(presets: list[str], dtypes: list[str], params: str) -> list[dict]:
    """One row a preset, dtype and kernel."""
    rows = []
    for name in presets:
        for dtype in dtypes:
            sizes, batch = sizes_of(name, params, dtype)
            moved = moved_bytes(sizes, batch)
            for kernel in ("forward", "backward"):
                rows.append({"preset": name, "dtype": dtype, "kernel": kernel,
                             **compiled(sizes, kernel == "backward"), "bytes": moved[kernel]})
    return rows


def command(presets: Annotated[list[str], several(
                metavar="NAME", help="Presets of params.yaml.")] = ("mnist", "svhn", "cifar10"),
            dtypes: Annotated[list[str], several(
                metavar="TYPE", help=f"Of the images: {', '.join(POINTERS)}.", callback=among(POINTERS)
                )] = tuple(POINTERS),
            params: Params = "params.yaml",
            json_file: Annotated[str | None, typer.Option(
                "--json", metavar="FILE", help="Where the numbers go.", callback=to_write)] = None) -> None:
    """What Triton's compiler makes of the template decoder's kernels for an H100 or H200 (sm_90), with no GPU."""
    if programs.triton is None:
        raise BadInput("Triton is not installed; it comes with PyTorch for CUDA")
    with warnings.catch_warnings(action="ignore"):  # Triton 3.9 about the default of what is given here
        rows = table(presets, dtypes, params)
    version = programs.triton.__version__
    print(f"Triton {version}, sm_{CAPABILITY}; instructions of a warp for a tile of "
          f"{math.prod(pixel_launch.TILE)} pixels and a part, inside and outside its template")
    print(f"{'preset':10}{'dtype':9}{'kernel':10}registers  spilled B  shared B   inside  outside"
          "   MB moved")
    for row in rows:
        print(f"{row['preset']:10}{row['dtype']:9}{row['kernel']:10}{row['registers']:9}"
              f"{row['spilled']:11}{row['shared']:10}{row['loop_covered']:9}{row['loop_uncovered']:9}"
              f"{row['bytes'] / 1e6:11.1f}")
    if json_file:
        write_json(json_file, {"triton": version, "rows": rows})


main = Program("python -m pipelines.bench.triton", command)


if __name__ == "__main__":
    raise SystemExit(main())
