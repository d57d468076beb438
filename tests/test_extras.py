"""The command that installs an extra is one that works where ingot is not on a registry, too."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from ingot.extras import pip_install


def installed_from(origin: dict[str, object] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(read_text=lambda name: origin and json.dumps(origin))
    monkeypatch.setattr(metadata, "distribution", lambda name: found)


def test_an_extra_comes_from_the_folder_that_ingot_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "my ingot"
    folder.mkdir()
    installed_from({"url": folder.as_uri(), "dir_info": {"editable": True}}, monkeypatch)
    assert pip_install("serve") == f"pip install -e '{folder}[serve]'"
    monkeypatch.chdir(folder)
    assert pip_install("serve") == "pip install -e '.[serve]'"  # as README has it
    installed_from({"url": folder.as_uri(), "dir_info": {}}, monkeypatch)
    assert pip_install("data") == "pip install '.[data]'"


def test_an_extra_comes_by_name_where_ingot_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gone = {"url": (tmp_path / "gone").as_uri(), "dir_info": {"editable": True}}
    for origin in (None, {"url": "https://example.org/ingot.whl", "archive_info": {}}, gone):
        installed_from(origin, monkeypatch)
        assert pip_install("serve") == "pip install 'ingot[serve]'"
