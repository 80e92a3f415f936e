"""Calls that misuse a tool, ten or more for each, and what the answer has to say."""

from typing import Any

PREPARE = """
mkdir -p misuse/folder && cd misuse && mkfifo pipe && printf 'a\\0b' > binary && ln -sf /etc/passwd outside
printf 'one\\ntwo\\ntwo\\n' > text && printf 'caf\\351\\n' > latin && printf '\\211PNG\\r\\n\\032\\n' > torn.png
"""
"""Makes the files that the calls name."""

Misuse = tuple[dict[str, Any], str]
"""An input, and a text that the answer has."""

_TEXT = "misuse/text"
_ASKS: dict[str, Any] = {"question": "Which?", "options": ["a", "b"], "default": "a"}
_EDIT: dict[str, Any] = {"file_path": _TEXT, "old_string": "one", "new_string": "1", "replace_all": None}

MISUSES: dict[str, list[Misuse]] = {
    "bash": [
        ({}, "Call it again with command (string)"),
        ({"command": ""}, "Call it again with command (string)"),
        ({"cmd": "ls"}, "Call it again with command (string)"),
        ({"command": ["ls"]}, "Call it again with command (string)"),
        ({"command": "ls", "timeout_ms": 120}, "120 seconds are 120000"),
        ({"command": "ls", "timeout_ms": "2m"}, "timeout_ms (integer or null)"),
        ({"command": "ls", "cwd": "/"}, "cwd: Extra inputs are not permitted"),
        ({"command": "printf 'a\0b'"}, "Leave it out"),
        ({"command": "echo \ud800"}, "Write the character itself"),
        ({"command": ": " + "x" * 200_000}, "write_file"),
        ({"command": "sleep 60", "timeout_ms": 1000}, "Give a longer timeout_ms"),
        ({"command": "kill $PPID; sleep 0.2; false"}, "use its process id"),
        ({"command": "kill -9 $PPID; sleep 60"}, "use its process id"),
    ],
    "read_file": [
        ({}, "Call it again with file_path (string)"),
        ({"file_path": ""}, "Call it again with file_path (string)"),
        ({"file_path": 7}, "Call it again with file_path (string)"),
        ({"file_path": "text"}, "There is misuse/text."),
        ({"file_path": "misuse/folder"}, "glob with misuse/folder/*"),
        ({"file_path": "../../../etc/passwd"}, "bash reaches other folders"),
        ({"file_path": "misuse/outside"}, "bash reaches other folders"),
        ({"file_path": "misuse/pipe"}, "Use bash for it"),
        ({"file_path": "misuse/binary"}, "Look at it with bash"),
        ({"file_path": "misuse/torn.png"}, "Check it with `file`"),
        ({"file_path": _TEXT, "view_range": [1]}, "view_range (array or null)"),
        ({"file_path": _TEXT, "view_range": [3, 1]}, "such as [1, 3]"),
        ({"file_path": _TEXT, "view_range": [50, 60]}, "such as [1, 3]"),
        ({"file_path": "a\0b"}, "Leave it out"),
    ],
    "write_file": [
        ({"file_path": "misuse/new"}, "Call it again with file_path (string), content (string)"),
        ({"content": "x"}, "Call it again with file_path (string), content (string)"),
        ({"file_path": "misuse/new", "content": {"a": 1}}, "content (string)"),
        ({"file_path": "misuse/new", "content": "x", "mode": "a"}, "mode: Extra inputs are not permitted"),
        ({"file_path": "../../new", "content": "x"}, "bash reaches other folders"),
        ({"file_path": ".git/config", "content": "x"}, "Use git commands"),
        ({"file_path": "misuse/folder", "content": "x"}, "Give a file's path"),
        ({"file_path": "misuse/text/below", "content": "x"}, "Choose another path"),
        ({"file_path": "misuse/" + "n" * 300, "content": "x"}, "Choose another path"),
        ({"file_path": "misuse/new", "content": "\ud800"}, "Write the character itself"),
        ({"file_path": "misuse/pipe", "content": "x"}, "Use bash for it"),
    ],
    "edit_file": [
        ({}, "Call it again with file_path (string), old_string (string)"),
        ({**_EDIT, "old_string": ""}, "Call it again with file_path (string), old_string (string)"),
        ({**_EDIT, "file_path": "misuse/nothing"}, "List what there is with glob"),
        ({**_EDIT, "old_string": "three"}, "Read the file and copy the text exactly"),
        ({**_EDIT, "old_string": "two"}, "(lines 2, 3). Give more of the text"),
        ({**_EDIT, "new_string": "one"}, "Give the text as it should become"),
        ({**_EDIT, "old_string": "     1\tone"}, "leave out the numbers"),
        ({**_EDIT, "old_string": "one  two"}, "copy its indentation exactly"),
        ({**_EDIT, "old_string": "ONE"}, "other capital letters"),
        ({**_EDIT, "file_path": "misuse/binary"}, "Look at it with bash"),
        ({**_EDIT, "file_path": ".git/HEAD"}, "Use git commands"),
        ({**_EDIT, "file_path": "misuse/latin", "old_string": "caf", "new_string": "\u20ac"}, "Convert it first"),
    ],
    "glob": [
        ({}, "Call it again with pattern (string)"),
        ({"pattern": ""}, "Call it again with pattern (string)"),
        ({"pattern": 5}, "Call it again with pattern (string)"),
        ({"pattern": "*", "recursive": True}, "recursive: Extra inputs are not permitted"),
        ({"pattern": "../*"}, "such as src/**/*.ts"),
        ({"pattern": "/etc/*"}, "such as src/**/*.ts"),
        ({"pattern": "*", "path": "nothing"}, "Give a folder of the workspace"),
        ({"pattern": "*", "path": _TEXT}, "Give a folder of the workspace"),
        ({"pattern": "*", "path": "../.."}, "bash reaches other folders"),
        ({"pattern": "*.rs"}, "it would be **/*.rs"),
        ({"pattern": "[z-a]"}, "Use *, ?, [abc]"),
    ],
    "grep": [
        ({}, "Call it again with pattern (string)"),
        ({"pattern": ""}, "Call it again with pattern (string)"),
        ({"pattern": None}, "Call it again with pattern (string)"),
        ({"pattern": "one", "flags": "i"}, "flags: Extra inputs are not permitted"),
        ({"pattern": "print("}, "put a backslash before each"),
        ({"pattern": "*"}, "put a backslash before each"),
        ({"pattern": "one", "path": "nothing"}, "Give a folder of the workspace"),
        ({"pattern": "one", "path": "../.."}, "bash reaches other folders"),
        ({"pattern": "one", "glob": "../*"}, "such as src/**/*.ts"),
        ({"pattern": "one", "glob": "*.rs"}, "Look with glob what there is"),
    ],
    "take_screenshot": [
        ({}, "Call it again with path (string)"),
        ({"path": ""}, "Call it again with path (string)"),
        ({"path": "about"}, "Call it again with path (string)"),
        ({"path": "http://127.0.0.1:8000/"}, "Call it again with path (string)"),
        ({"path": 1}, "Call it again with path (string)"),
        ({"path": None}, "Call it again with path (string)"),
        ({"path": ["/"]}, "Call it again with path (string)"),
        ({"path": "/" + "x" * 3000}, "Call it again with path (string)"),
        ({"path": "/", "size": "390x844"}, "size: Extra inputs are not permitted"),
        ({"path": "/"}, "Start the product in the background"),
    ],
    "look": [
        ({}, "Call it again with path (string), viewport (desktop or mobile), steps (array"),
        ({"path": "about"}, "Call it again with path (string)"),
        ({"path": "http://127.0.0.1:8000/"}, "Call it again with path (string)"),
        ({"path": "/", "viewport": "tablet"}, "'desktop' or 'mobile'"),
        ({"path": "/", "full_page": "yes"}, "full_page (boolean)"),
        ({"path": "/", "steps": "click Join"}, "steps (array"),
        ({"path": "/", "steps": [{"action": "scroll"}]}, "'click', 'fill', 'press' or 'wait'"),
        ({"path": "/", "steps": [{"action": "click"}]}, "needs the element, such as text=Join"),
        ({"path": "/", "steps": [{"action": "press"}]}, "needs the name of a key, such as Enter"),
        ({"path": "/", "cookies": {}}, "cookies: Extra inputs are not permitted"),
        ({"path": "/"}, "Start the product in the background"),
    ],
    "ask_founder": [
        ({}, "Call it again with question (string), options (array"),
        ({**_ASKS, "question": ""}, "Call it again with question (string)"),
        ({**_ASKS, "question": "x" * 2000}, "Call it again with question (string)"),
        ({**_ASKS, "options": ["a"]}, "Call it again with question (string)"),
        ({**_ASKS, "options": list("abcdefg")}, "Call it again with question (string)"),
        ({**_ASKS, "options": "a or b"}, "options (array"),
        ({**_ASKS, "options": ["a", "a"]}, "give each option once"),
        ({**_ASKS, "options": ["a", ""]}, "Call it again with question (string)"),
        ({**_ASKS, "default": "c"}, "must be one of the options, word for word"),
        ({"question": "Which?", "options": ["a", "b"]}, "default (string)"),
        ({**_ASKS, "wait": True}, "wait: Extra inputs are not permitted"),
    ],
}
"""By tool."""
