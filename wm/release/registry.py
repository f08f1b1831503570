"""The agents of a world in MLflow's registry: versions, the champion, and what it was before.

`champion` is an alias (`models:/car_racing-agent@champion`). Every move of it is a line of the registered model's tag
`wm.history`, from which a rollback knows where to go; the version that it moved to says in tags of its own how, why,
when and by whom. Imports mlflow, where files are fetched.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import Timeout

from wm import failures
from wm.core.errors import UserError
from wm.core.locks import lock
from wm.records import provenance, tracking
from wm.records.registered_models import model_id

CHAMPION = "champion"
HISTORY = "wm.history"
KEPT = 200
"""Moves that the history holds, far below the length that MLflow allows a tag."""
GATED, PROMOTED, ROLLED_BACK = "gate", "promote", "rollback"
"""How the alias moved."""

Move = dict[str, Any]
"""{"version": where to, "before": where from or None, "how", "reason", "date", "by"}."""


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Holds the right to move the champion: a gate and a hand take turns."""
    folder = Path(root) / ".wm"
    folder.mkdir(exist_ok=True)
    turn = lock(folder / "registry.lock")
    try:
        turn.acquire(timeout=0)
    except Timeout:
        print("Waiting for another gate, promotion or rollback in this folder.", flush=True)
        turn.acquire()
    try:
        yield
    finally:
        turn.release()


@contextlib.contextmanager
def connected(root: Path, model: str) -> Iterator[Registry]:
    """The versions of a registered model; what MLflow does not answer inside the block is one sentence.

    Raises:
        UserError: MLflow cannot be asked.
    """
    try:
        yield Registry(tracking.connect(root), model, tracking.uri(root))
    except UserError:
        raise
    except Exception as error:  # MLflow's are of many kinds
        where = tracking.place(root)
        if text := failures.sentence(error):
            raise UserError(f"MLflow at {where}: {text}") from error
        reason = tracking.sentence(error)
        raise UserError(f"MLflow at {where} could not be asked ({reason}): start or mend it, and try again") from error


class Registry:
    """One registered model; use it inside `connected`. Versions are strings, as in MLflow."""

    def __init__(self, client: Any, model: str, uri: str):
        self.client, self.model, self.uri = client, model, uri

    def versions(self) -> dict[str, Any]:
        """MLflow's versions by number, the newest first."""
        found = self.client.search_model_versions(f"name = '{self.model}'", order_by=["version_number DESC"])
        return {str(version.version): version for version in found}

    def of_weights(self, weights: str) -> str | None:
        """The version with these weights (`wm.records.registered_models.weights`)."""
        return next((number for number, one in self.versions().items() if one.tags.get("wm.weights") == weights), None)

    def champion(self) -> str | None:
        """The champion's version, if there is one."""
        found = self._registered()
        number = found.aliases.get(CHAMPION) if found else None
        return None if number is None else str(number)

    def history(self) -> list[Move]:
        """The champion's moves, the last at the end."""
        found = self._registered()
        return json.loads(found.tags.get(HISTORY, "[]")) if found else []

    def fetch(self, version: str, folder: Path) -> Path:
        """Downloads an agent's files; the folder that holds them, as `wm.play.agent.load` reads it."""
        from mlflow.artifacts import download_artifacts

        logged = self.client.get_logged_model(model_id(self.versions()[version]))
        where = f"{logged.artifact_location.rstrip('/')}/artifacts/model"
        return Path(download_artifacts(where, dst_path=str(folder), tracking_uri=self.uri))

    def rolled_back(self, version: str) -> Move | None:
        """The rollback that took the title from a version which has not had it since."""
        for move in reversed(self.history()):
            if move["version"] == version:
                return None
            if move["before"] == version and move["how"] == ROLLED_BACK:
                return move
        return None

    def promote(self, version: str, reason: str, how: str = PROMOTED) -> Move:
        """Makes a version the champion; the move."""
        move = self._move(version, how, reason)
        self._remember(move)
        self.client.set_registered_model_alias(self.model, CHAMPION, version)
        return move

    def roll_back(self, reason: str) -> Move:
        """Makes the champion what it was before the last promotion; the move.

        Raises:
            UserError: there is no champion, or there was none before it.
        """
        present = self.champion()
        if present is None:
            raise UserError(f"{self.model} has no champion that could be rolled back: make one with `wm agent promote`")
        earlier = before(self.history(), present, self.versions())
        if earlier is None:
            raise UserError(
                f"{self.model} had no champion before version {present}: choose one with "
                "`wm agent promote NAME --version N`"
            )
        move = self._move(earlier, ROLLED_BACK, reason)
        # The alias first: should MLflow go away here, the history still has the way back, and nothing is lost twice.
        self.client.set_registered_model_alias(self.model, CHAMPION, earlier)
        self._remember(move)
        return move

    def annotate(self, version: str, tags: Mapping[str, str], pages: Sequence[Path], text: str) -> None:
        """Adds to a version's page: tags, files below `gate/` of its run, a paragraph at the end of its description.

        Args:
            text: Markdown; `{url}` becomes the address of the files.
        """
        about = self.versions()[version]
        for page in pages:
            self.client.log_artifact(about.run_id, str(page), "gate")
        for name, value in tags.items():
            self.client.set_model_version_tag(self.model, version, name, value)
        text = text.replace("{url}", f"get-artifact?run_uuid={about.run_id}&path=gate/")
        description = (about.description or "").partition("\n\n**Gate**")[0]
        self.client.update_model_version(self.model, version, f"{description}\n\n**Gate** {text}")

    def attach(self, version: str, page: Path) -> None:
        """Puts the page of an agent's dream below `dream/` of its run, and a link on the version's page."""
        about = self.versions()[version]
        self.client.log_artifact(about.run_id, str(page), "dream")
        before, gate, decision = (about.description or "").partition("\n\n**Gate**")
        address = f"get-artifact?run_uuid={about.run_id}&path=dream/{page.name}"
        text = f"**Dream** [{page.name}]({address}), a page in which anyone can drive in it, without a network"
        before = before.partition("\n\n**Dream**")[0]
        self.client.update_model_version(self.model, version, f"{before}\n\n{text}{gate}{decision}")

    def _move(self, version: str, how: str, reason: str) -> Move:
        date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        by = provenance.user()
        return {"version": version, "before": self.champion(), "how": how, "reason": reason, "date": date, "by": by}

    def _remember(self, move: Move) -> None:
        lines = json.dumps([*self.history(), move][-KEPT:])
        self.client.set_registered_model_tag(self.model, HISTORY, lines)
        for name in ("how", "reason", "date", "by"):
            self.client.set_model_version_tag(self.model, move["version"], f"wm.champion.{name}", move[name])

    def _registered(self) -> Any:
        found = self.client.search_registered_models(f"name = '{self.model}'")
        return found[0] if found else None


def before(history: Sequence[Move], present: str, existing: Mapping[str, Any]) -> str | None:
    """The champion before the present one: promotions stack up, a rollback takes one off, deleted versions are left
    out."""
    stack: list[str] = []
    for move in history:
        if move["how"] != ROLLED_BACK:
            stack += [move["before"]] if move["before"] else []
        elif stack:
            stack.pop()
    while stack and (stack[-1] == present or stack[-1] not in existing):
        stack.pop()
    return stack[-1] if stack else None


def by_hand(root: Path, model: str, name: str, version: str | None, reason: str) -> Move:
    """Promotes a version, or the newest one of agent `name`.

    Raises:
        UserError: MLflow cannot be asked, there is no such version, or it is the champion already.
    """
    with alone(root), connected(root, model) as registry:
        versions = registry.versions()
        if version is None:
            version = next((number for number, one in versions.items() if one.tags.get("wm.name") == name), None)
            if version is None:
                raise UserError(f"{model} has no version of {name}: `python -m wm evaluate {name}` registers one")
        if version not in versions:
            known = ", ".join(versions) or "none yet"
            raise UserError(f"{model} has no version {version}: expected one of {known}")
        if version == registry.champion():
            raise UserError(f"version {version} of {model} is the champion already")
        return registry.promote(version, reason)


def roll_back(root: Path, model: str, reason: str) -> Move:
    """As `Registry.roll_back`, for a hand."""
    with alone(root), connected(root, model) as registry:
        return registry.roll_back(reason)
