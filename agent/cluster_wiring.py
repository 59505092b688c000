"""A night on Slurm or Ray: which queue, what its jobs ask for, where they leave their files."""

from hfagent.agent.clusters import gpus, gres
from hfagent.agent.errors import BackendAway, SettingsError
from hfagent.agent.ports import JobRunner
from hfagent.agent.settings import Settings
from hfagent.tools.cluster_jobs import ClusterJobRunner, Queue


def cluster_queue(settings: Settings) -> Queue:
    """The queue of the settings' backend."""
    gpu = has_gpu(settings)
    if settings.backend == "ray":
        from hfagent.tools.ray_jobs import ADDRESS, RayQueue

        return RayQueue(
            settings.ray_address or ADDRESS,
            gpus=gpus(settings, gpu=gpu),
            cpus=settings.cluster_cpus or 1,
            settle_s=settings.settle_s,
        )
    from hfagent.tools.slurm_jobs import SlurmQueue, Wants

    wants = Wants(
        gres=gres(settings, gpu=gpu),
        cpus=settings.cluster_cpus,
        partition=settings.slurm_partition,
        account=settings.slurm_account,
        qos=settings.slurm_qos,
        options=settings.slurm_options,
    )
    return SlurmQueue(wants, settle_s=settings.settle_s)


def cluster_runner(settings: Settings) -> JobRunner:
    """The runner of jobs on a cluster."""
    cores = settings.cluster_cpus
    return ClusterJobRunner(
        cluster_queue(settings),
        settings.state_dir / "jobs",
        trackio_dir=settings.state_dir / "trackio",
        environment={} if cores is None else {"OMP_NUM_THREADS": str(cores)},
        poll_s=settings.look_s,
    )


def has_gpu(settings: Settings) -> bool:
    """Whether jobs get a GPU: as the settings say, else where Slurm's partition has some.

    Raises:
        SettingsError: nobody says, and Slurm does not answer.
    """
    if settings.cluster_gpu is not None or settings.backend == "ray":
        return bool(settings.cluster_gpu)
    if settings.slurm_gres is not None:
        return "gpu" in settings.slurm_gres
    from hfagent.tools.slurm_info import has_gpus

    try:
        return has_gpus(settings.slurm_partition)
    except BackendAway as error:
        raise SettingsError(
            f"nobody knows whether jobs get a GPU ({error}): set cluster_gpu to true or false, or see "
            "`hfagent doctor --backend slurm`"
        ) from error
