"""The gate: a new agent becomes champion only if it drives better than the champion on the same tracks.

Both play the episodes of `seeds.Purpose.GATE`, on which nothing was trained, selected or reported, in the world's fast
drawing. What decides is the mean of the differences, episode by episode: most of a score's spread is the track's, and
falls out.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm import worlds
from wm.core import files, seeds
from wm.core.errors import UserError
from wm.params import GateConfig
from wm.pictures import figures
from wm.play.cluster import Cluster
from wm.records import run_notes, tracking
from wm.records.registered_models import model_name, weights
from wm.release import registry
from wm.stages.evaluate import interval, play_agent


@dataclass(frozen=True)
class Duel:
    """Scores [E] of two agents on the same E episodes."""

    challenger: np.ndarray
    champion: np.ndarray

    @property
    def differences(self) -> np.ndarray:
        """[E], positive where the challenger was better."""
        return self.challenger - self.champion

    def summary(self) -> dict[str, float]:
        """Both means, the mean difference and its 95% interval (percentile bootstrap), the number of episodes."""
        return {
            "challenger_mean": float(self.challenger.mean()),
            "champion_mean": float(self.champion.mean()),
            "difference": float(self.differences.mean()),
            **interval(self.differences),
            "episodes": len(self.challenger),
        }

    def won(self) -> bool:
        """Whether the whole interval is above zero; a tie is not, nor is a score that is no number."""
        return interval(self.differences)["ci95_low"] > 0


def duel(config: GateConfig, world: str, challenger: Path, champion: Path) -> Duel:
    """Lets the agents in two folders play the gate's episodes.

    Raises:
        DamagedData: an agent is not whole.
    """
    numbers = seeds.episodes(0, seeds.Purpose.GATE, count=config.episodes)
    drawing = worlds.get(world).spec.drawings[0]
    with Cluster() as cluster:
        scores = [
            play_agent(config, world, folder, numbers, cluster, drawing, title)[0]
            for folder, title in ((challenger, "challenger"), (champion, "champion"))
        ]
    return Duel(*scores)


def gate(name: str, config: GateConfig, world: str, experiment: str, root: Path) -> dict[str, Any]:
    """Decides whether the agent in runs/NAME/evolve becomes champion; tells MLflow, and moves the champion if so.

    Returns:
        {"decision": "promoted" or "kept", "why": a sentence, "model", "challenger" and "champion": versions, and
        `Duel.summary` where they played}; the same is in .wm/gate/NAME/decision.json, with differences.png beside it.
    Raises:
        UserError: MLflow cannot be asked, or does not have the agent; nothing is decided then.
        DamagedData: an agent is not whole.
    """
    agent, out = root / "runs" / name / "evolve", root / ".wm" / "gate" / name
    model = model_name(world, experiment, "agent")
    if not (agent / "controller.json").exists():
        raise UserError(f"{agent.relative_to(root)} holds no agent: run `dvc repro evaluate@{name}`, or `dvc pull`")
    with registry.alone(root), tempfile.TemporaryDirectory() as scratch:
        with registry.connected(root, model) as versions:
            champion = versions.champion()
            tracking.send_left_behind(root)
            challenger = versions.of_weights(weights("agent", agent))
            if challenger is None:
                raise UserError(
                    f"no version of {model} has the weights in {agent.relative_to(root)}: an agent is registered when "
                    f"it is evaluated, so run `python -m wm evaluate {name}` with MLflow at hand"
                )
            hand = versions.rolled_back(challenger)
            plays = champion not in (None, challenger) and hand is None
            opponent = versions.fetch(champion, Path(scratch)) if plays else None
        result = duel(config, world, agent, opponent) if opponent else None
        decision = _decision(model, challenger, champion, hand, result)
        out.mkdir(parents=True, exist_ok=True)
        pages = [out / "decision.json"]
        files.write_json(pages[0], decision)
        if result:
            pages.append(out / "differences.png")
            picture(result, decision, pages[1])
        elif decision["decision"] == "kept":  # nobody has played: the version's page stays as it is
            return decision
        with registry.connected(root, model) as versions:
            if versions.champion() != champion:  # from another folder, by hand perhaps
                raise UserError(f"the champion of {model} changed while {name} was compared with it: gate {name} again")
            tags = {f"wm.gate.{key}": f"{value}" for key, value in decision.items() if value is not None}
            versions.annotate(challenger, tags, pages, run_notes.of_gate(decision, "{url}differences.png"))
            if decision["decision"] == "promoted":
                versions.promote(challenger, decision["why"], registry.GATED)
    return decision


def _decision(
    model: str, challenger: str, champion: str | None, hand: registry.Move | None, result: Duel | None
) -> dict[str, Any]:
    about = {"model": model, "challenger": challenger, "champion": champion}
    if champion == challenger:
        return {"decision": "kept", "why": f"version {champion} is the champion already", **about}
    if hand:
        why = (
            f"version {challenger} was rolled back by {hand['by']} ({hand['reason']}): only `wm agent promote` takes it"
        )
        return {"decision": "kept", "why": why, **about}
    if result is None:
        return {"decision": "promoted", "why": f"version {challenger} is the first champion", **about}
    summary = result.summary()
    verdict, word = ("promoted", "is better") if result.won() else ("kept", "is not shown to be better")
    why = (
        f"version {challenger} {word} than version {champion}: {summary['difference']:+.1f} on average, 95% interval "
        f"{summary['ci95_low']:+.1f} to {summary['ci95_high']:+.1f}, over {summary['episodes']} episodes"
    )
    return {"decision": verdict, "why": why, **about, **summary}


def picture(result: Duel, decision: dict[str, Any], path: Path) -> None:
    """A PNG: the differences, their mean and its interval, beside no difference."""
    figures.scores(
        result.differences,
        path,
        title=f"Version {decision['challenger']} against version {decision['champion']} on the same episodes",
        references={"no difference": 0.0},
        interval=(decision["ci95_low"], decision["ci95_high"]),
        xlabel=f"score of version {decision['challenger']} minus score of version {decision['champion']}",
    )
