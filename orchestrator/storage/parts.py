"""The parts of a table: their names, their bytes, and the records that lie in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.errors import UserError
from orchestrator.storage.files import Files

SUFFIX = ".parquet"
EMPTY = "0-schema"  # the zero-row part: it sorts first, so that readers who take the first schema take this one
GROUP, PACKED = "group-", "packed-"  # how the names of parts with several records begin
RECORDS = b"robustsweep.records"  # of such a part: JSON of [key, number of rows], in the order of the rows
_KEY = re.compile(r"[A-Za-z0-9=][A-Za-z0-9._=-]{0,199}")  # readers skip what begins with a dot or an underscore


class DamagedPart(UserError):
    """A part of the store that is not whole Parquet."""


@contextmanager
def damage(where: str) -> Iterator[None]:
    """What goes wrong in here with the content of a file, and not with the disk, is said as DamagedPart."""
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk or the network; what Arrow finds wrong with a file has no number
        raise DamagedPart(
            f"{where}: is damaged ({str(error).splitlines()[0] if str(error) else error!r}). `robustsweep doctor RUN "
            "--repair` sets damaged parts aside; what they held is then found again or computed again"
        ) from error


def names_in(files: Files, table: str) -> list[str]:
    """The names of all parts with rows that lie in a table, whether they count or not."""
    found = [name.removesuffix(SUFFIX) for name in files.names(table) if name.endswith(SUFFIX)]
    return [name for name in found if name[0] not in "._" and name != EMPTY]


def checked_key(key: str) -> str:
    """The key itself. Raises ValueError unless it is a plain file name that readers of Parquet do not skip."""
    if not _KEY.fullmatch(key) or key == EMPTY or key.startswith((GROUP, PACKED)):
        raise ValueError(
            f"key: must be 1 to 200 of A-Z a-z 0-9 . _ = -, begin with none of . _ - {GROUP} {PACKED}, and not be "
            f"{EMPTY!r}, got {key!r}"
        )
    return key


def encoded(part: pa.Table) -> bytes:
    """The one way in which a part becomes bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(part, sink, compression="zstd", write_page_checksum=True)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def joined(records: Sequence[tuple[str, pa.Table]]) -> pa.Table:
    """Records as one table, which says in its metadata which rows are whose."""
    parts = [part for _, part in records]
    is_one_schema = all(part.schema.equals(parts[0].schema) for part in parts)
    whole = pa.concat_tables(parts) if is_one_schema else pa.concat_tables(parts, promote_options="default")
    lengths = json.dumps([[key, part.num_rows] for key, part in records])
    return whole.replace_schema_metadata({**(whole.schema.metadata or {}), RECORDS: lengths})


def split(whole: pa.Table) -> list[tuple[str, pa.Table]]:
    """The records of a group, as they were before they were joined."""
    found, start, said = [], 0, whole.schema.metadata or {}
    metadata = {key: value for key, value in said.items() if key != RECORDS}
    for key, rows in json.loads(said[RECORDS]):
        found.append((key, whole.slice(start, rows).replace_schema_metadata(metadata)))
        start += rows
    return found


def widened(part: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows under a later schema: a column that came since is null, one that it does not know stays."""
    columns = [
        part[column.name] if column.name in part.column_names else pa.nulls(part.num_rows, column.type)
        for column in schema
    ]
    unknown = [column for column in part.schema if column.name not in schema.names]
    fields = pa.schema([*schema, *unknown], metadata=schema.metadata)
    return pa.Table.from_arrays([*columns, *(part[column.name] for column in unknown)], schema=fields)
