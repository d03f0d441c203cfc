from penstock.spelling import hint


def test_a_close_name_is_offered() -> None:
    assert hint("quue", ["queue", "priority"]) == "; did you mean 'queue'?"


def test_few_names_are_listed_and_many_are_not() -> None:
    assert hint("zzz", ["b", "a"]) == "; known: a, b"
    assert hint("zzz", [f"n{i}" for i in range(20)]) == ""
    assert hint("zzz", []) == ""
