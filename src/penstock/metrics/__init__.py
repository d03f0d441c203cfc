"""What Prometheus is told of queues and workers."""
