"""What trains: torch's version, its threads, the device."""

from typing import Any

import torch

from icbench.provenance import cpu_device


def describe(device: torch.device) -> dict[str, Any]:
    """The columns torch_version, device (by its model's name) and threads of a run."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_device()
    return {"torch_version": torch.__version__, "device": name, "threads": torch.get_num_threads()}
