"""The live panel at both ends of what terminals are, and plain lines in a log."""

import io

import pytest
from rich.console import Console

from maskrl.training.display import SPARKS, Display

METRICS = {
    **{"reward_mean": 23.4567, "reward_std": 1.2345, "diversity_tokens": 0.678, "diversity_pixels": 0.234},
    **{"entropy": 2.345, "clip_fraction": 0.0, "ratio_min": 1.0, "ratio_max": 1.0, "kept_fraction": 0.875},
    **{"resample_rate": 0.125, "floored_fraction": 0.0123, "grad_norm": 1.23, "skipped": 1},
    **{"seconds_rollout": 12.34, "seconds_reward": 0.56, "seconds_update": 23.45, "seconds_total": 36.4},
    **{"held_out_geneval_partial": 0.4567, "held_out_geneval_partial_agreement": 0.8},
}
WHOLE = (
    "held out geneval partial agreement",
    "rollout 12.34, reward 0.56, update 23.45",
    "87.5% kept (skipped)",
    "evaluation during: 12 of 960",
    "49/140",
)


def updated(console):
    display = Display(console, 140)
    for done in range(1, 50):
        display.update(done, {**METRICS, "reward_mean": 20.0 + done % 7})
    display.stage("evaluation during", 12, 960)
    return display


@pytest.mark.parametrize(("width", "sparks"), [(80, 31), (200, 40)])
def test_the_panel_is_whole_at(width, sparks):
    console = Console(width=width, force_terminal=True, record=True, file=io.StringIO())
    console.print(updated(console)._live.get_renderable())
    shown = console.export_text()
    assert {len(line) for line in shown.splitlines()} == {width}
    assert "…" not in shown
    assert all(text in shown for text in WHOLE)
    assert sum(shown.count(block) for block in SPARKS) == sparks


def test_a_log_has_plain_lines():
    console = Console(width=80, file=(file := io.StringIO()))
    updated(console)
    (line,) = file.getvalue().splitlines()
    assert line.startswith("update 1/140  reward 21.0000  clipped 0.0%  ratio 1.000-1.000")
    assert line.endswith(" left")
