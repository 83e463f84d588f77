"""The pages as a person sees them, in headless Chromium: Swagger UI without a network, and the compare page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from client.http import Accel
from tests import models

pytestmark = pytest.mark.browser


def test_a_person_uploads_and_compresses_in_swagger_ui(page: Page, service: tuple[Accel, str], tmp_path: Path) -> None:
    api, url = service
    page.goto(f"{url}/docs")
    page.locator("#operations-models-upload_model .opblock-summary-control").click()
    operation = page.locator(".opblock.is-open")
    operation.locator("input[type=file]").set_input_files(models.save(models.convnet(), tmp_path / "tiny.onnx"))
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table td.response-col_status:not(.col_header)").first).to_contain_text(
        "201", timeout=20_000
    )

    page.goto(f"{url}/docs")  # its examples now name the model
    page.locator("#operations-jobs-compress .opblock-summary-control").click()
    operation = page.locator(".opblock.is-open")
    (model,) = api.models()
    text = operation.locator("textarea.body-param__text")
    expect(text).to_have_value(re.compile(model.id))
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table td.response-col_status:not(.col_header)").first).to_contain_text(
        "202", timeout=20_000
    )
    (job,) = api.jobs()
    assert api.wait(job.id, timeout_s=60).state == "succeeded"


def test_the_compare_page_shows_every_model(page: Page, service: tuple[Accel, str]) -> None:
    api, url = service
    ids = [model.id for model in api.models()][::-1]
    asked = {"model_ids": ids, "starts": 1, "rounds": 3, "seconds_per_round": 0.02}
    api.wait(api.submit("benchmark", asked).id, timeout_s=60)
    page.goto(f"{url}/v1/compare?" + "&".join(f"model={identity}" for identity in ids) + "&format=html")
    expect(page.locator("h1")).to_contain_text("side by side")
    for identity in ids:
        expect(page.get_by_text(identity).first).to_be_attached()
    expect(page.get_by_text("ms").first).to_be_visible()
