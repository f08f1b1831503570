"""The data set on disk: what goes in comes out, the same content gives the same bytes, and damage is named."""

from __future__ import annotations

import errno
import itertools
import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_world

from wm.cli import main
from wm.core import episodes, files
from wm.core.episodes import Column, EpisodeSet, Shard, ShardLog, frame_columns, latent_columns
from wm.core.errors import DamagedData, UserError

COLUMNS = frame_columns(3)


def episode(length: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    obs = np.repeat(rng.integers(0, 256, (length, 8, 8, 3), np.uint8), 8, 1).repeat(8, 2)
    return {
        "obs": obs,
        "act": rng.standard_normal((length, 3), np.float32),
        "out": rng.standard_normal((length, 3), np.float32),
        "rew": rng.standard_normal(length, np.float32),
        "end": np.arange(length) == length - 1,
    }


def write(folder: Path, lengths: list[int], a_shard: int = 3, level: int = 3) -> EpisodeSet:
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for index, start in enumerate(range(0, len(lengths), a_shard)):
        shard = Shard(COLUMNS, level)
        for number in range(start, min(start + a_shard, len(lengths))):
            shard.add(episode(lengths[number], number), seed=number, score=1.5 * number)
        shards.append(episodes.store_shard(folder, index, *shard.finish()))
    episodes.write_manifest(folder, "tiny", COLUMNS, shards)
    return EpisodeSet(folder)


def test_every_column_comes_back_to_the_bit(tmp_path):
    lengths = [5, 1, 40, 17]
    data = write(tmp_path, lengths)
    assert (len(data), data.steps, data.world, data.columns) == (4, sum(lengths), "tiny", COLUMNS)
    for index, length in enumerate(lengths):
        expected, found = episode(length, index), data.read(index)
        assert list(found) == ["obs", "act", "out", "rew", "end"]
        for name, array in expected.items():
            assert found[name].dtype == array.dtype and np.array_equal(found[name], array), name
        assert data.episodes[index] == {"length": length, "seed": index, "score": 1.5 * index}


def test_latents_keep_half_precision_and_columns_can_be_read_alone(tmp_path):
    columns = latent_columns(4, 2)
    rng = np.random.default_rng(0)
    given = {
        "mu": rng.standard_normal((7, 4)).astype(np.float16),
        "logvar": rng.standard_normal((7, 4)).astype(np.float16),
        "act": rng.standard_normal((7, 2)).astype(np.float32),
        "out": np.full((7, 2), np.nan, np.float32),
        "rew": np.ones(7, np.float32),
        "end": np.zeros(7, bool),
    }
    shard = Shard(columns)
    shard.add(given)
    episodes.write_manifest(tmp_path, "tiny", columns, [episodes.store_shard(tmp_path, 0, *shard.finish())])
    found = EpisodeSet(tmp_path).read(0, ["mu", "end"])
    assert list(found) == ["mu", "end"] and found["mu"].dtype == np.float16 and np.array_equal(found["mu"], given["mu"])


def test_an_array_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"column act holds \(3,\) a step, not \(2,\)"):
        Shard(COLUMNS).add({**episode(4, 0), "act": np.zeros((4, 2), np.float32)})


def test_the_same_content_gives_the_same_bytes(tmp_path):
    write(tmp_path / "a", [5, 9, 4, 6])
    write(tmp_path / "b", [5, 9, 4, 6])
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["manifest.json", "shard-00000.parquet", "shard-00001.parquet"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_frames_are_compressed(tmp_path):
    data = write(tmp_path, [200])
    assert data.shards[0]["bytes"] < 200 * 64 * 64 * 3 / 10


@pytest.mark.parametrize("count, held_out", [(1, [0]), (9, [8]), (10, [9]), (30, [9, 19, 29])])
def test_every_tenth_episode_is_held_out(tmp_path, count, held_out):
    data = write(tmp_path, [1] * count, a_shard=30)
    assert data.held_out == held_out
    assert data.training == ([i for i in range(count) if i not in held_out] if count >= 10 else list(range(count)))


def test_any_flipped_byte_of_a_shard_is_named_before_it_is_used(tmp_path):
    data = write(tmp_path, [6, 6], a_shard=1)
    path = tmp_path / "shard-00001.parquet"
    whole = path.read_bytes()
    data.verify()
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(DamagedData, match=r"shard-00001.parquet is damaged"):
            EpisodeSet(tmp_path).verify()


@pytest.mark.parametrize("level", [0, 3])
def test_a_flip_in_a_page_is_noticed_while_reading(tmp_path, level):
    """The disk may fail after `verify`: pages carry a CRC."""
    write(tmp_path, [50], level=level)
    path = tmp_path / "shard-00000.parquet"
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 3] ^= 1
    path.write_bytes(whole)
    with pytest.raises(DamagedData, match=r"shard-00000.parquet is damaged"):
        EpisodeSet(tmp_path).read(0)


def test_a_shard_of_another_layout_is_named(tmp_path):
    data = write(tmp_path, [5])
    lists = pa.schema([pa.field(c.name, c.arrow if c.name != "act" else pa.list_(pa.float32(), 3)) for c in COLUMNS])
    table = pq.read_table(tmp_path / "shard-00000.parquet").drop_columns(["act"])
    table = table.append_column("act", pa.array([[0.0, 0.0, 0.0]] * 5, pa.list_(pa.float32(), 3)))
    pq.write_table(table.select(lists.names), tmp_path / "shard-00000.parquet")
    with pytest.raises(DamagedData, match=r"shard-00000.parquet has the layout of an earlier version"):
        data.read(0)


@pytest.mark.parametrize("keep", [0, 3, 400, -1])
def test_a_truncated_shard_is_named(tmp_path, keep):
    write(tmp_path, [6])
    path = tmp_path / "shard-00000.parquet"
    path.write_bytes(path.read_bytes()[:keep])
    data = EpisodeSet(tmp_path)
    for attempt in (data.verify, lambda: data.read(0)):
        with pytest.raises(DamagedData, match=r"shard-00000.parquet is damaged"):
            attempt()


def test_a_missing_shard_or_manifest_is_named(tmp_path):
    data = write(tmp_path, [6])
    (tmp_path / "shard-00000.parquet").unlink()
    with pytest.raises(DamagedData, match=r"shard-00000.parquet is missing"):
        data.verify()
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(DamagedData, match=r"manifest.json is missing"):
        EpisodeSet(tmp_path)


def test_any_altered_character_of_a_manifest_is_noticed(tmp_path):
    write(tmp_path, [6])
    path = tmp_path / "manifest.json"
    whole = path.read_text()
    for place, character in enumerate(whole):
        if not character.isspace():
            path.write_text(whole[:place] + chr(ord(character) ^ 1) + whole[place + 1 :])
            with pytest.raises(DamagedData, match=r"manifest.json"):
                EpisodeSet(tmp_path)


def test_many_shards_are_read_with_few_open_files(tmp_path):
    data = write(tmp_path, [2] * 80, a_shard=1)
    for index in itertools.chain(range(80), range(79, -1, -1)):
        assert np.array_equal(data.read(index, ["rew"])["rew"], episode(2, index)["rew"])
    assert len(data._open) <= episodes.OPEN_SHARDS


def test_a_shard_log_goes_on_where_it_was_killed(tmp_path):
    def shard(number):
        made = Shard(COLUMNS)
        made.add(episode(4, number), seed=number, score=0.0)
        return made.finish()

    log = ShardLog(tmp_path, tmp_path / "log" / "shards.jsonl")
    for index in (2, 0, 1):
        log.store(index, *shard(index))
    everything = log.shards
    assert [entry["file"] for entry in everything] == [f"shard-0000{i}.parquet" for i in range(3)]
    (tmp_path / "shard-00000.parquet").write_bytes(b"cut short")
    notes = tmp_path / "log" / "shards.jsonl"
    notes.write_text(notes.read_text()[:-20])  # the note of shard 1 was being written

    again = ShardLog(tmp_path, notes)
    assert sorted(again.done) == [2]
    for index in (0, 1):
        again.store(index, *shard(index))
    assert again.shards == everything
    assert sorted(ShardLog(tmp_path, notes).done) in ([0, 1, 2], [1, 2])  # the line glued to the cut one may be lost


def test_files_are_whole_or_not_there(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    (tmp_path / "a.json").write_text('{"b": ')
    with pytest.raises(DamagedData, match=r"a.json is not whole JSON"):
        files.read_json(tmp_path / "a.json")


def test_reads_can_be_written_to_or_say_so(tmp_path):
    """Arrays that torch would share must not be views of a file's buffer that it believes to be writable."""
    read = write(tmp_path, [6]).read(0)
    for name, array in read.items():
        assert array.flags.writeable == (name != "obs")
        if name != "obs":
            array[...] = 0


def test_column_shapes_survive_arrow():
    for column in (
        Column("x", "float32", (1,)),
        Column("x", "int64"),
        Column("x", "uint8", (2, 3)),
        Column("x", "bool"),
    ):
        array = np.arange(5 * int(np.prod(column.shape)), dtype=np.int64).reshape(5, *column.shape).astype(column.dtype)
        assert np.array_equal(column.to_numpy(column.to_arrow(array)), array)
        assert np.array_equal(column.to_numpy(column.to_arrow(array)[2:4]), array[2:4])


def test_damaged_data_stops_a_stage_before_any_work(project, capsys):
    assert [main([stage, "tiny"]) for stage in ("collect", "train_vae")] == [0, 0]
    folder, work = project / "runs" / "tiny" / "collect", project / ".wm" / "work"
    shard, manifest = folder / "shard-00002.parquet", folder / "manifest.json"
    bytes_of = shard.read_bytes()
    damages = {
        shard: (bytes_of[:-100], bytes_of[:700] + bytes([bytes_of[700] ^ 128]) + bytes_of[701:]),
        manifest: (manifest.read_bytes().replace(b'"seed": 2', b'"seed": 3', 1), b""),
    }
    for path, contents in damages.items():
        whole = path.read_bytes()
        for content in contents:
            assert content != whole
            path.write_bytes(content)
            for stage in ("train_vae", "encode"):
                capsys.readouterr()
                assert main([stage, "tiny"]) == 1
                said = capsys.readouterr()
                assert (
                    said.err.startswith("error: ")
                    and said.err.count("\n") == 1
                    and path.name in said.err
                    and not said.out
                )
                assert not list(work.glob(f"{stage}-*/checkpoints/*")) and not list(work.glob(f"{stage}-*/out/*.*"))
        path.write_bytes(whole)


def test_a_disk_too_small_is_said_before_anything_is_played(project):
    Path("params.yaml").write_text(tiny_world.PARAMS.replace("{episodes: 12,", "{episodes: 900000000,"))
    with pytest.raises(UserError, match=r"are free: free some, or lower collect.episodes"):
        from wm import params
        from wm.core.workspace import Workspace
        from wm.stages import collect

        with Workspace("collect", "tiny", "0" * 16) as workspace:
            collect.collect(
                params.load().experiments["tiny"].collect,
                "tiny",
                0,
                Path("runs/zero/collect"),
                Path("runs/zero/evolve"),
                workspace,
            )
    assert not list(workspace.out.glob("*.parquet"))


def test_a_machine_without_file_handles_is_not_told_that_its_data_are_damaged(tmp_path):
    data, (soft, hard) = write(tmp_path, [6]), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files") as raised:
            data.read(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised.value.errno == errno.EMFILE
    assert len(data.read(0)["rew"]) == 6
