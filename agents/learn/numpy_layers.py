"""The layers of `cosim.agents.learn.networks` on numpy, for what only acts: as few calls as one row allows.

A call on one row takes longer than its arithmetic. Whatever is linear between two functions that are not (gain and bias
of a normalisation, its subtraction of a mean, projections of an attention, the residual beside them) is therefore
multiplied into one matrix, in float64, when a team is read.
No product goes through a BLAS library, whose kernels for one processor and another differ in the last bits.

Rows are (m, I) or one row (I,), float32. A *map* is an affine function of rows as a float64 array (I + 1, O), its last
row the constant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

try:
    from numpy._core.multiarray import c_einsum as einsum  # np.einsum without its search for a path: half the time
except ImportError:
    from numpy import einsum

_EPS = 1e-5


class Weights:
    """Weights of a network by the names of its layers, as maps."""

    def __init__(self, raw: Mapping[str, np.ndarray], heads: int) -> None:
        self.raw, self.heads = raw, heads

    def linear(self, name: str) -> np.ndarray:
        """A layer without an activation."""
        return np.vstack((self.raw[f"{name}.weight"].T, self.raw[f"{name}.bias"])).astype(np.float64)

    def gain(self, name: str) -> Gain:
        """Of a normalisation."""
        return Gain(*(self.raw[f"{name}.{part}"].astype(np.float64) for part in ("weight", "bias")))

    def told(self, kind: int) -> np.ndarray | None:
        """From a context of agents of this type to what it adds to their tokens; None: to nothing."""
        return self.linear(f"told.{kind}") if f"told.{kind}.weight" in self.raw else None


class Gain(NamedTuple):
    """From rows of mean 0 and variance 1 to what a normalisation gives: each number by itself."""

    weight: np.ndarray
    bias: np.ndarray

    def then(self, following: np.ndarray) -> np.ndarray:
        """The map of the gain and a map after it."""
        constant = product(self.bias, following[:-1]) + following[-1]
        return np.vstack((self.weight[:, None] * following[:-1], constant))

    def centred(self, constant: np.ndarray) -> np.ndarray:
        """The map of the gain less the mean of the numbers that it gives, and a constant."""
        rest = centred(np.vstack((np.diag(self.weight), self.bias)))
        rest[-1] += constant
        return rest


def centred(given: np.ndarray) -> np.ndarray:
    """A map less the mean of the numbers that it gives."""
    return given - given.mean(axis=1, keepdims=True)


class Affine:
    """A map, or several of the same rows side by side, as it is used."""

    def __init__(self, *maps: np.ndarray) -> None:
        joined = np.hstack(maps)
        self.weight = np.ascontiguousarray(joined[:-1], np.float32)
        self.bias = joined[-1].astype(np.float32)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        out = product(x, self.weight)
        out += self.bias
        return out


def product(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """x @ matrix, summed in the order of the matrix's rows by numpy's own loops."""
    return einsum("i,ij->j" if x.ndim == 1 else "mi,ij->mj", x, matrix)


def exponential(x: np.ndarray) -> np.ndarray:
    """exp(x) in float32, by way of float64: what processors differ by is then below the rounding."""
    return np.exp(x, dtype=np.float64).astype(np.float32)


def silu(x: np.ndarray) -> np.ndarray:
    """x times its logistic function."""
    e = exponential(np.negative(x))
    e += 1.0
    return np.divide(x, e, out=e)


def spread(x: np.ndarray) -> np.ndarray:
    """Rows of mean 0, in place, at variance 1."""
    part = 1.0 / x.shape[-1]
    if x.ndim == 1:  # numbers of Python are quicker than arrays of one
        x *= 1.0 / math.sqrt(float(einsum("i,i", x, x)) * part + _EPS)
        return x
    variance = np.add.reduce(x * x, -1, keepdims=True)
    variance *= part
    variance += _EPS
    return np.divide(x, np.sqrt(variance, out=variance), out=x)


def normal(x: np.ndarray) -> np.ndarray:
    """Rows, in place, at mean 0 and variance 1."""
    part = 1.0 / x.shape[-1]
    x -= float(np.add.reduce(x)) * part if x.ndim == 1 else np.add.reduce(x, -1, keepdims=True) * part
    return spread(x)


def softmax(scores: np.ndarray) -> np.ndarray:
    """(m,) weights of some agents; for so few, numbers of Python are quicker than an array."""
    given = scores.tolist()
    most = max(given)
    weights = [math.exp(score - most) for score in given]
    total = sum(weights)
    return np.array([weight / total for weight in weights], np.float32)


class KeyedReading:
    """An attention's projections as maps from its tokens, (E,) each: a query's scores are its products with the keys,
    what it reads are the values, weighted. With one head the values are as the layer after it puts them out.

    constant  (E,) what that layer adds; all that it gives is less its mean
    """

    def __init__(self, query: np.ndarray, key: np.ndarray, value: np.ndarray, out: np.ndarray, heads: int) -> None:
        self.width, out = query.shape[1], centred(out)
        self._heads = [slice(a, a + self.width // heads) for a in range(0, self.width, self.width // heads)]
        self.query, self.key, self.constant = query * (self.width // heads)**-0.5, key, out[-1]
        self.value = product(value, out[:-1]) if heads == 1 else value
        self._out = None if heads == 1 else out[:-1].astype(np.float32)

    def one(self, query: np.ndarray, held: np.ndarray) -> np.ndarray:
        """(E,): what one query (E,) reads from keys and values (m, 2 E)."""
        keys, values = held[:, :self.width], held[:, self.width:]
        if len(held) == 1:  # all of the weight is on it
            return self._put_out(values[0])
        read = [einsum("m,me->e", softmax(einsum("md,d->m", keys[:, head], query[head])), values[:, head])
                for head in self._heads]
        return read[0] if self._out is None else self._put_out(np.concatenate(read))

    def among(self, query: np.ndarray, held: np.ndarray) -> np.ndarray:
        """(m, E): the same of each of m queries (m, E)."""
        split = (len(held), len(self._heads), -1)
        key, value = held[:, :self.width].reshape(split), held[:, self.width:].reshape(split)
        scores = einsum("qhd,mhd->hqm", query.reshape(split), key)
        weight = exponential(scores - np.maximum.reduce(scores, -1, keepdims=True))
        weight /= np.add.reduce(weight, -1, keepdims=True)
        return self._put_out(einsum("hqm,mhd->qhd", weight, value).reshape(len(held), -1))

    def _put_out(self, read: np.ndarray) -> np.ndarray:
        return read if self._out is None else product(read, self._out)


class NumpyAttention:
    """Attention with its residual and normalisation. It takes and gives rows of mean 0 and variance 1; `tokens`
    leads from those that it takes to the tokens, `gain` from those that it gives."""

    def __init__(self, weights: Weights, name: str, tokens: Gain) -> None:
        self.gain = weights.gain(f"{name}.norm")
        query, key, value = np.split(tokens.then(weights.linear(f"{name}.qkv")), 3, axis=1)
        self._reading = reading = KeyedReading(query, key, value, weights.linear(f"{name}.out"), weights.heads)
        self._all = Affine(reading.query, tokens.centred(reading.constant), reading.key, reading.value)
        self._width = reading.width

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(m, E), of all rows among themselves."""
        e, z = self._width, self._all(x)
        return spread(z[:, e:2 * e] + self._reading.among(z[:, :e], z[:, 2 * e:]))

    def step(self, x: np.ndarray, held: np.ndarray, i: int) -> np.ndarray:
        """(E,), of row i among those before; its key and value go into `held` (n, ...)."""
        e, z = self._width, self._all(x)
        held[i] = z[2 * e:]
        return spread(z[e:2 * e] + self._reading.one(z[:e], held[:i + 1]))


class NumpyFeed:
    """Two layers with their residual and normalisation; see `NumpyAttention`."""

    def __init__(self, weights: Weights, name: str, tokens: Gain) -> None:
        self.gain, second = weights.gain(f"{name}.norm"), centred(weights.linear(f"{name}.second"))
        self._first = Affine(tokens.then(weights.linear(f"{name}.first")), tokens.centred(second[-1]))
        self._second = second[:-1].astype(np.float32)
        self._width = len(second) - 1

    def __call__(self, x: np.ndarray) -> np.ndarray:
        z = self._first(x)
        inner = product(silu(z[..., :self._width]), self._second)
        inner += z[..., self._width:]
        return spread(inner)
