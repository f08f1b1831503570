"""MLflow's server as `wm ui` starts it: the address without a page opens the list of models, not MLflow's welcome.

Installed as MLflow's app `world-models` (pyproject.toml), since MLflow has no setting for its first page. Links to
pages go where they lead, and so does MLflow's own "Home": only an address without any is sent on, by the browser.
"""

from __future__ import annotations

from pathlib import Path

from flask import Response
from mlflow.server import app as flask_app
from mlflow.server.fastapi_app import app

__all__ = ["app"]

FIRST = "<script>if (!location.hash) location.replace('#/models?workflowType=machine_learning')</script>"


def _first_page() -> Response:
    page = Path(flask_app.static_folder, "index.html").read_text()
    return Response(page.replace("<head>", f"<head>{FIRST}", 1), headers={"Cache-Control": "no-cache"})


flask_app.view_functions["serve"] = _first_page
