"""Files are replaced whole, by one process at a time, and nothing but a regular file is replaced."""

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from minidl import files
from minidl.files import NotReplaceableError, atomic_write

# Writes to the file that is its argument, prints a line, and waits.
WRITER = """
import sys, time
from minidl.files import atomic_write
with atomic_write(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that is writing the file `a` in tmp_path, and is killed at the end."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        yield process
        process.kill()


def write(path, content=b"new"):
    with atomic_write(path) as file:
        file.write(content)


def test_the_file_and_then_its_folder_are_flushed_to_the_disk(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def record(descriptor):
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("renamed"), replace(a, b)))
    folder = tmp_path / "folder.d"
    folder.mkdir()
    write(folder / "a")
    assert events == [".part", "renamed", ".d"]


@pytest.mark.parametrize("number, raised", [(errno.EINVAL, False), (errno.EIO, True)])
def test_only_a_file_system_that_cannot_flush_a_folder_may_omit_it(tmp_path, monkeypatch, number, raised):
    fsync = os.fsync

    def flush(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    with pytest.raises(OSError) if raised else nullcontext():
        write(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_write_inside_a_write_to_the_same_file_is_lost_whole(tmp_path):
    """As two processes do that write the same file: the last to rename wins."""
    with atomic_write(tmp_path / "a") as first:
        first.write(b"first, ")
        write(tmp_path / "a", b"second")
        assert (tmp_path / "a").read_bytes() == b"second"
        first.write(b"whole")
    assert (tmp_path / "a").read_bytes() == b"first, whole"
    assert os.listdir(tmp_path) == ["a"]


class TestTemporaryFiles:
    @pytest.fixture(autouse=True)
    def forget(self, monkeypatch):
        monkeypatch.setattr(files, "_cleaned", set())

    def test_of_a_killed_process_are_removed_by_the_next_write(self, writer, tmp_path):
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        (left,) = os.listdir(tmp_path)
        assert left.startswith(".minidl-") and left.endswith(".part")
        write(tmp_path / "b")
        assert os.listdir(tmp_path) == ["b"]

    def test_of_a_living_process_are_kept(self, writer, tmp_path):
        write(tmp_path / "b")
        assert len(os.listdir(tmp_path)) == 2

    def test_are_created_again_if_another_process_removes_them_before_they_are_locked(
        self, tmp_path, monkeypatch
    ):
        lock, calls = files.lock, []

        def late(descriptor):
            if not calls:
                next(tmp_path.glob("*.part")).unlink()
            calls.append(descriptor)
            return lock(descriptor)

        monkeypatch.setattr(files, "lock", late)
        write(tmp_path / "a")
        assert len(calls) == 2 and (tmp_path / "a").read_bytes() == b"new"

    def test_a_planted_pipe_or_link_is_neither_opened_nor_followed(self, tmp_path):
        (tmp_path / "victim").write_bytes(b"old")
        os.mkfifo(tmp_path / ".minidl-0.part")
        (tmp_path / ".minidl-1.part").symlink_to(tmp_path / "victim")
        write(tmp_path / "a")
        assert (tmp_path / "victim").read_bytes() == b"old" and (tmp_path / "a").read_bytes() == b"new"

    def test_a_planted_file_is_not_written_to_even_if_its_name_was_guessed(self, tmp_path, monkeypatch):
        write(tmp_path / "first")  # removes old temporary files, once for each folder
        monkeypatch.setattr("secrets.token_hex", lambda size: "guessed")
        (tmp_path / ".minidl-guessed.part").write_bytes(b"old")
        (tmp_path / "victim").hardlink_to(tmp_path / ".minidl-guessed.part")
        with pytest.raises(FileExistsError):
            write(tmp_path / "a")
        assert (tmp_path / "victim").read_bytes() == b"old" and not (tmp_path / "a").exists()


class TestWhatIsReplaced:
    def refused(self, path, kind):
        with pytest.raises(NotReplaceableError) as caught:
            write(path)
        assert caught.value.strerror == f"it is {kind}, not a regular file"

    def test_not_a_device(self):
        self.refused("/dev/null", "a device")

    def test_not_a_folder(self, tmp_path):
        self.refused(tmp_path, "a folder")

    def test_not_a_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "a")
        self.refused(tmp_path / "a", "a pipe")

    def test_not_a_socket(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)  # the name of a socket is short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("a")
            self.refused(tmp_path / "a", "a socket")

    def test_not_a_link_to_a_device(self, tmp_path):
        (tmp_path / "a").symlink_to("/dev/null")
        self.refused(tmp_path / "a", "a device")

    @pytest.mark.parametrize("exists", [True, False])
    def test_but_the_file_that_a_link_points_to(self, tmp_path, exists):
        (tmp_path / "other").mkdir()
        file, link = tmp_path / "other" / "file", tmp_path / "link"
        if exists:
            file.write_bytes(b"old")
        link.symlink_to(file)
        write(link)
        assert link.is_symlink() and file.read_bytes() == b"new"
        assert os.listdir(tmp_path / "other") == ["file"]
