"""Items asked for again by id: CMR's granules as STAC items with their sizes, and only the host that a source names."""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import urlsplit

from coverage_pipeline.catalog.items_by_id import WantedItem, fetch_items
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, AvailableSource
from tests.catalog.http_server import AnswerHandler, on_loopback
from tests.catalog.sources.test_cmr import TELLUS, recorded

OPTIONS = ScanOptions(patience=Patience(5, 0, 0, 60, 10))


def test_a_recorded_granule_becomes_an_item_with_its_files_and_sizes() -> None:
    _, _, content = recorded(*TELLUS)
    granule = json.loads(content)["items"][0]["umm"]
    name = granule["GranuleUR"]
    asked: list[str] = []

    class Handler(AnswerHandler):
        def do_GET(self) -> None:
            asked.append(urlsplit(self.path).path)
            self.send((200, {"Content-Type": "application/json"}, json.dumps(granule).encode()))

    with on_loopback(Handler) as address:
        host = urlsplit(address).netloc
        sensors = {"emit": replace(COVERAGE_SENSORS["emit"], available_sources=(AvailableSource("cmr", address, "EMITL2ARFL"),))}
        href = f"{address}/search/concepts/G1-X.umm_json"
        wanted = [
            WantedItem("emit", host, "EMITL2ARFL", name, href),
            WantedItem("emit", host, "EMITL2ARFL", "another", href),
            WantedItem("emit", host, "EMITL2ARFL", name, "https://elsewhere.example.org/x.umm_json"),
            WantedItem("emit", host, "EMITL2ARFL", name, None),
            WantedItem("emit", "gone.example.org", "EMITL2ARFL", name, href),
        ]
        answers = list(fetch_items(wanted, sensors, OPTIONS))
    assert [answer.problem is None for answer in answers] == [True, False, False, False, False]
    item = answers[0].item or {}
    data = [link["URL"] for link in granule["RelatedUrls"] if link["Type"] == "GET DATA" and link["URL"].startswith("http")]
    assert data
    assert [asset["href"] for asset in item["assets"].values()] == data
    sizes = {
        part["Name"]: part["SizeInBytes"] for part in granule["DataGranule"]["ArchiveAndDistributionInformation"] if "SizeInBytes" in part
    }
    assert {name: asset["file:size"] for name, asset in item["assets"].items() if "file:size" in asset} == {
        name: sizes[name] for name in item["assets"] if name in sizes
    }
    assert {link["rel"] for link in item["links"]} == {"via", "collection"}
    problems = [answer.problem or "" for answer in answers]
    assert "something else" in problems[1]
    assert "another host" in problems[2]
    assert "no address" in problems[3]
    assert "gone.example.org" in problems[4]
    assert asked == ["/search/concepts/G1-X.umm_json"] * 2  # nobody else was asked
