"""What the Hub tells of hardware and sizes, as its client gives it, and what is done where it does not."""

import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import JobHardwareInfo

from hfagent.agent.hardware import Flavor, fallback
from hfagent.tools.hub_hardware import commit, gigabytes, hardware, local_parameters, parameters, parse, vocabulary

T4 = {"type": "gpu", "model": "T4", "quantity": "1", "vram": "16 GB", "manufacturer": "Nvidia"}
SMALL = {
    "name": "t4-small", "prettyName": "Nvidia T4 - small", "cpu": "4 vCPU", "ram": "15 GB",
    "ephemeralStorage": "50 GB", "accelerator": T4, "unitCostMicroUSD": 6667, "unitCostUSD": 0.006667,
    "unitLabel": "minute",
}  # fmt: skip


def live(**changes: Any) -> JobHardwareInfo:
    return JobHardwareInfo(**{**SMALL, **changes})


class Api:
    def __init__(self, listed: Any = None, info: Any = None, metadata: Any = None):
        self.listed, self.info, self.metadata = listed, info, metadata

    def list_jobs_hardware(self) -> Any:
        return self._give(self.listed)

    def model_info(self, repo_id: str, *, revision: str | None = None) -> Any:
        return self._give(self.info)

    def get_safetensors_metadata(self, repo_id: str, *, revision: str | None = None) -> Any:
        return self._give(self.metadata)

    @staticmethod
    def _give(value: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value


def test_a_live_flavor_is_read_with_its_price_to_the_micro_dollar() -> None:
    assert parse(live()) == Flavor(
        name="t4-small", price_micro_usd_per_hour=400_020, gpu="t4", gpus=1, vram_gb=16, vcpu=4, ram_gb=15, disk_gb=50
    )


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"unitLabel": "hour", "unitCostMicroUSD": 400_000}, "price_micro_usd_per_hour", 400_000),
        ({"unitLabel": "Minutes"}, "price_micro_usd_per_hour", 400_020),
        ({"accelerator": None}, "gpu", None),
        ({"accelerator": T4 | {"model": "RTX PRO 6000", "vram": "96GB"}}, "gpu", "rtxpro6000"),
        ({"accelerator": T4 | {"quantity": "8", "vram": "1,128 GB"}}, "vram_gb", 1128),
        ({"accelerator": T4 | {"vram": "N/A"}}, "vram_gb", None),
        ({"ram": "1.5 TB"}, "ram_gb", 1500),
        ({"ephemeralStorage": "N/A"}, "disk_gb", None),
        ({"cpu": "many"}, "vcpu", None),
    ],
)
def test_other_spellings_are_understood_and_the_rest_is_unknown(
    changes: dict[str, Any], field: str, value: object
) -> None:
    found = parse(live(**changes))
    assert found is not None
    assert getattr(found, field) == value


@pytest.mark.parametrize(
    "changes",
    [{"unitLabel": "token"}, {"accelerator": T4 | {"type": "tpu"}}, {"accelerator": T4 | {"quantity": "?"}}],
)
def test_what_cannot_be_priced_or_is_no_gpu_is_left_out(changes: dict[str, Any]) -> None:
    assert parse(live(**changes)) is None
    table = hardware(api=Api([live(), live(name="other", **changes)]))
    assert (table.names(), table.source) == (("t4-small",), "live")
    assert table.note is not None
    assert "1 of 2 flavors" in table.note


def test_a_list_without_storage_is_read() -> None:
    bare = {name: value for name, value in SMALL.items() if name != "ephemeralStorage"}
    found = parse(JobHardwareInfo(**bare))
    assert found is not None
    assert found.disk_gb is None


@pytest.mark.parametrize("listed", [OSError("no route to host"), [], [live(unitLabel="token")], KeyError("prettyName")])
def test_without_a_list_the_dated_file_stands_in_and_says_so(listed: Any) -> None:
    table = hardware(api=Api(listed))
    assert (table.flavors, table.source) == (fallback().flavors, "file")
    assert table.note is not None
    assert "2026-08-22" in table.note


def test_sizes_with_units() -> None:
    assert [gigabytes(text) for text in ("24 GB", "24GiB", "512 MB", "", None)] == [24, 25.769803776, 0.512, None, None]


def test_weights_come_from_the_hub_then_from_the_headers_and_never_from_the_name() -> None:
    told = SimpleNamespace(safetensors=SimpleNamespace(total=596_049_920))
    silent = SimpleNamespace(safetensors=None)
    counted = SimpleNamespace(parameter_count={"BF16": 7, "F32": 3})
    assert parameters("org/model-7B", api=Api(info=told)) == 596_049_920
    assert parameters("org/model-7B", api=Api(info=silent, metadata=counted)) == 10
    assert parameters("org/model-7B", api=Api(info=silent, metadata=ValueError("no safetensors"))) is None
    assert parameters("org/model-7B", api=Api(info=OSError("gone"))) is None


def test_a_model_on_the_hub_has_a_commit_and_a_folder_has_none(tmp_path: Path) -> None:
    told = Api(info=SimpleNamespace(sha="abc123"))
    assert commit("org/model", api=told) == "abc123"
    assert commit(str(tmp_path), api=told) is None
    assert commit("embedded:SmolLM2-135M-Instruct", api=told) is None
    assert commit("org/model", api=Api(info=OSError("gone"))) is None


def weights(path: Path, **shapes: list[int]) -> None:
    tensors = {name: {"dtype": "BF16", "shape": shape} for name, shape in shapes.items()}
    text = json.dumps({"__metadata__": {"format": "pt"}} | tensors).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)  # no tensors follow: only the header is read


def test_weights_of_a_folder_are_counted_by_the_headers_alone(tmp_path: Path) -> None:
    weights(tmp_path / "model.safetensors", a=[3, 5], b=[7], scalar=[])
    assert local_parameters(tmp_path) == parameters(str(tmp_path)) == 23


def test_shards_are_added_and_files_beside_the_index_are_not(tmp_path: Path) -> None:
    weights(tmp_path / "one.safetensors", a=[4])
    weights(tmp_path / "two.safetensors", b=[6])
    weights(tmp_path / "adapter_model.safetensors", c=[100])
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert local_parameters(tmp_path) == 10


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, struct.pack("<Q", 4) + b"{}]["])
def test_a_broken_file_is_unknown_and_not_zero(tmp_path: Path, content: bytes) -> None:
    assert local_parameters(tmp_path) is None
    (tmp_path / "model.safetensors").write_bytes(content)
    assert local_parameters(tmp_path) is None


def test_the_vocabulary_is_read_from_the_configuration(tmp_path: Path) -> None:
    assert vocabulary(str(tmp_path)) is None
    (tmp_path / "config.json").write_text('{"text_config": {"vocab_size": 262144}}')
    assert vocabulary(str(tmp_path)) == 262144
