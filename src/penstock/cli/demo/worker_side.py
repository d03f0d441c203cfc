"""What the demo's worker is started with: `-A penstock.cli.demo.worker_side`, its queue by `PENSTOCK_BROKER_URL`."""

from penstock.cli.demo.render import make_app

app = make_app(None)
