"""What `minidl.launch` shows of the output of mpiexec. test_cli_processes.py runs all of it."""

import io

from minidl.launch import pass_output_on

REPORT = b"\n" + b"=" * 83 + b"\n=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES\n=   EXIT CODE: 9\n"


def passed_on(output: bytes) -> tuple[str, int | None]:
    """Return what is passed on of an output, and the exit code that it contains."""
    shown = io.StringIO()
    code = pass_output_on(io.BytesIO(output), shown)
    return shown.getvalue(), code


def test_lines_are_passed_on_unchanged_also_empty_ones_and_those_that_are_not_text():
    assert passed_on(b"a\n\n\nb\n") == ("a\n\n\nb\n", None)
    assert passed_on(b"a\n\n") == ("a\n\n", None)
    assert passed_on("é\n".encode() + b"\xff\nno end") == ("é\n\\xff\nno end", None)


def test_the_report_of_mpiexec_and_what_follows_is_left_out():
    assert passed_on(b"a\n\n" + REPORT + b"more\n") == ("a\n", None)


def test_the_exit_code_of_a_process_that_reported_its_error_is_returned():
    assert passed_on(b"a\n\0exit code 2\n" + REPORT) == ("a\n", 2)
