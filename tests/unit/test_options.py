"""The two forms of each set of options hold together."""

from typing import get_type_hints

from penstock.options import DEFAULT_RETRY_DELAY, CallOptions, CallSettings, TaskOptions, TaskSettings


def test_both_forms_have_the_same_names() -> None:
    assert set(get_type_hints(TaskSettings)) - {"name", "base"} == set(TaskOptions.__struct_fields__)
    assert set(get_type_hints(CallSettings)) == set(CallOptions.__struct_fields__)


def test_the_policy_is_the_options() -> None:
    options = TaskOptions(
        max_retries=1,
        autoretry_for=(OSError,),
        dont_autoretry_for=(FileNotFoundError,),
        retry_backoff=2,
        retry_backoff_max=9,
        retry_jitter=False,
        throws=(KeyError,),
    )
    policy = options.policy()
    assert (policy.max_retries, policy.default_delay) == (1, DEFAULT_RETRY_DELAY)
    assert (policy.autoretry_for, policy.dont_autoretry_for, policy.throws) == (
        (OSError,),
        (FileNotFoundError,),
        (KeyError,),
    )
    assert (policy.backoff, policy.backoff_max, policy.jitter) == (2, 9, False)
