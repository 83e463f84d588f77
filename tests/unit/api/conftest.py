"""A running service for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.api_service import Service, linear, rows, serve


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def model_id(service: Service) -> UUID:
    return UUID(str(service.upload_model(linear())["id"]))


@pytest.fixture
def dataset_id(service: Service, tmp_path: Path) -> UUID:
    return UUID(str(service.upload_dataset(rows(tmp_path))["id"]))
