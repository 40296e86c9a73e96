"""Table 2's automatic rows on real imitation models: alpaca_eval's answers to 805 prompts, against ChatGPT-0301."""

import runpy

import pytest
from etils import epath

from imitation_jax.evaluation import runner, statistics
from imitation_jax.reporting import model_results
from imitation_jax.reporting.page import write_report

CEILING = "gpt-3.5-turbo-0613"
MODELS = ("alpaca-7b", "guanaco-7b", "vicuna-7b", "vicuna-13b", CEILING)


@pytest.fixture(scope="module")
def workdir(lent, tmp_path_factory):
    folder = lent("alpaca_eval/model_outputs")
    root = tmp_path_factory.mktemp("real")
    for name in MODELS:
        config = runpy.run_path("configs/eval/style.py")["get_config"]()
        config.answers, config.reference = str(folder / f"{name}.json"), str(folder / "gpt-3.5-turbo-0301.json")
        config.role = "teacher" if name == CEILING else "student"
        runner.evaluate(config, [], str(root), root)
    return root


def test_list_heavy_imitators_are_near_the_ceiling_and_alpaca_is_far_below(workdir):
    row = next(row for row in model_results.ROWS if row.metric == "list_match")
    spans = {m.name: statistics.interval(m.estimate(row)) for m in model_results.read_models(epath.Path(workdir))}
    assert spans[CEILING] == pytest.approx((0.90, 0.96), abs=0.01)
    for name in ("vicuna-7b", "vicuna-13b"):
        assert spans[name] == pytest.approx((0.82, 0.90), abs=0.01)
    assert spans["guanaco-7b"] == pytest.approx((0.69, 0.79), abs=0.01)
    # no imitator's interval touches Alpaca's, by far
    assert spans["alpaca-7b"] == pytest.approx((0.17, 0.27), abs=0.01)
    assert min(spans[name][0] for name in MODELS if name != "alpaca-7b") > 2 * spans["alpaca-7b"][1]


def test_the_page_shows_them_with_intervals_beside_the_papers_table(workdir):
    path, text = write_report(str(workdir))
    html = open(path, encoding="utf-8").read()
    for number in ("86.0", "81.6 to 89.4", "21.7", "17.4 to 26.8", "93.6", "90.3 to 95.9"):
        assert number in html, number
    assert "The paper&#39;s Table 2" in html
    assert "93.6 ± 1.4" in text
