from __future__ import annotations

import pytest

from ingot.errors import UserError
from ingot.estimate.devices import DEVICES, find_device, listed


@pytest.mark.parametrize(
    ("name", "gigabytes", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", 85.0, "H100"),
        ("NVIDIA H100 PCIe", 85.0, "H100-PCIe"),
        ("NVIDIA H200", 150.0, "H200"),
        ("NVIDIA A100-SXM4-80GB", 85.0, "A100-80GB"),
        ("NVIDIA A100-SXM4-40GB", 42.4, "A100-40GB"),
        ("NVIDIA L4", 23.6, "L4"),
        ("NVIDIA L40S", 47.7, "L40S"),
        ("Tesla T4", 15.8, "T4"),
        ("Tesla V100-SXM2-16GB", 16.9, "V100-16GB"),
        ("NVIDIA GeForce RTX 4090", 25.4, "RTX-4090"),
        ("NVIDIA RTX A6000", 51.0, "RTX-A6000"),
        ("NVIDIA GeForce GTX 1080", 8.5, None),
    ],
)
def test_a_drivers_name_finds_the_device(name: str, gigabytes: float, expected: str | None):
    found = listed(name, gigabytes * 1e9)
    assert (found and found.name) == expected


def test_names_are_found_however_they_are_spelt():
    assert find_device("rtx 4090") is find_device("RTX-4090") is DEVICES["RTX-4090"]


def test_a_name_that_is_not_known_gets_the_nearest():
    with pytest.raises(UserError, match=r"there is no device 'A100' in the table; did you mean A100-80GB or A100-40GB"):
        find_device("A100")
    with pytest.raises(UserError, match=r"did you mean 'RTX-4090'"):
        find_device("RTX-4900")


def test_old_gpus_take_fp16_and_new_ones_bf16():
    assert [find_device(name).precision for name in ("T4", "V100-16GB", "A10", "H200")] == [
        "fp16",
        "fp16",
        "bf16",
        "bf16",
    ]
