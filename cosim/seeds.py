"""One random stream per (seed, episode, member, purpose).

Streams are independent, and stay the same when another member is added or draws more: two policies meet the same
arrivals (common random numbers).

Rows: I37, M16.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, episode: int, member: str, purpose: str) -> np.random.Generator:
    """A PCG64 generator for one purpose of one member.

    seed, episode >= 0; member and purpose are names. The same four give the same numbers on every machine.
    """
    if seed < 0 or episode < 0:
        raise ValueError(f"seed = {seed} and episode = {episode} must be >= 0")
    words = hashlib.blake2b(f"{member}\0{purpose}".encode(), digest_size=16).digest()
    key = [int.from_bytes(words[i : i + 4], "little") for i in range(0, 16, 4)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, episode, *key])))
