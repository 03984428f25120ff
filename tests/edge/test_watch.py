"""Real files, real notices of the operating system: what counts as a change of the configuration, and how often."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from daemon.watch import Watch

DEADLINE_S = 20


class Changes:
    """Counts the calls, and lets a test wait for the next one."""

    def __init__(self) -> None:
        self.count = 0
        self._told = asyncio.Event()

    async def __call__(self) -> None:
        self.count += 1
        self._told.set()

    async def next(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self._told.wait()
        self._told.clear()


@asynccontextmanager
async def watching(watch: Watch) -> AsyncIterator[None]:
    task = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        watch.close()
        async with asyncio.timeout(DEADLINE_S):
            await task


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "detectd.yaml"
    path.write_text("a: 1\n")
    return path


async def test_a_file_written_in_place_is_a_change(source: Path) -> None:
    changes = Changes()
    async with watching(Watch([source], changes)):
        source.write_text("a: 2 # longer\n")
        await changes.next()
    assert changes.count == 1


async def test_a_file_renamed_into_place_is_a_change_each_time(source: Path) -> None:
    changes = Changes()
    async with watching(Watch([source], changes)):
        for text in ("a: 2\n", "a: 3\n"):
            draft = source.with_name(".draft~")
            draft.write_text(text)
            draft.replace(source)
            await changes.next()
    assert changes.count == 2


async def test_a_kubernetes_mount_whose_data_symlink_is_swapped_is_a_change_each_time(tmp_path: Path) -> None:
    mount = tmp_path / "etc"
    _publish(mount, "..v1", "a: 1\n")
    source = mount / "detectd.yaml"
    source.symlink_to("..data/detectd.yaml")
    changes = Changes()
    async with watching(Watch([source], changes)):
        for version in ("..v2", "..v3"):
            _publish(mount, version, f"version: {version}\n")
            await changes.next()


def _publish(mount: Path, version: str, text: str) -> None:
    # As kubelet does: a directory of its own per version, then one atomic swap of the symlink, then the old one goes.
    old = (mount / "..data").readlink() if (mount / "..data").is_symlink() else None
    (mount / version).mkdir(parents=True)
    (mount / version / "detectd.yaml").write_text(text)
    (mount / "..data_tmp").symlink_to(version)
    (mount / "..data_tmp").replace(mount / "..data")
    if old:
        (mount / old / "detectd.yaml").unlink()
        (mount / old).rmdir()


async def test_a_symlinked_directory_above_the_file_that_is_swapped_is_a_change(tmp_path: Path) -> None:
    for release in ("one", "two"):
        (tmp_path / "releases" / release).mkdir(parents=True)
        (tmp_path / "releases" / release / "detectd.yaml").write_text("a: 1\n")
    current = tmp_path / "current"
    current.symlink_to("releases/one")
    changes = Changes()
    async with watching(Watch([current / "detectd.yaml"], changes)):
        (tmp_path / "next").symlink_to("releases/two")
        (tmp_path / "next").replace(current)
        await changes.next()
    assert changes.count == 1


async def test_the_file_that_a_symlink_leads_to_is_watched_where_it_lies(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere" / "real.yaml"
    real.parent.mkdir()
    real.write_text("a: 1\n")
    (tmp_path / "etc").mkdir()
    source = tmp_path / "etc" / "detectd.yaml"
    source.symlink_to(real)
    changes = Changes()
    async with watching(Watch([source], changes)):
        real.write_text("a: 2 # changed\n")
        await changes.next()


async def test_a_new_profile_in_the_directory_of_a_glob_is_a_change(source: Path) -> None:
    profiles = source.parent / "profiles"
    profiles.mkdir()
    changes = Changes()
    async with watching(Watch([source], changes, directories=[profiles])):
        (profiles / "first.json").write_text("{}")
        await changes.next()
        (profiles / "first.json").unlink()
        await changes.next()


async def test_a_directory_that_does_not_exist_yet_is_noticed_when_it_comes(source: Path) -> None:
    profiles = source.parent / "conf.d" / "profiles"
    changes = Changes()
    async with watching(Watch([source], changes, directories=[profiles])):
        profiles.mkdir(parents=True)
        (profiles / "first.yaml").write_text("x: 1\n")
        await changes.next()


async def test_a_deleted_file_is_a_change_and_so_is_its_return(source: Path) -> None:
    changes = Changes()
    async with watching(Watch([source], changes)):
        source.unlink()
        await changes.next()
        source.write_text("a: 1\n")
        await changes.next()


class ByHand:
    """Wake-ups when a test says so, and a word when each has been looked at."""

    def __init__(self) -> None:
        self._turns: asyncio.Queue[None] = asyncio.Queue()
        self._looked = asyncio.Event()

    async def look(self) -> None:
        self._looked.clear()
        self._turns.put_nowait(None)
        async with asyncio.timeout(DEADLINE_S):
            await self._looked.wait()

    async def __call__(self, _directories: Iterable[Path], stop: asyncio.Event) -> AsyncGenerator[None]:
        while not stop.is_set():
            turn, stopped = asyncio.ensure_future(self._turns.get()), asyncio.ensure_future(stop.wait())
            done, pending = await asyncio.wait({turn, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            if turn in done:
                try:
                    yield
                finally:
                    self._looked.set()


async def test_what_lies_beside_and_is_no_configuration_sets_nothing_off(source: Path) -> None:
    changes, hand = Changes(), ByHand()
    async with watching(Watch([source], changes, wakeups=hand)):
        source.with_name("detectd.log").write_text("chatter")
        source.with_name(".detectd.yaml.swp").write_text("vim")
        await hand.look()
        assert changes.count == 0


async def test_an_event_without_a_change_sets_nothing_off(source: Path) -> None:
    changes, hand = Changes(), ByHand()
    async with watching(Watch([source], changes, wakeups=hand)):
        await hand.look()
        source.write_text("a: 2 # longer\n")
        await hand.look()
        await hand.look()
        assert changes.count == 1


async def test_a_change_while_the_last_one_is_being_handled_is_told_after_it(source: Path) -> None:
    texts: list[str] = []

    async def reload() -> None:
        texts.append(source.read_text())
        if len(texts) == 1:
            source.write_text("a: 3 # while reloading\n")

    hand = ByHand()
    async with watching(Watch([source], reload, wakeups=hand)):
        source.write_text("a: 2\n# longer\n")
        await hand.look()
        await hand.look()
    assert texts == ["a: 2\n# longer\n", "a: 3 # while reloading\n"]


async def test_after_follow_the_new_files_matter_and_the_old_do_not(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "detectd.yaml"
    other.parent.mkdir()
    other.write_text("a: 1\n")
    changes, hand = Changes(), ByHand()
    watch = Watch([source], changes, wakeups=hand)
    async with watching(watch):
        watch.follow([other])
        await hand.look()
        source.write_text("a: 2 # nobody reads this any more\n")
        await hand.look()
        assert changes.count == 0
        other.write_text("a: 2 # longer\n")
        await hand.look()
        assert changes.count == 1


async def test_a_reload_that_reads_further_files_is_not_told_of_its_own_doing(source: Path, tmp_path: Path) -> None:
    further = tmp_path / "further" / "p.yaml"
    further.parent.mkdir()
    further.write_text("a: 1\n")
    calls: list[str] = []
    hand = ByHand()

    async def reload() -> None:
        calls.append(source.read_text())
        watch.follow([source, further])

    watch = Watch([source], reload, wakeups=hand)
    async with watching(watch):
        source.write_text("a: 2 # reads another file now\n")
        await hand.look()
        await hand.look()
        assert len(calls) == 1


async def test_a_change_of_a_kept_file_between_reading_and_following_is_told(source: Path, tmp_path: Path) -> None:
    further = tmp_path / "further" / "p.yaml"
    further.parent.mkdir()
    further.write_text("a: 1\n")
    changes, hand = Changes(), ByHand()
    watch = Watch([source], changes, wakeups=hand)
    async with watching(watch):
        await hand.look()
        source.write_text("a: 2 # saved after it was read\n")
        watch.follow([source, further])
        await hand.look()
        assert changes.count == 1


async def test_a_system_that_refuses_to_watch_costs_no_change(source: Path) -> None:
    async def refuse(_directories: Iterable[Path], _stop: asyncio.Event) -> AsyncGenerator[None]:
        if source.exists():
            raise OSError(28, "inotify watch limit reached")
        yield

    changes = Changes()
    async with watching(Watch([source], changes, wakeups=refuse, rest_s=0.01)):
        source.write_text("a: 2 # longer\n")
        await changes.next()


async def test_cancelling_ends_the_watch_and_its_thread(source: Path) -> None:
    task = asyncio.create_task(Watch([source], Changes()).run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(DEADLINE_S):
            await task
