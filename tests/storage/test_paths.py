"""Names and relative paths of a configuration; more hostile ones are in `tests/end_to_end/test_security.py`."""

import pytest

from kd.errors import KDError
from kd.storage.paths import plain_name, refuse_link


def test_a_name_is_returned_as_text():
    assert plain_name(7, "sweep") == "7"
    assert plain_name("a b.c-1", "sweep") == "a b.c-1"


@pytest.mark.parametrize("name", ["", "..", "../../up", "/abs", "a/b", "a\\b", "a|b", "a\nb", "a\x1b[2J"])
def test_a_path_is_no_name(name):
    with pytest.raises(KDError, match=r"^sweep: expected a plain name") as caught:
        plain_name(name, "sweep")
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_a_link_that_leads_out_is_refused(tmp_path):
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    (folder / "inner").mkdir(parents=True)
    outside.mkdir()
    refuse_link(folder, folder / "new" / "file")
    (folder / "here").symlink_to(folder / "inner")
    refuse_link(folder, folder / "here" / "file")
    (folder / "out").symlink_to(outside)
    with pytest.raises(KDError, match="which leads out of it"):
        refuse_link(folder, folder / "out" / "file")
    (tmp_path / "linked").symlink_to(folder)
    refuse_link(tmp_path / "linked", tmp_path / "linked" / "file")
