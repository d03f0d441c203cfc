"""Each setting of Celery is one here, or has a remedy."""

import pytest

from penstock.celery_settings import FAMILIES, INSTEAD, instead, new_name
from penstock.config import Config

NAMES = """
accept_content result_accept_content enable_utc imports include timezone beat_enable_remote_control
beat_remote_control_max_tick_age beat_max_loop_interval beat_schedule beat_scheduler beat_schedule_filename
beat_sync_every beat_cron_starting_deadline broker_url broker_read_url broker_write_url broker_transport
broker_transport_options broker_connection_timeout broker_connection_retry broker_connection_retry_on_startup
broker_connection_max_retries broker_channel_error_retry broker_failover_strategy broker_heartbeat
broker_heartbeat_checkrate broker_login_method broker_native_delayed_delivery_queue_type broker_pool_limit
broker_pool_acquire_timeout broker_use_ssl broker_host broker_port broker_user broker_password broker_vhost
cache_backend cache_backend_options cassandra_entry_ttl cassandra_keyspace cassandra_port
cassandra_read_consistency cassandra_servers cassandra_bundle_path cassandra_table cassandra_write_consistency
cassandra_auth_provider cassandra_auth_kwargs cassandra_options s3_access_key_id s3_secret_access_key s3_bucket
s3_base_path s3_endpoint_url s3_region azureblockblob_container_name azureblockblob_retry_initial_backoff_sec
azureblockblob_retry_increment_base azureblockblob_retry_max_attempts azureblockblob_base_path
azureblockblob_connection_timeout azureblockblob_read_timeout gcs_bucket gcs_project gcs_base_path gcs_ttl
control_queue_ttl control_queue_expires control_queue_exclusive control_queue_durable control_exchange
couchbase_backend_settings arangodb_backend_settings mongodb_backend_settings cosmosdbsql_database_name
cosmosdbsql_collection_name cosmosdbsql_consistency_level cosmosdbsql_max_retry_attempts
cosmosdbsql_max_retry_wait_time event_queue_expires event_queue_ttl event_queue_prefix event_queue_exclusive
event_queue_durable event_serializer event_exchange redis_backend_use_ssl redis_db redis_host
redis_max_connections redis_username redis_password redis_port redis_socket_timeout redis_socket_connect_timeout
redis_retry_on_timeout redis_socket_keepalive result_backend result_cache_max result_compression result_exchange
result_exchange_type result_expires result_chord_expires result_failure_expires result_persistent
result_extended result_serializer result_backend_transport_options result_chord_retry_interval
result_chord_join_timeout result_backend_max_sleep_between_retries_ms result_backend_max_retries
result_backend_base_sleep_between_retries_ms result_backend_always_retry elasticsearch_retry_on_timeout
elasticsearch_max_retries elasticsearch_timeout elasticsearch_save_meta_as_text security_certificate
security_cert_store security_key security_key_password security_digest database_url database_engine_options
database_engine_callback database_short_lived_sessions database_table_schemas database_table_names
database_create_tables_at_setup task_acks_late task_acks_on_failure_or_timeout task_acks_on_failure
task_acks_on_timeout task_always_eager task_annotations task_compression task_create_missing_queues
task_create_missing_queue_type task_create_missing_queue_exchange_type task_inherit_parent_priority
task_default_delivery_mode task_default_queue task_default_queue_type task_default_exchange
task_default_exchange_type task_default_routing_key task_default_rate_limit task_default_priority
task_eager_propagates task_ignore_result task_store_eager_result task_protocol task_publish_retry
task_publish_retry_policy task_queues task_queue_max_priority task_reject_on_worker_lost
task_retry_on_worker_lost task_remote_tracebacks task_repr_maxlevels task_routes task_send_sent_event
task_serializer task_soft_time_limit task_time_limit task_store_errors_even_if_ignored task_track_started
task_allow_error_cb_on_chord_header worker_agent worker_autoscaler
worker_cancel_long_running_tasks_on_connection_loss worker_soft_shutdown_timeout
worker_enable_soft_shutdown_on_idle worker_concurrency worker_consumer worker_direct worker_disable_rate_limits
worker_deduplicate_successful_tasks worker_enable_remote_control worker_hijack_root_logger worker_log_color
worker_log_datefmt worker_log_format worker_lost_wait worker_max_memory_per_child worker_max_tasks_per_child
worker_pool worker_pool_putlocks worker_pool_restarts worker_pool_start_method worker_proc_alive_timeout
worker_prefetch_multiplier worker_eta_task_limit worker_enable_prefetch_count_reduction worker_disable_prefetch
worker_redirect_stdouts worker_redirect_stdouts_level worker_send_task_events worker_state_db
worker_task_log_datefmt worker_task_log_format worker_timer worker_timer_precision worker_detect_quorum_queues
"""
"""Those of version 5.7."""
CELERY = tuple(NAMES.split())
KNOWN = Config.__struct_fields__


@pytest.mark.parametrize("name", CELERY)
def test_each_is_here_or_says_what_to_use_instead(name: str) -> None:
    assert name in KNOWN or instead(name)


def test_remedies_are_for_names_that_celery_has_and_that_are_none_here() -> None:
    assert set(INSTEAD) <= set(CELERY)
    assert not set(INSTEAD) & set(KNOWN)
    assert all(any(name.startswith(start) for name in CELERY) for start in FAMILIES)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("BROKER_URL", "broker_url"),
        ("BROKER_POOL_LIMIT", "broker_pool_limit"),
        ("CELERY_IMPORTS", "imports"),
        ("CELERY_ROUTES", "task_routes"),
        ("CELERY_QUEUES", "task_queues"),
        ("CELERY_ANNOTATIONS", "task_annotations"),
        ("CELERY_DEFAULT_QUEUE", "task_default_queue"),
        ("CELERY_RESULT_BACKEND", "result_backend"),
        ("CELERY_ACKS_LATE", "task_acks_late"),
        ("CELERY_WORKER_DIRECT", "worker_direct"),
        ("CELERYD_MAX_TASKS_PER_CHILD", "worker_max_tasks_per_child"),
        ("CELERYD_TASK_TIME_LIMIT", "task_time_limit"),
        ("CELERYBEAT_SCHEDULE", "beat_schedule"),
        ("CELERY_TIMEZONE", "timezone"),
        ("TASK_TIME_LIMIT", "task_time_limit"),
        ("REDIS_HOST", None),
        ("DEBUG", None),
        ("task_time_limit", None),
    ],
)
def test_old_names_have_new_ones(old: str, new: str | None) -> None:
    assert new_name(old, KNOWN) == new
