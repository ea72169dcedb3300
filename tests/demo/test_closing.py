"""What `make demo` ends with comes from the report, and names things that are there."""

import pytest

from demo.closing import NEXT, ClosingOptions, main
from evaluation.reports.conclusion import conclusion
from evaluation.reports.record import RecordError
from tests.docs.markdown import ROOT
from tests.evaluation.conftest import report  # noqa: F401 - a fixture


def test_it_says_the_reports_conclusion_and_what_to_do_next(report, tmp_path, capsys):  # noqa: F811
    report.save(tmp_path / "report.json")
    main(ClosingOptions(report=tmp_path / "report.json"))
    said = capsys.readouterr().out
    assert conclusion(report) in said
    assert NEXT in said


def test_without_a_report_the_command_that_makes_one_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"python -m evaluation\.cascade"):
        main(ClosingOptions(report=tmp_path / "report.json"))


def test_the_page_that_it_names_is_there():
    assert "docs/guides/search.md" in NEXT
    assert (ROOT / "docs" / "guides" / "search.md").is_file()
