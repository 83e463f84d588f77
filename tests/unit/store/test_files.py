from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from store.errors import NoSpace, NotFound
from store.files import Files

ROOT = Path(__file__).parents[3]


def kept(files: Files, folder: Path, content: bytes) -> str:
    path = folder / "some.bin"
    path.write_bytes(content)
    sha256, size = files.keep(path)
    assert (sha256, size) == (hashlib.sha256(content).hexdigest(), len(content))
    return sha256


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(f"file://{tmp_path / 'files'}")


def test_content_comes_back_whole_and_in_parts(files: Files, tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    sha256 = kept(files, tmp_path, content)
    assert kept(files, tmp_path, content) == sha256
    assert b"".join(files.read(sha256)) == content
    assert b"".join(files.read(sha256, 5, (1 << 20) + 17)) == content[5 : (1 << 20) + 17]
    assert files.size(sha256) == len(content)
    place = files.local_path(sha256)
    assert place is not None
    assert place.read_bytes() == content
    assert files.fetch(sha256, tmp_path / "copy") == place
    assert not list(files.spool_dir.iterdir())


def test_what_is_not_there(files: Files, tmp_path: Path) -> None:
    missing = hashlib.sha256(b"missing").hexdigest()
    assert not files.exists(missing)
    with pytest.raises(NotFound):
        files.size(missing)
    with pytest.raises(NotFound):
        files.fetch(missing, tmp_path / "copy")


def test_collecting_spares_what_is_needed_and_what_is_young(files: Files, tmp_path: Path) -> None:
    needed, young = kept(files, tmp_path, b"needed"), kept(files, tmp_path, b"young")
    (files.spool_dir / "left.part").write_bytes(b"x")
    assert files.collect(lambda sha256: sha256 == needed, older_than_s=3600) == 0
    assert files.exists(young)
    deadline = time.time() + 5
    while time.time() < deadline and files.exists(young):
        files.collect(lambda sha256: sha256 == needed, older_than_s=0)
    assert not files.exists(young)
    assert files.exists(needed)
    assert not list(files.spool_dir.iterdir())
    files.check()


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(bytes(200_000))
    code = f"""
import errno, resource, signal
from pathlib import Path
from store.files import Files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
files = Files({f"file://{tmp_path / 'files'}"!r})
try:
    files.keep(Path({str(tmp_path / "large.bin")!r}))
except OSError as error:
    assert error.errno == errno.EFBIG
    print("refused", [p.name for p in files.spool_dir.iterdir()])
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert answer.stdout.strip() == "refused []", answer.stderr


def test_no_space_is_an_error_of_its_own() -> None:
    assert NoSpace("full").code == "disk_full"
