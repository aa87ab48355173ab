from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests import recorder
from tests.recorder import Trace, parse


@pytest.mark.parametrize(
    ("line", "contact"),
    [
        (
            "7 connect(7<UDP:[1]>, {sa_family=AF_INET, sin_port=htons(53), "
            'sin_addr=inet_addr("10.9.9.53")}, 16) = -1 ENETUNREACH (Network is unreachable)',
            "10.9.9.53:53",
        ),
        (
            "7 connect(3, {sa_family=AF_INET6, sin6_port=htons(443), sin6_flowinfo=htonl(0), "
            'inet_pton(AF_INET6, "2620::1", &sin6_addr), sin6_scope_id=0}, 28) = 0',
            "2620::1:443",
        ),
        # No connection is needed to send a datagram.
        (
            '[pid 8] sendto(5, "abc", 3, 0, {sa_family=AF_INET, sin_port=htons(9), '
            'sin_addr=inet_addr("192.0.2.1")}, 16) = 3',
            "192.0.2.1:9",
        ),
        (
            "8 sendmmsg(5, [{msg_hdr={msg_name={sa_family=AF_INET, sin_port=htons(53), "
            'sin_addr=inet_addr("10.0.0.1")}, msg_namelen=16}}], 1, 0) = 1',
            "10.0.0.1:53",
        ),
        # A name server on this machine asks others.
        (
            "7 connect(7, {sa_family=AF_INET, sin_port=htons(53), "
            'sin_addr=inet_addr("127.0.0.53")}, 16) = 0',
            "127.0.0.53:53",
        ),
        (
            "7 connect(7, {sa_family=AF_INET, sin_port=htons(8501), "
            'sin_addr=inet_addr("127.0.0.1")}, 16) = 0',
            None,
        ),
        (
            "7 connect(7, {sa_family=AF_INET6, sin6_port=htons(8501), sin6_flowinfo=htonl(0), "
            'inet_pton(AF_INET6, "::ffff:127.0.0.1", &sin6_addr), sin6_scope_id=0}, 28) = 0',
            None,
        ),
        (
            '7 connect(7, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT',
            None,
        ),
        ('7 sendto(5, "to 10.0.0.1", 11, 0, NULL, 0) = 11', None),
    ],
)
def test_contacts_are_those_elsewhere_and_all_look_ups(line, contact):
    assert parse([line]).contacts == ({contact} if contact else set())


@pytest.mark.parametrize(
    ("line", "written"),
    [
        (
            '7 openat(AT_FDCWD</p>, "out.txt", O_WRONLY|O_CREAT, 0666) = 3</p/out.txt>',
            "/p/out.txt",
        ),
        (
            '7 openat(6</home/a>, "id.tmp", O_RDWR|O_CREAT|O_EXCL, 0600) = 7</home/a/id.tmp>',
            "/home/a/id.tmp",
        ),
        ('7 openat(AT_FDCWD</p>, "/etc/hosts", O_RDONLY|O_CLOEXEC) = 3</etc/hosts>', None),
        ('7 openat(AT_FDCWD</w>, "/w/O_RDWR", O_RDONLY) = 3</w/O_RDWR>', None),
        ('7 openat(AT_FDCWD</p>, "/root/x", O_WRONLY|O_CREAT, 0666) = -1 EACCES (denied)', None),
        ('7 mkdir("/home/a/.cache", 0700) = 0', "/home/a/.cache"),
        ('7 mkdir("/home/a/.cache", 0700) = -1 EEXIST (File exists)', None),
        (r'7 unlink("/tmp/\303\274 \"x\"") = 0', '/tmp/ü "x"'),
        ('7 symlink("/etc/passwd", "/home/a/link") = 0', "/home/a/link"),
        ('7 execve("/bin/true", ["true"], 0x7ffd) = 0', None),
        ("7 +++ exited with 0 +++", None),
    ],
)
def test_written_are_names_that_changed(line, written):
    assert parse([line]).written == ({Path(written)} if written else set())


def test_both_names_of_a_renaming_count():
    line = '7 renameat2(AT_FDCWD</w>, "a", 5</w/b>, "../c", RENAME_NOREPLACE) = 0'
    assert parse([line]).written == {Path("/w/a"), Path("/w/c")}


def test_relative_paths_are_where_the_process_is():
    lines = [
        '1 mkdir("a", 0700) = 0',
        "1 clone3({flags=CLONE_VM|CLONE_FS|CLONE_THREAD}, 88) = 2",
        # The child of a vfork is seen before its parent goes on.
        "1 vfork( <unfinished ...>",
        '3 chdir("sub") = 0',
        '3 mkdir("b", 0700) = 0',
        "1 <... vfork resumed>) = 3",
        '2 chdir("/else") = 0',
        '1 mkdir("c", 0700) = 0',
        "3 fchdir(4</home/d>) = 0",
        '3 unlink("e") = 0',
    ]
    expected = {"/start/a", "/start/sub/b", "/else/c", "/home/d/e"}
    assert parse(lines, Path("/start")).written == {Path(name) for name in expected}


def test_calls_that_threads_interrupt_are_joined():
    lines = [
        '1 openat(AT_FDCWD</w>, "a", O_WRONLY|O_CREAT, 0600 <unfinished ...>',
        '2 mkdir("/w/b", 0700 <unfinished ...>',
        "1 <... openat resumed>) = 3</w/a>",
        "2 <... mkdir resumed>) = -1 EEXIST (File exists)",
        "3 connect(7, {sa_family=AF_INET, sin_port=htons(443), "
        'sin_addr=inet_addr("20.1.1.1")}, 16 <unfinished ...>',
    ]
    assert parse(lines) == Trace(frozenset({"20.1.1.1:443"}), frozenset({Path("/w/a")}))


def test_outside_looks_through_links(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    trace = Trace(frozenset(), frozenset({tmp_path / "link/a", tmp_path / "b"}))
    assert trace.outside(tmp_path / "real") == {tmp_path / "b"}


def test_native_calls_of_a_child_process_are_seen_and_nothing_gets_out(tmp_path):
    if recorder.missing():
        pytest.skip(recorder.missing())
    # No Python between this and the kernel.
    (tmp_path / "child.sh").write_text("echo > made; (exec 3<>/dev/tcp/192.0.2.7/443)\n")
    code = "import subprocess; subprocess.run(['bash', 'child.sh'])"
    trace, done = recorder.record(
        [sys.executable, "-c", code], cwd=tmp_path, environ=os.environ, scratch=tmp_path
    )
    assert "Network is unreachable" in done.stderr
    assert trace.contacts == {"192.0.2.7:443"}
    assert tmp_path / "made" in trace.written


def test_loopback_is_there(tmp_path):
    if recorder.missing():
        pytest.skip(recorder.missing())
    code = (
        "import socket\nwith socket.create_server(('127.0.0.1', 0)) as server:\n"
        "    socket.create_connection(server.getsockname()).close()"
    )
    trace, done = recorder.record(
        [sys.executable, "-c", code], cwd=tmp_path, environ=os.environ, scratch=tmp_path
    )
    assert (done.returncode, done.stderr, trace.contacts) == (0, "", set())
