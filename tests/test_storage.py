import os
import stat
from pathlib import Path

import pytest

from runner.errors import StorageError
from runner.storage import OutputFolder


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    made = OutputFolder(tmp_path / "out" / "results")
    made.prepare()
    return made


def test_a_kept_result_has_its_name_and_all_its_bytes_and_no_temp_file_stays(folder: OutputFolder) -> None:
    with folder.temp("chair") as temp:
        temp.write(b"whole ")
        temp.write(b"result")
        assert folder.files() == {}
        temp.keep("chair.ply")
    assert (folder.path / "chair.ply").read_bytes() == b"whole result"
    assert sorted(os.listdir(folder.path)) == [".runner", "chair.ply"]


def test_what_fails_on_the_way_leaves_nothing_and_the_older_result_stays(folder: OutputFolder) -> None:
    (folder.path / "chair.ply").write_bytes(b"old")
    with pytest.raises(RuntimeError), folder.temp("chair") as temp:
        temp.write(b"half")
        raise RuntimeError
    assert sorted(os.listdir(folder.path)) == [".runner", "chair.ply"]
    assert (folder.path / "chair.ply").read_bytes() == b"old"


def test_what_was_written_can_be_read_before_it_is_kept(folder: OutputFolder) -> None:
    with folder.temp("chair") as temp:
        temp.write(b"abc")
        assert temp.flushed().read_bytes() == b"abc"


def test_the_longest_key_fits_a_file_name(folder: OutputFolder) -> None:
    key = "é" * 100
    with folder.temp(key) as temp:
        temp.keep(f"{key}.ply")
    assert list(folder.files()) == [f"{key}.ply"]


def test_results_have_the_rights_the_umask_gives(folder: OutputFolder) -> None:
    before = os.umask(0o027)
    try:
        with folder.temp("chair") as temp:
            temp.keep("chair.ply")
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder.path / "chair.ply").stat().st_mode) == 0o640


def test_the_sweep_takes_temp_files_of_dead_runs_and_nothing_else(folder: OutputFolder) -> None:
    for name in (".chair.0123abcd.part", "chair.part", ".other", "chair.ply"):
        (folder.path / name).touch()
    assert folder.sweep() == 1
    assert sorted(os.listdir(folder.path)) == [".other", ".runner", "chair.part", "chair.ply"]


def test_a_name_that_is_a_folder_is_a_storage_error(folder: OutputFolder) -> None:
    (folder.path / "chair.ply").mkdir()
    with pytest.raises(StorageError, match=r"chair\.ply can't be written"), folder.temp("chair") as temp:
        temp.keep("chair.ply")
    assert folder.files() == {}


def test_a_folder_that_cant_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="can't be made: Not a directory"):
        OutputFolder(tmp_path / "file" / "results").prepare()


def test_a_state_file_is_replaced_whole(folder: OutputFolder) -> None:
    folder.write("summary.json", "old")
    folder.write("summary.json", "new")
    assert os.listdir(folder.state) == ["summary.json"]
    assert (folder.state / "summary.json").read_text() == "new"
