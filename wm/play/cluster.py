"""Where jobs run: in this process, in workers of our own, or on a Dask cluster that exists.

A job is a pure function of what it is given, so it does not matter where it runs, nor how often: Dask restarts a worker
that dies and runs its jobs again. Results come back in the order of the jobs.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field

from wm import worlds
from wm.core.config import Config
from wm.core.errors import UserError

MOST_FAILURES = 10
"""Workers that may die on the same job before the job is held to blame."""
_ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": 1 << 28, "MALLOC_MMAP_THRESHOLD_": 1 << 28}
"""Workers keep what they free: Dask's own choice gives it back at once, and Gymnasium draws a fifth slower."""
_ALONE = threading.Lock()
"""One job at a time in a process, however many threads its worker has: the next job uses its environments again."""
PATIENCE = "20s"
"""How long a scheduler may take to answer."""
MOST_WORKERS = 4096


class ClusterConfig(Config):
    """How episodes are dealt out. How many processes play them decides no bit of the result, so it stands in no file:
    see `workers`."""

    episodes_per_job: int = Field(
        32, ge=1, description="episodes in a job, the unit that goes to a worker; part of the result"
    )
    slots: int = Field(16, ge=1, description="environments that a job steps side by side; part of the result")


def workers() -> int:
    """How many processes play episodes on this machine: as many as it has cores, or what WM_WORKERS says.

    Raises:
        UserError: WM_WORKERS is no whole number from 1 to 4096.
    """
    text = os.environ.get("WM_WORKERS", "").strip()
    if not text:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS
    if not text.isdecimal() or not 1 <= int(text) <= MOST_WORKERS:
        raise UserError(f"WM_WORKERS is {text!r}: expected a whole number from 1 to {MOST_WORKERS}, or unset it")
    return int(text)


class Cluster:
    """Runs jobs: `for result in cluster.map(function, jobs, shared)`.

    Args:
        processes: 1 means none but this one; None is what `workers()` says.
        address: a Dask scheduler to use instead, e.g. tcp://10.0.0.5:8786; also read from WM_DASK.
    Raises:
        UserError: the scheduler does not answer.
    """

    def __init__(self, processes: int | None = None, address: str | None = None):
        self.workers, self.address = processes or workers(), address or os.environ.get("WM_DASK")
        self._cluster: Any = None
        self._client: Any = None
        self._sent: tuple[Any, Any] = (None, None)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def map(self, function: Callable[..., Any], jobs: Iterable[Any], shared: Any = None) -> Iterator[Any]:
        """function(job, shared) of every job, in order.

        Args:
            shared: what all jobs need, sent to each worker once, also over several calls.
        Raises:
            UserError: a job was the end of every worker that tried it.
        """
        jobs = list(jobs)
        if self.workers == 1 and not self.address:
            for job in jobs:
                yield function(job, shared)
            return
        yield from self._map_dask(function, jobs, shared)

    def _map_dask(self, function: Any, jobs: Any, shared: Any) -> Iterator[Any]:
        from distributed import KilledWorker, as_completed
        from distributed.client import FutureCancelledError

        client, known = self._connect(), worlds.registered()
        if shared is not None and shared is not self._sent[0]:  # a task, not a scatter: it outlives the workers
            self._sent = shared, client.submit(_same, shared, pure=False)
        handle = self._sent[1] if shared is not None else None
        futures = [  # in order, or the first job may come last and everything waits for its result
            client.submit(_alone, function, job, handle, known, pure=False, retries=2, priority=-index)
            for index, job in enumerate(jobs)
        ]
        place = {future.key: index for index, future in enumerate(futures)}
        results: dict[int, Any] = {}
        following = 0
        for future in as_completed(list(futures), loop=client.loop):
            index = place[future.key]
            try:
                results[index] = future.result()
            except KilledWorker:
                raise UserError(
                    f"{MOST_FAILURES} workers in a row died on one job of {self.workers} workers' work: see whether "
                    "memory is short, and lower slots, episodes_per_job or WM_WORKERS"
                ) from None
            except FutureCancelledError:
                cure = "start it again, or unset WM_DASK" if self.address else "end other programs, or set WM_WORKERS=1"
                raise UserError(
                    f"the Dask scheduler at {client.scheduler.address} is gone: {cure}; the same command goes on from "
                    "the last checkpoint"
                ) from None
            futures[index] = None  # lets the worker forget it
            while following in results:
                yield results.pop(following)
                following += 1

    def _connect(self) -> Any:
        if self._client:
            return self._client
        import dask
        from distributed import Client, LocalCluster

        if not self.address:  # our own cluster is the same on all machines, whatever ~/.config/dask says
            dask.config.refresh(paths=[], env={})
        dask.config.set(
            {
                "distributed.scheduler.allowed-failures": MOST_FAILURES,
                "distributed.comm.timeouts.connect": "60s",
                "distributed.worker.daemon": True,
                "distributed.admin.large-graph-warning-threshold": "1GB",
                "distributed.nanny.pre-spawn-environ": _ALLOCATOR,
            }
        )
        if self.address:
            try:
                self._client = Client(self.address, timeout=PATIENCE, set_as_default=False)
            except OSError:
                raise UserError(
                    f"no Dask scheduler answers at {self.address}: start one with `dask scheduler`, "
                    "or unset WM_DASK to use this machine's cores"
                ) from None
            if not self._client.nthreads():
                print(f"waiting for workers: `dask worker {self.address}` starts one", flush=True)
        else:
            self._cluster = LocalCluster(
                n_workers=self.workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                memory_limit=0,
                silence_logs=logging.CRITICAL,  # what goes wrong in a job is raised; at a stop, half of Dask complains
                env=_worker_environment(),
            )
            self._client = Client(self._cluster, set_as_default=False)
        self._client.register_plugin(_watch_plugin(local=not self.address), name="wm-watch")
        return self._client

    def close(self) -> None:
        """Stops the workers that are ours."""
        for part in (self._client, self._cluster):
            if part is not None:
                part.close()
        self._client = self._cluster = None
        self._sent = None, None


def _alone(
    function: Callable[..., Any], job: Any, shared: Any, known: Mapping[str, tuple[str, Mapping[str, Any]]]
) -> Any:
    with _ALONE:
        for name, (entry_point, options) in known.items():
            worlds.register(name, entry_point, options)
        return function(job, shared)


def _same(shared: Any) -> Any:
    return shared


def _worker_environment() -> dict[str, str]:
    """One thread a worker, no display, and the process whose end is the worker's end."""
    from wm.core import watchdog

    single = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return {**single, "SDL_VIDEODRIVER": "dummy", watchdog.VARIABLE: watchdog.ticket()}


def _watch_plugin(local: bool) -> Any:
    """A worker plugin that starts the watchdog (in workers of ours) and leaves no game behind when a worker goes."""
    from distributed import WorkerPlugin

    class Watch(WorkerPlugin):
        idempotent = True  # another stage's, on a cluster that exists: to replace it would close what that plays in

        def setup(self, worker: Any) -> None:
            if local:
                from wm.core import watchdog

                watchdog.start()
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: the stage ends its workers

        def teardown(self, worker: Any) -> None:
            from wm.play import rollout

            rollout.close_environments()

    return Watch()
