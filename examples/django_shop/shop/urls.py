from django.contrib import admin
from django.db import transaction
from django.http import HttpRequest, HttpResponseNotFound, JsonResponse
from django.tasks.exceptions import TaskResultDoesNotExist
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from shop.models import Order
from shop.tasks import count_orders, send_receipt


@csrf_exempt
def orders(request: HttpRequest) -> JsonResponse:
    """Take an order. Its receipt is sent only when it is really in the database."""
    sent = []
    with transaction.atomic():
        order = Order.objects.create(customer=request.POST["customer"])
        transaction.on_commit(lambda: sent.append(send_receipt.enqueue(order.pk)))
    return JsonResponse({"order": order.pk, "receipt": sent[0].id})


def receipt(request: HttpRequest, task_id: str) -> JsonResponse | HttpResponseNotFound:
    try:
        result = send_receipt.get_result(task_id)
    except TaskResultDoesNotExist:
        return HttpResponseNotFound()
    return JsonResponse({"status": result.status, "receipt": result.return_value if result.is_finished else None})


async def count(request: HttpRequest) -> JsonResponse:
    result = await count_orders.aenqueue()
    return JsonResponse({"count": result.id})


urlpatterns = [
    path("admin/", admin.site.urls),
    path("orders", orders),
    path("receipts/<str:task_id>", receipt),
    path("count", count),
]
