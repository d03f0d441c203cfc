"""FastAPI: the queue, and results by their ids, as dependencies. `penstock.contrib.starlette` has the lifespan."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, HTTPException

from penstock import apart
from penstock.app import Penstock
from penstock.contrib.starlette import app_of
from penstock.contrib.starlette import lifespan as lifespan
from penstock.errors import ConfigError
from penstock.outcome import State
from penstock.result import AsyncResult

App = Annotated[Penstock, Depends(app_of)]
"""A parameter of an endpoint: the app of the lifespan. Tests put another in its place:
`dependency_overrides[app_of]`."""


async def result_of(app: App, task_id: str) -> AsyncResult[Any]:
    """The result with the id in the path; 404 for an id that is not known. Whose it is, is for you to check."""
    try:
        result: AsyncResult[Any] = app.AsyncResult(task_id)
    except ConfigError as error:
        raise HTTPException(404) from error
    report = await result.areport()
    # Some brokers do not know what waits.
    if report.state is State.UNKNOWN and apart.knows_waiting(app.engine, app.results):
        raise HTTPException(404)
    return result


Result = Annotated[AsyncResult[Any], Depends(result_of)]
"""A parameter of an endpoint whose path has a `{task_id}`."""
