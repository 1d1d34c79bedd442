"""Runs on Weights & Biases: told again from their folders, and compared in a report."""

from scripts.words import dispatch

COMMANDS = {
    "replay": ("scripts.dashboards.replay", "run folders as one clean W&B run each"),
    "report": ("scripts.dashboards.report", "the W&B report that sets reproduced numbers beside the published ones"),
}

if __name__ == "__main__":
    dispatch("dashboards", __doc__, COMMANDS, "python -m scripts.dashboards report --dry-run")
