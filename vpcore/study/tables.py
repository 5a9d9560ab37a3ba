"""Tables on disk: Parquet files that say which SHA-256 their content has, and are refused when it has another."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vpcore.errors import InputError
from vpcore.files import write_atomically

SEAL, TYPES = b"vpcore.sha256", b"pandas"  # keys of the metadata: our digest, and how pandas reads the columns


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table without its index.

    Raises:
        WriteError: when the file cannot be written.
    """
    content = pa.Table.from_pandas(table, preserve_index=False)
    sealed = content.replace_schema_metadata({**content.schema.metadata, SEAL: _digest(content)})
    write_atomically(path, lambda file: pq.write_table(sealed, file, compression="zstd", compression_level=9))


def read_table(path: Path) -> pd.DataFrame:
    """Read what `write_table` wrote.

    Raises:
        InputError: when the file is damaged, or is none of ours.
    """
    try:
        content = pq.ParquetFile(path).read()
        if (content.schema.metadata or {}).get(SEAL) != _digest(content):
            raise ValueError("its content has another SHA-256 than it says")
        return content.to_pandas()
    except (OSError, ValueError, LookupError, TypeError, NotImplementedError, pa.ArrowException) as error:
        raise InputError(
            f"the published table {path} is damaged, or none that vpcore wrote ({error}); restore it with: "
            f"git checkout {path}"
        ) from error


def _digest(content: pa.Table) -> bytes:
    """SHA-256 of names, types and values, however they are laid out in the file."""
    digest = hashlib.sha256((content.schema.metadata or {}).get(TYPES, b""))
    for field, column in zip(content.schema, content.columns, strict=True):
        kind = str(field.type).replace("<item:", "<element:")  # Parquet renames what a list holds
        digest.update(json.dumps([field.name, kind, column.to_pylist()], default=repr).encode())
    return digest.hexdigest().encode()
