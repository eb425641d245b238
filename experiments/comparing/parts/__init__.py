"""The parts of a report, each data without a form."""
