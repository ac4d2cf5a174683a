from __future__ import annotations

import io
from dataclasses import replace

import pytest

from qmeter_native.model.estimate import Estimate
from qmeter_native.model.kernel_choice import KernelChoice, ObservedKernels
from qmeter_native.model.manifest import EngineInfo, LossReport, Validity
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.report import AttributionReport, Balance, RequestBalance
from qmeter_native.reporters.console import make_console, print_report
from qmeter_native.reporters.report_options import ReportOptions
from tests import reports

WIDTHS = (80, 100, 140)


def printed(report: AttributionReport, width: int = 100, next_command: str | None = None, **options: object) -> str:
    stream = io.StringIO()
    print_report(report, make_console(stream, width), ReportOptions(**options), next_command)  # type: ignore[arg-type]
    return stream.getvalue()


def section(text: str, title: str) -> str:
    """The lines of one section, up to the next empty line."""
    start = text.index(f"\n{title}")
    return text[start + 1 : text.find("\n\n", start + 1)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("make", [reports.report, reports.report_without_energy, lambda: reports.report_of_devices(8)])
def test_no_line_is_wider_than_the_terminal_or_ends_in_spaces(width: int, make: object) -> None:
    for line in printed(make(), width).splitlines():  # type: ignore[operator]
        assert len(line) <= width
        assert line == line.rstrip()


@pytest.mark.parametrize("width", WIDTHS)
def test_every_kernel_row_is_one_line_that_ends_alike(width: int) -> None:
    report = reports.report()
    table = section(printed(report, width), "Kernels by time").splitlines()
    rows = table[2 : 2 + len(report.kernels)]
    assert [row.split("  ")[1].strip()[:6] for row in rows] == [row.display_name[:6] for row in report.kernels]
    assert all("51,200" in row for row in rows)


def test_sections_come_in_the_order_of_reading() -> None:
    text = printed(reports.report())
    titles = [
        "run.qmt",
        "Balance",
        "Totals",
        "Energy",
        "Kernels by time",
        "Kernels by energy",
        "Phases",
        "Requests",
        "Loss",
    ]
    places = [text.index(f"\n{title}") for title in titles]
    assert places == sorted(places)


def test_the_balance_says_the_sum_and_what_is_left_over() -> None:
    balance = section(printed(reports.report()), "Balance")
    assert "✓ time     12.00 s = kernels 10.00 + idle in steps 1.50 + idle between 0.50" in balance
    assert (
        "✓ energy   5.000 kJ = kernels 3.000 + static 1.000 + idle 0.880 + meter 0.002 + unattributed 0.118" in balance
    )
    assert "raw residual 3.1 %" in balance
    assert "✓ requests 64 ×" in balance


def test_a_balance_that_does_not_close_is_marked_on_its_device() -> None:
    lines = section(printed(reports.report_of_devices(3)), "Balance").splitlines()
    assert [line.split()[:3] for line in lines if line.startswith("  ✗")] == [["✗", "time", "cuda:2"]]
    assert any("left over -7 ns" in line for line in lines)


def test_a_missing_figure_is_a_dash_with_its_reason_once_below_the_table() -> None:
    phases = section(printed(reports.report_without_energy()), "Phases")
    assert phases.count("–¹") == 6
    assert phases.count(reports.NO_SENSOR) == 1


def test_what_is_missing_altogether_is_one_line_and_never_0() -> None:
    text = printed(reports.report_without_energy())
    for title in ("Energy", "Kernels by energy"):
        assert [line.strip() for line in section(text, title).splitlines()[1:]] == [f"– {reports.NO_SENSOR}"]
    assert f"– energy   not measured: {reports.NO_SENSOR}" in text
    assert " 0 J" not in text


def test_one_missing_total_points_to_its_reason() -> None:
    missing = Estimate.missing("no input tokens were counted")
    energy = section(printed(replace(reports.report(), totals=reports.totals(j_per_input_token=missing))), "Energy")
    (row,) = (line for line in energy.splitlines() if "per input token" in line)
    assert row.split() == ["per", "input", "token", "–¹", "–", "–", "–"]
    assert "¹ no input tokens were counted" in energy


def test_one_kernel_without_joules_points_to_its_own_reason() -> None:
    report = reports.report()
    odd = replace(report.kernels[2], energy_j=Estimate.missing("cannot be told apart from its neighbours"))
    text = printed(replace(report, kernels=(*report.kernels[:2], odd, *report.kernels[3:])), 140)
    assert "¹ cannot be told apart from its neighbours" in section(text, "Kernels by energy")


@pytest.mark.parametrize("ranking", ["time", "energy"])
def test_sort_shows_one_ranking_and_top_limits_it(ranking: str) -> None:
    text = printed(reports.report(), sort=ranking, num_kernels=3)
    assert text.count("\nKernels by ") == 1
    table = section(text, f"Kernels by {ranking}")
    assert "3 of 7" in table.splitlines()[0]
    assert "Memcpy" not in table


def test_the_energy_ranking_is_by_joules() -> None:
    report = reports.report()
    hungry = replace(report.kernels[-1], energy_j=reports.estimate(9_000.0), display_name="hungry")
    table = section(printed(replace(report, kernels=(*report.kernels[:-1], hungry))), "Kernels by energy")
    assert table.splitlines()[2].split()[0] == "hungry"


def test_a_kernel_of_both_phases_is_mixed_and_others_name_theirs() -> None:
    report = reports.report()
    shares = ({"prefill": 1.0}, {"decode": 1.0}, {"none": 1.0}, {"prefill": 0.004, "decode": 0.996})
    rows = tuple(replace(row, phase_shares=share) for row, share in zip(report.kernels, shares, strict=False))
    rows += report.kernels[4:]
    table = section(printed(replace(report, kernels=rows)), "Kernels by time").splitlines()
    for row, phase in zip(table[2:7], ("prefill", "decode", "none", "mixed <1:>99", "mixed 12:88"), strict=True):
        assert f" {phase} " in row


def test_names_cannot_inject_markup_or_escapes() -> None:
    report = reports.report()
    text = printed(replace(report, name="\x1b]0;title\x07run[red].qmt"), 140)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]a" in text
    assert "run[red].qmt" in text


def test_requests_show_what_they_waited_apart_from_what_they_used() -> None:
    text = printed(reports.report(), num_requests=2)
    waited = section(text, "Requests: what they waited")
    used = section(text, "Requests: what they used")
    assert "slowest 2 of 8" in waited
    assert [line.split()[0] for line in waited.splitlines()[2:]] == ["req-07", "req-06"]
    assert "energy" in used
    assert "E2E" not in used


def test_a_request_that_rode_no_step_gives_its_reason() -> None:
    cut = reports.request(
        9, elapsed=None, elapsed_reason="it rode no recorded step", is_finished=False, ttft_s=None, tpot_s=None
    )
    text = printed(replace(reports.report(), requests=(cut,)))
    assert "req-09 (cut off)" in text
    assert "it rode no recorded step" in text


def test_losses_and_limits_stand_at_the_end() -> None:
    report = replace(
        reports.report(),
        loss=LossReport(dropped_records=1_200),
        validity=(Validity("interrupted", "the run was stopped by Ctrl-C"),),
    )
    notes = section(printed(report), "Loss and validity")
    assert "lost: 1,200 dropped records" in notes
    assert "the run was stopped by Ctrl-C (interrupted)" in notes


def test_the_report_ends_with_the_next_command() -> None:
    assert printed(reports.report(), next_command="qmeter-native export run.qmt").endswith(
        "\nNext: qmeter-native export run.qmt\n"
    )


def test_a_setting_that_ran_otherwise_than_asked_is_said() -> None:
    asked = {"quantization": None, "dtype": "auto", "attention": "flash", "cuda_graphs": True, "tp": 1}
    ran = {
        "quantization": "none",
        "dtype": "bf16",
        "attention": "sdpa",
        "cuda_graphs": {"a": False, "b": True},
        "tp": 1,
    }
    engine = EngineInfo("transformers", "5", "shape:x", asked, ran)
    text = printed(replace(reports.report(), engine=engine))
    assert text.count("asked for") == 2
    assert "attention: asked for flash, ran sdpa" in text
    assert "cuda graphs: asked for on, ran a off, b on" in text


def test_an_empty_capture_prints_without_tables() -> None:
    report = replace(
        reports.report(),
        engine=None,
        kernels=(),
        phases=(),
        requests=(),
        balance=Balance((), (), RequestBalance(0, None, "no requests were recorded")),
        totals=reports.totals(num_requests=0),
    )
    text = printed(report)
    assert "no kernels were recorded" in text
    assert "– requests not measured: no requests were recorded" in text


def test_a_terminal_gets_colours_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = Terminal(), Terminal()
    print_report(reports.report(), make_console(coloured, 100))
    monkeypatch.setenv("NO_COLOR", "1")
    print_report(reports.report(), make_console(plain, 100))
    assert "\x1b[" in coloured.getvalue()
    assert "\x1b" not in plain.getvalue()


def test_a_fallback_stands_above_everything_else() -> None:
    choice = KernelChoice(
        "gptq",
        ("Machete", "Marlin"),
        (ObservedKernels("cuBLAS", "fp16", 51_200, 4.5, 1.0),),
        True,
        "gptq was asked for, but 0 % of GEMM time ran in its format.",
    )
    validity = (Validity("quantization_fallback", choice.message),)
    text = printed(replace(reports.report(), kernel_choice=choice, validity=validity))
    assert text.index("WARNING") < text.index(choice.message) < text.index("\nBalance")
    assert "✗ gptq was asked for" in section(text, "GEMM kernels")
    assert "Machete, Marlin" in section(text, "GEMM kernels")


def test_joules_of_dummy_weights_are_marked_where_they_stand() -> None:
    invalid = reports.estimate(5_000.0, reason="invalid: dummy weights")
    report = replace(
        reports.report(),
        totals=reports.totals(energy_gross_j=invalid),
        validity=(Validity("dummy_weights_energy", "The weights were dummies."),),
    )
    text = printed(report)
    assert "WARNING" in text
    assert "5.000¹" in section(text, "Energy")
    assert "¹ invalid: dummy weights" in section(text, "Energy")


def test_coverage_is_told_only_where_something_was_not_traced() -> None:
    report = reports.report()
    assert "Coverage" not in printed(replace(report, coverage=(reports.coverage(0),)))
    coverage = section(printed(replace(report, coverage=(reports.coverage(10_800_000_000),))), "Coverage")
    assert "6 windows, 1.200 s of 12.00 s (10.0 %)" in coverage
    assert "busy" in coverage
    assert "9.80 to 10.20" in coverage
    assert "of traced time only" in coverage
    assert "as long as the host's call" in printed(replace(report, coverage=(reports.coverage(5),)))
    assert "as long as the host's call" not in printed(report)


def test_what_windows_cannot_tell_of_the_rest_is_one_line() -> None:
    few = replace(reports.coverage(10_800_000_000), num_windows=1, busy_s=Estimate.missing("1 window is too few"))
    coverage = section(printed(replace(reports.report(), coverage=(few,))), "Coverage").splitlines()
    assert len(coverage) == 4
    assert "in 1 window, 1.200 s" in coverage[1]
    assert "not estimated: 1 window is too few" in coverage[2]


def test_untraced_time_is_a_term_of_the_balance() -> None:
    balance = Balance((reports.time_balance(untraced_ns=10_800_000_000),), (), RequestBalance(0, None, "none"))
    assert "+ untraced 10.80" in section(printed(replace(reports.report(), balance=balance)), "Balance")


def test_an_explained_request_shows_its_parts_and_their_sum() -> None:
    text = printed(replace(reports.report(), explanations=(reports.explanation(),)))
    rows = section(text, "Explained: req-03").splitlines()
    assert "p50 of end-to-end time · 128 steps" in rows[0]
    assert [row.split("  ")[1].strip() for row in rows[2:]] == [
        "queue",
        "prefill · gemm",
        "prefill · GPU idle",
        "decode · gemm",
        "decode · other kernels",
        "decode · GPU idle",
        "gaps between steps",
        "host after last step",
        "= end to end",
        "other kernels: families below 0.1 % each",
    ]


def test_a_lone_small_family_keeps_its_name() -> None:
    told = reports.explanation()
    parts = tuple(part for part in told.parts if part.op_family is not OpFamily.KV_CACHE)
    text = printed(replace(reports.report(), explanations=(replace(told, parts=parts),)))
    assert "decode · meter" in text
    assert "other kernels" not in text


def test_vllms_own_name_of_a_method_is_no_other_method() -> None:
    engine = EngineInfo("vllm", "0.26.0", "m", {"quantization": "gptq"}, {"quantization": "auto_gptq"})
    assert "asked for" not in section(printed(replace(reports.report(), engine=engine)), "run.qmt")


def test_a_request_that_rode_the_same_steps_is_not_explained_twice() -> None:
    first = reports.explanation()
    later = (*first.parts[:-1], replace(first.parts[-1], time_ns=90_000_000))
    second = replace(first, name="req-07", reason="p99", end_to_end_ns=1_550_000_000, parts=later)
    other = replace(first, name="req-09", parts=first.parts[:1] + first.parts[2:])
    text = printed(replace(reports.report(), explanations=(first, second, other)))
    rows = [line.split() for line in section(text, "Explained: req-07").splitlines()[2:]]
    assert [row[0] for row in rows] == ["queue", "the", "host", "="]
    assert rows[1][:6] == ["the", "same", "steps", "as", "req-03", "1.360"]
    assert "decode · gemm" in section(text, "Explained: req-09")


def test_stamps_of_the_engine_are_labelled_where_latencies_stand() -> None:
    validity = (Validity("engine_stamps", "no client was recorded"),)
    explanation = replace(reports.explanation(), is_client=False)
    text = printed(replace(reports.report(), validity=validity, explanations=(explanation,)), 140)
    assert "engine's own stamps" in section(text, "Totals").splitlines()[0]
    assert "stamps of the engine" in section(text, "Explained").splitlines()[0]


def test_roles_show_what_they_had_to_do() -> None:
    work = section(printed(replace(reports.report(), work=reports.work()), 140), "Work")
    (qkv,) = (line for line in work.splitlines() if "qkv_proj" in line)
    assert qkv.split() == ["qkv_proj", "Marlin", "32", "9,600", "1.500", "15.0", "412.0", "2.100", "600.0", "20.0"]
    (other,) = (line for line in work.splitlines() if "norm" in line)
    assert other.split()[-4:] == ["–", "–", "40.0", "–"]
    assert "layer 99.2 %" in work
    outside = replace(reports.work().rows[0], num_layers=0)
    work = section(printed(replace(reports.report(), work=replace(reports.work(), rows=(outside,))), 140), "Work")
    assert work.splitlines()[2].split()[2] == "–"
    assert "a note" in work


def test_processes_are_listed_if_there_are_several() -> None:
    one = reports.process(0)
    assert "Processes" not in printed(replace(reports.report(), processes=(one,)))
    two = replace(reports.process(1), clock_offset_ns=None)
    rows = section(printed(replace(reports.report(), processes=(one, two)), 140), "Processes").splitlines()
    assert rows[2].split() == ["0", "4000", "0", "0", "62,155", "1,200", "ns", "vllm", "serve"]
    assert "–" in rows[3]


def test_of_a_request_that_no_client_recorded_only_its_shares_are_told() -> None:
    nothing = dict.fromkeys(("name", "num_prompt_tokens", "num_output_tokens", "is_finished"))
    nothing |= dict.fromkeys(("elapsed", "ttft_s", "tpot_s", "e2e_s"))
    row = reports.request(7, elapsed_reason="no client recorded it", **nothing)
    waited, used = (
        section(printed(replace(reports.report(), requests=(row,))), f"Requests: {what}")
        for what in ("what they waited", "what they used")
    )
    assert "number 7" in waited
    assert "cut off" not in waited
    assert "¹ no client recorded it" in waited
    assert "did not get that far" not in waited
    assert used.splitlines()[2].split()[:4] == ["number", "7", "–¹", "–¹"]


def test_a_work_model_without_kernels_says_so() -> None:
    work = replace(reports.work(), rows=(), family_known=None, step_known=None, layer_known=None)
    assert "no kernel ran" in printed(replace(reports.report(), work=work))


def test_the_mean_of_no_launch_is_missing() -> None:
    late = reports.kernel("late_kernel", 0.5, calls=0)
    table = section(printed(replace(reports.report(), kernels=(late,)), 140), "Kernels by time")
    assert late.mean_s is None
    assert "its launch lies outside the measured window" in table
