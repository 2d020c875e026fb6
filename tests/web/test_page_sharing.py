"""Other ways to ask, offered where an answer was not found; links to a puzzle and its steps."""

import re

import pytest
from playwright.sync_api import Page, expect

from ..inference.test_batcher import eventually
from .page_actions import (
    cell,
    choose,
    clear,
    forgive,
    message,
    require_chromium,
    shown,
    think,
)
from .test_page_attempts import answer_with, ask_for, listen, step

require_chromium()

PUZZLE = "1" + "." * 15


def type_one(page: Page) -> None:
    clear(page)
    cell(page, 1, 1).fill("1")


def ways(page: Page) -> dict[str, str]:
    """What is offered, by name."""
    texts = page.locator("#solve-ways button").all_inner_texts()
    return dict(text.split("\n") for text in texts)


def test_an_answer_that_is_not_valid_is_offered_other_ways_with_their_cost(open_page):
    page = open_page()
    type_one(page)
    offered = page.get_by_role("list", name="Other ways to ask")
    expect(offered).to_be_hidden()
    think(page)
    assert list(ways(page).items()) == [
        ("64 guesses", "likely cells filled in: at most 4 + 64 × 4 = 260 ACT steps"),
        ("8 votes", "symmetric versions: at most 8 × 4 = 32 ACT steps"),
        ("16 rollouts", "with noise: at most 16 × 4 = 64 ACT steps"),
        ("4 restarts", "other start states: at most 5 × 4 = 20 ACT steps"),
        ("8 steps", "one longer attempt: at most 8 ACT steps"),
    ]
    for name, asked_for in (
        ("8 votes", {"votes": 8, "restarts": 0, "rollouts": 1, "noise": 0, "steps": 4}),
        ("16 rollouts", {"votes": 1, "restarts": 0, "rollouts": 16, "noise": 0.3, "steps": 4}),
        ("4 restarts", {"votes": 1, "restarts": 4, "rollouts": 1, "noise": 0, "steps": 4}),
        ("64 guesses", {"votes": 1, "guesses": 64, "rollouts": 1, "select": "valid", "steps": 4}),
        ("8 steps", {"votes": 1, "guesses": 0, "noise": 0, "steps": 8, "halting": "max_steps"}),
    ):
        asked = answer_with(page, step(1, 1, "1", halted=True, last=True, best=1))
        page.get_by_label("Halting").select_option("learned")
        page.get_by_label("At most steps").fill("4")
        ask_for(page, votes=1, restarts=0)
        page.get_by_label("Rollouts").fill("1")
        page.get_by_label("Guesses").fill("0")
        think(page)
        page.get_by_role("button", name=re.compile(f"^{name}")).click()
        how = "Ended" if asked_for.get("halting") else "Halted"
        expect(message(page)).to_have_text(re.compile(f"^{how} after 1 step"))
        assert {key: asked[-1][key] for key in asked_for} == asked_for
        assert len(asked) == 2
        expect(page.get_by_role("button", name="Think")).to_be_focused()


def test_what_was_in_vain_is_offered_more_of_and_a_solution_nothing(open_page):
    page = open_page()
    type_one(page)
    ask_for(page, votes=16, restarts=16)
    answer_with(page, step(1, 1, "1", halted=True, last=True, best=1))
    think(page)
    assert set(ways(page)) == {"64 votes", "16 rollouts", "64 guesses", "8 steps"}
    answer_with(page, step(1, 1, "2", valid=True, halted=True, last=True, best=1))
    think(page)
    expect(page.locator("#solve-offers")).to_be_hidden()
    answer_with(page, step(1, 1, "2", valid=None, halted=True, last=True, best=1))
    think(page)
    expect(page.locator("#solve-offers")).to_be_hidden()
    answer_with(page, step(1, 1, "1", halted=True, last=True, best=1))
    think(page)
    cell(page, 1, 1).fill("2")
    expect(page.locator("#solve-offers")).to_be_hidden()


def test_a_link_shows_the_same_attempt_and_step(open_page):
    page = open_page()
    type_one(page)
    ask_for(page, votes=3, restarts=1)
    page.get_by_label("Halting").select_option("max_steps")
    page.get_by_label("At most steps").fill("5")
    page.get_by_label("Answer that counts").select_option("majority")
    lines = listen(page)
    think(page)
    page.get_by_label("Attempt shown").select_option(index=1)
    slider = page.get_by_role("slider", name="ACT step")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    [third] = [line["answer"] for line in lines if (line["attempt"], line["step"]) == (2, 3)]
    assert shown(page) == third
    page.get_by_role("button", name="Copy link").click()
    expect(message(page)).to_have_text(re.compile("^Link copied"))
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url and "puzzle=1..............." in link

    other = open_page("training")
    other.goto(link)  # another hash of the same page
    expect(other.locator("#player-status")).to_contain_text("step 3 of 5")
    assert shown(other) == third
    expect(other.get_by_label("Checkpoint", exact=True)).to_have_value("tests/patient")
    expect(other.get_by_label("Attempt shown")).to_have_value(re.compile("^Attempt 2 of 4"))
    for name, value in (("Votes", "3"), ("Restarts", "1"), ("At most steps", "5")):
        expect(other.get_by_label(name)).to_have_value(value)
    expect(other.get_by_label("Answer that counts")).to_have_value("majority")
    expect(other).to_have_url(link)
    other.reload()
    expect(other.locator("#player-status")).to_contain_text("step 3 of 5")
    assert shown(other) == third
    expect(other).to_have_url(link)


def test_a_link_asks_as_it_says_whatever_the_form_says(open_page):
    page = open_page()
    ask_for(page, votes=8, restarts=2)
    page.get_by_label("Rollouts").fill("4")
    page.get_by_label("Guesses").fill("5")
    expect(page).to_have_url(re.compile("model=tests%2Fpatient"))
    with page.expect_request("**/api/think") as asked:
        page.goto(page.url.split("#")[0] + f"#solve?model=tests/patient&puzzle={PUZZLE}&step=2")
    once = {"votes": 1, "restarts": 0, "rollouts": 1, "guesses": 0}
    assert {name: asked.value.post_data_json[name] for name in once} == once
    expect(page.locator("#player-status")).to_contain_text("step 2 of 4")


def test_a_link_to_an_example_knows_its_answer(open_page):
    page = open_page()
    origin = page.locator("#solve-origin").text_content()
    puzzle = shown(page)
    expect(page).to_have_url(re.compile("index=0"))
    link = page.url
    page.goto(link.replace("index=0", "index=1"))  # another puzzle than the link's
    page.reload()
    expect(message(page)).to_have_text(re.compile("^Type|^Ready"))
    expect(page.locator("#solve-origin")).to_be_empty()
    eventually(lambda: shown(page) == puzzle)
    expect(page.locator("#player-status")).to_have_text("no steps yet")
    page.goto(link)
    expect(page.locator("#solve-origin")).to_have_text(origin)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        (f"model=gone&puzzle={PUZZLE}", "This link asks the model “gone”, which is not here."),
        (f"puzzle={PUZZLE}", "This link names no model; copy it once more."),
        ("model=tests/eager", "This link names no puzzle; copy it once more."),
        (
            "model=tests/eager&puzzle=123",
            "The puzzle of this link does not fit tests/eager: 3 characters, expected 16 (4x4).",
        ),
        (
            f"model=tests/eager&puzzle={PUZZLE}&step=x",
            "step=x in this link is no whole number.",
        ),
        (
            f"model=tests/eager&puzzle={PUZZLE}&votes=99",
            "Votes: give a whole number from 1 to 64.",
        ),
        (
            f"model=tests/eager&puzzle={PUZZLE}&halting=never",
            "Halting: choose one of the list.",
        ),
    ],
)
def test_a_wrong_link_is_told_in_one_line(open_page, query, told):
    page = open_page("training")
    page.goto(page.url.split("#")[0] + f"#solve?{query}")
    expect(message(page)).to_have_text(told)
    expect(message(page)).to_have_attribute("data-kind", "error")
    if shown(page) != PUZZLE:  # nothing of the link is shown, so the address stays
        page.wait_for_timeout(600)  # longer than an address waits until it is written
        assert page.evaluate("decodeURI(location.hash)") == f"#solve?{query}"
    page = open_page(f"solve?{query}")
    expect(message(page)).to_have_text(told)
    expect(page.locator("#player-status")).to_have_text("no steps yet")


def test_a_step_that_is_not_there_is_the_last_one(open_page, problems):
    page = open_page("training")
    link = f"#solve?model=tests/patient&puzzle={PUZZLE}&attempt=9&step=99"
    page.goto(page.url.split("#")[0] + link)
    expect(page.locator("#player-status")).to_contain_text("step 4 of 4")
    page.goto(page.url.split("#")[0] + link.replace("=1..", "=11."))
    expect(message(page)).to_contain_text("contradicts itself")
    forgive(problems, "422")


def test_the_address_is_of_the_view_that_is_shown(open_page):
    page = open_page()
    choose(page, "tests/eager")
    expect(page).to_have_url(re.compile("model=tests%2Feager"))
    page.get_by_role("tab", name="Data").click()
    assert page.url.endswith("#data")
    page.get_by_role("tab", name="Solve").click()
    expect(page).to_have_url(re.compile("#solve.*model=tests%2Feager"))


def test_the_skip_link_and_unknown_views_leave_the_address_as_it_was(open_page):
    page = open_page()
    choose(page, "tests/eager")
    expect(page).to_have_url(re.compile("model=tests%2Feager"))
    page.get_by_role("link", name="Skip to the content").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#solve.*model=tests%2Feager"))
    page.evaluate("location.hash = 'toString'")
    expect(page).to_have_url(re.compile("#solve.*model=tests%2Feager"))
    expect(page.get_by_role("tab", name="Solve")).to_have_attribute("aria-selected", "true")


def test_a_link_waits_for_the_server(open_page, problems):
    page = open_page()
    page.route("**/api/**", lambda route: route.abort())
    page.goto(page.url.split("#")[0] + "?#solve?model=tests/eager&puzzle=12..............")
    expect(message(page)).to_contain_text("The server cannot be reached.")
    page.unroute("**/api/**")
    page.get_by_role("button", name="Think").click()
    expect(page.get_by_label("Checkpoint", exact=True)).to_have_value("tests/eager")
    expect(cell(page, 1, 2)).to_have_value("2")
    forgive(problems, "net::ERR_FAILED")


def test_a_link_that_is_left_changes_nothing(open_page):
    page = open_page()
    expect(page).to_have_url(re.compile("index=0"))
    page.route("**/api/example?**", lambda route: None)  # is not answered
    with page.expect_request("**/api/example?**"):
        page.goto(page.url.replace("index=0", "index=1"))
    type_one(page)
    page.unroute("**/api/example?**")
    page.wait_for_timeout(200)
    assert shown(page) == PUZZLE


def test_a_stopped_answer_can_be_shared(open_page):
    page = open_page()
    type_one(page)
    page.get_by_label("Halting").select_option("max_steps")
    page.get_by_label("At most steps").fill("256")
    ask_for(page, votes=64, restarts=16)
    page.get_by_role("button", name="Think").click()
    expect(page.locator("#player-status")).to_contain_text(re.compile("step [0-9]"))
    page.get_by_role("button", name="Stop").click()
    expect(page).to_have_url(re.compile("steps=256.*step="))
    expect(page.locator("#inside-message")).not_to_contain_text("Press Think")
