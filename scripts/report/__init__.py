"""The parts of the HTML report: what it shows, and how it is drawn."""
