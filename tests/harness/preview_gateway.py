"""Private previews for tests: an open preview's row, preview links, and the steps of a browser on its way in."""

import uuid
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import httpx2
from sqlalchemy import delete

from db.models import Preview
from db.transaction import transaction
from domain.identity import FOUNDER_SCOPES, How, Identity
from domain.preview_address import preview_address
from services.preview_access import code_for
from tests.harness.api_server import AS_OPERATOR, RunningApi
from tests.harness.wait import DEADLINE

AS_PAGE = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none", "Sec-Fetch-Dest": "document"}


@dataclass
class Gateway:
    """A running API, and a build of its founder whose preview is open."""

    api: RunningApi
    build: uuid.UUID
    user: str

    @property
    def host(self) -> str:
        """The preview's host."""
        address = preview_address(self.api.resources.settings.preview_url, self.build)
        return f"{urlsplit(address).hostname}:{urlsplit(self.api.url).port}"

    def browser(self) -> httpx2.AsyncClient:
        """A client without any token, which asks the preview's host as a browser does."""
        return httpx2.AsyncClient(
            base_url=self.api.url, headers={"Host": self.host}, timeout=DEADLINE, trust_env=False, cookies=None
        )

    async def begin(self, browser: httpx2.AsyncClient, path: str = "/") -> tuple[str, str]:
        """Open the preview without a visit. Returns the cookie that the browser gets, and the state that goes along."""
        answer = await browser.get(path, headers=AS_PAGE)
        assert answer.status_code == 303, answer.text
        sent_to = urlsplit(answer.headers["location"])
        assert f"{sent_to.scheme}://{sent_to.netloc}" == self.api.resources.settings.public_url
        assert sent_to.path == f"/previews/{self.build}/enter"
        query = parse_qs(sent_to.query)
        assert query["to"] == [path]
        return answer.headers["set-cookie"].partition(";")[0], query["state"][0]

    async def code(self, state: str, user: str | None = None, sign_in: uuid.UUID | None = None) -> str | None:
        """A code for a signed-in user."""
        credential = None if sign_in is None else str(sign_in)
        identity = Identity(user or self.user, FOUNDER_SCOPES, How.SIGN_IN, user or self.user, credential)
        async with transaction(self.api.sessions) as tx:
            return await code_for(tx, identity, self.build, state)

    async def visit(self, browser: httpx2.AsyncClient, sign_in: uuid.UUID | None = None) -> dict[str, str]:
        """Enter as the founder. Returns the header with the visit's cookie."""
        cookie, state = await self.begin(browser)
        code = await self.code(state, sign_in=sign_in)
        entered = await browser.get(
            "/.cofounder/enter", params={"code": str(code), "state": state}, headers=AS_PAGE | {"Cookie": cookie}
        )
        assert (entered.status_code, entered.headers["location"]) == (303, "/"), entered.text
        return {"Cookie": entered.headers.get_list("set-cookie")[0].partition(";")[0]}

    async def visit_by_link(self, browser: httpx2.AsyncClient, url: str) -> dict[str, str]:
        """Enter with a preview link, as its page's script does. Returns the header with the visit's cookie."""
        cookie, state = await self.begin(browser)
        body = {"secret": urlsplit(url).fragment, "state": state, "to": "/a"}
        let_in = await self.api.http.post(f"/previews/{self.build}/enter", json=body, headers={"Authorization": ""})
        assert let_in.status_code == 200, let_in.text
        target = urlsplit(let_in.json()["location"])
        entered = await browser.get(f"{target.path}?{target.query}", headers=AS_PAGE | {"Cookie": cookie})
        assert (entered.status_code, entered.headers["location"]) == (303, "/a"), entered.text
        return {"Cookie": entered.headers.get_list("set-cookie")[0].partition(";")[0]}


async def open_preview(api: RunningApi, build: uuid.UUID, upstream: str | None, state: str = "open") -> None:
    """Write the preview's row as its workflow does."""
    values = {"state": state, "sandbox_id": "box", "upstream_url": upstream, "traffic_token": "traffic"}
    async with transaction(api.sessions) as tx:
        await tx.session.execute(delete(Preview).where(Preview.build_id == build))
        tx.session.add(Preview(build_id=build, seq=1, url=None, reason=None, expires_at=None, log=None, **values))


async def link_of(gateway: Gateway, **body: int) -> dict[str, str]:
    """Make a preview link as an operator who acts for the founder."""
    made = await gateway.api.http.post(
        f"/v1/builds/{gateway.build}/preview/links",
        json=body,
        headers=AS_OPERATOR | {"X-Cofounder-User": gateway.user},
    )
    assert made.status_code == 201, made.text
    answer: dict[str, str] = made.json()
    return answer
