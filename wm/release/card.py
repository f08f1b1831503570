"""A trained agent as a folder that the Hugging Face hub takes as it is: a card, safetensors, ONNX, scores, its making.

    README.md                       the card: text for people, metadata for the hub
    vae, mdnrnn, controller, starts .safetensors and .json: the agent, as every command here takes it; also what
                                    surprised V and M, where it is known
    scores.json, made.json          its test scores, and what made it, where they are known
    onnx/                           as `wm agent export` writes it

The card's metadata are those of `huggingface_hub.ModelCardData`; the package itself is not needed to write them.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from ruamel.yaml import YAML

from wm.core import files, weights
from wm.core.errors import UserError
from wm.play import agent as agents
from wm.play.agent import Agent
from wm.release import export, pretrained
from wm.release.places import KINDS, MADE, SCORES, Place
from wm.run import RUNS

CARD = "README.md"
MARK = "onnx/agent.json"
"""By which a folder shows that it is an earlier card's."""
TASK = "reinforcement-learning"


def write(place: Place, out: Path) -> str:
    """Writes the folder `out`, which is whole or not there; returns a sentence.

    Raises:
        UserError: `out` is there and something else, packages are missing, or a graph is not exact.
        DamagedData: the agent is not whole.
    """
    agent, _, about = agents.load(place.folder)
    scores, made, unknown = place.scores, *_made(place)
    with export.folder(out, MARK, "model card") as new:
        known = [kind for kind in weights.SURPRISE_KINDS if weights.exists(place.folder, kind)]
        for kind in (*KINDS, *known):
            source = place.starts if kind == weights.STARTS_KIND else place.folder
            weights.load(source, kind)
            for end in ("safetensors", "json"):
                shutil.copyfile(source / f"{kind}.{end}", new / f"{kind}.{end}")
        if scores:
            files.write_json(new / SCORES, scores)
        if made:
            files.write_record(new / MADE, made)
        (new / "onnx").mkdir()
        export.write(place, new / "onnx")
        files.write_bytes(new / CARD, _card(place, agent, about, scores, made, unknown).encode())
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return f"{out}: {size / 1e6:.1f} MB; `hf upload REPOSITORY {out}` publishes it"


def _made(place: Place) -> tuple[dict[str, Any] | None, str]:
    """What made the agent, as pretrained/NAME/made.json has it; or nothing, and why."""
    if (place.folder / MADE).is_file():
        made = files.read_record(place.folder / MADE)
        made.pop("models", None)  # the folder will hold V and M itself
        return made, ""
    if place.folder != RUNS / place.name / "evolve":
        return None, "nothing in its folder says so"
    try:
        return pretrained.record(place.name, place.tau), ""
    except UserError as error:
        return None, str(error)


def _card(
    place: Place,
    agent: Agent,
    about: dict[str, Any],
    scores: dict[str, Any] | None,
    made: dict[str, Any] | None,
    unknown: str,
) -> str:
    environment = Environment(
        loader=PackageLoader("wm.release", "."), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    sizes = {
        kind: sum(tensor.numel() for tensor in module.parameters())
        for kind, module in (("V", agent.vae), ("M", agent.mdnrnn))
    }
    text = environment.get_template("card.md").render(
        name=place.name,
        world=agent.world.spec,
        environment=_environment(agent),
        agent=agent,
        sizes={**sizes, "C": agent.layout.size},
        about=about,
        tau=place.tau,
        scores=scores,
        made=made,
        unknown=unknown,
        stages=_stages(made),
        pictures=agent.world.description.licence,
    )
    return f"---\n{_metadata(place, agent, scores)}---\n\n{text}"


def _environment(agent: Agent) -> str:
    """What the world is called where it comes from."""
    named = agent.world.description.picture.get("environment", "")
    return named if named and not named.startswith("of the world ") else agent.world.spec.name


def _metadata(place: Place, agent: Agent, scores: dict[str, Any] | None) -> str:
    """YAML, with the keys of `huggingface_hub.ModelCardData`."""
    environment = _environment(agent)
    told: dict[str, Any] = {
        "license": "mit",
        "library_name": "world-models",
        "pipeline_tag": TASK,
        "tags": [TASK, "world-models", "model-based-reinforcement-learning", environment, "onnx", "safetensors"],
    }
    if scores:
        name = f"mean score of {scores['episodes']} test episodes, 95% interval {_interval(scores)}"
        value = f"{scores['mean']:.2f} +/- {scores['std']:.2f}"
        result = {
            "task": {"type": TASK, "name": TASK},
            "dataset": {"type": environment, "name": environment},
            "metrics": [{"type": "mean_reward", "value": value, "name": name, "verified": False}],
        }
        told["model-index"] = [{"name": place.name, "results": [result]}]
    text = io.StringIO()
    yaml = YAML(typ="safe")
    yaml.default_flow_style, yaml.width = False, 10_000
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel states its default, None
    yaml.dump(told, text)
    return text.getvalue()


def _interval(scores: dict[str, Any]) -> str:
    return f"{scores['ci95_low']:.1f} to {scores['ci95_high']:.1f}"


def _stages(made: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A row a stage: its address, seed, what it played or learned from, commit and output."""
    rows = []
    for stage in (made or {}).get("stages", ()):
        told = {key: stage["summary"][key] for key in ("episodes", "steps") if key in stage["summary"]}
        rows.append(
            {
                "address": stage["address"],
                "seed": stage["numbers"].get("seed", ""),
                "told": ", ".join(f"{value:,} {key}" for key, value in told.items()),
                "commit": stage["commit"][:12],
                "output": stage["output"],
            }
        )
    return rows
