"""What is known of one method on one model: a cell of the cost table."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One method on one model in one dtype; ratios are to plain SGD."""

    model: str
    dtype: str
    method: str
    flops: float | None  # None where loops hide operations
    temporary_bytes: int
    compile_seconds: float
    flops_ratio: float | None
    memory_ratio: float
    seconds: float
    wall_ratio: float
    wall_low: float
    wall_high: float
    cpu_ratio: float
    rounds: int
