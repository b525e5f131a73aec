"""The verdict: every check at every level, its words, and the table of the documentation."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from flomi.inference.certificate import CertificateSettings
from flomi.inference.check import Check, Finding, above
from flomi.inference.evidence import Evidence
from flomi.inference.row_diagnostics import RowSettings
from flomi.inference.verdict import CHECKS, VerdictSettings, judge, table_markdown
from flomi.support.settings import reasons

SOUND = Evidence(
    n=5000, dim_x=3, dim_y=3, mi=1.0, stderr=0.02, bound=0.98, bound_stderr=0.02, plug_in=0.99, imbalance=0.01,
    imbalance_stderr=0.01, lower_bound=0.85, effective_pairs=1000.0, fold_values=(0.95, 1.0, 1.02), fold_stderrs=(0.04,) * 3,
    reference_bound=0.8, reference_stderr=0.02, reference_name="a Gaussian critic", late_validation_gain=0.001, linear_noise=0.5,
    local_noise=0.5, unscaled_columns="1 of 3 columns of x are far off",
)  # fmt: skip


def test_a_sound_run_is_ok_without_a_word():
    assert judge(SOUND) == ("ok", ())


# What is changed in a sound run, the verdict, the check that speaks, and words of its sentence.
DOUBTS = [
    (
        {"ceiling": 1.3, "requested_bound": 0.98, "bound_name": "infonce"},
        "unreliable",
        "near-ceiling",
        "near its ceiling of 1.3 nats",
    ),
    (
        {"ceiling": 1.9, "requested_bound": 0.98, "bound_name": "infonce"},
        "caution",
        "near-ceiling",
        "the infonce value 0.98 nats",
    ),
    ({"imbalance": 0.12}, "caution", "imbalance", "normalisation is off by +0.12"),
    ({"imbalance": -0.5}, "unreliable", "imbalance", "off by -0.50 (standard error 0.01"),
    ({"plug_in": 1.4}, "caution", "read-outs-differ", "bound 0.98 nats, plug-in 1.4 nats"),
    (
        {"bound": 0.5, "plug_in": 0.5, "reference_bound": None},
        "caution",
        "large-correction",
        "0.5 nats of the estimate 1 nats are a correction",
    ),
    ({"fold_values": (0.6, 1.0, 1.4)}, "caution", "folds-disagree", "from 0.6 nats to 1.4 nats"),
    ({"fold_values": (0.1, 1.0, 1.9)}, "unreliable", "folds-disagree", "the folds disagree"),
    ({"late_validation_gain": 0.1}, "caution", "late-gain", "still rose by 0.1 nats"),
    ({"interrupted": True}, "caution", "interrupted", "interrupted"),
    ({"reference_bound": 1.1}, "caution", "below-reference", "Gaussian critic reaches 1.1 nats"),
    (
        {"second_opinions": (("nearest neighbours give", 1.3, 0.02),)},
        "caution",
        "second-opinion",
        "give 1.3 nats, 0.3 nats more than the estimate",
    ),
    (
        {"unreplicated_gain": 0.3},
        "caution",
        "unreplicated-gain",
        "networks gained 0.3 nats over the critic used",
    ),
    ({"effective_share": 0.02}, "caution", "serial-dependence", "no more than about 100 independent ones"),
    ({"lower_bound": 1.01}, "caution", "below-certificate", "below its own certificate 1.01 nats"),
    ({"n": 20}, "caution", "rows-per-dimension", "3.3 rows a dimension"),
    ({"n": 80}, "caution", "few-rows", "80 rows are few"),
    ({"dim_x": 4000}, "unreliable", "rows-per-dimension", "5000 rows for 4000 + 3 dimensions"),
    (
        {"mi": 8.0, "bound": 7.9, "plug_in": 8.0, "lower_bound": 4.0},
        "caution",
        "near-log-n",
        "close to log n = 8.52 nats",
    ),
    ({"effective_pairs": 4.0}, "caution", "few-pairs", "rests on about 4 pairs"),
    ({"duplicates": 0.03}, "caution", "duplicates", "3.0 % of the rows repeat"),
    ({"duplicates": 0.5}, "unreliable", "duplicates", "groups="),
    (
        {"entropy_y": 0.693},
        "unreliable",
        "above-entropy",
        "y is discrete and its entropy, which MI cannot exceed, is 0.693 nats",
    ),
    ({"linear_noise": 1e-15}, "unreliable", "linear-relation", "linear combination of x determines"),
    ({"local_noise": 0.0}, "unreliable", "exact-function", "exact function of the other"),
    ({"stderr": 0.2}, "caution", "large-error", "standard error 0.2 nats is large"),
    ({"above": 0.15}, "caution", "may-miss", "may miss 0.3 nats beside the estimate 1 nats"),
    (
        {"mi": 0.0, "lower_bound": 0.0, "sight": {"linear": 0.01, "pair": 0.02, "three": 0.3}},
        "none found",
        "nothing-found",
        "one spread over three columns a side of 0.3 nats",
    ),
    (
        {"mi": 0.0, "lower_bound": 0.0, "sight": {"linear": 0.01, "pair": 0.02, "three": 9.0}},
        "caution",
        "nothing-found",
        "a linear dependence of 0.01 nats",
    ),
    ({"lower_bound": 0.1}, "ok", "weak-certificate", "certificate 0.1 nats is far below the estimate 1 nats"),
    ({"lower_bound": 1.2}, "unreliable", "below-certificate", "below its own certificate 1.2 nats"),
    ({"mi": float("nan")}, "unreliable", "not-finite", "estimate is not finite"),
    (
        {"requested_bound": float("nan")},
        "unreliable",
        "bound-not-finite",
        "the flo value on test rows is not finite",
    ),
    ({"lower_bound": 0.1, "units": "bits"}, "ok", "weak-certificate", "certificate 0.144 bits"),
    ({"own_critic": True}, "ok", "unscaled-columns", "1 of 3 columns of x are far off, on which"),
]


@pytest.mark.parametrize(("change", "verdict", "code", "words"), DOUBTS)
def test_each_doubt_has_its_sentence(change, verdict, code, words):
    found, findings = judge(dataclasses.replace(SOUND, **change))
    assert found == verdict
    assert [f.code for f in findings if words in f.text] == [code], findings


def test_every_check_is_tried_at_every_level():
    tried = {(code, "note" if verdict == "ok" else verdict) for _, verdict, code, _ in DOUBTS}
    assert tried == {(check.code, level) for check in CHECKS for level in check.levels}
    assert len({check.code for check in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize(
    "change",
    [
        {"second_opinions": (("nearest neighbours give", 1.3, 0.2),)},
        {"unreplicated_gain": 0.03},
        {"lower_bound": None},
        {"lower_bound": float("nan")},
        {"above": 0.04},
        {"imbalance": 0.12, "imbalance_stderr": 0.05},
    ],
)
def test_small_differences_and_missing_facts_are_no_doubts(change):
    assert judge(dataclasses.replace(SOUND, **change)) == ("ok", ())


def test_each_side_of_an_interval_has_its_check():
    for (below, upwards), code in (
        ((0.15, 0.15), "large-error"),
        ((0.02, 0.15), "may-miss"),
        ((0.15, 0.3), "large-error"),
    ):
        (finding,) = judge(dataclasses.replace(SOUND, stderr=below, above=upwards))[1]
        assert (finding.code, finding.value, finding.threshold) == (code, 0.15, 0.05)


def test_what_critics_of_ones_own_choice_would_have_seen_is_not_known():
    found, (finding,) = judge(dataclasses.replace(SOUND, mi=0.0, lower_bound=0.0, sight={}))
    assert found == "caution" and finding.code == "nothing-found"


def test_groups_are_what_the_limit_is_compared_with():
    sight = {"linear": 0.1, "pair": 0.1, "three": 5.0}
    for independent, verdict in ((None, "none found"), (50, "caution")):
        evidence = dataclasses.replace(SOUND, mi=0.0, lower_bound=0.0, sight=sight, independent=independent)
        assert judge(evidence)[0] == verdict


def test_a_remedy_that_was_tried_is_not_offered_again():
    for automatic in (True, False):
        (finding,) = judge(dataclasses.replace(SOUND, reference_bound=1.1, automatic=automatic))[1]
        assert ("critic='auto'" in finding.remedy) != automatic


def test_a_check_is_one_row():
    many = Check(
        "many-columns", ("none found",), "columns", "above 5",
        lambda e: above(e.dim_x + e.dim_y, 5),
        "{value:.0f} columns for {mi}", "use fewer",
    )  # fmt: skip
    verdict, findings = judge(SOUND, checks=(*CHECKS, many))
    assert (verdict, [f.text for f in findings]) == ("none found", ["6 columns for 1 nats: use fewer"])
    graver = dataclasses.replace(SOUND, interrupted=True)
    assert [f.level for f in judge(graver, checks=(many, *CHECKS))[1]] == ["caution", "none found"]


def test_findings_are_json_and_back():
    _, findings = judge(dataclasses.replace(SOUND, mi=float("nan"), lower_bound=0.1, ceiling=1.0))
    _, more = judge(dataclasses.replace(SOUND, stderr=0.2))
    for finding in (*findings, *more):
        again = Finding(**json.loads(json.dumps(finding.to_dict(), allow_nan=False)))
        assert again == finding


def test_the_documentation_has_every_check_and_threshold():
    page = (Path(__file__).parent.parent / "docs" / "reading.md").read_text(encoding="utf-8")
    assert "```{verdict-table}" in page  # which is:
    measured = dataclasses.replace(CHECKS[0], false_alarm=0.012, miss=0.3)
    header, rule, first, *rest = table_markdown((measured, *CHECKS[1:])).splitlines()[:-2]
    for check, row in zip(CHECKS, (first, *rest), strict=True):
        assert (
            row.startswith(f"| `{check.code}` |")
            and check.threshold in row
            and check.remedy in row.replace("`", "")
        )
        assert row.count("|") == header.count("|") == rule.count("|")
    assert first.endswith("| 1.2 % | 30.0 % |") and all(row.endswith("not measured yet |") for row in rest)


def test_every_threshold_has_its_reason():
    for settings in (VerdictSettings, RowSettings, CertificateSettings):
        assert all(len(reason) > 10 for reason in reasons(settings).values())


def test_data_that_forbid_a_number_are_the_reason_that_there_is_none():
    _, findings = judge(dataclasses.replace(SOUND, mi=float("inf"), linear_noise=0.0))
    assert [f.code for f in findings] == ["linear-relation"]


def test_the_gravest_reason_stands_first():
    _, findings = judge(
        dataclasses.replace(SOUND, late_validation_gain=0.1, local_noise=0.0, lower_bound=0.1)
    )
    assert [f.code for f in findings] == ["exact-function", "late-gain", "weak-certificate"]


def test_an_estimate_just_below_zero_does_not_contradict_a_certificate_of_zero():
    for mi in (-0.0001, -0.02, 0.0):
        verdict, findings = judge(Evidence(n=5000, dim_x=2, dim_y=2, mi=mi, stderr=0.01, lower_bound=0.0))
        assert (verdict, [f.code for f in findings]) == ("ok", [])
    _, (finding, *_) = judge(Evidence(n=5000, dim_x=2, dim_y=2, mi=-0.0001, stderr=0.01, lower_bound=0.05))
    assert (finding.code, finding.level) == ("below-certificate", "unreliable")
