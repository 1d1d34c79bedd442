"""The models that are embedded in common/language: their shapes, tokenizers and weights."""

from scripts.words import dispatch

COMMANDS = {
    "shapes": ("scripts.embedded.shapes", "write their shapes and tokenizers; seconds"),
    "pretrain": ("scripts.embedded.pretrain", "pre-train their weights on generated English; minutes"),
}

if __name__ == "__main__":
    dispatch("embedded", __doc__, COMMANDS, "python -m scripts.embedded pretrain --model stories")
