"""What a run's provenance says of the plugins, and whether they are still the same."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.plugins.admission import admitted
from orchestrator.storage.files import Files

PROVENANCE = "provenance.json"


def on_record() -> list[dict[str, Any]]:
    """The plugins of this process as JSON values: module, hash of its file, hash of all that it imports of its own."""
    return [{"module": plugin.module, "file_hash": plugin.file_hash, "source": plugin.source} for plugin in admitted()]


def changed_since(files: Files) -> list[str]:
    """A sentence for each plugin of this process whose source is another than when the run was last driven."""
    try:
        recorded = json.loads(files.read(PROVENANCE))["plugins"]
        before = {said["module"]: said["source"] for said in recorded}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []
    return [
        f"plugin {plugin.module}: its source has changed since this run was begun. New trials that train with it get "
        "other ids; attacks of it that were measured are not measured again"
        for plugin in admitted()
        if before.get(plugin.module, plugin.source) != plugin.source
    ]
