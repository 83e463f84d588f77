"""A real server with a real database and real files; the broker is away, which no test of this room may notice."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import onnx
import uvicorn
from onnx import TensorProto, helper, numpy_helper

from api.main import create_app
from api.settings import ApiSettings
from store.database import Database
from store.files import Files
from store.migrate import upgrade
from store.settings import StoreSettings

DEADLINE_S = 20.0


@dataclass(frozen=True)
class Service:
    """A running API, and the store behind it."""

    url: str
    port: int
    home: Path
    database: Database
    files: Files
    http: httpx.Client
    server: uvicorn.Server

    def upload_model(self, content: bytes, name: str = "linear") -> dict[str, object]:
        """Upload and return the document."""
        answer = self.http.post("/v1/models", files={"file": ("linear.onnx", content)}, data={"name": name})
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    def upload_dataset(self, content: bytes) -> dict[str, object]:
        """Upload and return the document."""
        answer = self.http.post("/v1/datasets", files={"file": ("rows.npz", content)})
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    def kept(self) -> list[Path]:
        """Every file that is kept or was left behind."""
        here = self.home / "files"
        return sorted(path for path in here.rglob("*") if path.is_file() and path.name != "check")

    def left_behind(self) -> list[Path]:
        """What is in the spool."""
        return sorted(self.files.spool_dir.iterdir())


@contextmanager
def serve(home: Path, **settings: object) -> Iterator[Service]:
    """Start the API in a thread of this process; stop it afterwards."""
    store = StoreSettings(
        database_url=f"sqlite:///{home / 'accel.sqlite3'}",
        files_url=f"file://{home / 'files'}",
        broker_url="redis://127.0.0.1:1/0",
    )
    database = Database(store.database_url)
    upgrade(database)
    app = create_app(ApiSettings(**{"min_free_bytes": 0, "access_log": False, **settings}), store)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        config = uvicorn.Config(app, lifespan="on", log_config=None, access_log=False, timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive())
            assert server.started, "the server did not start"
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, timeout=DEADLINE_S) as http:
                yield Service(url, port, home, database, Files(store.files_url), http, server)
        finally:
            server.should_exit = True
            thread.join()
            database.dispose()


def until(condition: Callable[[], object], *, deadline_s: float = DEADLINE_S) -> None:
    """Wait until something holds."""
    end = time.monotonic() + deadline_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        pause.wait(0.02)


def linear(*, seed: int = 0, features: int = 4, classes: int = 3) -> bytes:
    """The smallest classifier: one Gemm."""
    weights = np.random.default_rng(seed).normal(size=(features, classes)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", features])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def rows(tmp_path: Path, *, seed: int = 0, count: int = 20) -> bytes:
    """A dataset that fits it."""
    rng = np.random.default_rng(seed)
    path = tmp_path / "rows.npz"
    np.savez(
        path,
        x_test=rng.normal(size=(count, 4)).astype(np.float32),
        y_test=rng.integers(0, 3, size=count),
    )
    return path.read_bytes()
