"""The build backend: that of setuptools, whose archives are the same bytes wherever and whenever they are built.

setuptools keeps the time, mode and owner of the files of an sdist, and the modes of those of a wheel. Here all times
are SOURCE_DATE_EPOCH, or else 1980 (as far back as a zip goes), and modes and owners are fixed.
"""

import gzip
import io
import os
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  (the other hooks)

OLDEST = 315_532_800  # 1980-01-01, UTC
MODE = 0o644


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """Build the sdist and return its name."""
    name = build_meta.build_sdist(sdist_directory, config_settings)
    path = Path(sdist_directory) / name
    path.write_bytes(same_sdist(path.read_bytes()))
    return name


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    """Build the wheel and return its name."""
    name = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    path = Path(wheel_directory) / name
    path.write_bytes(same_wheel(path.read_bytes()))
    return name


def epoch() -> int:
    """Return the time that archives show."""
    return max(OLDEST, int(os.environ.get("SOURCE_DATE_EPOCH", OLDEST)))


def same_sdist(content: bytes) -> bytes:
    """Return an sdist with its files in order, of one time, mode and owner; folders are left out."""
    packed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(content)) as old,
        gzip.GzipFile("", "wb", 9, packed, mtime=epoch()) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            if member.isfile():
                made = tarfile.TarInfo(member.name)
                made.size, made.mtime, made.mode = member.size, epoch(), MODE
                new.addfile(made, old.extractfile(member))
    return packed.getvalue()


def same_wheel(content: bytes) -> bytes:
    """Return a wheel with its files of one time and mode, in the same order."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as new:
        for member in old.infolist():
            made = zipfile.ZipInfo(member.filename, time.gmtime(epoch())[:6])
            made.external_attr = (0o100000 | MODE) << 16
            new.writestr(made, old.read(member), zipfile.ZIP_DEFLATED, 9)
    return packed.getvalue()
