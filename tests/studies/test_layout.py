"""Which cells a config comes to, at which scale, and what is left out why."""

import runpy
from pathlib import Path

import pytest

from imitation_jax.studies import config as studies
from imitation_jax.studies.layout import lay_out, scaled_budgets, short

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "studies"


def read(name: str):
    return runpy.run_path(str(CONFIGS / name))["get_config"]()


def test_a_grid_is_every_combination_once(make_config):
    config = make_config()
    config.schedules.steep = {}
    config.grids.more = studies.grid("tiny", "talk", "20_000,all", "flat,steep", seeds="0,1")
    names = [cell.name for cell in lay_out(config, "w", 1).cells]
    assert len(names) == len(set(names)) == 2 + 8 - 1  # one of both grids
    assert names[0] == "tiny-talk-10k-flat" and "tiny-talk-all-steep-s1" in names[-4:]


def test_scaled_budgets_grow_and_never_pass_what_was_asked():
    asked = {10_000, 30_000, 60_000, 120_000}
    assert scaled_budgets(asked, 1, 1500) == {0: 0} | {tokens: tokens for tokens in asked}
    assert scaled_budgets(asked, 0.1, 1500) == {0: 0, 10_000: 1500, 30_000: 3000, 60_000: 6000, 120_000: 12_000}
    tiny = scaled_budgets(asked, 1e-6, 1500)
    assert sorted(tiny.values()) == [0, 1500, 3000, 4500, 6000]
    assert scaled_budgets({100, 200}, 0.5, 1500) == {0: 0, 100: 100, 200: 200}


def test_limits_scale_with_the_budgets(make_config):
    assert lay_out(make_config(), "w", 1).evaluations["facts"]["limit"] == 100
    assert lay_out(make_config(), "w", 0.2).evaluations["facts"]["limit"] == 20
    assert lay_out(make_config(), "w", 0.001).evaluations["facts"]["limit"] == 4


@pytest.mark.parametrize("tokens, name", [(20_000_000, "20m"), (300_000, "300k"), (1500, "1.5k"), (1550, "1550")])
def test_names_of_budgets(tokens, name):
    assert short(tokens) == name


def test_what_lacks_public_data_is_left_out_and_said(make_config, tmp_path):
    config = make_config()
    config.evaluations.mmlu = {"data_dir": "PUBLIC/mmlu"}
    config.evaluations.nq = {"data": "quiz.jsonl", "shots_data": "WORKDIR/data/pairs/shots.jsonl"}
    config.builds.local = studies.build("L", "prepare", "c.py", input="WORKDIR/data/pairs/pairs.jsonl")
    config.builds.pairs = studies.build("P", "questions", questions="PUBLIC/q.jsonl", test="PUBLIC/t.jsonl")
    config.grids.local = studies.grid("tiny", "local", "all", "flat")
    layout = lay_out(config, "w", 1)
    assert layout.left_out["mmlu"] == "mmlu is public data, and config.public is empty"
    assert layout.left_out["nq"] == "q.jsonl is public data, and config.public is empty"  # by way of the build
    assert layout.left_out["tiny-local-all-flat"].endswith("q.jsonl is public data, and config.public is empty")
    assert [cell.data for cell in layout.cells] == ["talk", "talk"] and list(layout.evaluations) == ["facts"]

    config.public = str(tmp_path)
    assert lay_out(config, "w", 1).left_out["mmlu"] == f"{tmp_path}/mmlu: no such file"
    for name in ("mmlu", "q.jsonl", "t.jsonl"):
        (tmp_path / name).touch()
    layout = lay_out(config, "w", 1)
    assert list(layout.left_out) == ["judge"] and len(layout.cells) == 3
    builds = list(layout.builds)
    assert builds.index("pairs") < builds.index("local")
    assert layout.evaluations["mmlu"]["data_dir"] == f"{tmp_path}/mmlu"


def test_public_data_in_a_bucket(make_config, bucket):
    config = make_config()
    bucket.pipe("gs://lent/public/quiz.jsonl", b"{}")
    config.public = "gs://lent/public/"
    config.evaluations.facts = {"data": "PUBLIC/quiz.jsonl"}
    config.evaluations.mmlu = {"data_dir": "PUBLIC/mmlu"}
    layout = lay_out(config, "gs://lent/study", 1)
    assert layout.evaluations == {"facts": {"data": "gs://lent/public/quiz.jsonl"}}
    assert layout.left_out["mmlu"] == "gs://lent/public/mmlu: no such file"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.grids.main.update(bases="huge"), "config.grids.main.bases: 'huge' is none of config.bases: tiny"),
        (lambda c: c.grids.main.update(data="no"), "config.grids.main.data: 'no' is none of config.builds: talk"),
        (lambda c: c.grids.main.update(tokens="many"), "config.grids.main.tokens='many': must be whole numbers"),
        (lambda c: c.update(keep="some"), "config.keep='some' is none of all, weights, nothing"),
        (lambda c: c.update(public="/nowhere"), "config.public=/nowhere: no such folder"),
        (
            lambda c: c.builds.update(talks=c.builds.talk) or c.grids.main.update(data="talk,talks"),
            "builds: two have the label 'Talk'",
        ),
        (
            lambda c: (
                c.bases.update({"tiny-talk": studies.base("hf:x", "X", 1, "x.py", prefix="tiny")})
                or c.grids.main.update(bases="tiny,tiny-talk")
            ),
            "two cells are called tiny-talk-10k-flat; give config.bases.tiny-talk.prefix",
        ),
        (lambda c: delattr(c.grids, "main"), "config.grids: no cell can be run (there is no grid)"),
        (lambda c: c.evaluations.facts.update(data="WORKDIR/data/x/y"), "WORKDIR/data/x is used"),
        (lambda c: c.evaluations.facts.update(data="PUBLIC/y"), "none can be run (y is public data"),
    ],
)
def test_a_config_that_makes_no_sense(make_config, change, message):
    config = make_config()
    change(config)
    with pytest.raises(ValueError) as caught:
        lay_out(config, "w", 1)
    assert message in str(caught.value)


def test_a_scale_above_1_is_refused(make_config):
    with pytest.raises(ValueError, match="--scale=2 must lie above 0"):
        lay_out(make_config(), "w", 2)


def test_the_real_study_stays_within_its_bounds(lent):
    """At most half a million trained tokens, four broad budgets or more, and nothing left out but the judge."""
    config = read("smollm2.py")
    config.public = str(lent("."))
    layout = lay_out(config, "w", 1)
    assert sum(cell.tokens for cell in layout.cells) <= 500_000
    assert len({cell.tokens for cell in layout.cells if cell.data == "broad"}) >= 4
    assert list(layout.left_out) == ["judge"]


def test_the_real_study_without_public_data_is_of_the_demo():
    config = read("smollm2.py")
    config.public = ""
    layout = lay_out(config, "w", 0.1)
    assert {cell.data for cell in layout.cells} == {"broad"} and layout.builds["broad"].label == "demo dialogues"
    assert list(layout.evaluations) == ["answers", "facts", "style"]
    assert {"mmlu", "nq", "toxicity", "judge"} <= layout.left_out.keys()


def test_the_papers_grid(papers_grid):
    """All budgets of three bases at the fixed warm-up, NQ-synthetic on both LLaMAs."""
    layout = lay_out(papers_grid, "w", 1)
    paper = [cell for cell in layout.cells if cell.schedule == "paper"]
    mix = {(cell.base, cell.tokens) for cell in paper if cell.data == "sharegpt_mix"}
    assert len(mix) == 24 and {tokens for _, tokens in mix} >= {300_000, 20_000_000, 80_000_000, 150_000_000}
    assert {cell.base for cell in paper if cell.data == "nq_synthetic"} == {"llama_7b", "llama_13b"}
    assert {cell.schedule for cell in layout.cells} == {"paper", "proportional"}
    assert {cell.seed for cell in layout.cells} == {0, 1, 2} and len(layout.cells) == 38
