"""Where the results of a sweep lie: a folder, or any URL of fsspec. Every file is written whole or not at all."""

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from varlab.errors import VarlabError, cause
from varlab.writing import beside

DIGEST = 64  # hexadecimal digits of sha256, the last line of a table's file


class StoreLost(VarlabError):  # noqa: N818  (what happened, not what is wrong)
    """The store cannot be written or read any more: the whole sweep stops, what is done stays."""


@dataclass(frozen=True)
class Store:
    """``place``: a path, or a URL such as ``s3://bucket/study``."""

    place: str

    @classmethod
    def at(cls, place: str | Path) -> "Store":
        """Raises VarlabError for a URL of a kind that is not known or not installed here."""
        store = cls(str(place))
        try:
            store._system  # noqa: B018
        except (ValueError, ImportError) as error:
            raise VarlabError(f"{place} cannot be used as a store ({cause(error)}).") from error
        return store

    @cached_property
    def _system(self) -> tuple[Any, str]:
        return fsspec.core.url_to_fs(self.place)

    @property
    def folder(self) -> Path | None:
        """The local folder; None for a URL of another machine."""
        system, path = self._system
        kinds = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
        return Path(path) if "file" in kinds else None

    @property
    def absolute(self) -> str:
        """Its place as processes in other folders reach it."""
        return self.place if self.folder is None else str(self.folder)

    def child(self, name: str) -> "Store":
        return Store(f"{self.place.rstrip('/')}/{name}")

    def exists(self, name: str) -> bool:
        return bool(self._guarded(lambda system, path: system.exists(path), name))

    def names(self, kind: str) -> set[str]:
        """Files in a folder of the store; none where it is not there."""

        def listed(system: Any, path: str) -> set[str]:
            system.invalidate_cache()
            try:
                return {str(item).rsplit("/", 1)[-1] for item in system.ls(path, detail=False)}
            except FileNotFoundError:
                return set()

        return set(self._guarded(listed, kind))

    def read(self, name: str) -> bytes | None:
        """What a file holds; None where it is not there."""
        try:
            return bytes(self._guarded(lambda system, path: system.cat_file(path), name))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Raises StoreLost where that cannot be: a full disk, a folder that is gone or closed."""
        folder = self.folder
        if folder is None:  # an object store shows an object when all of it is there
            self._guarded(lambda system, path: system.makedirs(system._parent(path), exist_ok=True), name)
            self._guarded(lambda system, path: system.pipe_file(path, data), name)
            return
        try:
            with beside(folder / name) as draft:
                draft.write_bytes(data)
        except VarlabError as error:
            raise StoreLost(f"{error} The same command goes on from there.") from error

    def remove(self, name: str) -> None:
        self._guarded(lambda system, path: system.rm_file(path), name)

    def _guarded(self, act: Any, name: str) -> Any:
        system, path = self._system
        try:
            return act(system, f"{path.rstrip('/')}/{name}")
        except FileNotFoundError:
            raise
        except Exception as error:  # each kind of store has its own
            raise StoreLost(
                f"{self.place} cannot be reached ({cause(error)}). The same command goes on from there."
            ) from error


def sealed(text: str) -> bytes:
    """A text with a digest as its last line."""
    data = text.encode()
    return data + hashlib.sha256(data).hexdigest().encode() + b"\n"


def unsealed(data: bytes | None) -> str | None:
    """The text; None for a file that is not there or not whole."""
    if data is None or len(data) <= DIGEST:
        return None
    text, digest = data[: -DIGEST - 1], data[-DIGEST - 1 : -1]
    return text.decode() if hashlib.sha256(text).hexdigest().encode() == digest else None


def packed(images: np.ndarray) -> bytes:
    """An array of images, sealed."""
    held = io.BytesIO()
    np.save(held, images)
    return hashlib.sha256(held.getvalue()).hexdigest().encode() + held.getvalue()


def unpacked(data: bytes | None) -> np.ndarray | None:
    """The array; None for a file that is not there or not whole."""
    if data is None or hashlib.sha256(data[DIGEST:]).hexdigest().encode() != data[:DIGEST]:
        return None
    return np.asarray(np.load(io.BytesIO(data[DIGEST:])))
