from django.tasks import TaskContext, task

from shop.models import Order


@task(queue_name="mail", priority=10, takes_context=True)
def send_receipt(context: TaskContext, number: int) -> str:
    order = Order.objects.get(pk=number)
    order.receipt = f"Thank you, {order.customer}! (attempt {context.attempt})"
    order.save()
    return order.receipt


@task
async def count_orders() -> int:
    return await Order.objects.acount()
