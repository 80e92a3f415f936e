"""Does steps on a page, as a visitor would: click, fill in, press a key, wait."""

from collections.abc import Sequence

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Locator, Page
from playwright.async_api import TimeoutError as PlaywrightTimeout

from domain.page_view import PageStep

STEP_SECONDS = 5.0
"""How long one step may take; a selector that matches nothing by then is answered with what the page offers."""

OFFERED = 30
"""Elements that are listed to choose from."""

_PAUSE_MS = 500
"""After a step, for what it sets in motion."""

_OFFER = """(elements, most) => elements.filter(element => element.checkVisibility()).slice(0, most).map(element => {
  const say = text => JSON.stringify(String(text).trim().replace(/\\s+/g, ' ').slice(0, 60));
  const tag = element.localName, name = element.getAttribute('name');
  const field = ['input', 'select', 'textarea'].includes(tag);
  if (element.id && /^[A-Za-z][\\w-]*$/.test(element.id)) return '#' + element.id;
  if (name) return tag + '[name=' + JSON.stringify(name) + ']';
  if (field) return element.placeholder ? tag + '[placeholder=' + say(element.placeholder) + ']' : tag;
  const text = (element.innerText || '').trim();
  return text ? 'text=' + say(text) : tag + (element.getAttribute('aria-label')
    ? '[aria-label=' + say(element.getAttribute('aria-label')) + ']' : '');
})"""

_ELEMENTS = "a[href], button, input:not([type=hidden]), select, textarea, summary, [role=button], [onclick]"


async def take_steps(page: Page, steps: Sequence[PageStep]) -> str:
    """Do the steps in order, up to the first that can't be done. Returns what is wrong with that one, else nothing."""
    for number, step in enumerate(steps, 1):
        try:
            await _take(page, step)
        except PlaywrightError as error:
            if page.is_closed():
                raise
            return f"Step {number} of {len(steps)} ({_say(step)}) could not be done: {await _why(page, step, error)}"
        await page.wait_for_timeout(_PAUSE_MS)
    return ""


async def _take(page: Page, step: PageStep) -> None:
    milliseconds = STEP_SECONDS * 1000
    element = _element(page, step.selector) if step.selector else None
    if step.action == "wait":
        if element is None and step.text:
            element = page.get_by_text(step.text).first
        if element is not None:
            await element.wait_for(state="visible", timeout=milliseconds)
        else:
            await page.wait_for_timeout(1000)
    elif step.action == "press":
        if element is None:
            await page.keyboard.press(step.text)
        else:
            await element.press(step.text, timeout=milliseconds)
    elif element is None:
        raise PlaywrightError("it names no selector")
    elif step.action == "click":
        await element.click(timeout=milliseconds)
    else:
        await _fill(element, step.text, milliseconds)


async def _fill(element: Locator, text: str, milliseconds: float) -> None:
    await element.wait_for(state="visible", timeout=milliseconds)
    kind = await element.evaluate("element => element.localName", timeout=milliseconds)
    if kind == "select":
        options = [option.strip()[:60] for option in await element.locator("option").all_inner_texts()]
        try:
            await element.select_option(text, timeout=milliseconds)
        except PlaywrightTimeout as error:
            raise PlaywrightError(
                f"it has no option {text[:60]!r}; its options are: {', '.join(options[:OFFERED])}"
            ) from error
    else:
        await element.fill(text, timeout=milliseconds)


def _element(page: Page, selector: str) -> Locator:
    return page.locator(selector).locator("visible=true").first


async def _why(page: Page, step: PageStep, error: PlaywrightError) -> str:
    lines = [line.strip() for line in error.message.splitlines() if line.strip()]
    first = lines[0].partition(": ")[2] or lines[0] if lines else "no reason was given"
    if not isinstance(error, PlaywrightTimeout):
        return f"{first[:300]}. {await _offered(page)}"
    if not step.selector:
        return f"the text did not appear within {STEP_SECONDS:.0f} s. The page's visible text is below."
    try:
        matches = await page.locator(step.selector).count()
    except PlaywrightError:
        matches = 0
    if matches == 0:
        return f"nothing on the page matches this selector. {await _offered(page)}"
    if not await _element(page, step.selector).count():
        return f"{matches} elements match this selector, and none of them is visible. {await _offered(page)}"
    covered = next((line.lstrip("- ") for line in lines if "intercepts pointer events" in line), "")
    reason = f" Something covers it: {covered[:200]}." if covered else ""
    return f"the element was there, but the step did not end within {STEP_SECONDS:.0f} s.{reason}"


async def _offered(page: Page) -> str:
    try:
        offered = await page.locator(_ELEMENTS).evaluate_all(_OFFER, OFFERED)
    except PlaywrightError:
        offered = []
    names = [str(each)[:100] for each in offered if each] if isinstance(offered, list) else []
    if not names:
        return "The page has nothing visible to click or to fill in."
    return f"What can be clicked or filled in: {', '.join(dict.fromkeys(names))}."


def _say(step: PageStep) -> str:
    return " ".join(
        part for part in (step.action, step.selector[:100], repr(step.text[:60]) if step.text else "") if part
    )
