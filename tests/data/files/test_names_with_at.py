"""What exists is taken by its name, also if that looks like a list."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxnorm.data.files.discovery import discover


def test_a_folder_whose_name_begins_with_at_is_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "@photos").mkdir()
    (tmp_path / "@photos" / "a.png").write_bytes(b"png")
    (tmp_path / "@b.png").write_bytes(b"png")
    monkeypatch.chdir(tmp_path)
    assert [str(file.path) for file in discover(["@photos", "@b.png"]).files] == ["@photos/a.png", "@b.png"]
