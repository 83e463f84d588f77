"""A store in a folder, and supervisors that run their jobs in this process, each with a real engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from store.ids import new_id
from store.settings import StoreSettings
from tests.models import convnet, labelled
from tests.stack import Stack
from workers.settings import WorkerSettings
from workers.supervise import Supervisor

Make = Callable[..., Supervisor]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Database and files; no process is started."""
    made = Stack(tmp_path_factory.mktemp("store"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def model_id(store: Stack) -> UUID:
    return store.model(convnet())


@pytest.fixture(scope="module")
def dataset_id(store: Stack) -> UUID:
    return store.dataset(labelled(store.folder / "labelled.npz", convnet()))


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


@pytest.fixture
def supervisor(store: Stack, scratch: Path) -> Make:
    """Makes supervisors."""

    def make(
        *, stopping: Callable[[], bool] = lambda: False, lease_seconds: float = 30, **settings: object
    ) -> Supervisor:
        worker = WorkerSettings(**{"scratch_dir": scratch, "min_free_bytes": 0, **settings})
        patience = StoreSettings(lease_seconds=lease_seconds)
        return Supervisor(store.database, store.files, patience, worker, new_id(), stopping)

    return make
