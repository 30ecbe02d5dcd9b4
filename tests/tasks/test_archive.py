"""The download of the released files, against a server of this machine: cuts, refusals, damage, unsafe members."""

import gzip
import hashlib
import io
import re
import tarfile
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from lra.errors import InputError
from lra.tasks import archive
from lra.tasks.archive import Download, released

NAMES = ["a.tsv", "b.tsv"]
INNER = "lra_release/lra_release/tsv_data"


def packed(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(stream.getvalue(), mtime=0)


CONTENT = np.random.default_rng(0).bytes(100_000)  # does not shrink, so that it can be cut in the middle
WHOLE = packed(
    {
        "lra_release/tsv_data/a.tsv": b"the outer copy",
        f"{INNER}/a.tsv": CONTENT,
        f"./{INNER}/b.tsv": b"b",
        "lra_release/lra_release/pathfinder32/0.png": b"not wanted",
    }
)


class Server(ThreadingHTTPServer):
    """Serves `files`; `cut` bytes at most in each answer, which then breaks off."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut: int | None = None
        self.ranges = True
        self.requests: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers["Range"]
        server.requests.append((self.path, wanted))
        content = server.files.get(self.path[1:])
        if content is None:
            self.send_error(403)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : None if server.cut is None else start + server.cut])

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def get(server, tmp_path, mirror: str = "no/", **expected):
    source = Download(f"{server.url}lra_release.gz", **expected)
    return released("tsv_data", NAMES, cache_dir=tmp_path, archive=source, mirror=server.url + mirror)


def test_only_what_is_wanted_is_unpacked_and_only_once(server, tmp_path):
    server.files["lra_release.gz"] = WHOLE
    sha256 = hashlib.sha256(WHOLE).hexdigest()
    folder = get(server, tmp_path, size=len(WHOLE), sha256=sha256)
    assert folder == tmp_path / "raw" / "tsv_data"
    assert {path.name: path.read_bytes() for path in folder.glob("*.tsv")} == {"a.tsv": CONTENT, "b.tsv": b"b"}
    assert archive.origin(folder) == {"origin": f"{server.url}lra_release.gz", "mirror": False}
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".png", ".part", ".new")]
    assert get(server, tmp_path) == folder
    assert len(server.requests) == 1


def test_a_cut_connection_is_taken_up_where_it_broke(server, tmp_path):
    server.files["lra_release.gz"] = WHOLE
    server.cut = 40_000
    assert (get(server, tmp_path) / "a.tsv").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=40000-", "bytes=80000-"]


def test_the_next_call_goes_on_where_the_last_one_gave_up(server, tmp_path):
    server.files["lra_release.gz"] = WHOLE
    server.cut = 15_000
    with pytest.raises(
        InputError, match="the connection broke 5 times; the next call goes on from .*lra_release.gz.part"
    ):
        get(server, tmp_path)
    server.cut = None
    get(server, tmp_path)
    assert server.requests[-1] == ("/lra_release.gz", "bytes=75000-")


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.files["lra_release.gz"] = WHOLE
    server.ranges = False
    part = tmp_path / "raw" / "lra_release.gz.part"
    part.parent.mkdir()
    part.write_bytes(b"something else")
    assert (get(server, tmp_path) / "a.tsv").read_bytes() == CONTENT


@pytest.mark.parametrize("extra", [b"", b"more than there is"])
def test_a_part_that_is_whole_is_kept_and_one_that_is_too_long_is_not(server, tmp_path, extra):
    server.files["lra_release.gz"] = WHOLE
    part = tmp_path / "raw" / "lra_release.gz.part"
    part.parent.mkdir()
    part.write_bytes(WHOLE + extra)
    assert (get(server, tmp_path) / "a.tsv").read_bytes() == CONTENT
    assert len(server.requests) == (2 if extra else 1)


def test_a_mirror_serves_where_the_archive_is_refused_and_is_told(server, tmp_path):
    server.files |= {"mirror/a.tsv": b"A", "mirror/b.tsv": b"B"}
    folder = get(server, tmp_path, mirror="mirror/")
    assert (folder / "b.tsv").read_bytes() == b"B"
    assert archive.origin(folder) == {"origin": f"{server.url}mirror/", "mirror": True}


def test_what_a_mirror_served_before_it_refused_is_not_asked_for_again(server, tmp_path):
    server.files["mirror/a.tsv"] = b"A"
    with pytest.raises(InputError, match="mirror/: HTTP 403"):
        get(server, tmp_path, mirror="mirror/")
    server.files["mirror/b.tsv"] = b"B"
    assert (get(server, tmp_path, mirror="mirror/") / "a.tsv").read_bytes() == b"A"
    assert [path for path, _ in server.requests].count("/mirror/a.tsv") == 1


def test_where_all_refuse_the_message_says_what_was_tried_and_where_to_put_the_files(server, tmp_path):
    message = (
        f"Tried {server.url}lra_release.gz: HTTP 403 Forbidden; {server.url}no/: HTTP 403 Forbidden. Get a.tsv, b.tsv "
        f"elsewhere (in the archive they are in {INNER}/) and name their folder with task.data_dir=, or put them into "
        f"{tmp_path / 'raw' / 'tsv_data'}"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        get(server, tmp_path)
    assert [path.name for path in (tmp_path / "raw").iterdir()] == [".lock"]


def test_no_network_is_a_refusal(server, tmp_path):
    nowhere = Download("http://127.0.0.1:9/lra_release.gz")
    with pytest.raises(InputError, match="lra_release.gz: no connection .*refused.*task.data_dir="):
        released("tsv_data", NAMES, cache_dir=tmp_path, archive=nowhere, mirror="http://127.0.0.1:9/")


@pytest.mark.parametrize(
    ("content", "expected", "message"),
    [
        (WHOLE, {"size": 7}, f"the file has {len(WHOLE)} bytes, expected 7"),
        (WHOLE, {"sha256": "0" * 64}, f"the file's SHA-256 is {hashlib.sha256(WHOLE).hexdigest()}, expected 000"),
        (WHOLE[:-5000], {}, "the archive is damaged (Compressed file ended"),
        (WHOLE[:-8] + b"12345678", {}, "the archive is damaged (CRC check failed"),
        (b"<html>", {}, "the archive is damaged (Not a gzipped file"),
        (gzip.compress(b"<html>" * 1000, mtime=0), {}, "the archive is damaged ("),
        (packed({f"{INNER}/a.tsv": b"a"}), {}, "it does not hold b.tsv"),
        (packed({f"{INNER}/../../../../evil": b"x"}), {}, "which would leave its folder"),
        (packed({"../evil": b"x"}), {}, "which would leave its folder"),
        (packed({"/tmp/evil": b"x"}), {}, "which would leave its folder"),
    ],
)
def test_nothing_of_a_wrong_archive_is_kept(server, tmp_path, content, expected, message):
    server.files["lra_release.gz"] = content
    with pytest.raises(InputError, match=re.escape(message)):
        get(server, tmp_path / "cache", **expected)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {".lock", "lra_release.gz"}
    if "damaged" in message:  # so that the next call does not meet it again
        assert left == {".lock"}
        server.files["lra_release.gz"] = WHOLE
        assert (get(server, tmp_path / "cache") / "a.tsv").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([f"{INNER}/a.tsv", f"{INNER}/a.tsv/x"], f"'{INNER}/a.tsv/x', which cannot stand beside the others"),
        ([f"{INNER}/a.tsv/x", f"{INNER}/a.tsv"], f"'{INNER}/a.tsv', which cannot stand beside the others"),
        ([INNER], f"'{INNER}', which is no file of its folder: expected 1 to 16 names below it"),
        (
            [f"{INNER}/{'n' * 300}"],
            "nnn', which is no file of its folder: expected 1 to 16 names below it, of at most 255",
        ),
        ([f"{INNER}/{'é' * 130}"], "ééé', which is no file of its folder"),
        ([f"{INNER}/{'d/' * 2000}x"], "/d/d/x', which is no file of its folder"),
        ([f"{INNER}/{'d/' * 900}x"], "/d/d/x', which is no file of its folder"),
        ([f"{INNER}/{'/'.join(['n' * 255] * 16)}"], "nnn', which cannot stand beside the others (File name too long)"),
    ],
)
def test_a_member_that_can_be_no_file_is_named(server, tmp_path, members, message):
    server.files["lra_release.gz"] = packed(dict.fromkeys(members, b"x"))
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        get(server, tmp_path)
    assert "the archive has a member" in str(raised.value)
    assert len(str(raised.value)) < 800
    assert {path.name for path in (tmp_path / "raw").iterdir()} == {".lock", "lra_release.gz"}


def test_what_a_mac_packs_with_the_files_is_left(server, tmp_path):
    members = {f"{INNER}/{name}": b"x" for name in ("a.tsv", "b.tsv", "._a.tsv", ".DS_Store")}
    server.files["lra_release.gz"] = packed({**members, f"__MACOSX/{INNER}/._b.tsv": b"x"})
    assert {path.name for path in get(server, tmp_path).iterdir()} == {"a.tsv", "b.tsv", archive.ORIGIN}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "lra_release.gz is a pointer of Git LFS"),
        (b"<!DOCTYPE html><html>Quota exceeded", "lra_release.gz is a web page"),
    ],
)
def test_what_is_served_instead_of_data_is_named(server, tmp_path, content, message):
    server.files |= {"lra_release.gz": content, "mirror/a.tsv": content, "mirror/b.tsv": b"B"}
    with pytest.raises(InputError, match=message) as raised:
        get(server, tmp_path, mirror="mirror/")
    assert message.replace("lra_release.gz", "a.tsv") in str(raised.value)
    assert [path.name for path in (tmp_path / "raw").iterdir()] == [".lock"]


def test_damage_anywhere_ends_in_a_sentence(server, tmp_path):
    """Of the packed bytes and of the headers inside, which hold numbers and texts of their own."""
    raw = bytearray(gzip.decompress(WHOLE))
    headers = [place for place in range(0, len(raw), 512) if raw[place + 257 : place + 262] == b"ustar"]
    rng = np.random.default_rng(0)
    for number in range(60):
        damaged = bytearray(raw)
        place = int(rng.choice(headers)) + int(rng.integers(0, 512))
        damaged[place] = int(rng.integers(0, 256))
        server.files["lra_release.gz"] = gzip.compress(bytes(damaged), compresslevel=1, mtime=0)
        with suppress(InputError):
            get(server, tmp_path / str(number))


def test_links_are_not_unpacked(server, tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        link = tarfile.TarInfo(f"{INNER}/a.tsv")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    server.files["lra_release.gz"] = stream.getvalue()
    with pytest.raises(InputError, match="it does not hold a.tsv, b.tsv"):
        get(server, tmp_path)


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "raw").write_text("a file")
    with pytest.raises(InputError, match=f"Cannot write the downloaded files to {tmp_path / 'raw'}.*cache_dir="):
        get(server, tmp_path)
