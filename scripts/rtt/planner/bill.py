"""What a part of a study costs, as one sum."""

from dataclasses import asdict, dataclass


@dataclass
class Bill:
    """What a stage costs.

    `runs` counts trajectories, or trainings of an attack; `train_tokens` and `score_tokens` leave out padding. `hours`
    is the total, of which scoring takes `score_hours` and the optimizer's reading and writing `optimizer_hours`; it
    leaves out the `write_hours`, in which checkpoints and unlearned points go to the disk.
    """

    jobs: int = 0
    runs: int = 0
    train_tokens: float = 0.0
    score_tokens: float = 0.0
    flops: float = 0.0
    hours: float = 0.0
    score_hours: float = 0.0
    optimizer_hours: float = 0.0
    write_hours: float = 0.0

    def __add__(self, other: "Bill") -> "Bill":
        return Bill(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    def times(self, n: int) -> "Bill":
        """Return n times this bill."""
        return Bill(*(n * value for value in asdict(self).values()))
