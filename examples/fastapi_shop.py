"""A shop that writes receipts in the background: FastAPI takes orders, a worker does the rest. Needs FastAPI, uvicorn.

    uvicorn fastapi_shop:site                         curl --json '{"customer": "ada"}' localhost:8000/orders
    penstock -A fastapi_shop worker                   in another terminal; then curl localhost:8000/receipts/ID

The gateway is mounted beside it, for programs of others. Who has a token may call the task without an endpoint:

    penstock gateway token add till --scope 'call:fastapi_shop.*' --scope read --tokens tokens.json
    curl -H "Authorization: Bearer $TOKEN" --json '{"args": [{"customer": "ada"}]}' \\
         localhost:8000/jobs/v1/tasks/fastapi_shop.write_receipt
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from penstock import Penstock
from penstock.contrib.fastapi import Result, lifespan
from penstock.gateway import AsgiBackPressure, TokenFile, asgi_app

app = Penstock("fastapi_shop")


class Order(BaseModel):
    customer: str = Field(min_length=1, max_length=50)


@app.task
def write_receipt(order: Order) -> str:
    return f"Thank you, {order.customer}!"


site = FastAPI(lifespan=lifespan(app))
site.add_middleware(AsgiBackPressure)
site.mount("/jobs", asgi_app(app, TokenFile("tokens.json")))


@site.post("/orders", status_code=202)
async def take_order(order: Order) -> dict[str, str]:
    """A full queue is a 503, which says when to come again."""
    result = await write_receipt.adelay(order)
    return {"receipt": result.id}


@site.get("/receipts/{task_id}")
async def show_receipt(result: Result) -> dict[str, Any]:
    report = await result.areport()
    return {"state": report.state, "receipt": result.result if report.state == "SUCCESS" else None}
