import pytest

from cosim import seeds
from cosim.ports import Port, batch_length, concat


@pytest.mark.rows("I37", "M16")
def test_streams_depend_on_every_part_of_the_key_and_repeat():
    keys = [(1, 0, "workload", "counts"), (2, 0, "workload", "counts"), (1, 1, "workload", "counts"),
            (1, 0, "controller", "counts"), (1, 0, "workload", "noise"), (1, 0, "work", "loadcounts")]
    draws = [tuple(seeds.stream(*k).integers(0, 2**63, 4)) for k in keys]
    assert len(set(draws)) == len(keys)
    assert draws == [tuple(seeds.stream(*k).integers(0, 2**63, 4)) for k in keys]


def test_streams_are_the_same_on_every_machine():
    """Recorded once; a change would make every published trace irreproducible."""
    assert seeds.stream(0, 0, "workload", "counts").integers(0, 10**6, 3).tolist() == [797122, 323939, 238707]


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed = -1"):
        seeds.stream(-1, 0, "a", "b")


def test_port_survives_json():
    port = Port("work_to", "out", "work done", dims=("job_class",), sign="> 0 done")
    assert Port.from_json(port.to_json()) == port
    assert port.unit == "TO"


def test_concat_joins_rows_in_order_and_copies():
    a, b = {"id": [1, 2]}, {"id": [3]}
    joined = concat([a, {}, b])
    assert joined == {"id": [1, 2, 3]}
    assert batch_length(joined) == 3
    joined["id"].append(4)
    assert a == {"id": [1, 2]}
    with pytest.raises(ValueError, match="cannot be joined"):
        concat([a, {"other": [1]}])
