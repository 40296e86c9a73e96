"""The floors of the house, as .importlinter writes them down."""

from pathlib import Path

from importlinter import cli

ROOT = Path(__file__).resolve().parent.parent


def test_no_package_imports_from_a_floor_above(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    status = cli.lint_imports(config_filename=".importlinter", no_cache=True)
    assert status == cli.EXIT_STATUS_SUCCESS, capsys.readouterr().out
