"""Reports: notebooks run with checked parameters, kept as offline pages with an index.

A report is a notebook under `notebooks/` whose inputs stand in one cell tagged `parameters`. `run_report`
checks the inputs, runs the notebook in this interpreter, and leaves `<out>/<name>/` with the executed
notebook, a self-contained HTML page and the figures; `write_index` lays all reports out on one page, and
`write_viewer` the pictures of a comparison. No page
loads anything from the network.

>>> vl.reports.run_report("01_residual_spectra", {"model": "nano-infinity", "n": 4}, out="reports")
"""

from varlab.reports.batch import make_batch
from varlab.reports.facts import record, save_tables
from varlab.reports.index import write_index
from varlab.reports.notebooks import find_notebook, list_notebooks, notebook_folder
from varlab.reports.orders import read_batch
from varlab.reports.parameters import Parameter, check_parameters, notebook_parameters
from varlab.reports.run import Report, run_report
from varlab.reports.viewer import save_pictures, write_viewer

__all__ = [
    "Parameter",
    "Report",
    "check_parameters",
    "find_notebook",
    "list_notebooks",
    "make_batch",
    "notebook_folder",
    "notebook_parameters",
    "read_batch",
    "record",
    "run_report",
    "save_pictures",
    "save_tables",
    "write_index",
    "write_viewer",
]
