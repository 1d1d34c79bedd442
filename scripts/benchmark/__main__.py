"""What things cost, as ratios from one run: time and memory beside references that do the same."""

from scripts.words import dispatch

COMMANDS = {
    "engine": ("scripts.benchmark.engine", "an exact outer gradient, against `higher`, plain torch and TorchOpt"),
    "fal": ("scripts.benchmark.fal", "a round of federated adversarial training, and accuracy under attack"),
    "perk": ("scripts.benchmark.perk", "PERK's training, reading and answering"),
    "slowfast": ("scripts.benchmark.slowfast", "fast learning beside sampling, stacks, and the gradient through both"),
}

if __name__ == "__main__":
    dispatch("benchmark", __doc__, COMMANDS, "python -m scripts.benchmark engine --quick")
