"""What the processor that a measurement ran on is called.

Seconds mean little without it: latency tables and reports both state it.
"""

import platform
import subprocess
from pathlib import Path

import torch


def processor_name(device: str | torch.device = "cpu") -> str:
    """The name of a CUDA device's GPU; the CPU's for any other device."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu()


def _cpu() -> str:
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            return asked.stdout.strip()
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
