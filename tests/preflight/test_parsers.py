"""What nvidia-smi, dcgmi and nccl-tests really print, read; and the same cut off, empty, in another tongue, foreign."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.preflight import dcgmi, nccl_tests, nvidia_smi

RECORDED = Path(__file__).with_name("recorded")


def recorded(name: str) -> str:
    return (RECORDED / name).read_text(encoding="utf-8")


# ---- nvidia-smi ------------------------------------------------------------------------------------------------------


def test_gpus_of_three_generations_of_drivers() -> None:
    t4 = nvidia_smi.read(recorded("nvidia_smi_t4_515.xml"))
    assert (t4.driver, t4.cuda, t4.attached, len(t4.gpus)) == ("515.105.01", "11.7", 1, 1)
    gpu = t4.gpus[0]
    assert (gpu.name, gpu.bus, gpu.width, gpu.width_max, gpu.gen) == ("Tesla T4", "00000000:00:1E.0", 8, 16, 3)
    assert (gpu.memory_mib, gpu.used_mib, gpu.ecc, gpu.uncorrected, gpu.retired) == (15360, 1032, "Enabled", 0, 0)
    assert gpu.remapped is None and gpu.pending == gpu.failed == gpu.slowdowns == gpu.broken == () and not gpu.mig
    a100 = nvidia_smi.read(recorded("nvidia_smi_a100_535.xml"))
    gpu = a100.gpus[0]
    # The file is one of four, and its parts of the GPU (MIG) have fields of the same names.
    assert a100.attached == 4 and len(a100.gpus) == 1 and gpu.mig
    assert (gpu.memory_mib, gpu.used_mib, gpu.uncorrected, gpu.retired, gpu.reset) == (81920, 50, 0, None, "")
    assert gpu.nvlink_fabric == "" and gpu.processes == () and gpu.pstate == "P0"
    gpu = nvidia_smi.read(recorded("nvidia_smi_blackwell_590.xml")).gpus[0]
    assert (gpu.uncorrected, gpu.remapped, gpu.gen, gpu.gen_max, gpu.width) == (None, 0, 1, 4, 16)
    assert gpu.used_mib == 65720 and gpu.processes == ("/root/src/llama.cpp/build/bin/llama-server (process 116860)",)
    assert gpu.broken == ()  # "Requested functionality has been deprecated" is no fault


@pytest.mark.parametrize(
    ("name", "old", "new", "field", "value"),
    [
        ("t4_515", "<dram_uncorrectable>0", "<dram_uncorrectable>3", "uncorrected", 3),
        ("blackwell_590", "parity>N/A", "parity>2", "uncorrected", 2),
        ("t4_515", "hw_thermal_slowdown>Not Active", "hw_thermal_slowdown>Active", "slowdowns",
         ("hw_thermal_slowdown",)),
        ("a100_535", "sw_thermal_slowdown>Not Active", "sw_thermal_slowdown>Active", "slowdowns",
         ("sw_thermal_slowdown",)),
        ("a100_535", "reason_sw_power_cap>Not Active", "reason_sw_power_cap>Active", "slowdowns", ()),
        ("t4_515", "<pending_retirement>No", "<pending_retirement>Yes", "pending", ("retired pages",)),
        ("blackwell_590", "row_pending>No", "row_pending>Yes", "pending", ("remapped rows",)),
        ("blackwell_590", "row_failure>No", "row_failure>Yes", "failed", ("row remapping has failed",)),
        ("blackwell_590", "action>None", "action>Drain and Reset", "reset", "recovery action: Drain and Reset"),
        ("a100_535", "required>No", "required>Yes", "reset", "reset required"),
        ("a100_535", "<state>N/A", "<state>In Progress", "nvlink_fabric", "In Progress"),
        ("a100_535", "<used>50 MiB", "<used>ERR!", "used_mib", None),
        ("a100_535", "<used>50 MiB", "<used>[Unknown Error]", "broken", ("used: [Unknown Error]",)),
        ("t4_515", "<current_link_width>8x", "<current_link_width>[N/A]", "width", None),
        ("t4_515", "<used>1032 MiB", "<used>1,032 MiB", "used_mib", None),  # no number that one could be sure of
    ],
)  # fmt: skip
def test_a_field_that_is_otherwise(name: str, old: str, new: str, field: str, value: object) -> None:
    text = recorded(f"nvidia_smi_{name}.xml")
    assert old in text
    gpu = nvidia_smi.read(text[: text.rindex("<gpu ")] + text[text.rindex("<gpu ") :].replace(old, new)).gpus[0]
    assert getattr(gpu, field) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "said nothing"),
        ("  \n", "said nothing"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "couldn't communicate"),
        ("Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error", "made no report: Unable"),
        ('Field "remapped_rows.pending" is not a valid field to query.', "is not a valid field"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><nvidia_smi_log>&a;</nvidia_smi_log>', "none that a driver writes"),
        ("<nvidia_smi_log>&a;</nvidia_smi_log>", "cut off or damaged"),
        ("<nvidia_smi_log>\x00</nvidia_smi_log>", "cut off or damaged"),
        ("<nvidia_smi_log>\ud800</nvidia_smi_log>", "cut off or damaged"),
        ("<nvidia_smi_log>" + "<gpu>" * 1000, "cut off or damaged"),
        ("<nvidia_smi_log>" + "x" * (17 << 20), "none that a driver writes"),
    ],
)
def test_no_report_says_what_it_is(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=".") as caught:
        nvidia_smi.read(text)
    assert said in str(caught.value) and len(str(caught.value)) < 400


def test_a_report_may_end_anywhere() -> None:
    text = recorded("nvidia_smi_a100_535.xml")
    for end in range(0, len(text) - 20, 97):
        with pytest.raises(ValueError, match="nvidia-smi"):
            nvidia_smi.read(text[:end])
    assert nvidia_smi.read("<nvidia_smi_log></nvidia_smi_log>") == nvidia_smi.Report()
    assert nvidia_smi.read("<nvidia_smi_log><gpu/></nvidia_smi_log>").gpus[0].uncorrected is None


# ---- dcgmi -----------------------------------------------------------------------------------------------------------


def test_diagnoses_of_two_generations() -> None:
    old = dcgmi.read(recorded("dcgmi_3.1.txt"))
    assert (old.version, old.tests, old.skipped, old.findings) == ("3.1.0", 10, 0, ())
    new = dcgmi.read(recorded("dcgmi_4.2.txt"))
    assert (new.version, new.tests, new.skipped) == ("4.2.3", 1, 0)
    assert [(one.test, one.grade, one.gpu) for one in new.findings] == [("software", "setting", "0")]
    assert new.findings[0].said.startswith("Persistence Mode: Persistence mode for GPU 0 is disabled")
    assert dcgmi.read(recorded("dcgmi_skip.txt")).skipped == 2


@pytest.mark.parametrize(
    ("old", "new", "grade"),
    [
        ('"error_severity" : 5', '"error_severity" : 2', "fail"),
        ('"error_severity" : 5,', "", "fail"),
        ('"status" : "Fail"', '"status" : "Warn"', "setting"),
        ('"status" : "Fail"', '"status" : "Inconclusive"', "setting"),
    ],
)
def test_a_failure_is_more_than_a_setting(old: str, new: str, grade: str) -> None:
    text = recorded("dcgmi_4.2.txt")
    assert old in text
    assert [one.grade for one in dcgmi.read(text.replace(old, new)).findings] == [grade]


def test_failures_of_the_older_form() -> None:
    text = recorded("dcgmi_3.1.txt")
    failed = text.replace('"gpu_ids" : 3,\n\t\t\t\t\t\t\t\t"status" : "PASS"', '"gpu_ids" : 3, "status" : "FAIL", '
                          '"warnings": ["row remap failure", {"warning": "xid 64"}]')  # fmt: skip
    assert failed != text
    assert [str(one) for one in dcgmi.read(failed).findings] == ["software of GPU 3: row remap failure; xid 64"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "said nothing"),
        ("Error: unable to establish a connection to the specified host: localhost", "unable to establish"),
        ('{"DCGM Diagnostic": {"test_categories": [', "cut off or damaged"),
        ('{"a": ' * 100_000, "cut off or damaged"),
        ("{}", "holds no diagnosis"),
        ('{"DCGM Diagnostic": []}', "holds no diagnosis"),
        ('{"DCGM Diagnostic": {"version": "4.2.3"}}', "holds no test"),
        ('{"DCGM Diagnostic": {"runtime_error": "no\\n GPUs"}}', "dcgmi: no GPUs"),
        ('{"DCGM Diagnostic": {"test_categories": [null, 3, {"tests": "x"}, {"tests": [null]}]}}', "holds no test"),
    ],
)
def test_no_diagnosis_says_what_it_is(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=".") as caught:
        dcgmi.read(text)
    assert said in str(caught.value)


# ---- nccl-tests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows", "peak", "average"),
    [
        ("v100", 8, 129.14, 25.9598),
        ("gh200", 8, 123.11, 19.7866),
        ("mpirun", 7, 437.89, 52.9753),
        ("alltoall", 4, 38.01, 9.04853),
    ],
)
def test_tables_of_every_version(name: str, rows: int, peak: float, average: float) -> None:
    table = nccl_tests.read(recorded(f"nccl_tests_{name}.txt"))
    assert (len(table.rows), table.peak_gb_s, table.average_gb_s) == (rows, peak, average)
    assert table.whole and table.wrong == 0 and table.failed == ""
    largest = table.rows[-1]
    assert largest.busbw_gb_s == peak and largest.size_bytes >= 1 << 27


def test_bus_bandwidth_follows_from_the_time() -> None:
    """The formula that our own tables use gives what theirs say, for 8 ranks: busbw = size / time x 2 (n-1)/n."""
    for name in ("v100", "gh200"):
        for row in nccl_tests.read(recorded(f"nccl_tests_{name}.txt")).rows[-4:]:
            algbw = row.size_bytes / row.time_us / 1e3
            assert math.isclose(row.algbw_gb_s, algbw, rel_tol=2e-3)
            assert math.isclose(row.busbw_gb_s, algbw * nccl_tests.bus_factor(8), rel_tol=2e-3)


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        ("# Out of bounds values : 0 OK", "# Out of bounds values : 3 FAILED", lambda t: t.wrong == 3),
        ("# Out of bounds values : 0 OK", "# Out of bounds values : 0 FAILED", lambda t: t.wrong == 1),
        ("123.11      0", "123.11     12", lambda t: t.wrong == 12),
        ("70.35  123.11", "  inf     inf", lambda t: t.peak_gb_s == 122.57),
        ("70.35  123.11", "  nan     nan", lambda t: t.peak_gb_s == 122.57),
        ("70.35  123.11", "70,35  123,11", lambda t: t.peak_gb_s == 123.11),  # another locale
        ("# Out of bounds", "# Ou", lambda t: not t.whole and len(t.rows) == 8),
        ("# Using devices", "nid1: Test NCCL failure common.cu:958 'unhandled system error'",
         lambda t: t.failed.startswith("nid1: Test NCCL failure")),
    ],
)  # fmt: skip
def test_a_table_that_is_otherwise(old: str, new: str, check: object) -> None:
    text = recorded("nccl_tests_gh200.txt")
    assert old in text and check(nccl_tests.read(text.replace(old, new)))  # type: ignore[operator]


def test_no_table() -> None:
    for text in ("", "all_reduce_perf: error while loading shared libraries: libmpi.so.40: cannot open", "\x00\x01",
                 "bash: all_reduce_perf: command not found"):  # fmt: skip
        table = nccl_tests.read(text)
        assert table.rows == () and not table.whole and table.peak_gb_s is None
    assert "libmpi" in nccl_tests.read("all_reduce_perf: error while loading shared libraries: libmpi.so.40").failed


rates = st.floats(0.001, 9999).map(lambda value: round(value, 4))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 1 << 34), rates, rates, st.none() | st.integers(0, 99)), max_size=6,
                unique_by=lambda one: one[0]))  # fmt: skip
def test_what_is_written_is_read_back(values: list[tuple[int, float, float, int | None]]) -> None:
    rows = [
        nccl_tests.Row(size_bytes=size, time_us=time, algbw_gb_s=rate, busbw_gb_s=2 * rate, wrong=wrong)
        for size, time, rate, wrong in sorted(values, key=lambda one: one[0])
    ]
    table = nccl_tests.read(nccl_tests.write(rows))
    assert table.whole and [row.size_bytes for row in table.rows] == [row.size_bytes for row in rows]
    for read, row in zip(table.rows, rows, strict=True):
        assert read.wrong == row.wrong
        assert math.isclose(read.busbw_gb_s, row.busbw_gb_s, abs_tol=0.006)
    assert table.wrong == sum(row.wrong or 0 for row in rows)


@settings(deadline=None)
@given(st.text() | st.text(alphabet="0123456789 .,#-eN/Afloatsumn\n", max_size=300))
def test_whatever_is_printed_is_read_or_refused(text: str) -> None:
    nccl_tests.read(text)
    for read in (nvidia_smi.read, dcgmi.read):
        try:
            read(text)
        except ValueError as err:
            assert str(err)
