"""Appends episodes until it is killed, saying on standard output which ones are committed."""

import sys

import numpy as np

from tests.data.worlds import make_arm, make_episode
from vla.data.store import EpisodeStore

rng = np.random.default_rng(int(sys.argv[2]))
with EpisodeStore.open(sys.argv[1]) as store:
    for i in range(10_000):
        episode = make_episode(rng, make_arm(), length=3 + i % 5, provenance={"writer": sys.argv[2], "i": i})
        store.append(episode)
        sys.stdout.write(f"{i}\n")
        sys.stdout.flush()
