"""encode: V looks at every frame once, so that M trains on latents (paper, A.2), and what surprises V is noted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from wm.core import episodes, verdicts, weights
from wm.core.config import Config
from wm.core.journal import bar
from wm.core.workspace import Workspace
from wm.models import latents, surprise
from wm.models.vae import VAE, load_vae
from wm.pictures import decoration, figures


class EncodeConfig(Config):
    """How frames go through V."""

    batch: int = Field(64, gt=0, description="frames at once; a fixed number, since another may change the last bits")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda or cuda:N; never chosen for you")
    threads: int = Field(2, gt=0, description="CPU threads")
    checks: latents.LatentsConfig = Field(
        latents.LatentsConfig(), description="from where on a check of latents speaks"
    )


def encode(config: EncodeConfig, data: Path, vae: Path, workspace: Workspace) -> dict[str, float]:
    """Writes V's posterior (mu, logvar) of every frame, with actions and rewards, a shard for a shard; and beside them
    how surprising held-out frames are to V (`wm.models.surprise`).

    Raises:
        DamagedData: a shard or V is not whole.
    """
    torch.set_num_threads(config.threads)
    source = episodes.EpisodeSet(data)
    source.verify()
    model = load_vae(vae).to(config.device)
    action_size = next(column.shape[0] for column in source.columns if column.name == "act")
    columns = episodes.latent_columns(model.config.z_size, action_size)
    log = episodes.ShardLog(workspace.out, workspace.folder / "shards.jsonl")
    kept = sum(episode["length"] for shard in log.shards for episode in shard["episodes"])
    progress = bar(source.steps, workspace.title, "frame", initial=kept)
    first = 0
    for index, shard in enumerate(source.shards):
        numbers = range(first, first + len(shard["episodes"]))
        first = numbers.stop
        if index not in log.done:
            target = episodes.Shard(columns, level=0)  # noise does not shrink: 8% less, read half as fast
            for number in numbers:
                episode = source.read(number)
                episode |= _posterior(model, episode.pop("obs"), config)
                about = {name: value for name, value in source.episodes[number].items() if name != "length"}
                target.add(episode, **about)
                progress.update(len(episode["rew"]))
            log.store(index, *target.finish())
    progress.close()
    episodes.write_manifest(workspace.out, source.world, columns, log.shards)
    parts = {i: surprise.to_v(model, source.read(i, ["obs"])["obs"], config.batch)[0] for i in surprise.chosen(source)}
    surprise.Reference.of(parts).save(workspace.out, weights.SURPRISE_V_KIND, source.world)
    return {
        "episodes": len(source),
        "steps": source.steps,
        "megabytes": sum(shard["bytes"] for shard in log.shards) / 1e6,
        **_check(config.checks, workspace.out),
    }


def _check(config: latents.LatentsConfig, out: Path) -> dict[str, int]:
    """Writes checks.json and its picture; how many checks failed and warned, and how many dimensions are unused."""
    found, variance = latents.check(episodes.EpisodeSet(out), config)
    verdicts.write(found, out)
    with decoration("what the dimensions of z say"):
        title = "What every dimension of z says"
        ordered = np.sort(variance)[::-1]
        figures.bars(ordered, out / "figures" / "checks.png", title, "dimension", ("says nothing", config.active))
    return verdicts.counts(found) | {"unused": int(found[-1].figure)}


@torch.inference_mode()
def _posterior(model: VAE, obs: np.ndarray, config: EncodeConfig) -> dict[str, np.ndarray]:
    """obs [T, 64, 64, 3] -> mu, logvar [T, Z] float16; the last batch is filled up so that all have one size."""
    steps = len(obs)
    padding = -steps % config.batch
    frames = np.concatenate([obs, np.zeros((padding, *obs.shape[1:]), np.uint8)])
    parts = [
        model.encode(torch.from_numpy(frames[start : start + config.batch]).to(config.device))
        for start in range(0, len(frames), config.batch)
    ]
    mu, logvar = (torch.cat(tensors)[:steps].half().cpu().numpy() for tensors in zip(*parts, strict=True))
    return {"mu": mu, "logvar": logvar}
