"""The parts of a search: where it starts, what scoring again tells, what is kept, and its state in a checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_world
from dream_model import write_model

from wm.core.workspace import Workspace
from wm.dream.engine import Dream, DreamRules, load_starts
from wm.models.controller import ControllerSpec, Layout
from wm.models.mdnrnn import load_mdnrnn
from wm.play import agent as agents
from wm.play.cluster import Cluster
from wm.search import rescoring
from wm.search.config import EvolveConfig
from wm.search.contenders import Contender
from wm.search.fitness import Scorer, WorldPlayer
from wm.search.loop import Search
from wm.search.start import Start, search_space, widened

TINY = tiny_world.Tiny()


def rescored(world: list[float], dream: list[float], reference: dict[str, float]) -> dict[str, float]:
    """The journal's line of two controllers with these scores."""
    scores = {"world": np.array([world, world]), "dream": np.array([dream, dream])}
    return rescoring.of_mean_and_best(scores, reference)


def test_a_controller_that_exploits_the_dream_is_an_alarm(capsys):
    """The dream's score rises while the world's falls, each by more than the standard error over the episodes."""
    first = rescored([100.0, 120.0], [100.0, 110.0], {}) | {"step": 1}
    assert first["gap_alarm"] == 0 and first["dream_reality_gap"] == -5
    assert rescored([90.0, 70.0], [90.0, 100.0], first)["gap_alarm"] == 0, "both fell"
    assert rescored([100.0, 115.0], [200.0, 210.0], first)["gap_alarm"] == 0, "the world's fell within its error"
    assert rescored([50.0, 60.0], [80.0, 140.0], first)["gap_alarm"] == 0, "the dream's rose within its error"
    assert not capsys.readouterr().out
    assert rescored([50.0, 60.0], [200.0, 210.0], first)["gap_alarm"] == 1
    assert "alarm: since generation 1 " in capsys.readouterr().out


def test_an_alarm_compares_with_the_line_in_which_the_world_went_best():
    """A slow fall, each step of it within the error, would never be one otherwise."""
    lines = [{"step": 2, "rescored": 5.0}, {"step": 4, "rescored": 9.0}, {"step": 6, "rescored": 7.0}]
    assert rescoring.best_in_world([{"step": 0, "rescored": None}, {"step": 1}, *lines])["step"] == 4
    assert rescoring.best_in_world([]) == {}


def test_the_line_has_the_mean_and_the_best_candidate_apart():
    line = rescoring.of_mean_and_best({"world": np.array([[1.0, 3.0], [7.0, 9.0]])}, {})
    assert line == {"rescored": 2.0, "rescored_std": 1.0, "rescored_best": 8.0}


def test_the_final_selection_keeps_the_best_on_its_episodes_and_its_score_there(capsys):
    field = [Contender(np.full(3, number), 9.0 - number, number, "mean") for number in range(4)]
    scores = np.array([[1.0, 2.0], [np.nan, 90.0], [5.0, 4.0], [4.0, 4.0]])
    kept = rescoring.select(field, scores)
    assert (kept.generation, kept.score) == (2, 4.5) and kept.params is field[2].params
    assert "mean of generation 2 scores 4.5" in capsys.readouterr().out
    assert rescoring.select(field, np.full((4, 2), np.nan)).score == -np.inf


def test_a_controller_that_reads_more_starts_as_the_one_that_read_less():
    memory = SimpleNamespace(z_size=2, config=SimpleNamespace(hidden=3))
    rng = np.random.default_rng(0)
    earlier = ControllerSpec(("z", "h"), Layout(inputs=5, actions=2))
    spec = ControllerSpec(("z", "c", "h"), Layout(inputs=8, actions=2))
    params = rng.standard_normal(earlier.layout.size).astype(np.float32)
    z, h, c = (rng.standard_normal((1, size)).astype(np.float32) for size in (2, 3, 3))
    wide = widened(params, earlier, spec, memory)
    now = spec.layout.apply(wide[None], np.concatenate([z, c, h], axis=1))
    assert np.allclose(now, earlier.layout.apply(params[None], np.concatenate([z, h], axis=1)), atol=1e-6)
    less = widened(params, earlier, ControllerSpec(("z",), Layout(inputs=2, actions=2)), memory)
    assert not less.any(), "without h it would be another controller"
    deep, deeper = (Layout(inputs=size, actions=2, hidden=4) for size in (5, 8))
    params = rng.standard_normal(deep.size).astype(np.float32)
    unfit = widened(params, ControllerSpec(("z", "h"), deep), ControllerSpec(("z", "c", "h"), deeper), memory)
    assert not unfit.any()


CONFIG = EvolveConfig(
    population=6, generations=5, episodes=3, hard_episodes=1, rescore_every=2, rescore_episodes=2, dream=True
)


@pytest.fixture
def search(tmp_path):
    """Makes searches of the tiny world, whose dream is `dream_model`'s, each in a scratch folder of its own."""
    model = write_model(tmp_path / "model", "tiny")
    memory = load_mdnrnn(model / "train_mdn")
    agents.save(model / "train_vae", model / "train_mdn", model)
    with Cluster(1) as cluster:

        def make(folder: str) -> Search:
            spec = agents.controller_spec(TINY, memory, None)
            start = Start(np.full(spec.layout.size, 0.1, np.float32), round_index=1)
            space = search_space(CONFIG, start, spec, model, memory, "tiny")
            dream = Dream(memory, load_starts(model / "train_mdn"), TINY, spec, DreamRules(1.1, max_steps=20))
            player = WorldPlayer(CONFIG, "tiny", spec, True, cluster, agents.AgentFiles.read(model))
            scorer = Scorer(CONFIG, player, dream, selection=[5, 6])
            workspace = stack(Workspace("evolve", folder, "0" * 16, tmp_path / ".wm"))
            return Search(CONFIG, 3, start, space, scorer, workspace, (Path("V"), Path("M")))

        opened: list[Workspace] = []

        def stack(workspace: Workspace) -> Workspace:
            opened.append(workspace)
            return workspace.__enter__()

        yield make
        for workspace in opened:
            workspace.__exit__()


def test_a_search_goes_on_from_one_of_another_length_where_both_were_scored_again_as_often(search):
    here = search("here")  # of 5 generations, every second of which is scored again, and the last
    for done, generations, another in (
        (4, 9, False),
        (5, 9, True),
        (5, 5, False),
        (3, 3, True),
        (4, 4, False),
        (6, 9, True),
    ):
        assert here._another(done, generations) == another, (done, generations)


def test_a_search_is_itself_again_from_its_state(search):
    """In a checkpoint after each generation; what comes then is the same to the bit."""
    whole = search("whole")
    whole.begin()
    assert list(whole.remaining) == [0, 1, 2, 3, 4] and whole.best.score > -np.inf, "the start was not scored"
    for n in range(3):
        whole.generation(n)
    other = search("other")
    other.restore(*whole.state())
    assert other.done == 3 and list(other.remaining) == [3, 4]
    assert np.array_equal(other.cmaes.mean, whole.cmaes.mean)
    ahead = whole.space.controllers(whole.cmaes.ask())
    assert np.array_equal(other.space.controllers(other.cmaes.ask()), ahead)
    assert other.played.hardest(9) == whole.played.hardest(9) and len(whole.played.hardest(9)) > 3
    for one, again in zip(whole.contenders["world"].found, other.contenders["world"].found, strict=True):
        assert np.array_equal(one.params, again.params) and one.score == again.score


def test_a_search_in_another_process_goes_on_where_the_checkpoint_is(search, capsys):
    first = search("one")
    first.begin()
    for n in first.remaining:
        first.generation(n)
    expected = first.finish()
    cut = search("two")
    cut.begin()
    cut.generation(0)
    cut.workspace.__exit__()
    again = search("two")
    again.begin()
    assert "going on from generation 1" in capsys.readouterr().out
    for n in again.remaining:
        again.generation(n)
    outcome = again.finish()
    assert outcome.summary == expected.summary and np.array_equal(outcome.kept.params, expected.kept.params)
    assert again.workspace.journal.path.read_bytes() == first.workspace.journal.path.read_bytes()
