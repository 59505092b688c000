"""Real clusters for tests, where `scripts/slurm-here` and `scripts/ray-here` have started them."""

import os

import pytest

NO_SLURM = "no Slurm to test: scripts/slurm-here start DIR, then set TEST_SLURM_CONF=DIR/slurm.conf"
NO_RAY = "no Ray to test: scripts/ray-here start DIR, then set TEST_RAY_ADDRESS to the address that it says"


def use_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Slurm's commands reach the Slurm that was started for tests; skip where there is none.

    Never the one of a cluster that this machine may belong to.
    """
    conf = os.environ.get("TEST_SLURM_CONF")
    if not conf:
        pytest.skip(NO_SLURM)
    monkeypatch.setenv("SLURM_CONF", conf)


def ray_address() -> str:
    """The address of the Ray that was started for tests; skip where there is none."""
    address = os.environ.get("TEST_RAY_ADDRESS")
    if not address:
        pytest.skip(NO_RAY)
    pytest.importorskip("ray", reason="the package ray is not installed")
    return address
