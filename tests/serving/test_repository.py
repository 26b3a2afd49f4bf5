"""Versions that come and go, labels, reloads and failures, mostly with a loader that only pretends."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from serving.errors import Code, ServingError
from serving.model_config import Model, Policy
from serving.repository import Options, Repository, State
from serving.servable import Loader

NONE: frozenset[int] = frozenset()


class Fake:
    """A servable of no model."""

    def __init__(self, name: str, version: int, path: str) -> None:
        self.name, self.version, self.path = name, version, path
        self.users = 0
        self.retired = False

    def acquire(self) -> bool:
        if not self.retired:
            self.users += 1
        return not self.retired

    def release(self) -> None:
        self.users -= 1

    def unload(self) -> None:
        self.retired = True
        while self.users:
            time.sleep(0.001)


class House:
    """A repository over folders below `base`, whose loads can be made to fail or wait."""

    def __init__(self, base: Path, **options: Any) -> None:
        self.base = base
        self.bad: set[int] = set()
        self.loads: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.repository = Repository(self.load, Options(**{"poll_wait_seconds": 0, "max_load_retries": 0, **options}))

    def load(self, name: str, version: int, path: str) -> Any:
        self.loads.append(version)
        self.gate.wait(10)
        if version in self.bad:
            raise ServingError(Code.DATA_LOSS, f"{path} is broken")
        return Fake(name, version, path)

    def add(self, *versions: int | str, name: str = "m") -> None:
        for version in versions:
            (self.base / name / str(version)).mkdir(parents=True, exist_ok=True)

    def remove(self, version: int | str, name: str = "m") -> None:
        shutil.rmtree(self.base / name / str(version))

    def model(self, name: str = "m", **more: Any) -> Model:
        return Model(name, str(self.base / name), **more)

    def states(self, name: str = "m") -> dict[int, str]:
        return {status.version: status.state.name for status in self.repository.status(name)}

    def settle(self, wanted: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not wanted():
            assert time.monotonic() < deadline, self.states()
            time.sleep(0.002)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    found = House(tmp_path)
    yield found
    found.gate.set()
    found.repository.close(1)


def code(call: Callable[[], object]) -> tuple[Code, str]:
    with pytest.raises(ServingError) as caught:
        call()
    return caught.value.code, caught.value.message


def test_the_latest_version_is_served_and_names_are_numbers(house: House) -> None:
    house.add("00000003", 2, "-5", "four", "+4", "4.0", ".writing-9", 9223372036854775808)
    house.repository.reload((house.model(),))
    assert house.states() == {3: "AVAILABLE"}
    servable = house.repository.find("m")
    assert (servable.version, servable.path) == (3, f"{house.base}/m/00000003")


def test_base_paths_are_whatever_tensorflow_reads(golden_models: Path) -> None:
    base = "ram://repository/tide"

    def add(version: int) -> None:
        for file in (golden_models / "tide" / str(version)).rglob("*"):
            target = f"{base}/{version}/{file.relative_to(golden_models / 'tide' / str(version))}"
            if file.is_file():
                tf.io.gfile.makedirs(target.rpartition("/")[0])
                tf.io.gfile.copy(str(file), target)

    def served() -> tuple[int, float]:
        with repository.using("tide") as servable:
            definition = servable.signatures["serving_default"]
            ((feed,), (fetch,)) = definition.inputs.values(), definition.outputs.values()
            (heights,) = servable.run({feed.name: np.ones(1, np.float32)}, [fetch.name])
            return servable.version, float(heights[0])

    def settle(version: int) -> None:
        repository.poll()
        deadline = time.monotonic() + 60
        while repository.find("tide").version != version:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    repository = Repository(Loader().load, Options(poll_wait_seconds=0, max_load_retries=0))
    add(1)
    repository.reload((Model("tide", base),))
    assert served() == (1, 11.0)
    add(2)
    settle(2)
    assert served() == (2, 102.0)
    tf.io.gfile.rmtree(f"{base}/2")
    settle(1)
    assert served() == (1, 11.0)
    assert repository.close(10)


def test_policies(house: House) -> None:
    house.add(1, 2, 3, 4)
    for policy, versions in [
        (Policy(latest=2), {3, 4}),
        (Policy(latest=None), {1, 2, 3, 4}),
        (Policy(latest=None, specific=frozenset({1, 3, 7})), {1, 3}),
        (Policy(), {4}),
    ]:
        house.repository.reload((house.model(policy=policy),))
        house.settle(lambda versions=versions: {v for v, s in house.states().items() if s == "AVAILABLE"} == versions)
    house.settle(lambda: house.states() == {4: "AVAILABLE", 3: "END", 2: "END", 1: "END"})
    assert house.repository.status("m", 3)[0].error is None


def test_there_is_no_gap_while_a_new_version_loads(house: House) -> None:
    house.add(1)
    house.repository.reload((house.model(),))
    house.gate.clear()
    house.add(2)
    house.repository.poll()
    house.settle(lambda: house.states() == {1: "AVAILABLE", 2: "LOADING"})
    with house.repository.using("m") as old:
        assert old.version == 1
        house.gate.set()
        house.settle(lambda: house.states() == {1: "UNLOADING", 2: "AVAILABLE"})
        assert house.repository.find("m").version == 2
        assert old.version == 1  # in flight on it, so it waits
    house.settle(lambda: house.states() == {1: "END", 2: "AVAILABLE"})


def test_using_never_sees_a_gap(house: House) -> None:
    house.add(1)
    house.repository.reload((house.model(),))
    done = threading.Event()
    seen: list[int] = []
    failures: list[BaseException] = []

    def ask() -> None:
        while not done.is_set():
            try:
                with house.repository.using("m") as servable:
                    seen.append(servable.version)
            except ServingError as error:
                failures.append(error)
            time.sleep(0)  # or the other threads hardly get a turn

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for version in range(2, 14):
        house.add(version)
        house.repository.poll()
        house.settle(lambda version=version: house.states()[version] == "AVAILABLE")
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert max(seen) == 13


def test_a_bad_version_is_reported_while_the_good_one_serves(house: House) -> None:
    house.add(1)
    house.repository.reload((house.model(),))
    house.bad = {2}
    house.add(2)
    house.repository.poll()
    house.settle(lambda: house.states() == {1: "AVAILABLE", 2: "END"})
    error = house.repository.status("m", 2)[0].error
    assert error is not None
    assert (error.code, error.message) == (Code.DATA_LOSS, f"{house.base}/m/2 is broken")
    # It is not tried again where it lies, but when it has been away.
    house.bad = set()
    house.repository.poll()
    assert house.loads == [1, 2]
    house.remove(2)
    house.repository.poll()
    house.add(2)
    house.repository.poll()
    house.settle(lambda: house.states() == {1: "END", 2: "AVAILABLE"})


def test_deleting_versions_while_serving(house: House) -> None:
    house.add(1, 2)
    house.repository.reload((house.model(),))
    house.remove(2)
    house.repository.poll()
    house.settle(lambda: house.states() == {1: "AVAILABLE", 2: "END"})
    house.remove(1)
    house.repository.poll()
    house.settle(lambda: house.states() == {1: "END", 2: "END"})
    assert code(lambda: house.repository.find("m")) == (
        Code.NOT_FOUND,
        "Servable not found for request: Latest(m)",
    )


def test_an_unreadable_base_path_changes_nothing_for_anybody(house: House) -> None:
    house.add(1)
    house.add(1, name="other")
    house.repository.reload((house.model(), house.model("other")))
    house.add(2)
    shutil.rmtree(house.base / "other")
    with pytest.raises(ServingError, match="Could not find base path"):
        house.repository.poll()
    assert house.states() == {1: "AVAILABLE"}
    assert house.states("other") == {1: "AVAILABLE"}


def test_labels(house: House) -> None:
    house.add(1, 2)
    both = Policy(latest=None)
    refused = house.model(policy=both, labels={"stable": 1})
    assert code(lambda: house.repository.reload((refused,))) == (
        Code.FAILED_PRECONDITION,
        "Request to assign label to version 1 of model m, which is not currently available for inference",
    )
    house.repository.reload((house.model(policy=both),))
    house.settle(lambda: set(house.states().values()) == {"AVAILABLE"})
    house.repository.reload((refused,))
    assert house.repository.find("m", label="stable").version == 1
    assert code(lambda: house.repository.find("m", label="x")) == (
        Code.INVALID_ARGUMENT,
        "Unrecognized servable version label: x",
    )
    # Every reload replaces all of them, and a refused one replaces nothing.
    house.repository.reload((house.model(policy=both, labels={"canary": 2}),))
    assert house.repository.find("m", label="canary").version == 2
    with pytest.raises(ServingError):
        house.repository.find("m", label="stable")
    with pytest.raises(ServingError):
        house.repository.reload((house.model(policy=both, labels={"canary": 9}),))
    assert house.repository.find("m", label="canary").version == 2


def test_new_labels_for_versions_to_come_where_that_is_allowed(tmp_path: Path) -> None:
    house = House(tmp_path, labels_for_unavailable=True)
    house.add(1)
    house.repository.reload((house.model(labels={"next": 7}),))
    assert code(lambda: house.repository.find("m", label="next"))[0] is Code.NOT_FOUND
    # Moving a label to a version that does not serve is still refused.
    with pytest.raises(ServingError, match="version 8 of model m"):
        house.repository.reload((house.model(labels={"next": 8}),))
    house.repository.close(1)


def test_reload_replaces_the_list_and_waits_for_new_models(house: House) -> None:
    house.add(1)
    house.add(5, name="n")
    house.repository.reload((house.model(),))
    house.repository.reload((house.model("n"),))
    assert house.states("n") == {5: "AVAILABLE"}
    house.settle(lambda: house.states() == {1: "END"})
    house.repository.reload((house.model(), house.model("n")))
    assert house.states() == {1: "AVAILABLE"}
    house.repository.reload(())
    house.settle(lambda: house.states() == {1: "END"} and house.states("n") == {5: "END"})


def test_a_model_that_comes_back_while_it_is_unloading(house: House) -> None:
    house.add(1)
    house.repository.reload((house.model(),))
    with house.repository.using("m"):
        house.repository.reload(())
        house.settle(lambda: house.states() == {1: "UNLOADING"})
        returning = threading.Thread(target=house.repository.reload, args=((house.model(),),))
        returning.start()
        time.sleep(0.05)
        assert house.states() == {1: "UNLOADING"}
    returning.join(10)
    assert house.states() == {1: "AVAILABLE"}


def test_reload_says_which_new_model_cannot_be_loaded(house: House) -> None:
    house.add(3)
    house.bad = {3}
    assert code(lambda: house.repository.reload((house.model(),))) == (
        Code.UNKNOWN,
        (
            "1 model(s) did not become available: {{{name: m version: 3} due to error: "
            f"DATA_LOSS: {house.base}/m/3 is broken}}, }}"
        ),
    )


def test_waiting_for_a_model_without_versions_ends_with_the_time(house: House) -> None:
    (house.base / "m").mkdir()
    assert code(lambda: house.repository.reload((house.model(),), timeout=0.05))[0] is Code.DEADLINE_EXCEEDED
    assert code(lambda: house.repository.status("m")) == (
        Code.NOT_FOUND,
        "Could not find any versions of model m",
    )


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ((Model("m", "/m", "torch"),), "Model m requests unsupported platform torch"),
        ((Model("m", "/m", ""),), ("Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
         "ModelServerConfig::model_platform, model name is m")),
    ],
)  # fmt: skip
def test_platforms(house: House, models: tuple[Model, ...], message: str) -> None:
    assert code(lambda: house.repository.reload(models)) == (Code.INVALID_ARGUMENT, message)


def test_a_platform_may_not_change(house: House) -> None:
    house.add(1)
    house.repository.reload((house.model(),))
    assert code(lambda: house.repository.reload((house.model(platform="torch"),)))[1] == (
        "Illegal to change a model's platform. For model m platform was tensorflow and new platform requested is torch"
    )
    assert house.states() == {1: "AVAILABLE"}


def test_failed_loads_are_tried_again(tmp_path: Path) -> None:
    house = House(tmp_path, max_load_retries=3, retry_interval_seconds=0.01)
    house.add(1)
    house.bad = {1}
    threading.Timer(0.015, house.bad.clear).start()
    house.repository.reload((house.model(),))
    assert house.states() == {1: "AVAILABLE"}
    assert 2 <= len(house.loads) <= 4
    house.repository.close(1)


def test_polling_finds_new_versions_by_itself(tmp_path: Path) -> None:
    house = House(tmp_path, poll_wait_seconds=0.02)
    house.add(1)
    house.repository.reload((house.model(),))
    house.repository.start_polling()
    house.add(2)
    house.settle(lambda: house.states() == {1: "END", 2: "AVAILABLE"})
    house.repository.close(1)
    assert not any(status.state is State.AVAILABLE for status in house.repository.status("m"))


def test_closing_waits_for_what_is_in_flight_but_not_for_ever(house: House) -> None:
    house.add(1)
    house.repository.reload((house.model(),))
    with house.repository.using("m"):
        started = time.monotonic()
        house.repository.close(0.1)
        assert 0.05 < time.monotonic() - started < 5
