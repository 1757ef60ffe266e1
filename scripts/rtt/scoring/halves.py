"""Cut questions into two halves, so that what is chosen or measured on one half is reported on the other."""

from collections.abc import Sequence

import numpy as np

HALVES_SEED = 20241010  # fixed before the first run, the same for all studies


def halves(split_of: np.ndarray, groups: Sequence[str] | None = None) -> np.ndarray:
    """Return (n,) bool: True in a split's first half. Position alone decides, so all targets share the halves.

    split_of: (n,) int, the index of each question's split; the questions of a split must stand in the order of their
    ids. groups: (n,) what each question is about; a group is wholly in one half, also where it reaches into several
    splits. None: every question is a group of its own. Of each split about half of the questions are in the first half;
    where two cuts are equally near, the first half gets more in even splits and less in odd ones.
    """
    split_of = np.asarray(split_of)
    alone = groups is None or len(set(groups)) == len(groups)
    first = np.zeros(len(split_of), bool)
    placed: dict[str, bool] = {}  # group -> whether it is in the first half
    for split in np.unique(split_of):
        members = np.flatnonzero(split_of == split)
        rng = np.random.default_rng(np.random.SeedSequence([HALVES_SEED, int(split), len(members)]))
        if alone:  # the same as below, faster
            extra = len(members) % 2 if split % 2 == 0 else 0
            first[rng.permutation(members)[: len(members) // 2 + extra]] = True
            continue
        of: dict[str, list[int]] = {}
        for member in members.tolist():
            of.setdefault(groups[member], []).append(member)
        drawn = [group for group in rng.permutation(np.array(list(of), object)) if group not in placed]
        before = sum(len(of[group]) for group in of if placed.get(group))
        sizes = before + np.cumsum([0, *(len(of[group]) for group in drawn)])
        far = np.abs(2 * sizes - len(members))
        nearest = np.flatnonzero(far == far.min())
        cut = nearest[-1 if split % 2 == 0 else 0]
        placed |= {group: place < cut for place, group in enumerate(drawn)}
        for group, where in of.items():
            first[where] = placed[group]
    return first
