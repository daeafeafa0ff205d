"""How long training could stand still: by hand, and against every order in which jobs can be served."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.aidc.slack import MOST_S, slack_s

CLAIMS = st.lists(st.tuples(st.integers(1, 20).map(float), st.integers(1, 60).map(float)), min_size=1, max_size=4)


@pytest.mark.parametrize(("claims", "room_s"), [
    ([], MOST_S),
    ([(100.0, 160.0)], 20.0),                   # 2 GPUs need 80 s of 100
    ([(100.0, 230.0)], -15.0),
    ([(200.0, 100.0), (100.0, 160.0)], 20.0),   # the second deadline has more room
    ([(100.0, 160.0), (110.0, 50.0)], 5.0),     # each alone has 20 s and more, together they need 105 of 110
])
def test_by_hand(claims, room_s):
    assert slack_s(claims, 2.0, 0.0) == room_s
    assert slack_s(claims, 2.0, 7.0) == min(room_s - 7.0, MOST_S) if claims else MOST_S


def test_without_gpus_there_is_none():
    assert slack_s([(100.0, 1.0)], 0.0, 0.0) == -MOST_S
    assert slack_s([], 0.0, 0.0) == MOST_S


@given(CLAIMS, st.integers(1, 3))
def test_after_so_long_a_rest_an_order_is_in_time_and_after_a_longer_one_none(claims, gpus):
    def late(rest_s, order):
        now_s = rest_s
        for due_s, left_gpu_s in order:
            now_s += left_gpu_s / gpus
            if now_s > due_s + 1e-9:
                return True
        return False

    room_s = slack_s(claims, gpus, 0.0)
    assert not all(late(room_s, order) for order in permutations(claims))
    assert all(late(room_s + 1e-6, order) for order in permutations(claims))
