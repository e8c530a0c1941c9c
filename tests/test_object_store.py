"""The object store of the tests and of the demo: how it is begun."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from s3 import object_store


class Stores:
    """Stands for the program: begun so often, it first ends at once, as one does whose port another process has."""

    def __init__(self, ends: int) -> None:
        self.ends = ends
        self.ports: list[int] = []
        self.begun: list[subprocess.Popen[bytes]] = []

    def start(self, home: Path, port: int, people: Any, log: Path) -> subprocess.Popen[bytes]:
        self.ports.append(port)
        log.write_text("address already in use")
        early = len(self.ports) <= self.ends
        self.begun.append(subprocess.Popen(["false"] if early else ["sleep", "600"]))
        if early:
            self.begun[-1].wait()
        return self.begun[-1]


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Stores:
    made = Stores(request.param)
    monkeypatch.setattr(object_store, "started", made.start)
    return made


@pytest.mark.parametrize("stores", [2], indirect=True)
def test_a_store_whose_port_was_taken_is_begun_again_on_another(stores: Stores, tmp_path: Path) -> None:
    store, port = object_store.brought_up(tmp_path, {}, tmp_path / "log", lambda port: port == stores.ports[2])
    assert store is stores.begun[2] and port == stores.ports[2] and store.poll() is None
    assert len(stores.ports) == 3
    object_store.end(store)


@pytest.mark.parametrize("stores", [99], indirect=True)
def test_a_store_that_always_ends_is_given_up_with_what_it_said(stores: Stores, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="did not come up: address already in use"):
        object_store.brought_up(tmp_path, {}, tmp_path / "log", lambda _: True, port=9)
    assert stores.ports == [9] * 5


@pytest.mark.parametrize("stores", [0], indirect=True)
def test_a_store_that_is_not_waited_for_is_ended(stores: Stores, tmp_path: Path) -> None:
    def asked(_: int) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        object_store.brought_up(tmp_path, {}, tmp_path / "log", asked)
    assert stores.begun[0].poll() is not None
