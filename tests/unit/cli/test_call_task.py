from typing import Any

import click
import pytest

from penstock import Penstock
from penstock.cli.call_task import find_task, read_arguments
from penstock.errors import UnknownTask

app = Penstock("calls", broker="memory://")


@app.task
def greet(name: str, times: int = 1, *, loud: bool = False, tag: str = "") -> str:
    return name


@pytest.mark.parametrize(
    ("texts", "args", "kwargs"),
    [
        (["4", "4"], [4, 4], {}),
        (["-4", "1.5", "true", "null"], [-4, 1.5, True, None], {}),
        (["hello", '"4"', "[1, 2]"], ["hello", "4", [1, 2]], {}),
        (["x=1", "y=two"], [], {"x": 1, "y": "two"}),
        (["url=http://a/?b=c"], [], {"url": "http://a/?b=c"}),
        (["1=2", '"a=b"'], ["1=2", "a=b"], {}),
        (["", "-"], ["", "-"], {}),
    ],
)
def test_an_argument_is_json_or_else_text(texts: list[str], args: list[Any], kwargs: dict[str, Any]) -> None:
    assert read_arguments(texts, None) == (args, kwargs)


def test_a_parameter_that_is_text_takes_text() -> None:
    assert read_arguments(["4", "4", "tag=null"], greet) == (["4", 4], {"tag": "null"})
    assert read_arguments(['"quoted"'], greet) == (["quoted"], {})


@pytest.mark.parametrize("text", ["--wiat", "-x", "--"])
def test_a_mistyped_option_is_no_argument(text: str) -> None:
    with pytest.raises(click.UsageError, match="no option"):
        read_arguments([text], None)


def test_an_unknown_task_is_refused_where_the_app_is_known() -> None:
    with pytest.raises(UnknownTask, match="did you mean"):
        find_task(app, greet.name + "s", known_only=True)
    assert find_task(app, "elsewhere.task", known_only=False) is None
    assert find_task(app, greet.name, known_only=True) is greet
