"""Where a store may be: a path, or the URI of an object store, which never holds a secret."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from orchestrator.errors import UserError

QUERIES = {  # what the URI of each kind of store may say beside bucket and path
    "s3": ("endpoint_override", "region", "scheme", "tls_ca_file_path"),
    "gs": ("endpoint_override", "scheme", "project_id"),
}
ANONYMOUS = "anonymous"  # gs://anonymous@bucket reads and writes without an account
SECRETS = "the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS or the machine's role)"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_PATH = re.compile(r"(?:/[A-Za-z0-9_=@+,-][A-Za-z0-9_.=@+,-]*)*/?")


def is_uri(place: object) -> bool:
    """Whether a place is a URI and not a path, also one that has lost a slash, as it does in a Path."""
    text = str(place) if isinstance(place, str | Path) else ""
    return "://" in text or text.lower().startswith(tuple(f"{scheme}:" for scheme in QUERIES))


def below(place: str, name: str) -> str:
    """The URI of what lies in a place, its query kept at the end."""
    found = urlsplit(place)
    return found._replace(path=f"{found.path.rstrip('/')}/{name}").geturl()


def below_any(place: str, name: str) -> str:
    """The path or URI of what lies in a place."""
    return below(place, name) if is_uri(place) else str(Path(place) / name)


def apart(place: str) -> tuple[str, str]:
    """The path or URI of the directory in which a place lies, and its name there."""
    if not is_uri(place):
        return str(Path(place).parent), Path(place).name
    found = urlsplit(place)
    above, _, name = found.path.rstrip("/").rpartition("/")
    return found._replace(path=above).geturl(), name


def refuse_bad_uri(place: str) -> None:
    """Raises UserError, which does not repeat a secret, for what is no URI of a store."""
    if wrong := what_is_wrong(place):
        raise UserError(f"store: {wrong}")


def what_is_wrong(place: str) -> str | None:
    """What is wrong with the URI of a store, without repeating what may be secret; None where nothing is."""
    scheme = place.partition(":")[0].lower()
    if scheme in QUERIES and not place[len(scheme) :].startswith("://"):
        return f"must be {scheme}://BUCKET/PATH with two slashes (given as text: a Path drops one), got fewer"
    if scheme not in QUERIES:
        known = ", ".join(f"{name}://BUCKET/..." for name in QUERIES)
        return f"must be a path or one of {known}, got {_plain(scheme)}://..."
    try:
        found = urlsplit(place)
        settings = parse_qsl(found.query, keep_blank_values=True)
    except ValueError:
        return f"must be {scheme}://BUCKET/PATH, got a URI that cannot be read"
    user, at, bucket = found.netloc.rpartition("@")
    if at and not (scheme == "gs" and user == ANONYMOUS):
        return f"must hold no user name or password; credentials belong in {SECRETS}"
    if found.fragment or "#" in place:
        return "must hold no '#'"
    for key, value in settings:
        if key not in QUERIES[scheme]:
            known = ", ".join(QUERIES[scheme])
            seen = _plain(key) if value else "one without a value"
            return f"must hold no other settings than {known}, got {seen}; credentials belong in {SECRETS}"
        if "@" in value:
            return f"must hold no user name or password in {key}; credentials belong in {SECRETS}"
    if not _BUCKET.fullmatch(bucket):
        return f"must name a bucket of 3 to 222 of a-z 0-9 . _ -, got {bucket[:80]!r}"
    if not _PATH.fullmatch(found.path):
        return "must be a path of letters, digits and . _ = @ + , - between single '/', no part beginning with '.'"
    return None


def _plain(word: str) -> str:
    """A key as it was written, unless it is too odd or long to be one."""
    return repr(word) if re.fullmatch(r"[\w.+-]{0,40}", word) else "something else"
