"""What a run sets of Python's cyclic collector is as before when it is over."""

import gc

import pytest

from cosim.collector import few_collections, settle


@pytest.fixture(autouse=True)
def as_python_starts():
    """Not as the tests' own process has set it."""
    gc.unfreeze()
    gc.set_threshold(700, 10, 10)
    yield
    settle()


def broken_run(before):
    with few_collections():
        assert gc.get_threshold()[0] > before[0]
        assert gc.get_freeze_count() > 0
        with few_collections():
            assert gc.get_freeze_count() > 0
        assert gc.get_freeze_count() > 0
        raise KeyError


def test_it_is_put_back_also_after_an_error():
    before = gc.get_threshold()
    with pytest.raises(KeyError):
        broken_run(before)
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_cycles_that_a_run_makes_are_found_after_it():
    class Node:
        pass
    with few_collections():
        one, other = Node(), Node()
        one.other, other.other = other, one
        del one, other
    gc.collect()
    assert not any(type(thing) is Node for thing in gc.get_objects())  # `isinstance` follows weak proxies


def test_who_has_switched_it_off_keeps_it_so():
    gc.disable()
    try:
        with few_collections():
            assert not gc.isenabled()
    finally:
        gc.enable()
