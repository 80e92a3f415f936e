"""Products' manifests."""

import json

import pytest

from domain.errors import InvalidInput
from domain.product import parse_product_manifest


def test_product_manifest() -> None:
    good = {"install": "true", "check": "pytest", "start": "python app.py", "port": 8000}
    assert parse_product_manifest(json.dumps(good)).port == 8000
    bad: object
    for bad in (
        {**good, "port": 80},
        {**good, "port": "8000"},
        {**good, "check": ""},
        {**good, "check": "a\x00b"},
        {"check": "x"},
        [],
        {**good, "x": 1},
    ):
        with pytest.raises(InvalidInput, match="does not fit"):
            parse_product_manifest(json.dumps(bad))
    with pytest.raises(InvalidInput, match="not valid JSON"):
        parse_product_manifest("{")
