import errno
import io
import os
import stat
from pathlib import Path

import pytest

from runner.errors import StorageError
from runner.storage import OutputFolder, Scratch


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    made = OutputFolder(tmp_path / "out" / "results")
    made.prepare()
    return made


def saved(folder: OutputFolder, key: str, content: bytes = b"whole") -> None:
    temp = folder.temp(key)
    temp.write(content)
    temp.settled()
    temp.part(f"{key}.ply").keep()


def test_a_kept_result_has_its_name_and_all_its_bytes_and_no_temp_file_stays(folder: OutputFolder) -> None:
    temp = folder.temp("chair")
    temp.write(b"whole ")
    temp.write(b"result")
    stamp = temp.settled()
    assert folder.files() == {}
    temp.part("chair.ply").keep()
    assert (folder.path / "chair.ply").read_bytes() == b"whole result"
    assert folder.files() == {"chair.ply": stamp}
    assert sorted(os.listdir(folder.path)) == [".runner", "chair.ply"]


def test_what_is_dropped_leaves_nothing_and_the_older_result_stays(folder: OutputFolder) -> None:
    (folder.path / "chair.ply").write_bytes(b"old")
    temp = folder.temp("chair")
    temp.write(b"half")
    temp.drop()
    assert sorted(os.listdir(folder.path)) == [".runner", "chair.ply"]
    assert (folder.path / "chair.ply").read_bytes() == b"old"


def test_what_was_written_can_be_read_before_it_is_kept(folder: OutputFolder) -> None:
    temp = folder.temp("chair")
    temp.write(b"abc")
    with temp.read() as file:
        assert file.read() == b"abc"
    temp.drop()


def test_the_longest_key_fits_a_file_name(folder: OutputFolder) -> None:
    key = "é" * 100
    saved(folder, key)
    assert list(folder.files()) == [f"{key}.ply"]


@pytest.mark.parametrize(("umask", "mode"), [(0o027, 0o640), (0o000, 0o664)])
def test_results_have_the_rights_the_umask_gives_and_are_never_world_writable(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        folder = OutputFolder(tmp_path / "new" / "results")
        folder.prepare()
        saved(folder, "chair")
        folder.write("summary.json", "{}")
    finally:
        os.umask(before)
    for path in (folder.path / "chair.ply", folder.state / "summary.json"):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    for path in (folder.path.parent, folder.path, folder.state):
        assert not path.stat().st_mode & stat.S_IWOTH


def test_the_sweep_takes_temp_files_of_dead_runs_and_nothing_else(folder: OutputFolder) -> None:
    for name in (".chair.0123abcd.part", "chair.part", ".other", "chair.ply"):
        (folder.path / name).touch()
    assert folder.sweep() == 1
    assert sorted(os.listdir(folder.path)) == [".other", ".runner", "chair.part", "chair.ply"]


def test_a_name_that_is_a_folder_is_a_storage_error(folder: OutputFolder) -> None:
    (folder.path / "chair.ply").mkdir()
    with pytest.raises(StorageError, match=r"chair\.ply can't be written"):
        saved(folder, "chair")
    assert folder.files() == {}
    assert sorted(os.listdir(folder.path)) == [".runner", "chair.ply"]


def test_a_folder_that_cant_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="can't be made: Not a directory"):
        OutputFolder(tmp_path / "file" / "results").prepare()


def test_a_state_file_is_replaced_whole(folder: OutputFolder) -> None:
    folder.write("summary.json", "old")
    folder.write("summary.json", "new")
    assert os.listdir(folder.state) == ["summary.json"]
    assert (folder.state / "summary.json").read_text() == "new"


class Full(io.BytesIO):
    """A file whose buffer finds no room when it is written out."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_last_bytes_of_a_document_that_find_no_room_are_the_disks_fault() -> None:
    scratch = Scratch(Full(), "results/.runner")
    scratch.write(b"{}")
    with pytest.raises(StorageError, match=r"results/.runner can't be written: No space left"):
        scratch.settled()
