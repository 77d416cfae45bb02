"""The example for KEDA is one that the sidecar would answer."""

from __future__ import annotations

from typing import Any

import pytest
from ruamel.yaml import YAML

from extproc import scaler
from extproc.cli.serve import LISTEN
from extproc.config import load
from tests.docs.page import ROOT, blocks

PAGE = ROOT / "docs" / "scaling.md"
EXAMPLE = ROOT / "examples" / "keda-scaledobject.yaml"


@pytest.fixture(scope="module")
def scaled_object() -> Any:
    return YAML(typ="safe", pure=True).load(EXAMPLE.read_text())


def test_the_page_shows_the_example_as_it_is() -> None:
    assert blocks(PAGE, "yaml") == [EXAMPLE.read_text()]


def test_it_is_a_scaled_object_with_a_target(scaled_object: Any) -> None:
    assert (scaled_object["apiVersion"], scaled_object["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    assert scaled_object["spec"]["scaleTargetRef"].keys() == {"kind", "name"}


def test_its_trigger_asks_for_the_metric_itself(scaled_object: Any) -> None:
    [trigger] = scaled_object["spec"]["triggers"]
    assert (trigger["type"], trigger["metricType"]) == ("external", "AverageValue")


def test_its_metadata_has_the_keys_that_the_sidecar_knows(scaled_object: Any) -> None:
    metadata = scaled_object["spec"]["triggers"][0]["metadata"]
    assert metadata.keys() == {"scalerAddress", scaler.MODEL_KEY, scaler.POOL_KEY}
    assert metadata["scalerAddress"].rpartition(":")[2] == LISTEN.rpartition(":")[2]
    models = {model.name: model for model in load(ROOT / "tokenpool.yaml").policy.models}
    assert models[metadata[scaler.MODEL_KEY]].pool(metadata[scaler.POOL_KEY])


def test_the_stabilisation_window_is_waited_for_once(scaled_object: Any) -> None:
    behaviour = scaled_object["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behaviour["scaleDown"]["stabilizationWindowSeconds"] == 0


def test_the_page_names_the_metric() -> None:
    assert scaler.METRIC in PAGE.read_text()
