"""What DVC knows: which stages an agent needs, in what order, and which of them have changed.

DVC has no types: its repositories, stages and outputs are `Any` here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAMLError

from flows import damage
from wm.core import files
from wm.core.errors import UserError

TARGET = "evaluate"
"""The stage that ends a pipeline: an agent is an instance of it."""
LOCKS = (Path("dvc.lock"), Path("trials/dvc.lock"))
"""A name stands in one of the two only."""


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml with its parameters filled in.

    Attributes:
        address: e.g. "train_vae@smoke".
        upstream: addresses of the stages whose outputs it reads.
        pool: the Prefect work pool that its `meta` names.
        outlook: "unchanged"; "in the cache" (its outputs are, from an earlier run with the same inputs);
            "to run"; or "depends" on what the stages before it will give.
    """

    address: str
    upstream: tuple[str, ...]
    pool: str | None
    outlook: str

    @property
    def name(self) -> str:
        """Without its file and the entry of `models` or `agents`: "train_vae"."""
        return key(self.address).partition("@")[0]


def key(address: str) -> str:
    """A stage as its file and its lock know it: trials/dvc.yaml:evolve@ablation -> evolve@ablation."""
    return address.rpartition(":")[2]


def waiting() -> dict[str, dict[str, bool]]:
    """What DVC would do for every agent: {agent: {address: whether it is not up to date}}, in the order of the stages.

    The project is read once, and a stage that several agents need is looked at once.
    """
    with project() as repo:
        names = (stage.addressing.partition("@") for stage in repo.index.stages)
        known: dict[str, bool] = {}
        found = {}
        for agent in [name for stage, _, name in names if stage == TARGET]:
            needed = _needed(repo, agent)
            for stage in needed:
                if stage.addressing not in known:
                    before = any(known[other.addressing] for other in repo.index.graph.successors(stage))
                    known[stage.addressing] = before or not all(out.exists for out in stage.outs) or _changed(stage)
            found[agent] = {stage.addressing: known[stage.addressing] for stage in needed}
        return found


def pools() -> list[str]:
    """The work pools that stages name."""
    with project() as repo:
        return sorted({stage.meta["pool"] for stage in repo.index.stages if (stage.meta or {}).get("pool")})


def check(agent: str) -> None:
    """Finds out at once what DVC would when a stage's turn comes, after hours perhaps; looks at no data.

    Raises:
        UserError: no such agent; a stage reads a key of params.yaml or a file that is not there; dvc.yaml,
            dvc.lock or params.yaml cannot be read.
    """
    from dvc.dependency.param import ParamsDependency

    with project() as repo:
        needed = _needed(repo, agent)
        made = [out for stage in needed for out in stage.outs]
        for stage in needed:
            for dep in stage.deps:
                if isinstance(dep, ParamsDependency):
                    if missing := sorted(set(dep.params) - set(dep.read_params())):
                        raise UserError(f"{dep} has no {missing[0]}, which {stage.addressing} reads")
                elif not dep.exists and not any(out.fs.isin_or_eq(dep.fs_path, out.fs_path) for out in made):
                    raise UserError(f"there is no {dep}, which {stage.addressing} reads")


def plan(agent: str, remote: bool = False) -> list[Stage]:
    """The stages that an agent needs, each after those that it reads from, as DVC sees them now.

    Args:
        remote: what dvc.lock names may be in the DVC remote alone; in place, it has to be in this folder.
    Raises:
        UserError: as `check` says; or `remote`, and the agent is one of trials/, whose lock file no worker is lent.
    """
    check(agent)
    outlook = _outlook_remote if remote else _outlook
    with project() as repo:
        graph, needed = repo.index.graph, _needed(repo, agent)
        if remote and any(key(stage.addressing) != stage.addressing for stage in needed):
            raise UserError(f"{agent} is one of trials/, whose stages run in place alone: leave --place out")
        stages: dict[str, Stage] = {}
        for stage in needed:
            before = sorted(graph.successors(stage), key=lambda other: other.addressing)
            upstream = tuple(other.addressing for other in before)
            settled = all(stages[address].outlook == "unchanged" for address in upstream)
            stages[stage.addressing] = Stage(
                address=stage.addressing,
                upstream=upstream,
                pool=(stage.meta or {}).get("pool"),
                outlook=outlook(stage, before) if settled else "depends",
            )
        return list(stages.values())


def code(agent: str) -> list[str]:
    """What the stages of an agent read that no stage makes, and dvc.yaml: paths from the project's top."""
    from dvc.dependency.param import ParamsDependency

    with project() as repo:
        needed = _needed(repo, agent)
        made = {out.fs_path for stage in needed for out in stage.outs}
        deps = (dep for stage in needed for dep in stage.deps if not isinstance(dep, ParamsDependency))
        paths = (os.path.relpath(dep.fs_path, repo.root_dir) for dep in deps if dep.fs_path not in made)
        return sorted({"dvc.yaml", *paths})


def check_out(agent: str) -> list[str]:
    """Brings back from DVC's cache what dvc.lock names and is not here, where what it was made from is unchanged.

    Returns:
        the addresses of all stages that are up to date now.
    """
    with project() as repo:
        graph, found = repo.index.graph, []
        damage.put_aside_lists(repo.cache.local)
        for stage in _needed(repo, agent):
            before = list(graph.successors(stage))
            if any(other.addressing not in found for other in before):
                continue
            if stage.changed(allow_missing=True, upstream=before):
                continue
            lost = [out for out in stage.outs if out.use_cache and not out.exists]
            if lost or damage.doubtful(stage.addressing):
                damage.doubt([stage.addressing])
                for out in lost:
                    out.checkout(allow_missing=True)
                damage.put_aside(stage)
                damage.settle([stage.addressing])
            if not stage.changed():
                found.append(stage.addressing)
        return found


def outputs(address: str) -> dict[str, str]:
    """The hashes that dvc.lock, or that of the trials, holds for a stage's outputs: {path: md5}.

    Raises:
        KeyError: neither knows the stage.
    """
    for lock in filter(Path.exists, LOCKS):
        stages = files.parse_yaml(lock.read_text(), str(lock))["stages"]
        if (entry := stages.get(key(address))) is not None:
            return {out["path"]: out["md5"] for out in entry.get("outs", [])}
    raise KeyError(address)


def upstream(address: str) -> list[str]:
    """The stages that one reads from.

    Raises:
        UserError: there is no such stage.
    """
    with project() as repo:
        return sorted(other.addressing for other in repo.index.graph.successors(find(repo, address)))


def recorded(agents: Collection[str] = ()) -> list[str]:
    """The stages of these agents, or all, whose outputs' hashes dvc.lock has."""
    with project() as repo:
        stages = [stage for agent in agents for stage in _needed(repo, agent)] if agents else repo.index.stages
        addresses = (stage.addressing for stage in stages if any(out.hash_info for out in stage.outs))
        return list(dict.fromkeys(addresses))


def kept_by_git(address: str) -> list[str]:
    """The outputs of a stage that DVC hashes but does not cache, e.g. metrics."""
    with project() as repo:
        return [out.def_path for out in find(repo, address).outs if not out.use_cache]


def push_kept_by_git(address: str) -> None:
    """Sends the same to the DVC remote: `dvc push` leaves them out, and without them no other checkout can restore
    the stage from the run-cache."""
    with project() as repo:
        objects = [out.hash_info for out in find(repo, address).outs if not out.use_cache]
        repo.cloud.push([each for each in objects if repo.cache.local.exists(each.value)])


def check_folder() -> None:
    """Raises UserError where no pipeline can run; writes nothing."""
    if not Path("dvc.yaml").exists():
        raise UserError("there is no dvc.yaml here: run this in the top folder of a checkout of the repository")
    if not Path(".git").exists():
        raise UserError("this folder is no git repository: clone it, or run `git init` first")
    if not Path(".dvc/config").exists():
        raise UserError("this folder is no DVC project: restore it with `git checkout .dvc`, or run `dvc init`")


def check_remote() -> None:
    """Stages on workers hand their outputs on through a DVC remote.

    Raises:
        UserError: this checkout has none.
    """
    from dvc.config import NoRemoteError

    with project() as repo:
        try:
            repo.cloud.get_remote()
        except NoRemoteError:
            raise UserError(
                f"the checkout {repo.root_dir} has no DVC remote, through which stages hand on what they made: "
                "run `dvc remote add --local --default storage ADDRESS` in it"
            ) from None


def find(repo: Any, address: str) -> Any:
    """DVC's stage of this address.

    Raises:
        UserError: there is none.
    """
    for stage in repo.index.stages:
        if stage.addressing == address:
            return stage
    raise UserError(f"{repo.root_dir} has no stage {address!r}: name one of dvc.yaml's")


def _needed(repo: Any, agent: str) -> list[Any]:
    """DVC's stages for an agent, each after those that it reads from."""
    import networkx

    target = f"{TARGET}@{agent}"
    stages = {key(stage.addressing): stage for stage in repo.index.stages}
    if target not in stages:
        known = ", ".join(one.partition("@")[2] for one in stages if one.startswith(f"{TARGET}@"))
        raise UserError(f"there is no agent {agent!r} in params.yaml: choose one of {known}, or add a line to `agents`")
    # The edges of DVC's graph point from a stage to what it reads.
    return list(networkx.dfs_postorder_nodes(repo.index.graph, stages[target]))


def _changed(stage: Any) -> bool:
    from dvc.lock import LockError

    try:
        return stage.changed()
    except LockError:  # somebody's `dvc repro` is at work on it right now
        return True


def _outlook(stage: Any, upstream: list[Any]) -> str:
    """DVC's own judgement: what `dvc repro -s` asks before it runs anything."""
    from dvc.lock import LockError
    from dvc.stage.cache import RunCacheNotFoundError
    from dvc_data.hashfile.hash_info import HashInfo

    try:
        if not stage.changed():
            return "in the cache" if damage.doubtful(stage.addressing) else "unchanged"
        if stage.changed_stage() or not stage.deps_cached():
            stage.save_deps()  # in memory: the run-cache is keyed by what the inputs are now, not by dvc.lock
            for out in stage.outs:
                out.hash_info = HashInfo()  # what dvc.lock names was made from other inputs, cached or not
        stage.repo.stage_cache.restore(stage, dry=True)
    except (RunCacheNotFoundError, LockError):  # locked: somebody's `dvc repro` is at work on it right now
        return "to run"
    return "in the cache"


def _outlook_remote(stage: Any, upstream: list[Any]) -> str:
    """The same where data need not be here, as long as the remote has them: files that git keeps do."""
    from dvc.lock import LockError

    remote = stage.repo.cloud.get_remote_odb(command="repro")
    try:
        if stage.changed(allow_missing=True, upstream=upstream):
            return "depends"  # on what the run-cache of the remote knows: a worker finds out
    except LockError:
        return "depends"
    # DVC sends the list of a folder's files after the files.
    there = all(remote.exists(out.hash_info.value) if out.use_cache else out.exists for out in stage.outs)
    return "unchanged" if there else "depends"


@contextmanager
def project() -> Iterator:
    """The DVC project in the current folder, locked; what is wrong with it is one sentence."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo, lock_repo

    logging.getLogger("dvc").setLevel(logging.ERROR)  # it speaks as if it did what it is only asked about
    try:
        with Repo(_wait_for_lock=True) as repo, lock_repo(repo):
            yield repo
    except (DvcException, YAMLError) as error:
        for path in map(Path, ("dvc.lock", "dvc.yaml", "params.yaml")):
            if path.is_file() and files.has_marks(path.read_bytes()):
                raise UserError(files.marked(str(path))) from None
        text = " ".join(str(error).split())
        for lock in map(str, LOCKS):
            if f"'./{lock}'" in text or f"'{lock}'" in text:
                text += f": `git checkout {lock}` brings back the committed one"
        raise UserError(text) from error
