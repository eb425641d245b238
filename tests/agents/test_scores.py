import pytest

from agents import atari, scores


def test_the_table_has_57_games_that_can_be_played():
    table = scores.published()
    assert len(table) == 57
    assert set(table) <= set(atari.games())


def test_published_figures_are_unchanged():
    assert scores.published()["pong"] == (-20.7, 14.6)
    assert scores.published()["montezuma_revenge"] == (0.0, 4753.3)
    assert scores.published()["double_dunk"] == (-18.6, -16.4)  # where both are negative


@pytest.mark.parametrize(
    ("game", "score", "expected"), [("pong", -20.7, 0.0), ("pong", 14.6, 1.0), ("breakout", 59.3, 2.0)]
)
def test_random_play_is_0_and_the_human_1(game, score, expected):
    assert scores.human_normalised(game, score) == pytest.approx(expected)


def test_other_games_have_no_normalised_score():
    assert scores.human_normalised("adventure", 1.0) is None
    assert scores.human_normalised(None, 1.0) is None
