"""What attacks, defenses, networks and datasets promise, as claims that a class keeps or breaks.

Our own are held to them by `tests/`, a user's by `robustsweep check --plugin`.
"""
