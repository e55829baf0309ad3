"""CRC-32C (Castagnoli) in NumPy, fast enough for the weights of a model, and TensorFlow's mask of it.

A message is a polynomial over GF(2), its CRC the remainder by P. So two neighbouring words of 32 bits make
one by `high · x^32 + low (mod P)`, all pairs of a message at once; half as many words are left, whose
neighbours are joined by x^64, and so on. A product with a constant is linear in the word, so two tables
of 2^16 entries give it: one look-up for every two bytes of the message, and no loop over bytes.
Source: RFC 3720, appendix B.4 (the polynomial); tensorflow/core/lib/hash/crc32c.h (the mask).
"""

from __future__ import annotations

import functools

import numpy as np

POLYNOMIAL = 0x82F63B78  # bits reversed: the lowest bit is the highest power of x
MASK_DELTA = 0xA282EAD8
# Words joined at once: 1 MiB, so that what lies between stays in a core's cache.
LEVELS = 18
SHORT = 64  # bytes; below it a loop is faster


def masked(crc: int) -> int:
    """A CRC as TensorFlow stores it: rotated and moved, since a CRC of data with CRCs in it is weak."""
    return (((crc >> 15) | (crc << 17)) + MASK_DELTA) & 0xFFFFFFFF


def crc32c(data: bytes | bytearray | memoryview | np.ndarray) -> int:
    """CRC-32C of some bytes.

    Args:
        data: anything whose memory is contiguous.
    """
    view = np.frombuffer(data, np.uint8)
    if view.size < SHORT:
        return _short(view.tobytes())
    # Zeros in front change no remainder, so the words are counted from the end.
    head, state, blocks = view.size % 4, 0, []
    start = np.zeros(8, np.uint8)
    start[4 - head:4 - head + 4] = 0xFF  # the register's start: the message's first four bytes inverted
    first = np.zeros(8, np.uint8)
    first[4 - head:] = view[:4 + head]
    words = [(first ^ start).view("<u4")]
    body = view[4 + head:]
    size = 4 << LEVELS
    rest = body.size % size
    # The first block is the short one; every other has 2^LEVELS words and gives one.
    words.append(np.frombuffer(body[:rest].tobytes(), "<u4"))
    blocks.append(_join(np.concatenate(words), 0))
    for at in range(rest, body.size, size):
        blocks.append(_join(np.frombuffer(body[at:at + size], "<u4"), 0))
    state = int(_join(np.array(blocks, np.uint32), LEVELS))
    return _times(np.uint32(state), 0) ^ 0xFFFFFFFF


def _join(words: np.ndarray, level: int) -> int:
    """Words of 32 bits as one remainder; neighbours are 32 · 2^level bits apart."""
    words = words.astype(np.uint32, copy=False)
    while words.size > 1:
        if words.size % 2:
            words = np.concatenate((np.zeros(1, np.uint32), words))
        low, high = _tables(level)
        halves = np.ascontiguousarray(words[0::2]).view("<u2")
        joined = np.take(low, halves[0::2])
        joined ^= np.take(high, halves[1::2])
        joined ^= words[1::2]
        words, level = joined, level + 1
    return int(words[0]) if words.size else 0


def _times(word: np.uint32, level: int) -> int:
    low, high = _tables(level)
    return int(low[word & 0xFFFF] ^ high[word >> 16])


@functools.cache
def _tables(level: int) -> tuple[np.ndarray, np.ndarray]:
    """Products of a word's lower and upper half with x^(32 · 2^level), mod P: two tables of 2^16."""
    basis = _powers(level)
    tables = []
    for half in (basis[:16], basis[16:]):
        table = np.zeros(1, np.uint32)
        for product in half:
            table = np.concatenate((table, table ^ product))
        tables.append(table)
    return tables[0], tables[1]


@functools.cache
def _powers(level: int) -> np.ndarray:
    """Products of each single bit, lowest first, with x^(32 · 2^level), mod P."""
    if level:
        # Twice by x^n is once by x^2n.
        half = _powers(level - 1)
        return np.array([_apply(half, int(word)) for word in half], np.uint32)
    result = []
    for bit in range(32):
        word = 1 << bit
        for _ in range(32):
            word = (word >> 1) ^ (POLYNOMIAL if word & 1 else 0)
        result.append(word)
    return np.array(result, np.uint32)


def _apply(basis: np.ndarray, word: int) -> int:
    result = 0
    for bit in range(32):
        if word >> bit & 1:
            result ^= int(basis[bit])
    return result


@functools.cache
def _bytes_table() -> list[int]:
    """The remainders of single bytes."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


def _short(data: bytes) -> int:
    """A byte at a time."""
    state, table = 0xFFFFFFFF, _bytes_table()
    for byte in data:
        state = table[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state ^ 0xFFFFFFFF
