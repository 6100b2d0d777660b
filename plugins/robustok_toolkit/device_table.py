"""GPUs that costs are planned for: what their makers say of their speed and memory."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from robustok_core.errors import RobustokError, did_you_mean
from robustok_core.kinds.cost import Cost, Work

#: The share of a GPU's memory that a plan uses; the rest is for CUDA's context, workspaces of libraries and gaps.
USABLE = 0.9


@frozen
class Device:
    """A GPU.

    Attributes:
        bf16: FLOP/s of matrix products in bfloat16 with sums in float32, without sparsity.
        float32: FLOP/s in float32, without TF32. gib: memory in GiB.
    """

    bf16: float
    float32: float
    gib: float

    def seconds(self, work: Work, utilisation: float) -> float:
        """The time of one GPU for some work at a share `utilisation` of the peak."""
        return work.total / ((self.bf16 if work.bf16 else self.float32) * utilisation)

    def hours(self, cost: Cost, utilisation: float) -> float:
        """GPU-hours of a stage at a share `utilisation` of the peak."""
        return sum(self.seconds(work, utilisation) for work in cost.work) / 3600

    @property
    def usable_bytes(self) -> float:
        """The bytes that a plan uses."""
        return USABLE * self.gib * 2**30


#: By the name of `--device`.
DEVICES: Mapping[str, Device] = {
    # NVIDIA A100 datasheet (June 2021): 312 TFLOPS bfloat16 (dense), 19.5 FP32
    "a100": Device(312e12, 19.5e12, 80),
    "a100-40gb": Device(312e12, 19.5e12, 40),
    # NVIDIA H100 datasheet, SXM: 1,979 TFLOPS bfloat16 with sparsity, half of it without; 67 FP32
    "h100": Device(989.5e12, 67e12, 80),
    # NVIDIA H200 datasheet, SXM: as H100, 141 GB
    "h200": Device(989.5e12, 67e12, 141),
    # NVIDIA HGX B200 datasheet, an eighth: 4.5 PFLOPS bfloat16 with sparsity, half of it without; 75 TFLOPS FP32
    "b200": Device(2250e12, 75e12, 180),
    # NVIDIA L4 datasheet: 242 TFLOPS bfloat16 with sparsity, half of it without; 30.3 FP32
    "l4": Device(121e12, 30.3e12, 24),
    # NVIDIA L40S datasheet: 362 TFLOPS bfloat16 (dense), 91.6 FP32
    "l40s": Device(362e12, 91.6e12, 48),
    # NVIDIA Ampere GA102 whitepaper: 71 TFLOPS bfloat16 with FP32 accumulation (dense), 35.6 FP32
    "rtx3090": Device(71e12, 35.6e12, 24),
    # NVIDIA Ada whitepaper: 165.2 TFLOPS bfloat16 with FP32 accumulation (dense), 82.6 FP32
    "rtx4090": Device(165.2e12, 82.6e12, 24),
    # AMD Instinct MI300X datasheet: 1,307.4 TFLOPS bfloat16 (dense), 163.4 FP32
    "mi300x": Device(1307.4e12, 163.4e12, 192),
}


def device_named(name: str) -> Device:
    """The GPU of a name.

    Raises:
        RobustokError: there is none in the table.
    """
    if name.lower() not in DEVICES:
        hint = did_you_mean(name, list(DEVICES))
        raise RobustokError(f"no device is called {name!r}", where="--device", hint=hint)
    return DEVICES[name.lower()]
