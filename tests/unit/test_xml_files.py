"""XML that somebody else wrote."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmopoint.data.importers.reading import read_xml
from molmopoint.errors import ProcessingError

LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))


def written(folder, content):
    path = folder / "annotations.xml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1251"])
def test_elements_attributes_and_text(tmp_path, encoding):
    declared = "utf-8" if encoding == "utf-8-sig" else encoding
    text = f'<?xml version="1.0" encoding="{declared}"?><annotations><a label="чашка &amp; &#60;"> x </a><b/></annotations>'
    root = read_xml(written(tmp_path, text.encode(encoding)))
    assert root.tag == "annotations" and [child.tag for child in root] == ["a", "b"]
    assert root[0].get("label") == "чашка & <" and root[0].text == " x "


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "without entities"),
        (f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><a>&l9;</a>', "without entities"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "/etc/hostname">]><a>&x;</a>', "without entities"),
        ('<!DOCTYPE a [<!ENTITY % x SYSTEM "other.dtd">%x;]><a/>', "without entities"),
        ('<!DOCTYPE a SYSTEM "other.dtd"><a>&x;</a>', "without entities"),
        ("<a>" * 100000, "200 levels"),
        ("<a></b>", "expected XML"),
        ("", "expected XML"),
        ('<?xml version="1.0" encoding="klingon"?><a/>', "encoding"),
        ('<?xml version="1.0" encoding="utf-7"?><a/>', "encoding"),
    ],
)
def test_what_is_refused(tmp_path, content, said):
    begun = time.monotonic()
    with pytest.raises(ProcessingError, match=said):
        read_xml(written(tmp_path, content))
    assert time.monotonic() - begun < 5


def test_a_document_type_without_entities_is_read(tmp_path):
    assert read_xml(written(tmp_path, '<!DOCTYPE a SYSTEM "other.dtd"><a><b/></a>')).tag == "a"
    with pytest.raises(ProcessingError, match="expected a file"):
        read_xml(tmp_path / "gone.xml")


@settings(derandomize=True, max_examples=100)
@given(st.binary(max_size=60) | st.text(alphabet='<>/&;!?a"= []ENTITY\u00e9', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = written(tmp_path_factory.getbasetemp(), content)
    try:
        read_xml(path)
    except ProcessingError as error:
        assert "expected" in str(error)
