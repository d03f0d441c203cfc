"""What users of Celery know by name, as they would use it, on the embedded engine: the proofs of
docs/celery-checklist.toml that no other test has."""
