"""Jobs on a cluster of one's own: how many GPUs a job gets, and what an hour of it costs. Pure."""

import re

from hfagent.agent.hardware import Flavor
from hfagent.agent.settings import Settings

CLUSTERS = ("slurm", "ray")
"""Backends whose jobs run elsewhere, with this machine's Python and folders, by a disk that both see."""


def gres(settings: Settings, *, gpu: bool) -> str | None:
    """What a job asks of Slurm: as the settings say, else one GPU where there are any."""
    return settings.slurm_gres or ("gpu:1" if gpu else None)


def gpus(settings: Settings, *, gpu: bool) -> int:
    """GPUs of a job."""
    if settings.backend not in CLUSTERS or not gpu:
        return 0
    wanted = gres(settings, gpu=gpu) if settings.backend == "slurm" else "gpu:1"
    counts = re.findall(r"gpu(?::[A-Za-z][\w.-]*)?(?::(\d+))?(?:,|$)", wanted or "")
    return sum(int(count or 1) for count in counts)


def own_flavor(settings: Settings, *, gpu: bool) -> Flavor:
    """What is not rented: this machine or a cluster, free where the settings name no price."""
    count = gpus(settings, gpu=gpu)
    price = round((settings.cluster_usd_per_gpu_hour or 0) * 1_000_000) * count
    return Flavor(name=settings.backend, price_micro_usd_per_hour=price, gpus=count)
