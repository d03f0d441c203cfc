"""A shop that writes receipts in the background: Tornado takes orders, a worker does the rest. Needs Tornado.

python tornado_shop.py                            curl -d customer=ada localhost:8000/orders
penstock -A tornado_shop worker                   in another terminal; then curl localhost:8000/receipts/ID
"""

from __future__ import annotations

import asyncio

from tornado.web import Application, RequestHandler

from penstock import Penstock
from penstock.contrib.tornado import PenstockMixin

app = Penstock("tornado_shop")


@app.task
def write_receipt(customer: str) -> str:
    return f"Thank you, {customer}!"


class Orders(PenstockMixin, RequestHandler):
    async def post(self) -> None:
        result = await write_receipt.adelay(self.get_body_argument("customer"))
        self.set_status(202)
        self.write({"receipt": result.id})


class Receipts(PenstockMixin, RequestHandler):
    async def get(self, task_id: str) -> None:
        result = await self.result_of(task_id)
        report = await result.areport()
        self.write({"state": report.state, "receipt": result.result if report.state == "SUCCESS" else None})


def site() -> Application:
    return Application([("/orders", Orders), ("/receipts/(.+)", Receipts)], penstock=app)


async def main() -> None:
    site().listen(8000, "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
