"""The command that lends this machine to pipelines: `python -m flows.worker POOL`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from flows import graph, prepare
from wm import failures
from wm.core.errors import UserError, without_password

DESCRIPTION = "Run stages of pipelines in this checkout, for a Prefect work pool."
EPILOG = """\
POOL is a name that a stage's `meta` in dvc.yaml gives, such as cpu-pool or gpu-pool; the pool and its deployment
run-stage/POOL are made on the server if they are not there. A pool may have any number of workers.

A worker runs stages in the folder that it is started in: a checkout of the commit that the pipeline runs, with
`python -m pip install -c constraints.txt -e '.[pipeline,doom]'` and the address of the DVC remote. Data travel through
that remote; a checkout with another commit or other parameters than the pipeline's is refused, in a sentence that says
which.
One stage at a time runs in a checkout.

example, on a machine with a GPU:
  git clone … world-models && cd world-models
  dvc remote add --local --default storage s3://bucket/world-models
  export PREFECT_API_URL=http://10.0.0.5:4200/api
  export MLFLOW_TRACKING_URI=http://10.0.0.5:5000
  python -m flows.worker gpu-pool
and where the pipeline runs, with the same remote and servers:
  python -m flows.pipeline car_racing --place pools

Ctrl-C ends the worker and the stage that it runs. exit codes: 2 a mistake that one sentence explains
"""


def main(argv: list[str] | None = None) -> int:
    """Becomes a worker; returns only where there is a mistake."""
    prepare()
    parser = argparse.ArgumentParser(
        prog="python -m flows.worker",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
        description=DESCRIPTION,
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("pool", metavar="POOL", help="a work pool that dvc.yaml names")


def run(args: argparse.Namespace) -> int:
    """The same for a command line that has been read."""
    pool = args.pool
    try:
        graph.check_folder()
        if pool not in (known := graph.pools()):
            raise UserError(f"dvc.yaml has no stage for the pool {pool!r}: choose one of {', '.join(known)}")
        if not os.environ.get("PREFECT_API_URL"):
            raise UserError("a worker needs the Prefect server that has the work pools: set PREFECT_API_URL to it")
        graph.check_remote()
        register(pool)
    except Exception as error:
        return failures.report(error)
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # Prefect would, but for the folder above
    words = ["-m", "prefect", "worker", "start", "--type", "process", "--pool", pool]
    os.execv(sys.executable, [sys.executable, *words])


def register(pool: str) -> None:
    """Makes the pool and its deployment known to the server; as often as you like.

    Raises:
        UserError: the server does not answer.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.utilities.callables import parameter_schema
    from prefect.workers.process import ProcessWorker

    from flows.remote import run_stage

    try:
        with get_client(sync_client=True) as client:
            try:
                template = ProcessWorker.get_default_base_job_template()
                client.create_work_pool(WorkPoolCreate(name=pool, type=ProcessWorker.type, base_job_template=template))
            except ObjectAlreadyExists:
                pass
            client.create_deployment(
                client.create_flow(run_stage),
                pool,
                description="One stage of a pipeline that runs with `place: pools`; started by it, not by hand.",
                work_pool_name=pool,
                entrypoint=f"{run_stage.fn.__module__}.{run_stage.fn.__name__}",
                job_variables={"working_dir": "."},  # the worker's own folder, and no copy of it:
                pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": "."}}],
                parameter_openapi_schema=parameter_schema(run_stage).model_dump_for_openapi(),
                enforce_parameter_schema=True,
            )
    except httpx.HTTPError as error:
        address = without_password(os.environ["PREFECT_API_URL"])
        raise UserError(f"no Prefect server answers at {address} ({error}): start it, or set PREFECT_API_URL") from None


if __name__ == "__main__":
    sys.exit(main())
