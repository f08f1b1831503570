"""A data set of episodes on disk: a few Parquet shards and a manifest.

A row is a step, a row group is an episode, so any episode is one read, and a column that is not asked for is not read.
Pages are compressed with zstd (but for latents, which do not shrink) and carry a CRC that is verified on every read;
the manifest has the sha256 of every shard. Memory does not grow with the data set: writers hold one shard, readers what
they ask for.

Shapes: T steps of an episode, A action, Z latent.
"""

from __future__ import annotations

import errno
import io
import json
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wm.core import files
from wm.core.errors import DamagedData

HELD_OUT_EVERY = 10
"""Every tenth episode of a data set is never trained on."""
MANIFEST = "manifest.json"
OPEN_SHARDS = 32

Episode = dict[str, np.ndarray]


@dataclass(frozen=True)
class Column:
    """One array of an episode: [T, *shape]."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def arrow(self) -> pa.DataType:
        """bool, number, or fixed-size binary where a step has several numbers: a list is read a third as fast."""
        dtype = np.dtype(self.dtype)
        return pa.binary(dtype.itemsize * int(np.prod(self.shape))) if self.shape else pa.from_numpy_dtype(dtype)

    def to_arrow(self, array: np.ndarray) -> pa.Array:
        """array [T, *shape] -> T values."""
        array = np.ascontiguousarray(array, self.dtype)
        if array.shape[1:] != self.shape:
            raise ValueError(f"column {self.name} holds {self.shape} a step, not {array.shape[1:]}")
        if self.shape:
            return pa.Array.from_buffers(self.arrow, len(array), [None, pa.py_buffer(array)])
        return pa.array(array)

    def to_numpy(self, values: pa.ChunkedArray) -> np.ndarray:
        """T values -> array [T, *shape] (a copy that may be written to where frames are not concerned)."""
        array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
        if not self.shape:
            return array.to_numpy(zero_copy_only=False, writable=True)
        size = array.type.byte_width
        data = array.buffers()[1].slice(array.offset * size, len(array) * size)
        steps = np.frombuffer(data, self.dtype).reshape(-1, *self.shape)
        return steps if len(self.shape) > 1 else steps.copy()


def frame_columns(action_size: int) -> tuple[Column, ...]:
    """What `collect` writes: frames, what was done, and what C put out before that became an action and was disturbed
    (NaN of a random policy). `end` marks a step that ended the episode for good."""
    return (
        Column("obs", "uint8", (64, 64, 3)),
        Column("act", "float32", (action_size,)),
        Column("out", "float32", (action_size,)),
        Column("rew", "float32"),
        Column("end", "bool"),
    )


def latent_columns(z_size: int, action_size: int) -> tuple[Column, ...]:
    """What `encode` writes: V's posterior of every frame in half precision (as the released code keeps it)."""
    return (Column("mu", "float16", (z_size,)), Column("logvar", "float16", (z_size,)), *frame_columns(action_size)[1:])


@dataclass
class Shard:
    """One file being written in memory: add episodes, then take the bytes."""

    columns: tuple[Column, ...]
    level: int = 3  # of zstd; 0 for none
    episodes: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._sink = io.BytesIO()
        self._schema = pa.schema([pa.field(column.name, column.arrow, nullable=False) for column in self.columns])
        self._writer = pq.ParquetWriter(
            self._sink,
            self._schema,
            compression="zstd" if self.level else "none",
            compression_level=self.level or None,
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
            store_schema=True,
        )

    def add(self, episode: Episode, **about: Any) -> None:
        """Appends an episode; `about` (seed, return, …) goes into the manifest with its length."""
        arrays = [column.to_arrow(episode[column.name]) for column in self.columns]
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        self._writer.write_table(table, row_group_size=max(1, len(table)))
        self.episodes.append({"length": len(table), **about})

    def finish(self) -> tuple[bytes, list[dict[str, Any]]]:
        """The file's bytes, and what the manifest says of its episodes."""
        self._writer.close()
        return self._sink.getvalue(), self.episodes


def write_manifest(folder: Path, world: str, columns: tuple[Column, ...], shards: list[dict[str, Any]]) -> str:
    """Writes manifest.json; a shard is {file, sha256, bytes, episodes}. Returns the manifest's sha256."""
    described = [{"name": c.name, "dtype": c.dtype, "shape": list(c.shape)} for c in columns]
    return files.write_record(Path(folder) / MANIFEST, {"world": world, "columns": described, "shards": shards})


def store_shard(folder: Path, index: int, data: bytes, episodes: list[dict[str, Any]]) -> dict[str, Any]:
    """Writes shard `index` atomically and returns its entry for the manifest."""
    name = f"shard-{index:05d}.parquet"
    digest = files.write_bytes(Path(folder) / name, data)
    return {"file": name, "sha256": digest, "bytes": len(data), "episodes": episodes}


class EpisodeSet:
    """Episodes on disk, read one at a time.

    Args:
        folder: holds manifest.json and the shards.
    Raises:
        DamagedData: there is no whole manifest.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        content = files.read_record(self.folder / MANIFEST)
        try:
            self.world: str = content["world"]
            self.columns = tuple(Column(c["name"], c["dtype"], tuple(c["shape"])) for c in content["columns"])
            self.shards: list[dict[str, Any]] = content["shards"]
            self.episodes = [episode for shard in self.shards for episode in shard["episodes"]]
        except (KeyError, TypeError) as error:
            raise DamagedData(f"{self.folder / MANIFEST} lacks {error}: run `dvc checkout`") from None
        self._where = [(s, g) for s, shard in enumerate(self.shards) for g in range(len(shard["episodes"]))]
        self._open: OrderedDict[int, pq.ParquetFile] = OrderedDict()

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def steps(self) -> int:
        """Steps in all episodes together."""
        return sum(episode["length"] for episode in self.episodes)

    @property
    def training(self) -> list[int]:
        """Indices of the episodes to train on; all of them where there are too few to hold any out."""
        return [i for i in range(len(self)) if i % HELD_OUT_EVERY != HELD_OUT_EVERY - 1]

    @property
    def held_out(self) -> list[int]:
        """Indices of the episodes that are never trained on; of fewer than ten the last, which is."""
        return list(range(HELD_OUT_EVERY - 1, len(self), HELD_OUT_EVERY)) or [len(self) - 1]

    def verify(self) -> None:
        """Compares every shard with its sha256.

        Raises:
            DamagedData: names the first shard that is missing, cut short or altered.
        """
        for shard in self.shards:
            files.check(self.folder / shard["file"], shard["sha256"])

    def read(self, index: int, names: Iterable[str] | None = None) -> Episode:
        """Episode `index`: the named columns (all of them where None), each [T, *shape].

        Raises:
            DamagedData: a page's CRC does not match, or an earlier version of this module wrote the shard.
        """
        shard, group = self._where[index]
        columns = [c for c in self.columns if names is None or c.name in set(names)]
        try:
            table = self._file(shard).read_row_group(group, columns=[c.name for c in columns], use_threads=False)
        except (OSError, pa.ArrowException) as error:
            if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise  # the machine lacks something, the file is sound
            path = self.folder / self.shards[shard]["file"]
            raise DamagedData(f"{path} is damaged ({error}): {files.MEND}") from None
        if any(table.schema.field(column.name).type != column.arrow for column in columns):
            path = self.folder / self.shards[shard]["file"]
            raise DamagedData(f"{path} has the layout of an earlier version: run the stage that wrote it again")
        return {column.name: column.to_numpy(table[column.name]) for column in columns}

    def _file(self, shard: int) -> pq.ParquetFile:
        if shard not in self._open:
            if len(self._open) >= OPEN_SHARDS:
                self._open.popitem(last=False)[1].close()
            self._open[shard] = pq.ParquetFile(
                self.folder / self.shards[shard]["file"], page_checksum_verification=True
            )
        self._open.move_to_end(shard)
        return self._open[shard]


class ShardLog:
    """Shards written so far by a stage that may be killed: each is noted once it is whole on disk.

    Args:
        folder: where the shards are.
        log: the notes, outside the folder.
    """

    def __init__(self, folder: Path, log: Path):
        self.folder, self._log = Path(folder), Path(log)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self.done: dict[int, dict[str, Any]] = {}
        for line in self._log.read_bytes().splitlines() if self._log.exists() else []:
            try:
                index, shard, checksum = json.loads(line)
                if files.checksum(shard) != checksum:
                    continue
                files.check(self.folder / shard["file"], shard["sha256"])
            except (ValueError, TypeError, DamagedData):
                continue
            self.done[index] = shard

    def store(self, index: int, data: bytes, episodes: list[dict[str, Any]]) -> None:
        """Writes shard `index` and notes it."""
        self.done[index] = store_shard(self.folder, index, data, episodes)
        with self._log.open("a") as file:
            file.write(json.dumps([index, self.done[index], files.checksum(self.done[index])]) + "\n")

    @property
    def shards(self) -> list[dict[str, Any]]:
        """The manifest's entries, in order."""
        return [self.done[index] for index in sorted(self.done)]
