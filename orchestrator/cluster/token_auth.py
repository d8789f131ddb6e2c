"""What to set, where a Ray cluster asks for a token. No token is ever read, shown or stored by us."""

from __future__ import annotations

import os


def no_entry(where: str) -> str:
    """What to set, where a cluster turned us away."""
    given = "a token is set here, but not the cluster's" if _has_token() else "no token is set here"
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        given = "RAY_AUTH_MODE is not set to token here, so none was shown"
    return (
        f"{where}: the cluster asks for a token, and {given}. Set RAY_AUTH_MODE=token and either RAY_AUTH_TOKEN_PATH "
        "(a file) or RAY_AUTH_TOKEN, or put the token into ~/.ray/auth_token; `ray get-auth-token` on the head node "
        "shows the cluster's"
    )


def _has_token() -> bool:
    path = os.environ.get("RAY_AUTH_TOKEN_PATH", os.path.expanduser("~/.ray/auth_token"))
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or os.path.exists(path)
