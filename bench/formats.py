"""How episodes could be kept on disk: MB per 1,000 frames, frames a second written and read, of a data set's frames.

    python -m bench.formats runs/car_racing/collect

The peers: zarr 3 with sharding, zstd and crc32c (where it is installed), and NumPy's own compressed archive.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from wm.core import episodes

REPEATS = 3


def measure(folder: Path, count: int = 32) -> list[dict]:
    """A row a format, over the first `count` episodes in `folder`."""
    data = episodes.EpisodeSet(folder)
    plays = [data.read(index) for index in range(min(count, len(data)))]
    rows = [
        _row(f"parquet, zstd {level}", plays, lambda level=level: _parquet(plays, level), _read_parquet)
        for level in (1, 3, 9)
    ]
    rows.append(_row("npz, deflate", plays, lambda: _npz(plays), _read_npz))
    try:
        import zarr  # noqa: F401
    except ImportError:
        return rows
    return [
        *rows,
        *(
            _row(f"zarr 3, sharded, zstd {level}, crc32c", plays, lambda level=level: _zarr(plays, level), _read_zarr)
            for level in (1, 3)
        ),
    ]


def _row(name: str, plays: list, write: Callable, read: Callable) -> dict:
    frames = sum(len(play["rew"]) for play in plays)
    writing, reading = [], []
    for _ in range(REPEATS):
        began = time.perf_counter()
        stored, size = write()
        writing.append(time.perf_counter() - began)
        began = time.perf_counter()
        seen = read(stored)
        reading.append(time.perf_counter() - began)
        assert seen == frames
        if isinstance(stored, Path):
            shutil.rmtree(stored)
    return {
        "format": name,
        "MB per 1,000 frames": size / frames / 1e3,
        "frames/s written": frames / statistics.median(writing),
        "frames/s read": frames / statistics.median(reading),
    }


def _parquet(plays: list, level: int) -> tuple[bytes, int]:
    shard = episodes.Shard(episodes.frame_columns(plays[0]["act"].shape[1]), level)
    for play in plays:
        shard.add(play)
    data, _ = shard.finish()
    return data, len(data)


def _read_parquet(data: bytes) -> int:
    column = episodes.frame_columns(1)[0]
    file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
    return sum(
        len(column.to_numpy(file.read_row_group(group, ["obs"], use_threads=False)["obs"]))
        for group in range(file.num_row_groups)
    )


def _npz(plays: list) -> tuple[bytes, int]:
    sink = io.BytesIO()
    np.savez_compressed(sink, **{str(index): play["obs"] for index, play in enumerate(plays)})
    return sink.getvalue(), len(sink.getvalue())


def _read_npz(data: bytes) -> int:
    with np.load(io.BytesIO(data)) as archive:
        return sum(len(archive[name]) for name in archive.files)


def _zarr(plays: list, level: int) -> tuple[Path, int]:
    import zarr
    from zarr.codecs import ZstdCodec

    folder = Path(tempfile.mkdtemp())
    frames = np.concatenate([play["obs"] for play in plays])
    rows = -(-len(frames) // 256) * 256
    array = zarr.create_array(
        folder,
        shape=(rows, 64, 64, 3),
        chunks=(256, 64, 64, 3),
        shards=(rows, 64, 64, 3),
        dtype="uint8",
        compressors=ZstdCodec(level=level, checksum=True),
    )
    array[: len(frames)] = frames
    (folder / "frames").write_text(str(len(frames)))
    return folder, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _read_zarr(folder: Path) -> int:
    import zarr

    array, frames = zarr.open_array(folder, mode="r"), int((folder / "frames").read_text())
    return sum(len(array[start : min(start + 256, frames)]) for start in range(0, frames, 256))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a data set that `collect` wrote")
    parser.add_argument("--json", action="store_true", help="for machines")
    args = parser.parse_args()
    rows = measure(args.folder)
    if args.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['format']:<38}" + "".join(f"{row[key]:>12,.2f} {key}" for key in list(row)[1:]))


if __name__ == "__main__":
    main()
