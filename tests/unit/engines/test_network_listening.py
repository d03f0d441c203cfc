"""Subscriptions of engines over the network."""

from __future__ import annotations

from penstock.engines.network.listening import Listener


def test_who_is_gone_does_not_stop_the_news() -> None:
    heard: list[str] = []

    def gone(news: str) -> None:
        raise RuntimeError("Event loop is closed")

    for listener in (Listener(gone, lambda: None), Listener(heard.append, lambda: None)):
        listener.tell("news")
    assert heard == ["news"]


def test_closing_leaves_once_and_is_the_end_of_news() -> None:
    heard: list[str] = []
    left: list[bool] = []
    listener = Listener(heard.append, lambda: left.append(listener.closed))
    listener.close()
    listener.close()
    listener.tell("late")
    assert (left, heard) == ([True], [])
