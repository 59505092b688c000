import pytest

from hfagent.agent.markdown import anchor, code, dollars, duration, fenced, link, plain, prose, table, value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a | b", r"a \| b"),
        ("C:\\new|x", r"C:\\new\|x"),
        ("two\nlines\r\n\tand a tab", "two lines and a tab"),
        ("`rm` *now* [x](y) ~~z~~", r"\`rm\` \*now\* \[x\](y) \~\~z\~\~"),
        ("<img src=x> & $5", "&lt;img src=x> &amp; &#36;5"),
        ("<!-- notes:end -->", "&lt;!-- notes:end -->"),
        ("snake_case _word_", r"snake_case \_word\_"),
        ("# title", r"\# title"),
        ("> quoted", r"\> quoted"),
        ("- item", r"\- item"),
        ("--- rule", r"\--- rule"),
        ("12. item", r"12\. item"),
        ("+41.5 points", "+41.5 points"),
        ("0.5 of -3", "0.5 of -3"),
        ("\x1b[31mred\x1b[0m\x07", "red"),
        ("hid\u202eden\u200b", "hid den"),
    ],
)
def test_prose_is_words_only(text: str, shown: str) -> None:
    assert prose(text) == shown


def test_long_text_is_cut_before_it_is_escaped() -> None:
    assert plain("word " * 10, limit=12) == "word word w…"
    assert prose("|" * 10, limit=3) == r"\|\|…"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("openai_humaneval", "`openai_humaneval`"),
        ("a`b|c*d", "<code>a&#96;b&#124;c&#42;d</code>"),
        ("<b>", "`<b>`"),
        ("<!-- x", "<code>&#60;&#33;&#45;&#45; x</code>"),
        (" \n ", "–"),
    ],
)
def test_code_fits_into_a_cell(text: str, shown: str) -> None:
    assert code(text) == shown


def test_only_addresses_that_can_be_opened_become_links() -> None:
    assert link("log", "https://a.b/c?d=(e) f") == "[log](https://a.b/c?d=%28e%29%20f)"
    assert link("log", "file:///jobs/x/log.txt") == "[log](file:///jobs/x/log.txt)"
    assert link("log", "javascript:alert(1)") == "`javascript:alert(1)`"


def test_a_fence_is_longer_than_those_inside() -> None:
    assert fenced("a\n````\nb", language="text") == ["`````text", "a", "````", "b", "`````"]


def test_table() -> None:
    assert table(("A", "B"), [("1", "2")]) == ["| A | B |", "| --- | --- |", "| 1 | 2 |"]


def test_anchor_follows_github() -> None:
    assert anchor("sft-01: 2026-03-02 21:30:12 UTC, In Progress") == "sft-01-2026-03-02-213012-utc-in-progress"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 s"),
        (8.44, "8.4 s"),
        (51.4, "51 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7512, "2 h 05 min"),
    ],
)
def test_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_units() -> None:
    assert [dollars(n) for n in (None, 0, 4_100, 1_234_567)] == ["unknown", "$0.00", "$0.0041", "$1.23"]
    assert [value(x) for x in (None, True, 2e-4, 1.0, 160, "a|b")] == ["none", "yes", "0.0002", "1", "160", r"a\|b"]
