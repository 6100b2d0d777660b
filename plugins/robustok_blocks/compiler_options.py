"""How torch.compile compiles a block, beside what its caller asks for."""

from __future__ import annotations

from torch import nn


def compiler_options(block: nn.Module) -> dict[str, int]:
    """Options of torch's compiler inductor for a block.

    Code for a CPU is written for vectors of one length. inductor keeps it on disk, by all options but not by the length
    that it chose, and compiles it again for whatever processor or ATEN_CPU_CAPABILITY comes next, where it computes
    nonsense. So the length that it would choose is an option.
    """
    if not any(parameter.device.type == "cpu" for parameter in block.parameters()):
        return {}
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    return {"cpp.simdlen": pick_vec_isa().bit_width()}
