"""Questions in words, and their sums over processes."""

import json

from heimdall_lib.top_names import MOST, Asked, TopNames, in_words, total

A, AAAA, HTTPS = b"\0\1\0\1", b"\0\x1c\0\1", b"\0\x41\0\1"


def test_a_cache_key_is_shown_as_name_and_type() -> None:
    assert in_words([(b"\3www\7example\0" + HTTPS + b"\0", 2)]) == [Asked("www.example", "HTTPS", 2)]


def test_what_differs_in_do_and_cd_only_is_one_question() -> None:
    counts = [(b"\1a\0" + A + b"\0", 3), (b"\1b\0" + A + b"\0", 4), (b"\1a\0" + A + b"\3", 2)]
    assert in_words(counts) == [Asked("a", "A", 5), Asked("b", "A", 4)]


def test_types_are_questions_of_their_own() -> None:
    counts = [(b"\1a\0" + A + b"\0", 1), (b"\1a\0" + AAAA + b"\0", 2)]
    assert in_words(counts) == [Asked("a", "AAAA", 2), Asked("a", "A", 1)]


def test_names_are_escaped() -> None:
    [asked] = in_words([(b'\5<b>\n"\0' + A + b"\0", 1)])
    assert asked.name == "\\060b\\062\\010\\034"


def test_a_list_is_bounded() -> None:
    many = [(b"\3%03d\0" % number + A + b"\0", number) for number in range(100)]
    assert [each.name for each in in_words(many)] == [f"{number:03d}" for number in range(99, 99 - MOST, -1)]


def over_the_channel(names: TopNames) -> TopNames:
    back: TopNames = json.loads(json.dumps(names))
    return back


def test_processes_are_added_up() -> None:
    one: TopNames = {"asked": [Asked("a", "A", 3), Asked("b", "A", 2)], "missed": []}
    other: TopNames = {"asked": [Asked("b", "A", 2.5), Asked("a", "AAAA", 1)], "missed": [Asked("c", "MX", 1)]}
    assert total([over_the_channel(one), over_the_channel(other)]) == {
        "asked": [Asked("b", "A", 4.5), Asked("a", "A", 3), Asked("a", "AAAA", 1)],
        "missed": [Asked("c", "MX", 1)],
    }


def test_a_sum_is_bounded_like_what_it_is_made_of() -> None:
    lists: list[TopNames] = [{"asked": [Asked(f"{each}-{number}", "A", 1) for number in range(MOST)]} for each in "ab"]
    assert len(total(lists)["asked"]) == MOST


def test_nobody_answers() -> None:
    assert total([]) == {"asked": [], "missed": []}
