"""The pipeline as Prefect sees it: a flow run an agent, a task run a stage, whose state is DVC's verdict."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows import claim, gate, graph, pages, recipe, remote, rounds, start, variants, worktree
from flows.repro import FAILED, Verdict, repro
from flows.variants import Variant
from wm import failures
from wm.core import files, verdicts, workspace
from wm.core.errors import UserError
from wm.records import tracking
from wm.search import budget as budgets

STAGES_AT_ONCE = 1
"""A stage uses all cores; side by side they would only be slower, and DVC commits one at a time anyway."""

Place = Annotated[
    Literal["here", "pools"],
    Field(
        description="Where stages run: `here`, in the folder and on the machine of this run; or `pools`, each on a "
        "worker of the work pool that its `meta` in dvc.yaml names"
    ),
]

Seed = Annotated[
    int | None,
    Field(description="Instead of every `seed` in params.yaml that the agent comes from; the run has its own branch"),
]
Budget = Annotated[
    str | None,
    Field(
        description="How long the run may take, such as 2h or 90m: the agent's search ends in time for its evaluation; "
        "the run has its own branch, whose params.yaml says how many generations it had"
    ),
]
Machine = Annotated[
    str | None,
    Field(description="An entry of `machines` in params.yaml, whose numbers count; the run has its own branch"),
]


def _is_transient(task: Any, run: Any, state: State) -> bool:
    return state.name == "Transient"


@task(
    persist_result=False,
    cache_policy=NO_CACHE,
    retries=4,
    retry_delay_seconds=[5, 15, 60, 180],
    retry_condition_fn=_is_transient,
)
def run_stage(
    address: str,
    unchanged: bool,
    upstream: tuple[str, ...] = (),
    pool: str | None = None,
    deadline: float | None = None,
) -> State[dict[str, Any]]:
    """Brings one stage up to date.

    The state's name is DVC's verdict: Cached, Restored or Completed. Its data are {"verdict", "seconds",
    "outputs": {path: md5}}.

    Args:
        address: of the stage in dvc.yaml, e.g. "train_vae@smoke".
        unchanged: DVC has already found that nothing changed (see flows/graph.py); it is not started again.
        upstream: the stages that it reads from.
        pool: the work pool whose worker runs it; here if None.
        deadline: when a search has to end, in seconds since 1970.
    """
    log, start = get_run_logger(), time.monotonic()
    if unchanged:
        verdict = "Cached"
        log.info("Stage '%s' didn't change, skipping", address)
    elif pool:
        outcome = remote.ask(address, upstream, pool, log.info)
        verdict = outcome.state
        if verdict in FAILED:
            return Failed(name=verdict, message=outcome.message)
    else:
        result = _in_time(address, deadline) if deadline else repro(address, log.info)
        verdict = result.state
        if result.failed:
            return Failed(name=verdict, message=result.why)
    outputs = graph.outputs(address)
    message = ", ".join(f"{path} {md5}" for path, md5 in outputs.items())
    return Completed(
        name=verdict,
        message=message,
        data={"verdict": verdict, "seconds": round(time.monotonic() - start, 1), "outputs": outputs},
    )


def _in_time(address: str, deadline: float) -> Verdict:
    """A search that ends in time: its generations are as many as it had, from then on."""
    log, agent = get_run_logger(), address.partition("@")[2]
    for folder in workspace.folders("evolve", agent):
        (folder / budgets.ENDED).unlink(missing_ok=True)
    result = repro(address, log.info, variables={budgets.VARIABLE: str(deadline)})
    ended = [path for folder in workspace.folders("evolve", agent) if (path := folder / budgets.ENDED).exists()]
    if result.state != "Failed" or not ended:
        return result
    done = files.read_json(ended[0])["generation"]
    log.info("generations of %s: %d, so this run's params.yaml says that now", agent, done)
    mine = recipe.read()
    recipe.search(mine, agent)["generations"] = done
    recipe.write(mine, f"{agent}: whole numbers, written by its run; its search has the generations of its budget.")
    return repro(address, log.info)


@flow(
    name="pipeline",
    flow_run_name="{agent}",
    persist_result=False,
    task_runner=ThreadPoolTaskRunner(max_workers=STAGES_AT_ONCE),
)
def pipeline(
    agent: str,
    place: Place = "here",
    seed: Seed = None,
    budget: Budget = None,
    machine: Machine = None,
    gated: bool | None = None,
) -> State[dict[str, Any]]:
    """Everything that an agent needs, from the first episode to its score; only what changed runs.

    Args:
        agent: The agent to bring up to date: a name under `agents` in params.yaml, such as smoke or car_racing.
        place: Where stages run: in this folder, or each on a worker of the pool that dvc.yaml names for it.
        seed: Instead of the seeds in params.yaml; as budget and machine, it gives a run on a branch of its own.
        budget: How long the run may take, such as 2h or 90m; empty for as long as it takes.
        machine: An entry of `machines` in params.yaml.
        gated: Whether the agent may become champion; empty for yes, but for a run on a branch of its own.
    """
    begin = start.current()
    begin.listen()
    variant = Variant(seed=seed, budget=budget, machine=machine)
    gated = not variant if gated is None else gated
    try:
        with variants.inside(agent, variant), claim.workspace(agent):
            deadline = _deadline(agent, place, budget, begin.began)
            if place == "pools":
                graph.check_remote()
            for _ in range(2):
                stages = graph.plan(agent, remote=place == "pools")
                with _tracked(agent, stages) as page:
                    state = _stages(agent, stages, place, page, deadline, gated)
                if state.name != "Damaged":  # else what was damaged is put aside, and made again in the second turn
                    break
            if variant and state.is_completed():
                return _committed(agent, variant, state)
            return state
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> State[Any]:
    """A mistake of a user, or a refusal of the machine, is a sentence; another error is raised."""
    text = str(error) if isinstance(error, UserError) else failures.sentence(error)
    if text is None:
        raise error
    return Failed(message=text)


def _committed(agent: str, variant: Variant, state: State[dict[str, Any]]) -> State[dict[str, Any]]:
    """The run as a commit of its branch."""
    name = f"{variant.branch(agent)}:{agent}"
    commit = worktree.commit(f"{agent} with {variant.text}: {_score(agent)}\n\n{_again(agent)}")
    return Completed(message=f"{name}: {state.message}", data={**state.result(), "run": name, "commit": commit})


def _score(agent: str) -> str:
    return ", ".join(f"{key} {value}" for key, value in pages.metrics(agent).items())


def _again(agent: str) -> str:
    return f"`dvc repro {graph.TARGET}@{agent}` brings it back."


def _deadline(agent: str, place: Place, length: str | None, began: float) -> float | None:
    """When the agent's search has to end, so that its evaluation ends in time, in seconds since 1970."""
    if not length:
        return None
    end = began + budgets.seconds(length)
    if place == "pools":
        raise UserError("a budget needs a run in place, since the clock is here: leave --place out")
    command = [sys.executable, "-m", "wm", "estimate", agent, "--only", f"{graph.TARGET}@{agent}"]
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        done = subprocess.run([*command, "--seconds", file.name], stdout=subprocess.DEVNULL, start_new_session=True)
        if done.returncode:
            raise UserError(
                f"how long the test of {agent} takes cannot be told: `python {' '.join(command[1:])}` says why"
            )
        return end - sum(files.read_json(Path(file.name)).values())


def _stages(
    agent: str, stages: list[graph.Stage], place: Place, page: tracking.Run, deadline: float | None, gated: bool
) -> State[dict[str, Any]]:
    if gated and any(stage.outlook != "unchanged" for stage in stages):
        gate.expect(agent)
    runs: dict[str, PrefectFuture] = {}
    for stage in stages:
        named = run_stage.with_options(name=stage.name, task_run_name=stage.address)
        runs[stage.address] = named.submit(
            stage.address,
            stage.outlook == "unchanged",
            stage.upstream,
            stage.pool if place == "pools" else None,
            deadline if graph.key(stage.address) == f"evolve@{agent}" else None,
            wait_for=[runs[upstream] for upstream in stage.upstream],
        )
    wait(list(runs.values()))
    states = {address: run.state for address, run in runs.items()}
    results = {address: state.result() for address, state in states.items() if state.is_completed()}
    folders = [path for result in results.values() for path in result["outputs"] if path.startswith("runs/")]
    text = pages.summary(agent, results, [a for a in states if a not in results])
    page.add(note=text)
    _keep_checks(agent, folders)
    _keep_page(agent, "\n\n".join(filter(None, [text, pages.links(folders), pages.pictures(folders)])))
    for state in states.values():
        if not state.is_completed():  # in order: the first that is not whole is the culprit
            return Failed(name="Damaged" if state.name == "Damaged" else "Failed", message=state.message)
    page.add({key: value for key, value in pages.metrics(agent).items() if isinstance(value, int | float)})
    decided = gate.decide(agent, fetch=place == "pools") if gated else gate.left_out()
    if not decided.is_completed():
        return Failed(message=decided.message)
    page.add(note=decided.result())
    verdicts = [result["verdict"] for result in results.values()]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
    return Completed(
        message=counts, data={"stages": results, "metrics": pages.metrics(agent), "gate": decided.result()}
    )


@flow(name="improve", flow_run_name="improve {agent}", persist_result=False)
def improve(agent: str, actor: str | None = None) -> State[dict[str, Any]]:
    """One more round of an agent, on a branch of its own: its entries in params.yaml, its pipeline, its commit.

    A round that was killed or failed is finished first, instead of another one being added.

    Args:
        agent: a name under `agents` in params.yaml.
        actor: the agent that collects the round's episodes; the last round's where none is named.
    """
    start.current().listen()
    try:
        graph.check(agent)
        with worktree.inside(f"improve/{agent}"), claim.workspace(f"improve {agent}"):
            return _round(agent, actor)
    except Exception as error:
        return _failed(error)


def _round(agent: str, actor: str | None) -> State[dict[str, Any]]:
    graph.check(agent)  # the branch's params.yaml may be older than the one that the agent was found in
    params = recipe.read()
    name = rounds.last(params, agent)
    if name == rounds.last(recipe.parse(worktree.committed(str(recipe.FILE))), agent):  # else it was not finished
        name = rounds.add(params, agent, actor)
        recipe.write(params, f"{agent} and its rounds: whole numbers, written by `python -m flows.improve {agent}`.")
    state = pipeline(name, return_state=True)
    if not state.is_completed():
        return Failed(message=f"{name}: {state.message}; the next run goes on with it")
    commit = worktree.commit(f"{name}: {_score(name)}\n\n{_again(name)}")
    message = f"{name}: {_score(name)}; commit {commit[:12]}; its name is improve/{agent}:{name}"
    return Completed(message=message, data={"round": name, "commit": commit, **state.result()})


def _keep_page(agent: str, text: str) -> None:
    try:
        create_markdown_artifact(
            key=re.sub("[^a-z0-9]+", "-", f"pipeline-{agent}".lower()),
            markdown=text,
            description=f"The stages of {agent} and its score",
        )
    except httpx.TransportError as error:  # of a server that is gone; the stages have done their work
        get_run_logger().warning("Prefect's server did not take the page about this run (%s)", error)


def _keep_checks(agent: str, folders: list[str]) -> None:
    """A table of what the checks found in the data and the latents that are here."""
    there = [Path(folder) for folder in folders if Path(folder, verdicts.FILE).exists()]
    rows = [{"data": str(folder), **row} for folder in there for row in verdicts.rows(verdicts.read(folder))]
    if not rows:
        return
    try:
        create_table_artifact(
            key=re.sub("[^a-z0-9]+", "-", f"checks-{agent}".lower()),
            table=rows,
            description=f"What the checks found in the data and the latents of {agent}",
        )
    except httpx.TransportError as error:
        get_run_logger().warning("Prefect's server did not take the table of checks (%s)", error)


def _tracked(agent: str, stages: list[graph.Stage]) -> AbstractContextManager[tracking.Run]:
    """The MLflow run of the pipeline, under which its stages appear; none where nothing will run."""
    if all(stage.outlook == "unchanged" for stage in stages):
        return nullcontext(tracking.Run())
    entry = recipe.agent(agent)
    return tracking.pipeline_run(name=agent, world=entry["world"], experiment=entry["experiment"])
