"""Uniform numbers of many streams at once are NumPy's own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtsim.core.seeding import Streams
from dtsim.core.uniforms import uniforms

word = st.integers(0, 2**32 - 1)


@given(
    seed=st.one_of(st.integers(0, 100), st.integers(0, 2**200)),
    key=st.lists(word, min_size=1, max_size=4).map(tuple),
    counts=st.lists(st.integers(0, 70), max_size=12),
)
def test_every_stream_gives_what_numpy_draws_from_it(seed: int, key: tuple[int, ...], counts: list[int]) -> None:
    own = [
        np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(*key, stream))).random(count)
        for stream, count in enumerate(counts)
    ]
    assert uniforms(seed, key, np.array(counts, dtype=np.int64)).tolist() == np.concatenate([[], *own]).tolist()


@pytest.mark.parametrize("seed", [0, 2**32])
def test_streams_have_names(seed: int) -> None:
    streams = Streams(seed)
    both = streams.uniforms("images", 4, counts=np.array([3, 2]))
    assert both[3:].tolist() == streams.numpy("images", 4, 1).random(2).tolist()
    assert not np.isin(streams.uniforms("images", 5, counts=np.array([3, 2])), both).any()


def test_many_numbers_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.array([0, 7, 30, 0, 0, 55, 1, 12, 0])
    whole = uniforms(3, (1, 2), counts)
    for at_once in (1, 10, 40):
        monkeypatch.setattr("dtsim.core.uniforms._AT_ONCE", at_once)
        assert uniforms(3, (1, 2), counts).tolist() == whole.tolist()
