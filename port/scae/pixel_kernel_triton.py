"""The template decoder's pixel likelihood on a GPU: two kernels for Triton, forward and backward.

The same sums as `pixel_forward` and `pixel_backward` make on a CPU, read beside `warp.warp_templates`,
`part_decoder.PartDecoder.forward` and `mixture.mixture_log_prob`, without an array of [B, K, C, H, W].

- Forward: a program is a tile of the canvas of one example, and goes through the parts with the running
  maximum of the logits and the two sums over the components (mixing weights alone, and times density).
- Backward: a program is one example and one part, and goes through the tiles of the canvas. So it owns the
  gradients of its pose, its presence and its template: no atomics, and every sum has a fixed order. The
  background is the last part, one without a footprint.
- The transpose of bilinear sampling is a product of matrices: Σ_p Y[i, p] g[p] X[p, j], where row p of X
  holds the weights of pixel p on the template's columns and Y those on its rows. Tensor cores compute it in
  float32 as three products of TF32 (`tf32x3`), which keeps float32's precision.
- Where no pixel of a tile lies in a part's footprint, its colour and alpha are exactly 0 there: no taps.

Colours are tuples of vectors, a plane each: a further axis would cost conversions between layouts.
`pixel_launch` launches the kernels.
"""

from __future__ import annotations

from typing import no_type_check

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = tl = None


def _jit(function):
    """For Triton; without it the name stays and nothing runs."""
    return function if triton is None else triton.jit(function)


@_jit
@no_type_check
def _tile(number, ROWS: tl.constexpr, COLUMNS: tl.constexpr, TILE_Y: tl.constexpr, TILE_X: tl.constexpr):
    """Row and column of each pixel of a tile, and whether it lies on the canvas."""
    across: tl.constexpr = (COLUMNS + TILE_X - 1) // TILE_X
    i = tl.arange(0, TILE_Y * TILE_X)
    row = (number // across) * TILE_Y + i // TILE_X
    column = (number % across) * TILE_X + i % TILE_X
    return row, column, (row < ROWS) & (column < COLUMNS)


@_jit
@no_type_check
def _axis(i, SIZE: tl.constexpr, EXTENT: tl.constexpr, real: tl.constexpr):
    """`warp.grid_axis` at pixels i: rounded to float32 after linspace and after the product."""
    step: tl.constexpr = 2.0 / (SIZE - 1) if SIZE > 1 else 0.0
    return ((i.to(tl.float64) * step - 1.0).to(tl.float32) * ((EXTENT - 1) / 2.0)).to(real)


@_jit
@no_type_check
def _coordinate(line, u, v, EXTENT: tl.constexpr):
    """One template coordinate of each pixel, each operation as in `warp.affine_grid`."""
    half: tl.constexpr = (EXTENT - 1) / 2.0
    return ((tl.load(line) * u + tl.load(line + 1) * v) + tl.load(line + 2) * half) + half


@_jit
@no_type_check
def _cell(x, EXTENT: tl.constexpr):
    """Near pixel along an axis, and the weights of it and of the next.

    A place outside the footprint gets the pixel behind the last one, where both taps are 0 and so is every
    derivative.
    """
    at = tl.where((x > -1.0) & (x < EXTENT), x, EXTENT)
    floor = tl.floor(at)
    return floor.to(tl.int32), (floor + 1.0) - at, at - floor


@_jit
@no_type_check
def _taps(plane, row, column, HEIGHT: tl.constexpr, WIDTH: tl.constexpr):
    """The four template pixels about each place; 0 beyond the template."""
    left, right = (column >= 0) & (column < WIDTH), column + 1 < WIDTH
    top, bottom = (row >= 0) & (row < HEIGHT), row + 1 < HEIGHT
    at = plane + (row * WIDTH + column)
    return (tl.load(at, mask=left & top, other=0.0), tl.load(at + 1, mask=right & top, other=0.0),
            tl.load(at + WIDTH, mask=left & bottom, other=0.0),
            tl.load(at + (WIDTH + 1), mask=right & bottom, other=0.0))


@_jit
@no_type_check
def _between(t00, t01, t10, t11, near_x, far_x, near_y, far_y):
    """Bilinear sample, summed in the order of `warp.resampler`."""
    return (((near_x * near_y) * t00 + (far_x * far_y) * t11) + (near_x * far_y) * t10) \
        + (far_x * near_y) * t01


@_jit
@no_type_check
def _slopes(t00, t01, t10, t11, near_x, far_x, near_y, far_y):
    """Derivatives of the sample by x and by y, the right-hand ones at integers."""
    return (near_y * (t01 - t00) + far_y * (t11 - t10), near_x * (t10 - t00) + far_x * (t11 - t01))


@_jit
@no_type_check
def _load_each(place, step, mask, other, COUNT: tl.constexpr):
    """A tuple of COUNT loads, `step` entries apart."""
    found = ()
    for c in tl.static_range(COUNT):
        found = found + (tl.load(place + c * step, mask=mask, other=other),)
    return found


@_jit
@no_type_check
def forward_kernel(templates, alpha, inverse, log_presence, background, background_logit, target, log_prob,
                   shift, mixing_sum, joint_sum, PER_EXAMPLE: tl.constexpr, PARTS: tl.constexpr,
                   CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
                   COLUMNS: tl.constexpr, TILE_Y: tl.constexpr, TILE_X: tl.constexpr):
    """Pixel log-likelihoods of one tile of one example; contiguous arrays, as in `pixel_launch.forward`.

    PER_EXAMPLE is 1 where each example has templates of its own, else 0.
    """
    real: tl.constexpr = target.dtype.element_ty
    tiles: tl.constexpr = ((ROWS + TILE_Y - 1) // TILE_Y) * ((COLUMNS + TILE_X - 1) // TILE_X)
    pixels: tl.constexpr = ROWS * COLUMNS
    plane: tl.constexpr = HEIGHT * WIDTH
    log_peak: tl.constexpr = -0.9189385332046727  # -½ log 2π
    example = (tl.program_id(0) // tiles).to(tl.int64)
    row, column, on = _tile(tl.program_id(0) % tiles, ROWS, COLUMNS, TILE_Y, TILE_X)
    pixel = row * COLUMNS + column
    ux, vx = _axis(column, COLUMNS, WIDTH, real), _axis(row, ROWS, WIDTH, real)
    uy, vy = _axis(column, COLUMNS, HEIGHT, real), _axis(row, ROWS, HEIGHT, real)
    value = _load_each(target + example * (CHANNELS * pixels) + pixel, pixels, on, 0.0, CHANNELS)
    # The background comes first; exp(0) = 1, but NaN of a logit that is not a number.
    largest = tl.zeros((TILE_Y * TILE_X,), real) + tl.load(background_logit)
    mixing = tl.exp(largest - largest)
    black, joint = (), ()
    for c in tl.static_range(CHANNELS):
        black = black + (tl.exp(-0.5 * value[c] * value[c]),)
        off = value[c] - tl.load(background)
        joint = joint + (mixing * tl.exp(-0.5 * off * off),)
    for k in range(PARTS):
        part = example * PARTS + k
        x = _coordinate(inverse + part * 6, ux, vx, WIDTH)
        y = _coordinate(inverse + part * 6 + 3, uy, vy, HEIGHT)
        inside = on & (x > -1.0) & (y > -1.0) & (x < WIDTH) & (y < HEIGHT)
        logit = tl.zeros((TILE_Y * TILE_X,), real)
        density = black
        if tl.max(inside.to(tl.int32), 0) > 0:
            left, near_x, far_x = _cell(x, WIDTH)
            top, near_y, far_y = _cell(y, HEIGHT)
            a00, a01, a10, a11 = _taps(alpha + k * plane, top, left, HEIGHT, WIDTH)
            logit = _between(a00, a01, a10, a11, near_x, far_x, near_y, far_y)
            density = ()
            for c in tl.static_range(CHANNELS):
                colors = templates + ((example * PER_EXAMPLE * PARTS + k) * CHANNELS + c) * plane
                t00, t01, t10, t11 = _taps(colors, top, left, HEIGHT, WIDTH)
                off = value[c] - _between(t00, t01, t10, t11, near_x, far_x, near_y, far_y)
                density = density + (tl.exp(-0.5 * off * off),)
        logit = logit + tl.load(log_presence + part)
        new = tl.maximum(largest, logit)
        kept, weight = tl.exp(largest - new), tl.exp(logit - new)
        mixing = mixing * kept + weight
        longer = ()
        for c in tl.static_range(CHANNELS):
            longer = longer + (joint[c] * kept + weight * density[c],)
        joint = longer
        largest = new
    tl.store(shift + example * pixels + pixel, largest, mask=on)
    tl.store(mixing_sum + example * pixels + pixel, mixing, mask=on)
    for c in tl.static_range(CHANNELS):
        at = (example * CHANNELS + c) * pixels + pixel
        tl.store(log_prob + at, tl.log(joint[c] / mixing) + log_peak, mask=on)
        tl.store(joint_sum + at, joint[c], mask=on)


@_jit
@no_type_check
def _pull(logit, means, value, shift, unit, prior, CHANNELS: tl.constexpr):
    """d logit and d mean of one component at each pixel.

    With unit_c = g_c / Σ joint_c and prior = Σ_c g_c / Σ mixing, so that g_c r_c = exp(logit - shift) ·
    density_c · unit_c: d logit = Σ_c g_c (r_c - π) and d mean_c = g_c r_c (x_c - mean_c).
    """
    weight = tl.exp(logit - shift)
    total = -prior
    d_means = ()
    for c in tl.static_range(CHANNELS):
        off = value[c] - means[c]
        explained = unit[c] * tl.exp(-0.5 * off * off)
        total += explained
        d_means = d_means + (weight * (explained * off),)
    return weight * total, d_means


@_jit
@no_type_check
def _add_each(sums, terms, COUNT: tl.constexpr):
    """Sums of two tuples, entry by entry."""
    found = ()
    for c in tl.static_range(COUNT):
        found = found + (sums[c] + terms[c],)
    return found


@_jit
@no_type_check
def backward_kernel(templates, alpha, inverse, log_presence, background, background_logit, target, shift,
                    mixing_sum, joint_sum, gradient, d_templates, d_alpha, d_inverse, d_log_presence,
                    d_background, d_background_logit, PER_EXAMPLE: tl.constexpr, PARTS: tl.constexpr,
                    CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
                    COLUMNS: tl.constexpr, TILE_Y: tl.constexpr, TILE_X: tl.constexpr, TALL: tl.constexpr,
                    WIDE: tl.constexpr):
    """Gradients of one part of one example; program PARTS of an example is its background.

    Contiguous arrays, as in `pixel_launch.backward`. TALL and WIDE are the template's sides rounded up to
    powers of two of 16 and more, which the products need.
    """
    real: tl.constexpr = target.dtype.element_ty
    tiles: tl.constexpr = ((ROWS + TILE_Y - 1) // TILE_Y) * ((COLUMNS + TILE_X - 1) // TILE_X)
    pixels: tl.constexpr = ROWS * COLUMNS
    plane: tl.constexpr = HEIGHT * WIDTH
    example = (tl.program_id(0) // (PARTS + 1)).to(tl.int64)
    k = tl.program_id(0) % (PARTS + 1)
    is_part = k < PARTS
    part = example * PARTS + tl.minimum(k, PARTS - 1)
    # The background has no template: no pixel samples one, no entry of a gradient is written.
    reach, span = tl.where(is_part, COLUMNS, 0), tl.where(is_part, WIDTH, 0)
    # Off the footprint: a logit and colours that are the same at every pixel.
    beyond = tl.load(tl.where(is_part, log_presence + part, background_logit))
    base = tl.where(is_part, 0.0, tl.load(background))
    tall, wide = tl.arange(0, TALL)[:, None], tl.arange(0, WIDE)[None, :]
    zero = tl.zeros((TILE_Y * TILE_X,), real)
    in_logit, in_value = zero, zero
    ax, bx, tx, ay, by, ty = zero, zero, zero, zero, zero, zero
    in_alpha = tl.zeros((TALL, WIDE), real)
    in_colors, bases = (), ()
    for _ in tl.static_range(CHANNELS):
        in_colors = in_colors + (in_alpha,)
        bases = bases + (base,)
    for number in range(tiles):
        row, column, on = _tile(number, ROWS, COLUMNS, TILE_Y, TILE_X)
        pixel = row * COLUMNS + column
        ux, vx = _axis(column, COLUMNS, WIDTH, real), _axis(row, ROWS, WIDTH, real)
        uy, vy = _axis(column, COLUMNS, HEIGHT, real), _axis(row, ROWS, HEIGHT, real)
        # Pixels of the tile beyond the canvas: no gradient, and weight exp(-inf) = 0.
        most = tl.load(shift + example * pixels + pixel, mask=on, other=float("inf"))
        value = _load_each(target + example * (CHANNELS * pixels) + pixel, pixels, on, 0.0, CHANNELS)
        grad = _load_each(gradient + example * (CHANNELS * pixels) + pixel, pixels, on, 0.0, CHANNELS)
        joint = _load_each(joint_sum + example * (CHANNELS * pixels) + pixel, pixels, on, 1.0, CHANNELS)
        prior = zero
        unit = ()
        for c in tl.static_range(CHANNELS):
            prior += grad[c]
            unit = unit + (grad[c] / joint[c],)
        prior = prior / tl.load(mixing_sum + example * pixels + pixel, mask=on, other=1.0)
        x = _coordinate(inverse + part * 6, ux, vx, WIDTH)
        y = _coordinate(inverse + part * 6 + 3, uy, vy, HEIGHT)
        inside = on & (column < reach) & (x > -1.0) & (y > -1.0) & (x < WIDTH) & (y < HEIGHT)
        if tl.max(inside.to(tl.int32), 0) > 0:
            left, near_x, far_x = _cell(x, WIDTH)
            top, near_y, far_y = _cell(y, HEIGHT)
            a00, a01, a10, a11 = _taps(alpha + k * plane, top, left, HEIGHT, WIDTH)
            logit = _between(a00, a01, a10, a11, near_x, far_x, near_y, far_y) + beyond
            by_x, by_y = _slopes(a00, a01, a10, a11, near_x, far_x, near_y, far_y)
            means, means_by_x, means_by_y = (), (), ()
            for c in tl.static_range(CHANNELS):
                colors = templates + ((example * PER_EXAMPLE * PARTS + k) * CHANNELS + c) * plane
                t00, t01, t10, t11 = _taps(colors, top, left, HEIGHT, WIDTH)
                means = means + (_between(t00, t01, t10, t11, near_x, far_x, near_y, far_y),)
                mean_by_x, mean_by_y = _slopes(t00, t01, t10, t11, near_x, far_x, near_y, far_y)
                means_by_x, means_by_y = means_by_x + (mean_by_x,), means_by_y + (mean_by_y,)
            d_logit, d_means = _pull(logit, means, value, most, unit, prior, CHANNELS)
            d_x, d_y = d_logit * by_x, d_logit * by_y
            for c in tl.static_range(CHANNELS):
                d_x += d_means[c] * means_by_x[c]
                d_y += d_means[c] * means_by_y[c]
            ax += d_x * ux
            bx += d_x * vx
            tx += d_x
            ay += d_y * uy
            by += d_y * vy
            ty += d_y
            # Row p: the weights of pixel p on the template's columns; column p: those on its rows.
            on_columns = tl.where(wide == left[:, None], near_x[:, None],
                                  tl.where(wide == left[:, None] + 1, far_x[:, None], 0.0))
            on_rows = tl.where(tall == top[None, :], near_y[None, :],
                               tl.where(tall == top[None, :] + 1, far_y[None, :], 0.0))
            in_alpha += tl.dot(on_rows * d_logit[None, :], on_columns, input_precision="tf32x3",
                               out_dtype=real)
            spread = ()
            for c in tl.static_range(CHANNELS):
                spread = spread + (tl.dot(on_rows * d_means[c][None, :], on_columns,
                                          input_precision="tf32x3", out_dtype=real),)
            in_colors = _add_each(in_colors, spread, CHANNELS)
        else:
            d_logit, d_means = _pull(zero + beyond, bases, value, most, unit, prior, CHANNELS)
            for c in tl.static_range(CHANNELS):
                in_value += d_means[c]
        in_logit += d_logit
    d_presence = tl.sum(in_logit, 0)
    tl.store(d_log_presence + part, d_presence, mask=is_part)
    # Only the background has these: of a part they are sums over the tiles without a footprint.
    tl.store(d_background + example, tl.sum(in_value, 0), mask=k == PARTS)
    tl.store(d_background_logit + example, d_presence, mask=k == PARTS)
    half_x: tl.constexpr = (WIDTH - 1) / 2.0
    half_y: tl.constexpr = (HEIGHT - 1) / 2.0
    tl.store(d_inverse + part * 6 + 0, tl.sum(ax, 0), mask=is_part)
    tl.store(d_inverse + part * 6 + 1, tl.sum(bx, 0), mask=is_part)
    tl.store(d_inverse + part * 6 + 2, tl.sum(tx, 0) * half_x, mask=is_part)
    tl.store(d_inverse + part * 6 + 3, tl.sum(ay, 0), mask=is_part)
    tl.store(d_inverse + part * 6 + 4, tl.sum(by, 0), mask=is_part)
    tl.store(d_inverse + part * 6 + 5, tl.sum(ty, 0) * half_y, mask=is_part)
    within = (tall < HEIGHT) & (wide < span)
    tl.store(d_alpha + part * plane + tall * WIDTH + wide, in_alpha, mask=within)
    for c in tl.static_range(CHANNELS):
        at = d_templates + (part * CHANNELS + c) * plane + tall * WIDTH + wide
        tl.store(at, in_colors[c], mask=within)
