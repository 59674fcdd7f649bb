import numpy as np
import torch

from dtsim.core.seeding import Streams


def test_a_stream_depends_on_seed_name_and_index_alone() -> None:
    streams = Streams(3)
    streams.numpy("other").random(100)
    again = Streams(3).numpy("motion", 4).random(5)
    assert np.array_equal(streams.numpy("motion", 4).random(5), again)
    for other in (Streams(4).numpy("motion", 4), Streams(3).numpy("fading", 4), Streams(3).numpy("motion", 5)):
        assert not np.array_equal(other.random(5), again)


def test_neighbouring_seeds_share_nothing() -> None:
    drawn = np.array([Streams(seed).numpy("motion").random(2000) for seed in range(4)])
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.08


def test_torch_and_whole_number_streams_repeat() -> None:
    first = torch.rand(4, generator=Streams(1).torch("fading"))
    assert torch.equal(first, torch.rand(4, generator=Streams(1).torch("fading")))
    assert 0 <= Streams(1).integer("x") < 2**63
    assert Streams(1).integer("x") != Streams(1).integer("y")
