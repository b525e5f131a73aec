"""Numbers that decide: every field of a settings record has its reason, and the documentation shows all of them."""

from __future__ import annotations

import dataclasses

import pytest

from flomi.support.settings import UNMEASURED, reasons, records

RECORDS = records()


def test_records_are_found_in_many_rooms() -> None:
    rooms = {record.__module__.split(".")[1] for record in RECORDS}
    assert {"critics", "crossfit", "data", "inference", "training"} <= rooms


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: f"{record.__module__}.{record.__name__}")
def test_every_number_has_a_reason(record: type) -> None:
    why = reasons(record)
    assert why.keys() <= {f.name for f in dataclasses.fields(record)}
    for name, reason in why.items():
        assert len(reason.removeprefix(UNMEASURED)) >= 5, name
    assert record.__dataclass_params__.frozen
