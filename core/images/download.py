"""Official data sets fetched once into the user's cache, each file checked against its published checksum."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from core import progress

CIFAR10 = "cifar-10-python.tar.gz"
TIMEOUT = 20.0  # seconds for a server to answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """A data set's title, the addresses of the folder with its files, and their checksums as pooch writes them."""

    title: str
    addresses: tuple[str, ...]
    files: Mapping[str, str]
    installed: str | None = None  # where Debian's package puts it
    package: str | None = None


KNOWN = {
    "fashion_mnist": Known(
        title="Fashion-MNIST",
        addresses=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",),
        # SHA-256 of the files whose MD5 the data set's README gives. Debian's have other gzip headers.
        files={
            "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
        installed="/usr/share/datasets/fashion-mnist",
        package="dataset-fashion-mnist",
    ),
    "mnist": Known(
        title="MNIST",
        addresses=(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
        ),
        files={
            "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
    ),
    "cifar10": Known(
        title="CIFAR-10",
        addresses=("https://www.cs.toronto.edu/~kriz",),
        files={CIFAR10: "md5:c58f30108f718f92721af3b95e74349a"},
    ),
}


def fetch(name: str) -> pathlib.Path:
    """The folder with all files of a known data set, fetched where they are missing or damaged.

    Raises: ValueError with the ways to get the data where no address gives them.
    """
    import pooch  # here, as it costs a second and most runs need none of it

    known, into = KNOWN[name], folder(name)
    pooch.get_logger().setLevel("WARNING")
    for file, checksum in known.files.items():
        problems = []
        for address in known.addresses:
            bar: Any = _Bar(file)  # pooch's annotations know of no bar but its own
            downloader: Any = pooch.HTTPDownloader(progressbar=bar, timeout=TIMEOUT, chunk_size=1 << 16)
            try:
                pooch.retrieve(f"{address}/{file}", checksum, fname=file, path=into, downloader=downloader)
                break
            except (OSError, ValueError) as error:  # no answer; another file than the one published
                problems.append(f"{address}: {type(error).__name__}")
        else:
            raise ValueError(_ways(known, into, "; ".join(problems)))
    return into


def folder(name: str) -> pathlib.Path:
    """Where a data set's files are kept: in the user's cache."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(root) / "jaxcade" / name


def _ways(known: Known, into: pathlib.Path, problems: str) -> str:
    files = list(known.files)
    named = f"{files[0]} and the other {len(files) - 1} files" if len(files) > 1 else files[0]
    install = f"apt-get install {known.package} (Debian, Ubuntu), or " if known.package else ""
    return (
        f"{known.title} is not on this machine, and could not be downloaded ({problems}). Three ways to get it:\n"
        f"  1. {install}source.folder=<a folder with {named}>\n"
        f"  2. where there is a network, download {named} from {known.addresses[-1]}/ and copy to {into}\n"
        "  3. other images: source=mnist_5k or source=digits come inside Python packages, source=npz and "
        "source=image_folder read your own"
    )


class _Bar:
    """A pooch progress bar; rank 0 shows it."""

    def __init__(self, file: str):
        self.total, self._file, self._done = 0, file, 0
        self._bar: progress.Progress | None = None

    def update(self, count: int) -> None:
        if self._bar is None and jax.process_index() == 0:
            self._bar = progress.Progress(self.total, "bytes")
            self._bar.message(f"downloading {self._file}")
        self._done = min(self._done + count, self.total)
        if self._bar is not None:
            self._bar.update(self._done, {})

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
