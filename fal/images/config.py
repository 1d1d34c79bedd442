"""The keys below `data`: which images, how many, and where their files lie."""

from dataclasses import dataclass, field

from common.data.packed import Bounds
from common.errors import UserError
from common.fields import UNHASHED

FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "fashion_mnist": {
        "train": ("fashion_mnist/train-images-idx3-ubyte", "fashion_mnist/train-labels-idx1-ubyte"),
        "test": ("fashion_mnist/t10k-images-idx3-ubyte", "fashion_mnist/t10k-labels-idx1-ubyte"),
    },
    "mnist": {
        "train": ("mnist/train-images-idx3-ubyte", "mnist/train-labels-idx1-ubyte"),
        "test": ("mnist/t10k-images-idx3-ubyte", "mnist/t10k-labels-idx1-ubyte"),
    },
    "cifar10": {"train": ("cifar10/cifar10_jpeg_train.npz",), "test": ("cifar10/cifar10_jpeg_test.npz",)},
}
"""Source -> split -> its files below the data root, which may be packed (.gz, .xz)."""
GENERATED = ("shapes", "clusters")
HUB = "datasets:"
REMEDY = "use a generated set (data=shapes)"
"""Where files are missing."""
COUNTS = {"train": 4000, "validation": 500, "test": 1000}
"""Of a generated set that takes the place of a real one, all of whose images were asked for."""


@dataclass
class ClustersConfig:
    """Points in a plane (or any space), each class a union of normal clusters (the paper's toy experiment)."""

    means: list[list[list[float]]] = field(
        default_factory=lambda: [[[-3.0, -2.0], [-3.0, 2.0]], [[3.0, -2.0], [3.0, 2.0]]]
    )
    """Class -> cluster -> its centre. The paper names none; these are a choice."""
    std: float = 1.0
    scale: float = 2.5
    """All coordinates are multiplied by it: 2.5, 1.5 and 0.85 are the paper's levels of separability."""
    flipped: float = 0.05
    """Share of labels that are another class's."""
    flipped_test: bool = False
    """Also in the dev and test splits."""


@dataclass
class ColumnsConfig:
    """Where a data set that `datasets` reads has what."""

    image: str = "image"
    label: str = "label"
    client: str | None = None
    """Who an image is from, for partition=natural; null: nobody knows."""
    subset: str | None = None
    """The configuration of a data set that has several."""
    train: str = "train"
    test: str = "test"


@dataclass
class DataConfig:
    """Images of the three splits."""

    source: str = "fashion_mnist"
    """fashion_mnist, mnist, cifar10 (JPEG), shapes, clusters, or `datasets:` and a folder or a name of the hub."""
    root: str | None = field(default=None, metadata=UNHASHED)
    """Folder of real data; default: the environment variable INNERLOOP_DATA."""
    train: int | None = None
    """Images that clients share; null takes all that are left."""
    validation: int = 5000
    """Images cut off the train file for the dev split, which selects."""
    test: int | None = None
    """The first ones of the test file; null takes all."""
    seed: int = 0
    """Of the cut, and of generated sets. The training seed does not change the images."""
    classes: int = 10
    side: int = 8
    """Of generated shapes, in pixels."""
    writers: int = 0
    """Of generated shapes: so many hands, each with a brightness of its own, for partition=natural; 0: nobody's."""
    clusters: ClustersConfig = field(default_factory=ClustersConfig)
    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    stands_for: str = ""
    """The real set in whose place a generated one is used, because its files are not there: set by `fal.data`."""
    bounds: Bounds = field(default_factory=Bounds, metadata=UNHASHED)
    cache: str | None = field(default=None, metadata=UNHASHED)
    """Folder where splits are kept once they are read; null reads the files each time."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            UserError: an unknown source, a number out of range, or a generated set without a size.
        """
        known = (*FILES, *GENERATED)
        if self.source not in known and (not self.source.startswith(HUB) or self.source == HUB):
            raise UserError(f"data.source={self.source}: use one of {', '.join(known)}, or {HUB}<name or folder>")
        least = {"train": 1, "validation": 2, "test": 2, "classes": 2, "side": 4, "writers": 0}
        for key, value in least.items():
            given = getattr(self, key)
            if given is not None and given < value:
                raise UserError(f"data.{key}={given}: use {value} or more")
        if self.source in GENERATED and None in (self.train, self.test):
            raise UserError(
                f"data.train={self.train}, data.test={self.test}: data.source={self.source} is generated in any size; "
                "say how many"
            )
        if self.source == "clusters":
            self._check_clusters()

    @property
    def files(self) -> list[str]:
        """All files of a known real set."""
        return [name for names in FILES.get(self.source, {}).values() for name in names]

    @property
    def name(self) -> str:
        """For tables and logs: what the images are, and what they stand for."""
        jpeg = {"cifar10": "cifar10 (JPEG)"}.get(self.source, self.source)
        return f"{jpeg} in place of {self.stands_for}" if self.stands_for else jpeg

    def _check_clusters(self) -> None:
        clusters = self.clusters
        sizes = {len(centre) for centres in clusters.means for centre in centres}
        if len(clusters.means) != self.classes or not all(clusters.means) or len(sizes) != 1 or 0 in sizes:
            raise UserError(
                f"data.clusters.means={clusters.means}: give each of data.classes={self.classes} classes one centre or "
                "more, all with as many coordinates"
            )
        if clusters.std < 0 or clusters.scale <= 0:
            raise UserError(
                f"data.clusters.std={clusters.std}, data.clusters.scale={clusters.scale}: use a std of 0 or more and a "
                "scale above 0"
            )
        if not 0 <= clusters.flipped < 1:
            raise UserError(f"data.clusters.flipped={clusters.flipped}: use a share from 0 to below 1")
