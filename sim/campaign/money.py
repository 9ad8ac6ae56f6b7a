"""What a campaign costs: dollars of GPU-hours, and energy.

A node of eight GPUs takes 1,852 W while they take nothing, 4,856 W at 350 W each and 8,000 W at 700 W each, lines
between: InferenceX's power model for 8 x H100, host, NICs and fans (row CA-PWR-8H100 of the facts that this room was
built from). Other nodes are taken to need as much a GPU.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from hwmodels.units import SECONDS_PER_HOUR
from sim.campaign.values import Campaign, Power

GPU_W = (0.0, 350.0, 700.0)
NODE_W = (1852.0, 4856.0, 8000.0)
NODE_GPUS = 8

Amount = TypeVar("Amount", float, npt.NDArray[np.float64])


@dataclass(frozen=True)
class Rates:
    """GPUs of the job, those of spares, dollars an hour of one (None: nobody says), watts of one in the building."""

    gpus: int
    spare_gpus: int
    gpu_hour_usd: float | None
    busy_w: float
    idle_w: float

    def gpu_hours(self, wall_s: Amount) -> Amount:
        """Of the job."""
        return wall_s * self.gpus / SECONDS_PER_HOUR

    def dollars(self, wall_s: Amount) -> Amount | None:
        """Of the job and of its spares."""
        if self.gpu_hour_usd is None:
            return None
        return wall_s * (self.gpus + self.spare_gpus) * self.gpu_hour_usd / SECONDS_PER_HOUR

    def joules(self, wall_s: Amount, down_s: Amount) -> Amount:
        """Of the job while it runs and while it is down, and of spares that wait."""
        idle = down_s * self.gpus + wall_s * self.spare_gpus
        return (wall_s - down_s) * self.gpus * self.busy_w + idle * self.idle_w


def rates(campaign: Campaign) -> Rates:
    """Of a campaign."""
    each = campaign.gpus // campaign.nodes
    busy, idle = (watts(campaign.power, gpu_w) for gpu_w in (campaign.power.busy_w, campaign.power.idle_w))
    return Rates(campaign.gpus, campaign.spares * each, campaign.gpu_hour_usd, busy, idle)


def watts(power: Power, gpu_w: float) -> float:
    """Of a GPU's part of its building, at what it takes itself; beyond 700 W along the last line."""
    if gpu_w > GPU_W[-1]:
        slope = (NODE_W[-1] - NODE_W[-2]) / (GPU_W[-1] - GPU_W[-2])
        node = NODE_W[-1] + slope * (gpu_w - GPU_W[-1])
    else:
        node = float(np.interp(gpu_w, GPU_W, NODE_W))
    return node / NODE_GPUS * power.facility
