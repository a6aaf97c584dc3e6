"""Only regular files are opened, at once or not at all."""

import os
import socket

import pytest

from minidl.inputs import open_input, size_of

POSIX_ONLY = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")


def test_a_file_and_a_link_to_it_are_opened_for_reading(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for name in ("a", "link"):
        with open_input(tmp_path / name) as file:
            assert size_of(file) == 7 and file.read() == b"content"


def test_a_missing_file_and_a_folder_raise_their_own_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_input(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        open_input(tmp_path)


@POSIX_ONLY
def test_a_pipe_without_a_writer_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        open_input(tmp_path / "pipe")


@POSIX_ONLY
def test_a_device_and_a_socket_are_refused(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="not a regular file"):
        open_input("/dev/zero")
    monkeypatch.chdir(tmp_path)  # the name of a socket has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(OSError, match="not a regular file"):
            open_input("socket")


@POSIX_ONLY
def test_a_pipe_that_replaces_the_file_just_before_it_is_opened_is_refused(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a").write_bytes(b"content")
    stat = os.stat

    def stat_before(path):
        return stat(tmp_path / "a" if path == tmp_path / "pipe" else path)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="not a regular file"):
        patch.setattr("os.stat", stat_before)
        open_input(tmp_path / "pipe")
