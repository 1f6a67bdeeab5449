"""Stage report: the run's page."""

from __future__ import annotations

from toolkit import report
from toolkit.stages.context import Context, Result


def run(context: Context) -> Result:
    page = report.build(context.run.path)
    copy = context.folder / "report.html"
    copy.write_bytes(page.read_bytes())
    return Result(outputs={"report": copy}, figures={"page": str(page)})
