"""Looks at a store at random moments while it is written, as a user with pandas would."""

from __future__ import annotations

import random
import threading
import traceback
from pathlib import Path

from kills.checking import wrong_with_trial
from kills.tables import KEYS, Tables, keys_of, read, rows_of, twice


class Watcher(threading.Thread):
    """From the first moment at which all tables can be read, each look must succeed, and agree with those before.

    `looks` counts them; `wrong` says what was seen that may not be: an error, a key twice, a row that vanished, a
    trial that was over and changed, a trial whose figures are not those of its rows.
    """

    def __init__(self, root: Path, seed: int, pause: tuple[float, float] = (0.1, 1.0)) -> None:
        super().__init__(daemon=True)
        self.looks, self.wrong = 0, list[str]()
        self._root, self._random, self._pause = root, random.Random(seed), pause
        self._over = threading.Event()
        self._keys: dict[str, set[tuple[object, ...]]] = {name: set() for name in KEYS}
        self._trials: dict[str, dict[str, object]] = {}

    def run(self) -> None:
        while not self._over.wait(self._random.uniform(*self._pause)):
            self.look()

    def close(self) -> None:
        """One last look, and no more."""
        self._over.set()
        self.join()
        self.look()

    def look(self) -> None:
        try:
            tables = read(self._root)
        except Exception as error:
            if self.looks or not isinstance(error, FileNotFoundError):
                self._note([f"look {self.looks + 1}: {''.join(traceback.format_exception_only(error)).strip()}"])
                self.looks += 1
            return
        self.looks += 1
        self._note([f"look {self.looks}: {text}" for text in self._disagreements(tables)])

    def _disagreements(self, tables: Tables) -> list[str]:
        wrong = [text for name in KEYS for text in twice(name, tables[name])]
        for name in KEYS:
            now = set(keys_of(name, tables[name]))
            wrong += [f"{name}: a row vanished: {key}" for key in sorted(self._keys[name] - now, key=str)]
            self._keys[name] |= now
        for trial, row in rows_of(tables["trials"]).items():
            if trial not in self._trials:
                wrong += wrong_with_trial(row, tables)
            elif row != self._trials[trial]:
                changed = sorted(name for name in row if row[name] != self._trials[trial].get(name))
                wrong.append(f"trials {trial}: was over, and changed in {', '.join(changed)}")
            self._trials[trial] = row
        return wrong

    def _note(self, texts: list[str]) -> None:
        self.wrong += [text for text in texts if len(self.wrong) < 50]
