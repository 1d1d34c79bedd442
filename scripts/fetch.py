"""Every download in one place; nothing else reaches for the network.

    python -m scripts.fetch gpt2 models/gpt2         then: python -m reckoning.train ... model.name=models/gpt2

Fetches a model with its tokenizer from the Hugging Face hub into a plain folder. ProofWriter's release is not on the
hub: get V2020.12.3 from the Allen Institute for AI, unpack it as <root>/proofwriter/OWA/... and set data.root=<root>.
"""

import argparse
import sys

WANTED = ["*.json", "*.txt", "*.model", "*.safetensors"]
"""Configuration, tokenizer and safetensors; no pickled weights."""


def main() -> None:
    """Download one model."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.fetch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="name on the hub, e.g. gpt2 or Qwen/Qwen2.5-0.5B")
    parser.add_argument("folder", help="where to put it")
    given = parser.parse_args()

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(given.model, local_dir=given.folder, allow_patterns=WANTED)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        sys.exit(f"error: {given.model} cannot be fetched ({reason}); run this where the hub can be reached")
    print(f"{folder}: set model.name={given.folder}")


if __name__ == "__main__":
    main()
