"""`wm agent surprise` and `wm agent gauge`, and the surprise that a served agent tells."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tiny_agent

from wm.cli import main
from wm.core import episodes, weights
from wm.core.episodes import EpisodeSet
from wm.models import surprise
from wm.models.surprise import Reference
from wm.models.vae import load_vae, save_vae
from wm.play.agent import AgentFiles
from wm.release import agent_model
from wm.release import surprise as of_agents
from wm.release.places import Place


@pytest.fixture
def agent(project) -> Path:
    """An agent of the tiny world without references."""
    return tiny_agent.write(project / "kept")


@pytest.fixture
def data(agent) -> EpisodeSet:
    """Twelve of its episodes."""
    Path("data").mkdir()
    return of_agents.play(Place("kept", agent, agent, 1.0), range(40, 52), Path("data"))


def keep_references(agent: Path, data: EpisodeSet) -> None:
    vae, memory = AgentFiles.read(agent).models()
    known = of_agents.references(Place("kept", agent, agent, 1.0), vae, memory, Path("data"))
    for side, kind in of_agents.SIDES.items():
        known[side].save(agent, kind, "tiny")


def test_without_a_reference_it_says_how_to_get_one(agent, capsys):
    assert main(["agent", "surprise", "kept"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "kept has no reference of surprise" in said and "--against" in said
    assert not Path("surprise.png").exists()


def test_its_own_reference_is_of_held_out_episodes_as_those_of_the_stages(agent, data):
    keep_references(agent, data)
    v, m = (Reference.load(agent, kind) for kind in weights.SURPRISE_KINDS)
    (index,) = data.held_out
    assert set(v.episode) == set(m.episode) == {index}
    assert len(v.values) == data.episodes[index]["length"] == len(m.values) + 1


def test_played_episodes_and_a_data_set_of_the_same_seeds_surprise_alike(agent, data, capsys):
    assert main(["agent", "surprise", "kept", "3", "--seed", "40", "--against", "data"]) == 0
    played = capsys.readouterr().out
    assert main(["agent", "surprise", "kept", "data", "--against", "data", "--out", "more/moments.png"]) == 0
    whole = capsys.readouterr().out
    rows = [line for line in whole.splitlines() if line.startswith("seed ")]
    assert [row.split()[1] for row in rows] == [str(seed) for seed in range(40, 52)]
    assert [line for line in played.splitlines() if line.startswith("seed ")] == rows[:3]
    assert Path("surprise.png").stat().st_size > 1000 and Path("more/moments.png").stat().st_size > 1000


def test_noise_on_the_frames_surprises_v_beyond_all_that_it_knew(agent, data, capsys):
    vae = load_vae(agent)
    vae.decoder[-1].bias.fill_(-4.0)  # it knows that most of this world is black
    save_vae(vae, "tiny", agent)
    keep_references(agent, data)
    Path("spoilt").mkdir()
    rng, shard = np.random.default_rng(0), episodes.Shard(data.columns)
    for index in range(2):
        episode = data.read(index)
        episode["obs"] = rng.integers(0, 256, episode["obs"].shape, np.uint8)
        shard.add(episode, seed=index)
    stored = episodes.store_shard(Path("spoilt"), 0, *shard.finish())
    episodes.write_manifest(Path("spoilt"), "tiny", data.columns, [stored])
    assert main(["agent", "surprise", "kept", "spoilt"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("seed ")]
    assert len(rows) == 2 and all(re.search(r" 100% +100\.0%", row.split("|")[1]) for row in rows), rows


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "'nowhere' is no data set"),
        (["0"], "'0' is no data set"),
        (["3", "--seed", "-1"], "--seed is -1"),
        (["3", "--out", "x.pdf"], "--out is x.pdf"),
        (["3", "--against", "latents"], "latents holds no frames"),
        (["3", "--against", "other"], "other has episodes of car_racing, and kept knows tiny"),
    ],
)
def test_a_mistake_is_one_sentence(agent, data, capsys, words, said):
    keep_references(agent, data)
    for name, world, columns in (
        ("latents", "tiny", episodes.latent_columns(4, 2)),
        ("other", "car_racing", data.columns),
    ):
        Path(name).mkdir()
        episodes.write_manifest(Path(name), world, columns, [])
    assert main(["agent", "surprise", "kept", *words]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1


def test_a_served_agent_tells_the_percentiles_of_its_reference_and_an_older_one_none(agent, data):
    def ask(model, frames, state, step):
        rows = {"seed": np.array([5]), "step": np.array([step])}
        return model.predict({"frames": frames[None].copy(), "state": state, **rows})

    assert set(ask(agent_model.load(agent), data.read(0)["obs"][0], np.zeros((1, 0)), 0)) == {"actions", "state"}
    keep_references(agent, data)
    vae, memory = AgentFiles.read(agent).models()
    (seen,) = of_agents.of_episodes(vae, memory, data, [3])
    v, m = (Reference.load(agent, kind) for kind in weights.SURPRISE_KINDS)
    model, state, told = agent_model.load(agent), np.zeros((1, 0), np.float32), []
    for step, frame in enumerate(data.read(3)["obs"]):
        reply = ask(model, frame, state, step)
        state = reply["state"]
        told.append(reply["surprise"][0])
    told = np.array(told)
    assert told.dtype == np.float32 and told[0, 1] == 0.0
    step = 200.0 / len(m.values)  # rounding may move a value past a neighbour
    np.testing.assert_allclose(told[:, 0], v.percentile(seen.values["V"]), atol=step)
    np.testing.assert_allclose(told[1:, 1], m.percentile(seen.values["M"])[1:], atol=step)
    assert np.ptp(told, axis=0).min() > 0


def test_moments_are_apart():
    values = np.zeros(100)
    values[[10, 12, 50, 90]] = [5, 9, 7, 6]
    seen = [of_agents.EpisodeSurprise("a", {"V": values}), of_agents.EpisodeSurprise("b", {"V": np.full(5, 8.0)})]
    assert of_agents.moments(seen, "V") == [(0, 12), (1, 4), (0, 50), (0, 90)]


def test_the_gauge_of_an_agent_is_printed_and_drawn(agent, capsys):
    assert main(["agent", "gauge", "kept", "--controllers", "8", "--episodes", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert re.match(r"kept: rank correlation of dream \(tau 1\) and world -?\d\.\d\d over 8 controllers", said[0])
    assert [line.split(":")[0] for line in said[1:]] == [
        f"weights disturbed by {spread:g}" for spread in (0.025, 0.05, 0.1, 0.2)
    ] + ["picture"]
    assert Path("kept_gauge.png").exists()
    assert main(["agent", "gauge", "kept", "--sigma", "0"]) == 2
    assert "--sigma is 0: expected more than 0" in capsys.readouterr().err


def test_the_measures_of_a_whole_episode_are_those_of_the_stages(agent, data):
    vae, memory = AgentFiles.read(agent).models()
    (seen,) = of_agents.of_episodes(vae, memory, data, [2])
    episode = data.read(2)
    v, mu = surprise.to_v(vae, episode["obs"], 64)
    assert np.array_equal(seen.values["V"], v)
    assert np.array_equal(seen.values["M"][1:], surprise.to_m(memory, mu, episode["act"]))
