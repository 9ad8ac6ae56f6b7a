"""Equal-cost multipath in one line of switches: what part of the uplinks equal flows get that are hashed onto them."""

import numpy as np

from sim.scenario.hashes import hashes


def throughput(flows, uplinks, seed=0, draws=400):
    """What part of the uplinks' bandwidth equal flows get that are hashed onto them, when the last one has finished.

    The mean load over the largest one, itself a mean over `draws`; 1 where every uplink carries as many.
    """
    draw, flow = np.indices((draws, flows)).reshape(2, -1)
    uplink = (hashes(seed, draw, flow) % np.uint64(uplinks)).astype(np.int64)
    loads = np.bincount(draw * uplinks + uplink, minlength=draws * uplinks).reshape(draws, uplinks)
    return float(flows / uplinks / loads.max(axis=1).mean())
