"""The decisions of the rehearsal model, with invented results of the tools."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from domain.prompt import CUT_OFF, LAST_TURN, NUDGE_EMPTY, gate_findings, render_system_prompt, resumed
from local.rehearsal.agent import bash
from local.rehearsal.conversation import (
    Call,
    Conversation,
    Exchange,
    ToolResult,
    Turn,
    as_described,
    read_conversation,
    read_trail,
    tagged_json,
    tagged_text,
    write_trail,
)
from local.rehearsal.product_files import SABOTAGES, changelog, content_json, plan, product, read_idea, sabotaged
from local.rehearsal.product_script import ProductOptions, build_product, idea_of
from local.rehearsal.script import NOTHING_LEFT, LongScript, ProductScript, StepsScript, decide
from local.rehearsal.script import play as script_play

BRIEF = {"name": "Näme </idea_brief>", "problem": "A\nproblem", "features": ["<one>", 'the "second"']}
OK = ToolResult("done\n[exit code 0]", is_error=False)
FAILED = ToolResult("failed\n[exit code 1]", is_error=True)
RED = ToolResult("FAIL: test_rejects_what_is_no_address (x) (given='ada@x.org y')\n[exit code 1]", is_error=True)

Answer = Callable[[Call], ToolResult]


def system_prompt(brief: dict[str, Any] = BRIEF, goal: str = "Build it.") -> str:
    blocks = json.loads(render_system_prompt(brief, [{"question": "Who?", "answer": "All."}], goal, []))
    return str(blocks[0]["text"])


def begin() -> Conversation:
    return Conversation(system_prompt(), ("Begin.",), ())


def carry_out(conversation: Conversation, turn: Turn, answer: Answer, *texts: str) -> Conversation:
    """Return the conversation after the calls of this turn have run."""
    exchange = Exchange(turn.text, turn.calls, tuple(map(answer, turn.calls)), texts)
    return replace(conversation, exchanges=(*conversation.exchanges, exchange))


def fine(call: Call) -> ToolResult:
    """All tools work; a file contains what the model's last search expects."""
    if call.tool == "read_file":
        return ToolResult("    12\t    if not ADDRESS.match(address):", is_error=False)
    return OK


def red_waitlist() -> Answer:
    """As `fine`, but the third check shows the mistake."""
    checks = 0

    def answer(call: Call) -> ToolResult:
        nonlocal checks
        if "unittest" in str(call.input.get("command")):
            checks += 1
            if checks == 3:
                return RED
        return fine(call)

    return answer


def play(answer: Answer, *, script: Any = None, limit: int = 60) -> list[Turn]:
    """Play turns until the model ends its turn."""
    script = script or ProductScript()
    conversation, turns = begin(), list[Turn]()
    for _ in range(limit):
        turn = decide(script, conversation)
        turns.append(turn)
        if not turn.calls:
            return turns
        conversation = carry_out(conversation, turn, answer)
    raise AssertionError("the model does not end its turn")


def play_until(wanted: Callable[[Turn], bool], answer: Answer) -> tuple[Conversation, Turn]:
    conversation = begin()
    while not wanted(turn := decide(ProductScript(), conversation)):
        conversation = carry_out(conversation, turn, answer)
    return conversation, turn


def tools_of(turn: Turn) -> set[str]:
    return {call.tool for call in turn.calls}


def test_a_normal_build_uses_these_tools_and_ends() -> None:
    turns = play(red_waitlist())
    assert 18 <= len(turns) <= 25
    tools = {"bash", "read_file", "write_file", "edit_file", "glob", "grep", "take_screenshot"}
    assert tools <= set[str]().union(*map(tools_of, turns))
    assert all(turn.text for turn in turns)
    assert sum(bool(turn.thinking) for turn in turns) == 3
    assert "Näme" in turns[-1].text


def test_the_same_request_gets_the_same_answer() -> None:
    conversation, turn = play_until(lambda turn: "edit_file" in tools_of(turn), fine)
    assert decide(ProductScript(), conversation) == turn


def test_no_call_is_made_three_times_within_ten() -> None:
    calls = [json.dumps([call.tool, call.input]) for turn in play(red_waitlist()) for call in turn.calls]
    for start in range(len(calls)):
        window = calls[start : start + 10]
        assert all(window.count(call) < 3 for call in window)


def test_a_failed_edit_changes_what_comes_next() -> None:
    conversation, edit = play_until(lambda turn: tools_of(turn) == {"edit_file"}, fine)
    normal = decide(ProductScript(), carry_out(conversation, edit, fine))
    conversation = carry_out(conversation, edit, lambda call: FAILED)
    after = decide(ProductScript(), conversation)
    assert after != normal
    assert tools_of(after) == {"read_file"}
    assert tools_of(decide(ProductScript(), carry_out(conversation, after, fine))) == {"write_file"}


def test_a_failed_write_goes_through_the_shell() -> None:
    conversation, write = play_until(lambda turn: tools_of(turn) == {"write_file"}, fine)
    after = decide(ProductScript(), carry_out(conversation, write, lambda call: FAILED))
    assert tools_of(after) == {"bash"}
    assert len(after.calls) == len(write.calls)
    assert "cat > .gitignore" in after.calls[0].input["command"]


def test_tools_that_never_work_lead_to_an_honest_end() -> None:
    turns = play(lambda call: FAILED)
    assert "without being done" in turns[-1].text
    assert len(turns) < 10


def test_a_check_that_stays_red_leads_to_an_honest_end() -> None:
    turns = play(lambda call: RED if "unittest" in str(call.input.get("command")) else fine(call))
    assert "stays red" in turns[-1].text


def test_without_a_failing_check_nothing_is_fixed() -> None:
    assert not any("fullmatch" in turn.text for turn in play(fine))


def test_withheld_fix_is_claimed_and_never_made() -> None:
    turns = play(red_waitlist(), script=ProductScript(withhold_fix=True))
    assert "runs" in turns[-1].text
    assert not any("grep" in tools_of(turn) for turn in turns[1:])


def test_a_screenshot_that_fails_leads_to_the_servers_log() -> None:
    def answer(call: Call) -> ToolResult:
        return FAILED if call.tool == "take_screenshot" else fine(call)

    conversation, turn = play_until(lambda turn: tools_of(turn) == {"take_screenshot"}, answer)
    after = decide(ProductScript(), carry_out(conversation, turn, answer))
    assert "server.log" in after.calls[0].input["command"]


@pytest.mark.parametrize("text", [NUDGE_EMPTY, CUT_OFF])
def test_a_turn_that_did_not_happen_is_offered_again(text: str) -> None:
    conversation, turn = play_until(lambda turn: len(turn.calls) > 1 and "write_file" in tools_of(turn), fine)
    lost = Exchange("…", (), (), (text,))
    again = decide(ProductScript(), replace(conversation, exchanges=(*conversation.exchanges, lost)))
    # After a torn message in smaller steps.
    assert again.calls == (turn.calls[:1] if text == CUT_OFF else turn.calls)


def test_calls_that_build_on_a_lost_one_are_repeated_with_it() -> None:
    """An edit of a file fails if the file was lost."""
    names = ("glob", "write_file", "edit_file", "bash")
    script = StepsScript(kind="steps", turns=[[{"tool": name} for name in names]], repeats_lost=True)
    first = decide(script, begin())
    lost = ToolResult("The outcome of this call is unknown: …", is_error=True)

    def answer(call: Call) -> ToolResult:
        return {"write_file": lost, "edit_file": FAILED}.get(call.tool, OK)

    conversation = carry_out(begin(), first, answer)
    again = decide(script, conversation)
    assert again.calls == first.calls[1:]
    assert decide(script, carry_out(conversation, again, lambda _: OK)).text == NOTHING_LEFT


def test_endless_torn_messages_end_the_turn() -> None:
    conversation, _ = play_until(lambda turn: "write_file" in tools_of(turn), fine)
    lost = Exchange("…", (), (), (CUT_OFF,))
    turn = decide(ProductScript(), replace(conversation, exchanges=(*conversation.exchanges, *[lost] * 4)))
    assert not turn.calls
    assert "cut off" in turn.text


def test_the_last_turn_commits_and_the_work_goes_on_later() -> None:
    conversation, turn = play_until(lambda turn: "write_file" in tools_of(turn), fine)
    normal = decide(ProductScript(), carry_out(conversation, turn, fine))
    conversation = carry_out(conversation, turn, fine, LAST_TURN)
    commit = decide(ProductScript(), conversation)
    assert "commit" in commit.calls[0].input["command"]
    assert (
        decide(ProductScript(), carry_out(conversation, commit, fine, "You may go on: 50 more.")).calls == normal.calls
    )


def test_after_a_sleep_it_compares_its_files_and_starts_its_server_again() -> None:
    conversation, turn = play_until(lambda turn: "take_screenshot" in tools_of(turn), fine)
    conversation = carry_out(conversation, turn, fine, resumed("a new day", ["restored from snapshot 3"]))
    look = decide(ProductScript(), conversation)
    assert "sha256sum" in look.calls[0].input["command"]
    conversation = carry_out(conversation, look, fine)
    rewrite = decide(ProductScript(), conversation)
    assert tools_of(rewrite) == {"write_file"}
    assert "nohup" in decide(ProductScript(), carry_out(conversation, rewrite, fine)).calls[0].input["command"]


def test_it_takes_up_what_the_founder_says() -> None:
    conversation, turn = play_until(lambda turn: "write_file" in tools_of(turn), fine)
    after = decide(ProductScript(), carry_out(conversation, turn, fine, "Make it green, please."))
    assert "Make it green, please." in after.text
    assert after.calls


@pytest.mark.parametrize("fixes", [True, False])
def test_findings_of_the_gate_are_fixed_unless_told_otherwise(fixes: bool) -> None:
    script, conversation = ProductScript(sabotage="check_true", fix_findings=fixes), begin()
    while (turn := decide(script, conversation)).calls:
        conversation = carry_out(conversation, turn, fine)
    conversation = carry_out(conversation, turn, fine, gate_findings(["No test was run."]))
    turns = [decide(script, conversation)]
    while turns[-1].calls:
        conversation = carry_out(conversation, turns[-1], fine)
        turns.append(decide(script, conversation))
    written = {call.input["file_path"] for turn in turns for call in turn.calls if call.tool == "write_file"}
    assert ("cofounder.json" in written) is fixes
    assert len(turns) == (6 if fixes else 1)


def test_a_second_build_continues_the_product() -> None:
    files = "cofounder.json\nserver.py\npage.py\nwaitlist.py\nCHANGELOG.md\ncontent.json"
    earlier = content_json(read_idea(BRIEF, [], "")).replace("Näme", "Old")
    numbered = "\n".join(f"{number:6}\t{line}" for number, line in enumerate(earlier.splitlines(), start=1))

    def answer(call: Call) -> ToolResult:
        if call.tool == "glob":
            return ToolResult(files, is_error=False)
        if call.tool == "read_file" and call.input["file_path"] == "content.json":
            return ToolResult(numbered, is_error=False)
        return ToolResult("     1\t# Changelog\n     2\t\n     3\t- Earlier.", is_error=False)

    turns = play(answer)
    written = {
        call.input["file_path"]: call.input["content"] for t in turns for call in t.calls if call.tool == "write_file"
    }
    content = json.loads(written["content.json"])
    assert content["name"] == BRIEF["name"]
    assert content["news"] == ["Build it."]
    assert written["CHANGELOG.md"] == "# Changelog\n\n- Build it.\n- Earlier.\n"
    assert "server.py" not in written


class TestPlan:
    """The plan file of the product script."""

    def plans(self, **options: Any) -> list[str]:
        turns = play(red_waitlist(), script=ProductScript(**options))
        calls = [call for turn in turns for call in turn.calls]
        return [call.input["content"] for call in calls if call.input.get("file_path") == "PLAN.md"]

    def test_is_written_first_and_ticked_as_the_work_goes_on(self) -> None:
        plans = self.plans()
        items = [re.findall(r"^- \[([ x])\] ", plan, re.M) for plan in plans]
        assert [marks.count("x") for marks in items] == [1, 3, 4, 5]
        assert {len(marks) for marks in items} == {5}
        assert "<one>" in plans[0]

    def test_may_stay_open_or_be_forgotten(self) -> None:
        assert {plan.count("- [x]") for plan in self.plans(plan="unticked")} == {0}
        assert self.plans(plan="forgotten") == []

    def test_a_second_build_adds_its_goal(self) -> None:
        assert "- [x] Let them share." in plan(replace(read_idea(BRIEF, [], ""), news=("Let them\nshare.",)), 4)


def test_a_part_of_the_work_is_reported_too_early_and_the_rest_follows_when_told() -> None:
    script, conversation, reports = ProductScript(reports=2), begin(), list[str]()
    for _ in range(60):
        turn = decide(script, conversation)
        conversation = carry_out(conversation, turn, fine, *([] if turn.calls else ["PLAN.md has open items. Go on."]))
        if not turn.calls:
            reports.append(turn.text)
        if "runs." in turn.text:
            break
    assert len(reports) == 3
    assert "More is to come" in reports[0]


@pytest.mark.parametrize("done", [0, 2, 4])
def test_a_build_whose_conversation_is_gone_goes_on_from_the_workspace(done: int) -> None:
    conversation = replace(begin(), opening=("The conversation so far was summed up. Go on.",))
    first = decide(ProductScript(), conversation)

    def answer(call: Call) -> ToolResult:
        if call.tool == "grep" and call.input["glob"] == "CHANGELOG.md":
            return ToolResult(changelog(done) if done else "No matches.", is_error=False)
        return fine(call)

    conversation = carry_out(conversation, first, answer)
    written, commits = set[str](), 0
    while (turn := decide(ProductScript(), conversation)).calls:
        written |= {call.input["file_path"] for call in turn.calls if call.tool == "write_file"}
        commits += sum("git diff --cached" in str(call.input.get("command")) for call in turn.calls)
        conversation = carry_out(conversation, turn, answer)
    assert "runs." in turn.text
    assert commits == 4 - done


class TestTrail:
    """What a compaction block hides."""

    def test_a_product_build_goes_on_where_it_was_at_any_turn(self) -> None:
        conversation, answer = begin(), red_waitlist()
        while (turn := decide(ProductScript(), conversation)).calls:
            trail = write_trail(build_product(conversation, ProductOptions()), conversation.exchanges, None)
            hidden, open_text = read_trail(f"Summary.\n{trail}")
            assert open_text is None
            assert decide(ProductScript(), replace(conversation, exchanges=hidden)) == turn
            again = write_trail(build_product(conversation, ProductOptions()), hidden, None)
            assert read_trail(again) == (hidden, None), "a summary of a summary"
            conversation = carry_out(conversation, turn, answer)
        assert len(trail) < 4000

    def test_alike_turns_cost_next_to_nothing(self) -> None:
        script = LongScript(kind="long", turns=400)
        exchanges = tuple(Exchange("", (bash(f"true # {n}-1"),), (OK,), ()) for n in range(1, 400))
        trail = write_trail(script_play(script, begin()), exchanges, "Done?")
        assert len(trail) < 300
        hidden, open_text = read_trail(trail)
        assert (len(hidden), open_text) == (399, "Done?")
        last = decide(script, replace(begin(), exchanges=hidden))
        assert last.calls[0].input["command"] == "true # 400-1"

    def test_a_text_without_a_trail_hides_nothing(self) -> None:
        assert read_trail("Summary.") == ((), None)


class TestLong:
    def test_has_the_number_of_turns_with_different_calls(self) -> None:
        turns = play(fine, script=LongScript(kind="long", turns=40, calls_per_turn=2, text="Step."))
        assert len(turns) == 41
        assert len({json.dumps(call.input) for turn in turns for call in turn.calls}) == 80
        assert turns[-1].text == NOTHING_LEFT

    def test_repeats_on_request(self) -> None:
        turns = play(fine, script=LongScript(kind="long", turns=5, repeat=True, mutating=False))
        assert {json.dumps(call.input) for turn in turns for call in turn.calls} == {
            '{"pattern": "step-again-*", "path": null}'
        }

    def test_commits(self) -> None:
        turns = play(fine, script=LongScript(kind="long", turns=6, commit_every=3))
        assert [index for index, turn in enumerate(turns, 1) if "commit" in str(turn.calls)] == [3, 6]

    def test_goes_on_after_the_step_that_the_opening_names(self) -> None:
        conversation = replace(begin(), opening=("Summed up.\nab12cd Step 30\nff00aa Step 20",))
        turn = decide(LongScript(kind="long", turns=40, commit_every=10), conversation)
        assert turn.calls[0].input["command"] == "true # 31-1"

    def test_several_kinds_of_calls_at_once(self) -> None:
        turns = play(fine, script=LongScript(kind="long", turns=2, calls_per_turn=6, mixed=True, output_bytes=100))
        assert tools_of(turns[0]) == {"bash", "glob", "grep", "read_file"}
        assert len(turns[0].calls) == 6
        assert "head -c 100" in turns[0].calls[3].input["command"]

    def test_says_as_much_as_told(self) -> None:
        turns = play(fine, script=LongScript(kind="long", turns=2, text_bytes=1000))
        assert 990 < len(turns[0].text) <= 1000

    def test_goes_on_with_the_product(self) -> None:
        turns = play(red_waitlist(), script=LongScript(kind="long", turns=5, end="product"))
        assert "Näme" in turns[-1].text


class TestSteps:
    def test_plays_literal_turns(self) -> None:
        steps: list[list[dict[str, Any]]] = [
            [{"text": "One."}, {"tool": "bash", "input": {"command": "ls"}}],
            [{"tool": "glob", "input": {}}],
        ]
        turns = play(fine, script=StepsScript(kind="steps", turns=steps))
        assert turns[0] == Turn("One.", (Call("bash", {"command": "ls"}),))
        assert turns[1].calls == (Call("glob", {}),)
        assert turns[2].text == NOTHING_LEFT

    def test_a_turn_without_a_tool_ends_and_the_next_answers(self) -> None:
        script = StepsScript(kind="steps", turns=[[{"text": "Done."}], [{"text": "Really."}]], then="product")
        conversation = carry_out(begin(), decide(script, begin()), fine, "Are you?")
        assert decide(script, conversation).text == "Really."
        conversation = carry_out(conversation, Turn("Really."), fine, "Go.")
        assert decide(script, conversation).calls


class TestIdea:
    def test_is_read_from_the_prompt_whatever_it_contains(self) -> None:
        idea = idea_of(begin())
        assert (idea.name, idea.problem, idea.features) == (BRIEF["name"], BRIEF["problem"], tuple(BRIEF["features"]))
        assert idea.goal == "Build it."
        assert idea.interview == (("Who?", "All."),)

    @pytest.mark.parametrize("system", ["", "<idea_brief>\n{broken", "<idea_brief>\n[1]\n</idea_brief>"])
    def test_a_strange_prompt_gives_a_product_without_features(self, system: str) -> None:
        idea = idea_of(Conversation(system, (), ()))
        assert idea.features == ()
        assert product(idea, 4)

    def test_tags(self) -> None:
        assert tagged_json("<a>\n[1]\n</a>", "a") == [1]
        assert tagged_text("<a>\none\ntwo\n</a>", "a") == "one\ntwo"
        assert tagged_text("nothing", "a") == ""


@pytest.mark.parametrize("sabotage", SABOTAGES)
@pytest.mark.parametrize("phase", [1, 2, 3, 4])
def test_every_sabotage_can_be_applied_in_every_phase(sabotage: str, phase: int) -> None:
    files = product(read_idea(BRIEF, [], ""), phase)
    spoiled = sabotaged(files, sabotage)
    assert (spoiled != files) is (sabotage != "uncommitted_file") or phase == 1


def test_a_conversation_is_read_with_results_in_the_order_of_the_calls() -> None:
    conversation = read_conversation(
        {
            "system": [{"type": "text", "text": "S"}],
            "messages": [
                {"role": "user", "content": "Begin."},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "text", "text": "T"},
                        {"type": "tool_use", "id": "a", "name": "bash", "input": {"command": "1"}},
                        {"type": "tool_use", "id": "b", "name": "bash", "input": {"command": "2"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "b", "content": "x [exit code 3]", "is_error": True},
                        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "fine"}]},
                        {"type": "text", "text": "More."},
                    ],
                },
                {"role": "system", "content": [{"type": "text", "text": "A notice."}]},
            ],
        }
    )
    (exchange,) = conversation.exchanges
    assert [result.ok for result in exchange.results] == [True, False]
    assert exchange.results[1].exit_code == 3
    assert exchange.texts == ("More.", "A notice.")


FORMER = {
    "bash": {"command", "timeout_seconds"},
    "read_file": {"path", "start_line", "line_count"},
    "write_file": {"path", "content"},
    "edit_file": {"path", "old_text", "new_text", "replace_all"},
    "glob": {"pattern"},
    "grep": {"pattern", "glob"},
    "take_screenshot": {"path"},
}
"""The fields of the tools as conversations have them that began with an earlier version."""


def test_a_conversation_that_began_with_former_names_goes_on() -> None:
    schemas: dict[str, Any] = {name: {"properties": {key: {} for key in fields}} for name, fields in FORMER.items()}
    tools = [{"name": name, "input_schema": schema} for name, schema in schemas.items()]
    body: dict[str, Any] = {"tools": tools, "system": [{"type": "text", "text": system_prompt()}], "messages": []}
    body["messages"].append({"role": "user", "content": "Begin."})
    script, texts = ProductScript(kind="product"), list[str]()
    for number in range(12):
        turn = decide(script, read_conversation(body))
        texts.append(turn.text)
        uses, results = [], []
        for place, call in enumerate(turn.calls):
            name = f"toolu_{number}_{place}"
            given = as_described(call, body)
            assert set(given) == FORMER[call.tool]
            uses.append({"type": "tool_use", "id": name, "name": call.tool, "input": given})
            results.append({"type": "tool_result", "tool_use_id": name, "content": fine(call).text})
        body["messages"] += [
            {"role": "assistant", "content": [{"type": "text", "text": turn.text}, *uses]},
            {"role": "user", "content": results},
        ]
    assert len(set(texts)) == 12, "each turn is recognised as one that happened"
