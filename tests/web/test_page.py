"""The view Solve in a real browser, on the real server: by keyboard, by paste, when it fails."""

import json
import re

import pytest
from playwright.sync_api import expect

from hrm.tasks import task_of
from hrm.web.schemas import CheckpointInfo

from ..inference.test_solver import metadata
from .page_actions import (
    answer_reading,
    cell,
    choose,
    clear,
    forgive,
    message,
    paste,
    require_chromium,
    shown,
    think,
)

require_chromium()

SPLIT_STEP = {
    "attempt": 1,
    "step": 1,
    "answer": "1" * 16,
    "confidence": [0.5] * 16,
    "halt_probability": 0.25,
    "valid": False,
    "halted": False,
    "last": False,
    "best": None,
}
LAST = {"halted": True, "last": True, "best": 1}


def test_a_puzzle_is_typed_by_keyboard_and_thought_about(open_page):
    page = open_page()
    clear(page)
    cell(page, 1, 1).focus()
    for key in ("1", "ArrowRight", "2", "ArrowDown", "3", "4", "ArrowUp", "End", "5", "4"):
        page.keyboard.press(key)
    assert shown(page) == "12.4" + ".4.." + "." * 8
    for key in ("ArrowDown", "ArrowLeft", "ArrowLeft", "Backspace", "Home", "ArrowDown", "3", "0"):
        page.keyboard.press(key)
    assert shown(page) == "12.4" + "." * 12
    expect(cell(page, 3, 1)).to_be_focused()

    page.get_by_role("button", name="Think").focus()
    page.keyboard.press("Enter")
    expect(message(page)).to_have_text("Ended after 4 steps: not a valid solution.")
    answer = shown(page)
    assert answer.count(".") < 13 and page.locator("#solve-grid td.answered").count() >= 12
    cell(page, 2, 2).focus()
    page.keyboard.press("3" if answer[5] != "3" else "1")
    expect(message(page)).to_contain_text("The puzzle has changed")
    assert shown(page).count(".") == 12
    page.keyboard.press("Enter")
    expect(message(page)).to_contain_text("Ended after 4 steps")


def test_the_slider_goes_through_the_steps_by_keyboard(open_page):
    page = open_page()
    clear(page)
    think(page)
    slider = page.get_by_role("slider", name="ACT step")
    expect(slider).to_have_attribute("aria-valuetext", re.compile(r"^step 4 of 4, halt probab"))
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator("#player-status")).to_have_text("puzzle, before the first of 4 steps")
    assert shown(page) == "." * 16
    page.keyboard.press("ArrowRight")
    expect(page.locator("#player-status")).to_have_text(
        "step 1 of 4, halt probability 0.7%, not valid"
    )
    assert "." not in shown(page)
    expect(page.locator("#player-table tr")).to_have_count(4)

    page.keyboard.press("Home")
    page.get_by_role("button", name="Play").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    expect(page.locator("#player-status")).to_contain_text("step 4 of 4")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    box = page.locator("#player-chart svg").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2 - 30, box["y"] + 60)
    expect(page.locator("#player-status")).to_contain_text("step 2 of 4")


def test_thinking_goes_on_past_halting(open_page):
    page = open_page()
    choose(page, "tests/eager")
    think(page)
    expect(message(page)).to_contain_text("Halted after 1 step:")
    page.get_by_role("button", name="Continue for 8 more steps").click()
    expect(message(page)).to_contain_text("Ended after 9 steps:")
    expect(page.locator("#player-status")).to_contain_text("step 1 of 9")
    expect(page.locator("#player-chart")).to_contain_text("halted here")
    page.get_by_role("button", name="Continue for 8 more steps").click()
    expect(message(page)).to_contain_text("Ended after 17 steps:")


def test_all_steps_or_some_of_them_can_be_asked_for(open_page):
    page = open_page()
    choose(page, "tests/eager")
    page.get_by_label("Halting").select_option("max_steps")
    page.get_by_label("At most steps").fill("3")
    think(page)
    expect(message(page)).to_contain_text("Ended after 3 steps:")
    page.get_by_label("At most steps").fill("300")
    page.get_by_role("button", name="Think").click()
    expect(message(page)).to_have_text("At most steps: give a whole number from 1 to 256.")
    expect(page.get_by_label("At most steps")).to_be_focused()


def test_a_contradiction_is_marked_at_once_and_refused(open_page, problems):
    page = open_page()
    clear(page)
    for row, column in ((1, 1), (1, 4)):
        cell(page, row, column).focus()
        page.keyboard.press("2")
    expect(message(page)).to_contain_text("contradict one another: 2")
    expect(page.locator("#solve-grid [aria-invalid=true]")).to_have_count(2)
    page.get_by_role("button", name="Think").click()
    expect(message(page)).to_contain_text("2 is given 2 times in row 1")
    expect(cell(page, 1, 4)).to_be_focused()
    forgive(problems, "422")
    page.keyboard.press("Delete")
    expect(page.locator("#solve-grid [aria-invalid=true]")).to_have_count(0)


def test_the_cell_that_the_server_refuses_is_marked(open_page, problems):
    page = open_page()
    refusal = {"error": "cell 6: not today", "column": 6}
    page.route("**/api/think", lambda route: route.fulfill(status=422, json=refusal))
    page.get_by_role("button", name="Think").click()
    expect(message(page)).to_have_text("cell 6: not today")
    expect(cell(page, 2, 3)).to_be_focused()
    expect(cell(page, 2, 3)).to_have_attribute("aria-invalid", "true")
    forgive(problems, "422")


def test_a_whole_puzzle_is_pasted(open_page):
    page = open_page()
    clear(page)
    cell(page, 2, 2).focus()
    paste(page, "1234" * 3 + "123")
    expect(message(page)).to_contain_text("15 characters, expected 16 (4x4)")
    assert shown(page) == "." * 16
    paste(page, "1200" + "x" * 12)
    expect(message(page)).to_contain_text("character 'x' is not one of '.1234'")
    paste(page, "12 | ..\n00 | 34\n---+---\n34 | __\n.. | ..\n")
    expect(message(page)).to_have_text("Ready: press Think.")
    assert shown(page) == "12....3434......"


def test_the_text_field_fills_the_grid(open_page):
    page = open_page()
    page.get_by_text("Puzzle as text").click()
    field = page.get_by_label(re.compile("One character per cell"))
    before = shown(page)
    field.fill("12")
    expect(page.locator("#solve-text-error")).to_contain_text("2 characters, expected 16 (4x4).")
    expect(field).to_have_attribute("aria-invalid", "true")
    assert shown(page) == before
    field.fill("1" + "0" * 15)
    expect(page.locator("#solve-text-error")).to_be_empty()
    assert shown(page) == "1" + "." * 15


def test_an_example_of_the_data_set_shows_which_cells_are_wrong(open_page):
    page = open_page()
    with page.expect_response("**/api/example*") as response:
        page.get_by_role("button", name="Example from the data set").click()
    example = response.value.json()
    expect(page.locator("#solve-origin")).to_contain_text(f"example {example['index']} of")
    assert shown(page) == example["puzzle"]
    think(page)
    wrong = sum(a != b for a, b in zip(shown(page), example["answer"], strict=True))
    assert wrong > 0
    expect(message(page)).to_contain_text(f"{wrong} of 16 cells wrong")
    expect(page.locator("#solve-grid td.wrong")).to_have_count(wrong)
    expect(page.get_by_role("textbox", name=re.compile("% sure.*wrong"))).not_to_have_count(0)


def test_a_right_answer_is_told(open_page):
    page = open_page()
    with page.expect_response("**/api/example*") as response:
        page.get_by_role("button", name="Example from the data set").click()
    answer = response.value.json()["answer"]
    right = {**SPLIT_STEP, "answer": answer, "valid": True, **LAST}
    page.route("**/api/think", lambda route: route.fulfill(body=json.dumps(right) + "\n"))
    expect(page.locator("#solve-origin")).to_contain_text(f"{response.value.json()['index']} of")
    think(page)
    expect(message(page)).to_contain_text("Halted after 1 step: solved exactly.")
    expect(message(page)).to_have_attribute("data-kind", "success")
    page.locator("#player-step").focus()
    page.keyboard.press("Home")
    cell(page, 1, 1).fill("." if shown(page)[0] != "." else answer[0])
    expect(page.locator("#solve-origin")).to_be_empty()
    think(page)
    expect(message(page)).to_have_attribute("data-kind", "success")
    expect(message(page)).to_contain_text("a valid solution")


def test_a_busy_server_is_told_and_can_be_tried_again(open_page, problems):
    page = open_page()
    busy = {"error": "The server is busy."}
    page.route(
        "**/api/think",
        lambda route: route.fulfill(status=429, headers={"Retry-After": "4"}, json=busy),
        times=1,
    )
    page.get_by_role("button", name="Think").click()
    expect(message(page)).to_have_text("The server is busy. Try again in 4 seconds.")
    expect(page.get_by_role("button", name="Think")).to_have_attribute("aria-disabled", "true")
    expect(message(page)).to_have_text("You can try again now.")
    forgive(problems, "429")
    think(page)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (json.dumps(SPLIT_STEP) + "\n", "The connection broke off after step 1."),
        (json.dumps(SPLIT_STEP)[:-20], "The connection broke off after step 0."),
        ("nonsense\n", "not JSON"),
        (json.dumps(SPLIT_STEP) + '\n{"error": "It took too long."}\n', "It took too long."),
        ("", "The connection broke off after step 0."),
    ],
)
def test_a_stream_that_ends_early_is_told(open_page, body, told):
    page = open_page()
    page.route("**/api/think", lambda route: route.fulfill(body=body))
    page.get_by_role("button", name="Think").click()
    expect(message(page)).to_contain_text(told)
    expect(page.get_by_role("button", name="Stop")).to_have_attribute("aria-disabled", "true")


def test_many_steps_at_once_are_drawn_once(open_page):
    """Else the page would hear of no click while steps come faster than it draws."""
    page = open_page()
    steps = [
        {**SPLIT_STEP, "attempt": attempt, "step": step, "halted": step == 256}
        for attempt in range(1, 5)
        for step in range(1, 257)
    ]
    steps[-1] |= {"last": True, "best": 4}
    body = "".join(json.dumps(step) + "\n" for step in steps)
    page.route("**/api/think", lambda route: route.fulfill(body=body))
    page.evaluate(
        """() => {
          window.draws = 0;
          const shown = document.getElementById("player-status");
          new MutationObserver(() => window.draws++).observe(
            shown, { childList: true, characterData: true, subtree: true });
        }"""
    )
    page.get_by_label("At most steps").fill("256")
    page.get_by_label("Votes").fill("4")
    page.get_by_role("button", name="Think").click()
    expect(page.locator("#player-status")).to_contain_text("step 256")
    expect(message(page)).to_contain_text("after 256 steps in attempt 4 of 4")
    assert 0 < page.evaluate("window.draws") < len(steps) / 10


def test_a_server_that_is_gone_is_told(open_page, problems):
    page = open_page()
    page.route("**/api/**", lambda route: route.abort())
    page.get_by_role("button", name="Think").click()
    expect(message(page)).to_contain_text("The server cannot be reached.")
    page.get_by_role("tab", name="Data").click()
    expect(page.locator("#data-message")).to_contain_text("The server cannot be reached.")
    page.get_by_role("tab", name="Training").click()
    expect(page.locator("#training-message")).to_contain_text("The server cannot be reached.")
    page.get_by_role("tab", name="Solve").click()
    page.reload()
    expect(message(page)).to_contain_text("The server cannot be reached.")
    page.unroute("**/api/**")
    page.get_by_role("button", name="Think").click()
    expect(message(page)).to_have_text("Ready: press Think.")
    forgive(problems, "net::ERR_FAILED")


HANGING_STREAM = """{
  const original = window.fetch;
  window.fetch = (path, options) => {
    if (path !== "/api/think") return original(path, options);
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(STEP + "\\n"));
        options.signal.addEventListener("abort", () => controller.error(options.signal.reason));
      },
    });
    return Promise.resolve(new Response(body));
  };
}""".replace("STEP", repr(json.dumps(SPLIT_STEP)))


def test_stop_keeps_the_steps_so_far(open_page):
    page = open_page(init_script=HANGING_STREAM)
    page.get_by_role("button", name="Think").click()
    expect(page.locator("#player-status")).to_contain_text("step 1 of 1")
    expect(message(page)).to_have_text("Thinking …")
    page.get_by_role("button", name="Stop").click()
    expect(message(page)).to_have_text("Stopped after 1 step.")
    expect(page.get_by_role("button", name="Continue for 8")).not_to_have_attribute(
        "aria-disabled", "true"
    )
    expect(page.get_by_role("button", name="Think")).to_be_focused()
    assert shown(page) == "1" * 16


MAZE = ["#" * 6, "#S   #", "# ## #", "#   G#", "#" * 6]


def test_a_maze_is_shown_as_a_picture(open_page):
    page = open_page("training")
    data = {"vocab_size": 6, "seq_len": 30, "grid_shape": (5, 6), "task": "maze"}
    own = {"id": "m", "max_steps": 2, "guess_steps": 0, "data_path_id": None, "step": 1}
    model = CheckpointInfo.of(task_of(metadata(**data)), **own).model_dump(mode="json")
    page.route(
        "**/api/checkpoints", lambda r: r.fulfill(json={"checkpoints": [model], "default": "m"})
    )
    page.route("**/api/datasets", lambda r: r.fulfill(json={"datasets": []}))
    page.reload()
    page.get_by_role("tab", name="Solve").click()
    expect(page.get_by_role("button", name="Example from")).to_have_attribute(
        "aria-disabled", "true"
    )
    page.get_by_role("button", name="Clear").click()
    expect(message(page)).to_have_text(re.compile("^Paste a puzzle, or take an example"))
    page.locator(".picture").focus()
    answer_reading(page, {"m": task_of(metadata(**data))})
    paste(page, "\n".join(MAZE))
    expect(message(page)).to_have_text("Ready: press Think.")
    tiles = page.locator("#solve-grid .tile")
    assert tiles.evaluate_all("a => a.filter(e => e.dataset.kind === 'wall').length") == 20
    path = "".join(MAZE).replace("S   #", "Sooo#").replace("## #", "##o#")
    last = {**SPLIT_STEP, "answer": path, "confidence": [0.9] * 30, "valid": False, **LAST}
    page.route("**/api/think", lambda route: route.fulfill(body=json.dumps(last) + "\n"))
    think(page)
    expect(page.get_by_role("img", name="Puzzle, 5 by 6, 4 cells filled in")).to_be_visible()
