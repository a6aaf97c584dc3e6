"""A compiled library is loaded only if it is the one that was written, from a folder of this user alone."""

import ctypes
import os
import subprocess

import pytest

from minidl import cuda_on_cpu
from minidl.cuda_on_cpu import KernelError, compiler

pytestmark = pytest.mark.skipif(cuda_on_cpu.problem() is not None, reason="needs Linux and g++")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "minidl"


@pytest.fixture
def compile_answer(folder):
    """A function that returns the path of a library with the function `answer`, and counts its builds."""

    def build(target):
        compile_answer.builds += 1
        (target / "a.c").write_text("int answer(void) { return 42; }")
        subprocess.run(["g++", "-shared", target / "a.c", "-o", target / "library.so"], check=True)

    def compile_answer():
        return compiler.cached("answer", [], build)

    compile_answer.builds = 0
    return compile_answer


def answer(library):
    """Call the function in a process of its own, because a library is loaded only once in each."""
    code = f"import ctypes; print(ctypes.CDLL({str(library)!r})._Z6answerv())"
    return subprocess.run(["python3", "-c", code], capture_output=True, text=True).stdout


def test_a_library_is_built_once_and_can_be_loaded(compile_answer):
    libraries = {compile_answer() for _ in range(3)}
    assert compile_answer.builds == len(libraries) == 1
    assert ctypes.CDLL(str(libraries.pop()))._Z6answerv() == 42


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-32],  # a library that another program built
        lambda content: content.replace(b"answer", b"answxr"),
        lambda content: bytes(len(content)),
    ],
    ids=["empty", "one byte less", "truncated", "foreign", "changed", "zeros"],
)
def test_a_damaged_or_foreign_library_is_built_again(compile_answer, damage):
    library = compile_answer()
    library.write_bytes(damage(library.read_bytes()))
    assert answer(compile_answer()) == "42\n"
    assert compile_answer.builds == 2 and os.listdir(library.parent) == [library.name]


def test_the_folder_is_private(compile_answer, folder):
    compile_answer()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)  # as an earlier version created it
    compile_answer()
    assert folder.stat().st_mode & 0o777 == 0o700 and compile_answer.builds == 1


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_to_which_others_may_write_is_refused(compile_answer, folder, mode):
    compile_answer()
    folder.chmod(mode)
    with pytest.raises(KernelError, match="other users may write to it.*delete the folder, or set XDG"):
        compile_answer()


def test_a_folder_of_another_user_is_refused(compile_answer, folder, monkeypatch):
    compile_answer()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(KernelError, match="belongs to another user.*set XDG_CACHE_HOME"):
        compile_answer()
