"""What the page does, asked by programs: gradio's client, an MCP client; many at once; what is left on the disk."""

from __future__ import annotations

import ast
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest

import phard_hub
from spaces_app.examples import FOLDER
from tests.hub_server import Hub
from tests.release.releases import make_release
from tests.spaces_app.serving import Page
from tests.spaces_app.test_checking import model_zip

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def client(page_server: Page, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    gradio_client = pytest.importorskip("gradio_client")
    downloads = tmp_path_factory.mktemp("client")
    asking = gradio_client.Client(
        page_server.url, verbose=False, download_files=str(downloads), analytics_enabled=False
    )
    yield asking
    asking.close()


def refused(client: Any, said: str, *arguments: Any, **named: Any) -> None:
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=said):
        client.predict(*arguments, **named)


def test_every_endpoint_is_explained(client: Any) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert endpoints.keys() == {"/look", "/sign", "/vote", "/report", "/gate", "/audit", "/measure"}
    assert all(len(endpoint["description"]) > 40 for endpoint in endpoints.values())


def test_a_trigger_is_looked_at(client: Any) -> None:
    seen = client.predict("3", "0", api_name="/look")
    before, after = (seen["answers"]["backdoored"][when] for when in ("before", "after"))
    assert max(before, key=before.get) == "3"
    assert max(after, key=after.get) == "0"
    assert max(seen["answers"]["hardened"]["after"].items(), key=lambda item: item[1])[0] == "3"
    none = client.predict("3", "5", "found on the backdoored model", 0.0, api_name="/look")
    assert none["grey_levels"] == 0
    refused(client, "same class", "3", "3", "found on the hardened model", api_name="/look")
    refused(client, "Classes are 0, 1", "cat", "3", api_name="/look")
    refused(client, "no part '<b>'", "3", "5", "found on the backdoored model", 1.0, ["<b>"], api_name="/look")
    refused(client, "parts: Input should be a valid list", "3", "5", "planted warp", 1.0, "warp", api_name="/look")
    refused(client, "strength: Input should be a valid number", "3", "5", "planted warp", "abc", api_name="/look")
    refused(client, "name: Input should be a valid string", 7, api_name="/report")
    refused(client, "limits: Input should be a valid dictionary", limits=[1], api_name="/gate")


def test_only_the_owner_of_the_key_signs(client: Any) -> None:
    signed, damaged = (client.predict("3", "8", each, api_name="/sign")["answers"] for each in (False, True))
    plain, checking = signed
    assert max(signed[checking]["after"].items(), key=lambda item: item[1])[0] == "8"
    assert max(damaged[checking]["after"].items(), key=lambda item: item[1])[0] == "3"
    assert signed[plain]["after"] == pytest.approx(signed[plain]["before"], abs=0.05)
    refused(client, "same class", "3", "3", api_name="/sign")
    voted = client.predict("3", "8", api_name="/vote")
    assert voted["answer"] == "3"
    assert voted["change"] < voted["radius"]
    refused(client, "same class", "3", "3", api_name="/vote")


def test_reports_and_the_gate(client: Any, hub: Hub, tmp_path: Path) -> None:
    hub.create("org/hardened", make_release(tmp_path / "release"))
    shipped = client.predict(api_name="/report")
    assert shipped["after"]["distances"]["mean"] > shipped["before"]["distances"]["mean"]
    assert client.predict("org/hardened", api_name="/report")["source"]["repo"] == "org/base"
    assert client.predict(api_name="/gate")["passed"]
    strict = client.predict(limits={"min_mean_distance": 99.0}, api_name="/gate")
    assert (strict["passed"], strict["exit_code"]) == (False, 1)
    sized = client.predict(limits={"max_universal_success_at": {"20": 0.0}}, policy="deploy", api_name="/gate")
    assert [rule["name"] for rule in sized["rules"] if rule["outcome"] == "fail"] == ["max_universal_success_at"]
    assert "min_mean_distance" not in [rule["name"] for rule in sized["rules"]]
    refused(client, "no policy 'none'", policy="none", api_name="/gate")
    refused(client, "no limit 'min_maen_distance'", limits={"min_maen_distance": 1.0}, api_name="/gate")
    refused(client, "no model nobody/nothing|nobody/nothing", "nobody/nothing", api_name="/report")


def test_private_models_of_the_owner_are_not_shown(client: Any, hub: Hub) -> None:
    """A Space may run with its owner's token; no visitor sees what only that may see."""
    hub.create("me/secret", FOLDER / "honest", private=True)
    hub.login()
    refused(client, "me/secret", "me/secret", api_name="/report")
    assert not any(request.authorized for request in hub.log)


def test_a_zip_is_audited_and_nothing_is_left(client: Any, page_server: Page, tmp_path: Path) -> None:
    from gradio_client import handle_file

    ready = list(page_server.temporary.glob("phard-check-*"))
    assert len(ready) == 1  # the process that waits for a check, in its folder
    good = model_zip(FOLDER / "honest", tmp_path / "good.zip")
    _, audit = client.predict("", handle_file(str(good)), api_name="/audit")
    assert not [found for found in audit["findings"] if found["severity"] == "error"]
    bad = handle_file(str(hostile(tmp_path / "bad.zip")))
    shown, audit = client.predict("", bad, api_name="/audit")
    assert "no regular file" in shown
    assert audit is None
    left = list(page_server.temporary.glob("phard-check-*"))
    assert len(left) <= 1
    assert not set(left) & set(ready)


def test_what_lies_at_an_address_is_not_fetched(page_server: Page) -> None:
    """In place of an upload, and in place of a text."""
    for data in (
        ["", there := {"path": "http://host.invalid/model.zip", "meta": {"_type": "gradio.FileData"}}],
        [there, None],
    ):
        asked = httpx.post(f"{page_server.url}/gradio_api/call/audit", json={"data": data}).json()
        answer = httpx.get(f"{page_server.url}/gradio_api/call/audit/{asked['event_id']}", timeout=60).text
        assert "the page fetches nothing from an address" in answer


def hostile(path: Path) -> Path:
    """A zip with a link to a file of the server."""
    import stat
    import zipfile

    entry = zipfile.ZipInfo("config.json")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as made:
        made.writestr(entry, "/etc/passwd")
    return path


def test_twenty_at_once_all_get_answers(client: Any) -> None:
    started = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        jobs = [pool.submit(client.predict, str(number % 10), "0", api_name="/look") for number in range(20)]
        sizes = [job.result(timeout=60)["grey_levels"] for job in jobs]
    assert len(sizes) == 20
    assert len(set(sizes)) == 10  # each visitor has the answer to their own question
    assert time.monotonic() - started < 60


def test_an_mcp_client_finds_and_uses_the_same(page_server: Page) -> None:
    pytest.importorskip("mcp")
    import anyio
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def ask() -> tuple[dict[str, str], Any]:
        mcp = f"{page_server.url}/gradio_api/mcp/"
        async with streamable_http_client(mcp) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            tools = {tool.name: tool.description or "" for tool in (await session.list_tools()).tools}
            name = next(name for name in tools if name.endswith("gate"))
            return tools, await session.call_tool(name, {})

    tools, answer = anyio.run(ask)
    assert all(
        any(name.endswith(end) for name in tools)
        for end in ("look_at", "sign_image", "vote_on", "report", "gate", "audit_model", "measure_model")
    )
    assert all(tools.values())
    assert "The policy passes the model after hardening" in json.dumps([part.model_dump() for part in answer.content])


def test_the_page_uses_public_names_only() -> None:
    """A change inside of the library cannot break a Space that is out there without a test noticing."""
    used: dict[str, set[str]] = {}
    for path in (ROOT / "spaces_app").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "phard_hub":
                used.setdefault(node.module or "", set()).update(alias.name for alias in node.names)
    public = {
        "phard_hub",
        *(
            f"phard_hub.{name}"
            for name in ("attacks.undetectable", "attacks", "defenses", "errors", "images", "report", "triggers")
        ),
    }
    assert used.keys() <= public
    for module in used.keys() - {"phard_hub.errors"}:
        assert used[module] <= set(import_module(module).__all__), module
    assert phard_hub.__all__
