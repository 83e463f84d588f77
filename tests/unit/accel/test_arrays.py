"""Arrays are read without trust in what their headers claim."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from accel.data.arrays import MAX_RATIO, Header, read_arrays, read_header
from accel.errors import BadDataset, TooLarge
from tests.hostile import zipped


def npy(header: str | bytes, data: bytes = b"", version: int = 1) -> bytes:
    """An npy file with any header at all."""
    text = header.encode("latin1") if isinstance(header, str) else header
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + data


def claim(dtype: str, shape: str, data: bytes = b"") -> bytes:
    return npy(f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n", data)


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        np.asfortranarray(np.arange(24, dtype=np.int16).reshape(2, 3, 4)),
        np.arange(6, dtype=">f8"),
        np.arange(6, dtype=">i4").reshape(3, 2),
        np.array(["alpha", "", "größe"]),
        np.array([True, False]),
        np.empty((0, 3), np.float32),
        np.float16([1.5]),
        np.array(7),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
@pytest.mark.parametrize("packed", [True, False])
def test_arrays_come_back(array: np.ndarray, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    (np.savez_compressed if packed else np.savez)(path, some_test=array, other_test=array)
    work = tmp_path / "work"
    work.mkdir()
    first, second = read_arrays(path)
    assert (first.name, second.name) == ("some_test", "other_test")
    assert (first.header.dtype, first.header.shape) == (array.dtype, array.shape)
    opened = first.open(work)
    np.testing.assert_array_equal(opened, array)
    np.testing.assert_array_equal(first.open(work), array)
    if array.size:
        assert not opened.flags.writeable
    (single,) = read_arrays(write(tmp_path / "one.npy", saved(array)))
    assert single.name == "x"
    np.testing.assert_array_equal(single.open(work), array)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\x80\x04\x95.", "pickle"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"x,y\n1,2\n", "unknown"),
        (saved(np.array([{"a": 1}, None], dtype=object)), "Python objects"),
        (saved(np.zeros(2, dtype=[("a", "i4"), ("b", "f4")])), "type"),
        (saved(np.zeros(2, "S4")), "type"),
        (saved(np.zeros(2, "M8[s]")), "type"),
        (saved(np.zeros(2, "c8")), "type"),
        (claim("<f4", "(-1,)"), "shape"),
        (claim("<f4", "(True,)", b"\0" * 4) + b"\0" * 64, None),
        (claim("<f4", "3"), "malformed"),
        (claim("<f4", "(1.5,)"), "malformed"),
        (claim("|O", "(1,)"), "Python objects"),
        (npy("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,)}\n"), "Python objects"),
        (npy("__import__('os').abort()\n"), "malformed"),
        (npy("{" * 5000), "malformed"),
        (npy("(" * 9000 + "1" + ")" * 900), "malformed"),
        (npy("{'descr': '<f4'}\n"), "malformed"),
        (npy("'''"), "malformed"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}\n", version=9), "malformed"),
        (npy(b"\xff\xfe" * 20, version=3), "malformed"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}" + " " * 20_000 + "\n"), "malformed"),
        (b"\x93NUMPY\x01\x00", "malformed"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "malformed"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(content: bytes, says: str | None, tmp_path: Path) -> None:
    path = write(tmp_path / "d.npy", content)
    if says is None:
        assert read_arrays(path)[0].header.shape == (True,)
        return
    with pytest.raises(BadDataset, match=says) as caught:
        read_arrays(path)
    assert caught.value.hint
    inside = write(tmp_path / "d.npz", zipped({"x_test.npy": content}))
    with pytest.raises(BadDataset):
        read_arrays(inside)


@pytest.mark.parametrize(
    "content",
    [
        claim("<f8", "(1099511627776,)", b"\0" * 64),  # eight terabytes
        claim("<f8", "(1000000, 1000000, 1000000)", b"\0" * 64),
        claim("<f8", f"({'9' * 4000}, {'9' * 4000})", b"\0" * 64),  # more digits than Python prints
        claim("<f8", "(9,)", b"\0" * 64),
        claim("<U0", f"({2**62},)"),
        claim("<f4", f"(0, {10**30})"),
        claim("<U536870911", "(1,)"),
    ],
    ids=["terabytes", "exabytes", "digits", "one_row_short", "no_bytes_each", "no_rows_huge", "long_text"],
)
def test_claims_beyond_the_file_are_refused(content: bytes, tmp_path: Path) -> None:
    for path in (
        write(tmp_path / "d.npy", content),
        write(tmp_path / "d.npz", zipped({"x_test.npy": content})),
    ):
        with pytest.raises((TooLarge, BadDataset)) as caught:
            read_arrays(path)
        assert len(caught.value.message) < 1_000


def test_more_axes_than_numpy_has_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "d.npy", claim("<f4", "(" + "1," * 70 + ")", b"\0" * 4))
    with pytest.raises(BadDataset, match=r"axes|dimension|malformed"):
        read_arrays(path)


def test_truncated_npz(tmp_path: Path) -> None:
    whole = tmp_path / "whole.npz"
    np.savez(whole, x_test=np.arange(1000.0), y_test=np.arange(1000))
    data = whole.read_bytes()
    for length in (10, len(data) // 2, len(data) - 30):
        with pytest.raises(BadDataset):
            read_arrays(write(tmp_path / "cut.npz", data[:length]))


def test_damage_within_a_compressed_array_is_found_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x_test=np.random.default_rng(0).standard_normal(5000))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    work = tmp_path / "work"
    work.mkdir()
    (array,) = read_arrays(path)
    with pytest.raises(BadDataset, match="damaged"):
        array.open(work)
    assert not [p for p in work.iterdir() if p.suffix == ".npy"]


@given(place=st.integers(0, 2**31), value=st.integers(0, 255), packed=st.booleans())
def test_one_wrong_byte_in_an_npz(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int, packed: bool
) -> None:
    """Whatever byte of the archive is wrong: it is refused as such, or the arrays can be listed."""
    buffer = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(buffer, x=np.arange(20.0), y=np.arange(20))
    data = bytearray(buffer.getvalue())
    data[place % len(data)] = value
    path = write(tmp_path_factory.getbasetemp() / "flipped.npz", bytes(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert read_arrays(path)
        except (BadDataset, TooLarge) as error:
            assert error.message


def test_zip_bomb(tmp_path: Path) -> None:
    """A directory that claims a ratio that deflate cannot reach is a lie."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_test.npy", saved(np.zeros(1_000_000, np.uint8)))
    data = bytearray(buffer.getvalue())
    place = data.rindex(b"PK\x01\x02") + 24  # the uncompressed size in the central directory
    data[place : place + 4] = struct.pack("<I", 4_000_000_000)
    with pytest.raises(TooLarge, match="unpacks"):
        read_arrays(write(tmp_path / "d.npz", bytes(data)))
    assert MAX_RATIO > 1_032


def test_highly_packed_arrays_are_honest(tmp_path: Path) -> None:
    """Zeros pack about a thousand to one; that is no lie."""
    np.savez_compressed(tmp_path / "d.npz", x_test=np.zeros((1000, 1000), np.float32))
    (array,) = read_arrays(tmp_path / "d.npz")
    assert array.open(tmp_path).shape == (1000, 1000)


@pytest.mark.parametrize("name", ["/etc/x.npy", "../x.npy", "a/b.npy", "..\\x.npy", "x.txt", "x.npy/", "C:\\x.npy"])
def test_members_that_are_no_arrays(name: str, tmp_path: Path) -> None:
    content = zipped({name: saved(np.zeros(2))})
    with pytest.raises(BadDataset, match="no array"):
        read_arrays(write(tmp_path / "d.npz", content))


def test_two_members_of_one_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("x.npy", saved(np.zeros(2)))
        archive.writestr("x.npy", saved(np.ones(2)))
    with pytest.raises(BadDataset, match="one name"):
        read_arrays(write(tmp_path / "d.npz", buffer.getvalue()))


def test_empty_and_crowded_archives(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="no array"):
        read_arrays(write(tmp_path / "d.npz", zipped({})))
    content = saved(np.zeros(1, np.uint8))
    with pytest.raises(TooLarge, match="members"):
        read_arrays(write(tmp_path / "d.npz", zipped({f"a{i}.npy": content for i in range(1001)})))


def test_names_with_two_meanings_do_not_share_a_file(tmp_path: Path) -> None:
    """Names that differ only in how they are written stay apart when they are unpacked."""
    np.savez(tmp_path / "d.npz", **{"a_b": np.zeros(3), "a b": np.ones(3), "ä": np.full(3, 2.0), ".": np.full(3, 3.0)})
    work = tmp_path / "work"
    work.mkdir()
    values = {array.name: float(array.open(work)[0]) for array in read_arrays(tmp_path / "d.npz")}
    assert values == {"a_b": 0, "a b": 1, "ä": 2, ".": 3}
    assert all(path.parent == work for path in work.iterdir())


def _whole(header: str) -> bytes:
    return npy(header)


_HEADERS = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=200).map(lambda tail: b"\x93NUMPY\x01\x00" + tail),
    st.text(st.characters(max_codepoint=255), max_size=120).map(_whole),
    st.tuples(
        st.sampled_from(["<f4", "|O", "<U3", ">i8", "V4", "f4,i4", "<f4\x00", "(2,3)f4", "", "M8", "<f99", "|b1"]),
        st.sampled_from(["False", "True", "0", "None"]),
        st.one_of(
            st.lists(st.integers(-2, 2**70), max_size=5).map(lambda dims: "(" + "".join(f"{d}," for d in dims) + ")"),
            st.sampled_from(["()", "3", "(1.5,)", "('a',)", "(None,)", "(1L,)", "[1]", "{}"]),
        ),
    ).map(lambda parts: npy(f"{{'descr': {parts[0]!r}, 'fortran_order': {parts[1]}, 'shape': {parts[2]}}}\n")),
)


@given(data=_HEADERS)
@example(data=npy("'''"))
@example(data=npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1L,)}\n"))
@example(data=npy("  {\n 1\n"))
def test_any_header_is_refused_or_sound(data: bytes) -> None:
    """Never anything but a refusal, or a header whose figures can be relied on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = read_header(io.BytesIO(data), "x")
        except (BadDataset, TooLarge):
            return
    assert isinstance(header, Header)
    assert header.dtype.kind in "biufU"
    assert all(size >= 0 for size in header.shape)
    assert 0 < header.offset <= len(data)
    assert header.bytes >= 0


@given(data=_HEADERS)
def test_any_npy_file_is_refused_or_opens(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """What is let through can be mapped."""
    base = tmp_path_factory.getbasetemp()
    path = write(base / "any.npy", data + b"\0" * 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            (array,) = read_arrays(path)
        except (BadDataset, TooLarge):
            return
    assert array.open(base).shape == array.header.shape
