"""Where the deviations of the noise start, site by site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from defenses.noise.sites import Site

STEM, REST = "stem", "rest"


def starting_deviations(sites: Sequence[Site], sigma: float | Mapping[str, float]) -> dict[str, float]:
    """The deviation of each site, by its name.

    A mapping names sites (`stage1/0/relu2`), parts of the network that hold them (`stage1`), `stem` for the first
    site, `rest` for all that nothing else names; of several keys the longest that fits counts. Raises ValueError for a
    key that fits no site, and for a site that no key fits.
    """
    if not isinstance(sigma, Mapping):
        return {site.name: sigma for site in sites}
    names = [site.name for site in sites]
    keys = {name: [key for key in sigma if _fits(key, name, names)] for name in names}
    useless = set(sigma) - {key for fitting in keys.values() for key in fitting} - {REST}
    if useless and sites:
        seen = f"{', '.join(sorted(useless))} where there are {', '.join(names)}"
        raise ValueError(f"sigma: must name sites or parts of the network that hold some, got {seen}")
    bare = [name for name, fitting in keys.items() if not fitting and REST not in sigma]
    if bare:
        raise ValueError(f"sigma: must say how much noise is at {', '.join(bare)}, or at `{REST}`, got {sorted(sigma)}")
    return {name: sigma[_nearest(fitting)] for name, fitting in keys.items()}


def _fits(key: str, name: str, names: Sequence[str]) -> bool:
    return name == key or name.startswith((f"{key}/", f"{key}@")) or (key == STEM and name == names[0])


def _nearest(fitting: Sequence[str]) -> str:
    """The longest key but for `stem`, which says least about where it is."""
    return max(fitting, key=lambda key: (key != STEM, len(key)), default=REST)
