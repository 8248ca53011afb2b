"""What the Hub answers is not to be trusted: whatever it says ends in one line, and nothing lands outside the cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from starlette.responses import HTMLResponse, JSONResponse, Response

from phard_hub.errors import HubUnavailableError, PhardError, RepoError
from phard_hub.hub.client import ready_client
from phard_hub.hub.download import download, wanted
from phard_hub.hub.pull import pull
from phard_hub.release.published import published
from phard_hub.release.push import plan, push
from phard_hub.report.policy import Policy
from tests.command import Phard
from tests.hub_server import Hub

pytestmark = pytest.mark.usefixtures("impatient", "brief_waits")
REPO = "org/model"
Files = dict[str, str | bytes]
Forge = Callable[[Response], Response]


def change(**said: Any) -> Forge:
    """The real answer, but for some of its fields."""
    return lambda response: JSONResponse({**json.loads(bytes(response.body)), **said})


def change_file(name: str, **said: Any) -> Forge:
    """The real answer, but for what it says of one file."""

    def forge(response: Response) -> Response:
        answer = json.loads(bytes(response.body))
        for file in answer["siblings"]:
            if file["rfilename"] == name:
                file.update(said)
        return JSONResponse(answer)

    return forge


def say(body: object) -> Forge:
    return lambda response: JSONResponse(body)


def headers(**said: str) -> Forge:
    def forge(response: Response) -> Response:
        kept = {name: value for name, value in response.headers.items() if name != "content-length"}
        return Response(
            response.body, response.status_code, kept | {k.replace("_", "-").lower(): v for k, v in said.items()}
        )

    return forge


def elsewhere(response: Response) -> Response:
    return Response(status_code=302, headers={"Location": "http://localhost:1/api/evil"})


def around(response: Response) -> Response:
    return Response(status_code=307, headers={"Location": "/api/models/org/model?blobs=true&securityStatus=true"})


def no_json(response: Response) -> Response:
    return HTMLResponse("<html>\x1b[31mPlease log in</html>")


LARGE = {"siblings": [{"rfilename": f"{'x' * 90}{i}", "size": 1} for i in range(80_000)]}
LFS = {"size": 1, "pointerSize": 1}
INFOS: dict[str, Forge] = {
    "HTML": no_json,
    "a list": say([]),
    "null": say(None),
    "nothing": say({}),
    "nested": lambda response: Response(b"[" * 200_000, headers={"Content-Type": "application/json"}),
    "ten megabytes": change(**LARGE),
    "a commit that is none": change(sha="main"),
    "a path as a commit": change(sha="../../../evil"),
    "a commit in capitals": change(sha="A" * 40),
    "no commit": change(sha=None),
    "files that are none": change(siblings="all"),
    "files without names": change(siblings=[{}]),
    "a name that is none": change(siblings=[{"rfilename": ["a"]}]),
    "a file above": change(siblings=[{"rfilename": "../evil.safetensors"}]),
    "a file above, later": change(siblings=[{"rfilename": "a/../../evil"}]),
    "an absolute file": change(siblings=[{"rfilename": "/etc/passwd"}]),
    "an empty name": change(siblings=[{"rfilename": ""}]),
    "a name with an escape": change(siblings=[{"rfilename": "\x1b[31mconfig.json"}]),
    "a name that turns": change(siblings=[{"rfilename": "\u202econfig.json"}]),
    "a negative size": change_file("config.json", size=-1),
    "no size": change_file("config.json", size=None),
    "a size in words": change_file("config.json", size="12"),
    "a short hash": change_file("config.json", blobId="abc"),
    "no hash": change_file("config.json", blobId=None),
    "a path as a hash": change_file("model.safetensors", lfs={**LFS, "sha256": "../../evil"}),
    "a hash that is a number": change_file("model.safetensors", lfs={**LFS, "sha256": 5}),
    "a large file without a hash": change_file("model.safetensors", lfs=LFS),
    "a redirect to nowhere": elsewhere,
    "a redirect in circles": around,
}


def outside() -> list[str]:
    """What lies next to the cache of the Hub's client, but not in it."""
    return sorted(path.name for path in Path(constants.HF_HOME).iterdir() if path != Path(constants.HF_HUB_CACHE))


def require_one_line(error: PhardError) -> None:
    assert isinstance(error, HubUnavailableError | RepoError)
    assert str(error).isprintable()
    assert len(str(error)) < 600
    assert error.advice


@pytest.mark.parametrize("forge", INFOS.values(), ids=INFOS)
def test_a_pull_ends_in_one_line(forge: Forge, hub: Hub, files: Files) -> None:
    hub.create(REPO, files)
    hub.fail("info", forge=forge, times=None)
    with pytest.raises(PhardError) as caught:
        pull(REPO)
    require_one_line(caught.value)
    assert not hub.asked("download")
    assert outside() == []


@pytest.mark.parametrize("forge", INFOS.values(), ids=INFOS)
def test_a_push_ends_in_one_line(forge: Forge, hub: Hub, release: Path) -> None:
    hub.login()
    hub.create("me/model", {"README.md": "text", "config.json": "{}", "model.safetensors": b"x"})
    before = hub.state()
    hub.fail("info", forge=forge, times=None)
    try:
        plan(release, "me/model")
    except PhardError as error:
        require_one_line(error)
    else:  # a size or a hash that is missing is no reason not to look
        assert forge in (INFOS["no size"], INFOS["no hash"], INFOS["ten megabytes"])
    assert hub.state() == before


@pytest.mark.parametrize("forge", INFOS.values(), ids=INFOS)
def test_a_gate_ends_in_one_line(forge: Forge, hub: Hub, release: Path) -> None:
    hub.create("me/model", release)
    hub.fail("info", forge=forge, times=None)
    with pytest.raises(PhardError) as caught:
        published("me/model@main", Policy())
    require_one_line(caught.value)
    assert not hub.asked("download")
    assert outside() == []


@pytest.mark.parametrize(
    "header",
    [
        {"ETag": '"../../../evil"'},
        {"ETag": '"/tmp/evil"'},
        {"ETag": '"a/evil"'},
        {"X_Linked_Etag": '"../../../evil"'},
        {"X_Linked_Etag": 'W/"..\\evil"'},
        {"X_Repo_Commit": "../../../evil"},
        {"X_Repo_Commit": "main"},
    ],
)
def test_no_answer_chooses_where_a_file_is_written(header: dict[str, str], hub: Hub, files: Files) -> None:
    hub.create(REPO, files)
    hub.fail("resolve", forge=headers(**header), times=None)
    with pytest.raises(HubUnavailableError, match="names a file outside of the cache"):
        pull(REPO)
    hub.create("me/model", {"phard_report.json": "{}"})
    with pytest.raises(HubUnavailableError, match="names a file outside of the cache"):
        published("me/model@main", Policy())
    assert outside() == []
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*evil*"))


def test_the_users_own_clients_are_guarded_and_kept() -> None:
    from huggingface_hub import get_session, set_client_factory
    from huggingface_hub.utils import _http

    former, made = _http._GLOBAL_CLIENT_FACTORY, []

    def own() -> Any:
        made.append(_http.default_client_factory())
        return made[-1]

    try:
        set_client_factory(own)
        ready_client()
        ready_client()
        assert get_session() is made[0]
        assert len(get_session().event_hooks["response"]) == 1
    finally:
        set_client_factory(former)


@pytest.mark.parametrize(
    ("status", "scanned", "flagged"),
    [
        ({"scansDone": True, "filesWithIssues": []}, True, ()),
        ({"scansDone": False, "filesWithIssues": []}, False, ()),
        ({"scansDone": "yes", "filesWithIssues": "all"}, None, ()),
        ({}, None, ()),
        (None, None, ()),
        ([], None, ()),
        (
            {"scansDone": True, "filesWithIssues": [5, {"path": "a\x1b", "level": "unsafe"}, {}]},
            True,
            ("a? (unsafe)", "None (None)"),
        ),
    ],
)
def test_whether_the_scanners_have_finished(
    status: object,
    scanned: bool | None,
    flagged: tuple[str, ...],
    hub: Hub,
    files: Files,
) -> None:
    hub.create(REPO, files)
    hub.fail("info", forge=change(securityRepoStatus=status), times=None)
    found = download(REPO, None, weights=False)
    assert (found.scanned, found.flagged) == (scanned, flagged)
    with hub.down():
        assert download(REPO, None, weights=False).scanned is None


@pytest.mark.parametrize(
    "forge",
    [
        no_json,
        say([]),
        say(None),
        say({}),
        change(name=None),
        change(name=["me"]),
        change(name="\x1b[31mme"),
        change(orgs="all"),
        change(orgs=[{}]),
        change(auth=[]),
        change(auth={"accessToken": "x"}),
        elsewhere,
    ],
)
def test_who_the_user_is(forge: Forge, hub: Hub, release: Path) -> None:
    hub.login()
    hub.fail("whoami", forge=forge, times=None)
    try:
        plan(release, "me/model")
    except PhardError as error:
        require_one_line(error)
    else:
        assert json.loads(bytes(forge(JSONResponse({})).body)) == {"auth": []}  # says nothing of what the token may
    assert hub.state() == {}


@pytest.mark.parametrize(
    "forge",
    [
        no_json,
        say([]),
        say({}),
        say({"discussions": [{}], "count": 1, "start": 0}),
        elsewhere,
    ],
)
def test_pull_requests_that_make_no_sense(forge: Forge, hub: Hub, release: Path) -> None:
    hub.login()
    hub.create("org/base", {"README.md": "text"})
    hub.fail("discussions", forge=forge, times=None)
    with pytest.raises(PhardError) as caught:
        plan(release, "org/base", pr=True)
    require_one_line(caught.value)


@pytest.mark.parametrize("pr", [False, True])
@pytest.mark.parametrize(
    "forge",
    [
        no_json,
        say({}),
        change(commitOid="\x1b[31m"),
        change(commitUrl=5),
        change(pullRequestUrl="http://evil/\x1b", commitUrl="http://evil/\x1b"),
    ],
)
def test_a_commit_whose_answer_makes_no_sense_is_found(
    forge: Forge,
    pr: bool,
    hub: Hub,
    release: Path,
) -> None:
    hub.login()
    hub.create("me/model", {"config.json": "{}"})
    hub.fail("commit", forge=forge)
    pushed = push(release, "me/model", pr=pr)
    assert pushed.commit == hub.head("me/model", "refs/pr/1" if pr else "main")
    assert pushed.url.startswith(f"{hub.endpoint}/me/model")
    assert pushed.url.isprintable()
    assert len(hub.asked("commit")) == 1


def test_a_redirect_takes_no_token_to_another_host(hub: Hub, release: Path) -> None:
    hub.login()
    there = f"{hub.file_host}/api/whoami-v2"
    hub.fail("whoami", forge=lambda response: Response(status_code=302, headers={"Location": there}))
    with pytest.raises(PhardError) as caught:
        plan(release, "me/model")
    assert str(caught.value).isprintable()
    assert hub.leaks() == []


@pytest.mark.parametrize("message", ["\x1b[2Jgone", "a\nphard: passed\nb", "x" * 100_000, "\u202edellac"])
@pytest.mark.parametrize("status", [400, 403, 503])
def test_refusals_are_shown_as_one_line_of_printable_text(
    message: str,
    status: int,
    hub: Hub,
    files: Files,
    phard: Phard,
) -> None:
    hub.create(REPO, files)
    hub.fail("info", forge=lambda response: JSONResponse({"error": message}, status), times=None)
    done = phard("audit", REPO)
    assert done.code in (2, 3)
    assert done.complaint.isprintable()
    assert len(done.complaint) < 600


# Names


def test_what_is_wanted_of_a_repository() -> None:
    names = ["config.json", "LICENSE", "LICENSE.txt", "NOTICE.md", "README.md", "a.safetensors", "LICENSE.safetensors"]
    odd = ["LICENSE\u202e", "c\u043enfig.json", "m\u00f6del.safetensors", "a\n.safetensors", "a\x1b.safetensors"]
    never = ["sub/LICENSE", "a\\b.safetensors", "license", "setup.py", "Config.json", "x.json"]
    assert list(wanted([*names, *odd, *never])) == names
    assert list(wanted(names, weights=False)) == names[:5]


def test_the_licence_comes_along_unless_it_is_too_large(hub: Hub, files: Files) -> None:
    hub.create(REPO, {**files, "LICENSE": "Do what you like.", "NOTICE.txt": b"x" * (4 * 2**20 + 1)})
    found = download(REPO, None, weights=True)
    assert (found.folder / "LICENSE").read_text() == "Do what you like."
    assert found.left_out == ("NOTICE.txt (4 MB)",)


@pytest.mark.parametrize(
    ("repo", "revision"),
    [
        ("a--b", None),
        ("../x", None),
        (REPO, "../../../evil"),
        (REPO, "/etc/x"),
        (REPO, "a b"),
        (REPO, "\x1b"),
        (REPO, ""),
    ],
)
def test_names_that_the_hub_never_gives_are_not_asked_for(repo: str, revision: str | None, hub: Hub) -> None:
    with pytest.raises(RepoError) as caught:
        download(repo, revision, weights=False)
    assert str(caught.value).isprintable()
    assert hub.log == []
