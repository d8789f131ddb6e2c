"""What attacks that looked at a sample of the survivors say about those they did not look at."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Audit:
    """`sampled` of the `survivors` of `n` images were attacked on, all by the same attacks; `fooled` of them fell."""

    n: int
    survivors: int
    sampled: int
    fooled: int = 0

    @property
    def may_still_fall(self) -> float:
        """The share of all images that the attacks might take beside, at most, with 95 % confidence.

        The exact upper bound of Clopper and Pearson 1934 on the rate among survivors, times those not looked at. 1.0 of
        a rate where none was: nothing is known then.
        """
        return self._highest_rate() * (self.survivors - self.sampled) / self.n

    def add(self, fooled: int) -> Audit:
        """After one more attack on the same sample."""
        return replace(self, fooled=self.fooled + fooled)

    def _highest_rate(self) -> float:
        if self.fooled >= self.sampled:
            return 1.0
        from scipy.stats import beta  # as late as this: it takes a second, and few need it

        return float(beta.ppf(0.95, self.fooled + 1, self.sampled - self.fooled))
