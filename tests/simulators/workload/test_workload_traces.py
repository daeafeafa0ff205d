"""Reading the Azure LLM trace, and the work of its requests."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cosim.errors import ScenarioError
from cosim.simulators.workload import traces
from cosim.simulators.workload.rows import instants
from cosim.simulators.workload.traces import TokenWork, read_azure_llm

SAMPLE = Path(__file__).parents[2] / "data" / "azure_llm_sample.csv"
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
GOOD = "2023-11-16 18:15:46.6805900,374,44\n"


@pytest.fixture
def write(tmp_path):
    def to_file(text, encoding="utf-8"):
        path = tmp_path / "trace.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return str(path)
    return to_file


def test_sample_in_time_order_to_the_tenth_of_a_microsecond():
    trace = read_azure_llm(str(SAMPLE))
    assert (trace.left_out.rows, trace.left_out.first) == (0, None)
    # seconds after 18:15:46.68059; the 6th and 7th row are out of order in the file
    expected = [0.0, 4.314579, 34.541877, 59.9999999, 60.0, 134.81941, 163.31941, 203.4428667]
    assert trace.offset_s == pytest.approx(expected, abs=1e-9)
    assert trace.context_tokens.tolist() == [1000, 396, 879, 91, 2048, 333, 0, 4096]
    assert trace.generated_tokens.tolist() == [100, 109, 55, 16, 1, 0, 40, 512]


def test_work_by_hand():
    # 2 * 70e9 FLOP per token = 0.14 TO; 1000 / 0.5 + 100 / 0.1 = 3000 tokens at peak: 420 TO
    assert TokenWork().work_to(np.array([1000]), np.array([100])) == pytest.approx([420.0])
    half = TokenWork(parameters_billion=35.0, prefill_peak_ratio=1.0, decode_peak_ratio=1.0)
    assert half.work_to(np.array([1000]), np.array([100])) == pytest.approx([0.07 * 1100])


BAD_ROWS = {
    "text in a number": "2023-11-16 18:15:47.0000000,many,44\n",
    "fraction of a token": "2023-11-16 18:15:47.0000000,374.5,44\n",
    "negative": "2023-11-16 18:15:47.0000000,-1,44\n",
    "no token at all": "2023-11-16 18:15:47.0000000,0,0\n",
    "more tokens than 64 bits": "2023-11-16 18:15:47.0000000,1,99999999999999999999\n",
    "too few fields": "2023-11-16 18:15:47.0000000,374\n",
    "too many fields": "2023-11-16 18:15:47.0000000,374,44,1\n",
    "no time": ",374,44\n",
    "word for a time": "now,374,44\n",
    "day that does not exist": "2023-02-31 18:15:47.0000000,374,44\n",
    "seconds since 1970": "1700158547,374,44\n",
    "digits in groups": "2023-11-16 18:15:47.0000000,1_000,44\n",
    "no such hour": "2023-11-16 24:15:47.0000000,374,44\n",
    "stray quote": '"2023-11-16 18:15:47.0000000,374,44\n',
    "year out of range": "9999-11-16 18:15:47.0000000,374,44\n",
}


@pytest.mark.parametrize("bad", BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_malformed_row_is_left_out_counted_and_located(write, bad):
    path = write(HEADER + GOOD + bad + GOOD)
    trace = read_azure_llm(path, 0.34)
    assert (len(trace.offset_s), trace.left_out.kinds, trace.left_out.first[0]) == (2, {"malformed": 1}, 3)
    with pytest.raises(ScenarioError, match=r"1 of 3 rows would be left out \(33.3 %.*1 malformed; the first is line 3"
                                            ": .*--set workload.max_left_out_ratio=0.334"):
        read_azure_llm(path)


def test_offsets_are_instants(write):
    """An hour that a clock shows twice, by three offsets: five requests at 0, 5, 15, 20 and 30 s."""
    rows = [("2024-10-27 02:59:50.0+02:00", 1), ("2024-10-27T02:59:55+0200", 2), ("2024-10-27 02:00:05.0+01:00", 3),
            ("2024-10-27 01:00:10Z", 4), ("2024-10-27 01:00:20.0", 5), ("2024-10-26T15:00:20.000000000-10", 6)]
    trace = read_azure_llm(write(HEADER + "".join(f"{time},{n},1\n" for time, n in rows)))
    assert trace.offset_s.tolist() == [0.0, 5.0, 15.0, 20.0, 30.0, 30.0]
    assert trace.context_tokens.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("text", [
    "TIMESTAMP;ContextTokens;GeneratedTokens\n2024-05-12 00:00:00+00:00;2162;5\n2024-05-12;400;0\n",
    '"TIMESTAMP","ContextTokens","GeneratedTokens"\n"2024-05-12T00:00","2162","5"\n"2024-05-12 00:00:00Z","400","0"\n',
    "TIMESTAMP\tContextTokens\tGeneratedTokens\n2024-05-12 00:00:00 UTC\t2162\t5\n2024-05-12\t400\t0\n",
])
def test_layouts_of_one_and_the_same_trace(write, text):
    trace = read_azure_llm(write(text))
    assert (trace.offset_s.tolist(), trace.context_tokens.tolist()) == ([0.0, 0.0], [2162, 400])


def test_what_looks_like_dates_is_read_as_python_reads_it():
    texts = ["2024-02-29", "2024-02-29 12:34", "2024-02-29T12:34:56.789012", "2024-02-29T12:34:56+05:30",
             "2024-02-29T12:34:56-0330", "1999-12-31 23:59:59.5Z"]
    for text in texts:
        then = datetime.fromisoformat(text)
        then = then if then.tzinfo else then.replace(tzinfo=UTC)
        assert instants([text])[0].astype(int) / 1e9 == pytest.approx(then.timestamp(), abs=1e-6)
    for text in ("", "2024", "20240229T120000", "2023-02-29", "12:00", "2024-02-29 12", "2024-02-29T12:34:60"):
        assert instants([text]) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(rows=st.lists(st.sampled_from([None, *BAD_ROWS]), min_size=1, max_size=20), chunk=st.integers(1, 7))
def test_malformed_rows_cost_nothing_but_themselves(write, monkeypatch, rows, chunk):
    monkeypatch.setattr(traces, "_CHUNK_ROWS", chunk)
    lines = [BAD_ROWS[r] if r else f"2023-11-16 18:00:{k:02d}.5,{k + 1},7\n" for k, r in enumerate(rows)]
    path = write(HEADER + "".join(lines) + "2023-11-16 18:30:00,1,1\n")
    trace = read_azure_llm(path, 1.0)
    good = [k for k, r in enumerate(rows) if r is None]
    assert trace.context_tokens.tolist() == [k + 1 for k in good] + [1]
    assert trace.left_out.rows == len(rows) - len(good)
    first = next((k for k, r in enumerate(rows) if r), None)
    assert (trace.left_out.first or [None])[0] == (None if first is None else first + 2)


def test_a_byte_that_is_no_text_spoils_its_row_only(write):
    trace = read_azure_llm(write(HEADER.encode() + b"2023-11-16 18:15:47\xff,374,44\n" + GOOD.encode()), 0.5)
    assert (len(trace.offset_s), trace.left_out.rows) == (1, 1)


def test_other_column_order_more_columns_windows_lines_and_bom(write):
    text = "Extra,GeneratedTokens,TIMESTAMP,ContextTokens\r\nx,44,2023-11-16T18:15:46Z,374"
    trace = read_azure_llm(write(text, "utf-8-sig"))
    assert (trace.context_tokens.tolist(), trace.generated_tokens.tolist()) == ([374], [44])


@pytest.mark.parametrize(("text", "message"), [
    ("", "is empty; its first line must name TIMESTAMP"),
    ("TIMESTAMP,ContextTokens\n2023-11-16 18:15:46,1\n", "has no column GeneratedTokens"),
    ("a;b;c\n1;2;3\n", "has no column TIMESTAMP, ContextTokens, GeneratedTokens"),
    (HEADER, "no readable request, only a first line"),
    (HEADER + "x,y,z\n", "no readable request: 1 malformed; the first is line 2: TIMESTAMP = 'x' is no ISO time"),
    ("TIMESTAMP,TIMESTAMP,ContextTokens,GeneratedTokens\n", "two columns called TIMESTAMP"),
])
def test_a_file_that_is_no_trace_is_refused(write, text, message):
    with pytest.raises(ScenarioError, match=message):
        read_azure_llm(write(text))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ScenarioError, match=r"nowhere.csv cannot be read: .*No such file"):
        read_azure_llm(str(tmp_path / "nowhere.csv"))
    with pytest.raises(ScenarioError, match="cannot be read"):
        read_azure_llm(str(tmp_path))


def test_names_of_columns_may_be_in_another_case(tmp_path):
    """And the file may be compressed: the same requests."""
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-12 00:00:00+00:00,2162,5\n"
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(text.replace(",", "\t").lower().encode()))
    one, other = (read_azure_llm(str(tmp_path / name)) for name in ("a.csv", "b.csv.gz"))
    assert one.context_tokens.tolist() == other.context_tokens.tolist() == [2162]
    assert one.first_unix_s == other.first_unix_s
