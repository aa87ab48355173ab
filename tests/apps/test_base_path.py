"""The apps below a path, as behind a proxy: every link leads below it."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from pipelines.commands.app import as_base_path, command_line
from pipelines.errors import ConfigError
from tests.apps.browsing import announced, browser, chromium, free_port, open_app, settle


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("", ""),
        ("/", ""),
        ("/x", "x/"),
        ("farm/leaves/", "farm/leaves/"),
        ("/a.b-c_d~e", "a.b-c_d~e/"),
    ],
)
def test_base_path_has_one_form(text, base):
    assert as_base_path(text) == base
    flags = [flag for flag in command_line("127.0.0.1", 1, base) if "Path" in flag]
    assert flags == ([f"--server.baseUrlPath={base.rstrip('/')}"] if base else [])


@pytest.mark.parametrize("text", ["/../x", "a//b", "/a b", "/a?b", "http://x", "/ü", "/x\n"])
def test_path_that_no_address_could_hold_is_refused(text):
    with pytest.raises(ConfigError, match="--base-path"):
        as_base_path(text)


@pytest.mark.slow
@pytest.mark.skipif(chromium() is None, reason="Chromium is not installed (apt: chromium)")
def test_links_lead_below_the_base_path(app_root):
    command = ["--root", str(app_root), "--port", str(free_port()), "--base-path", "/farm/x"]
    with announced(command) as (_, said), browser() as program:
        address = next(line.split()[1] for line in said.splitlines() if line.startswith("Apps:"))
        assert address.endswith("/farm/x/")
        page = program.new_page()
        open_app(page, address)
        card = page.locator("[data-testid=stPageLink-NavLink][href*=cats_dogs]").first
        card.click()
        page.wait_for_url("**/farm/x/cats_dogs*")
        settle(page)
        assert page.locator(".fl-phone").count() == 1
        # Opened by its own address, and back to the hub.
        open_app(page, f"{address}cats_dogs")
        page.locator("[data-testid=stSidebar] [data-testid=stPageLink-NavLink]").first.click()
        page.wait_for_selector("[class*=st-key-card-]")
        assert urlsplit(page.url).path.rstrip("/") == "/farm/x"
        # Outside the path there is nothing of the apps.
        answer = page.goto(address.replace("/farm/x/", "/cats_dogs"))
        assert answer is None or answer.status == 404 or not page.locator(".fl-head").count()
