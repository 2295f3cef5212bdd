"""Writes golden.json: what Jinja in Python makes of the templates beside it.

    pip install jinja2==3.1.6 && python golden.py

The environment is the one transformers renders chat templates in.
"""

import datetime
import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.sandbox

HERE = pathlib.Path(__file__).parent
NOW = datetime.datetime(2024, 7, 26, 13, 4, 5)

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a <place> & \"time\"",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}},
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "f", "parameters": {}}},
]
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2.0}}}
U = {"role": "user", "content": "  Hello, who are\nyou? "}
A = {"role": "assistant", "content": "A model.\n"}
S = {"role": "system", "content": "Be brief. "}
THOUGHT = {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nYes."}
CONVERSATIONS = {
    "one": dict(messages=[U]),
    "system": dict(messages=[S, U]),
    "turns": dict(messages=[U, A, U], add_generation_prompt=False),
    "system_turns": dict(messages=[S, U, A, U]),
    "thought": dict(messages=[U, THOUGHT, U, THOUGHT], enable_thinking=False),
    "tools": dict(
        messages=[
            U,
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "21.5", "tool_call_id": "c1"},
            {"role": "tool", "content": "<tool_response>", "tool_call_id": "c2"},
        ],
        tools=TOOLS,
    ),
    "wrong": dict(messages=[A, U]),
}


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def main():
    golden = []
    for path in sorted(HERE.glob("*.jinja")):
        template = environment().from_string(path.read_text())
        for name, conversation in CONVERSATIONS.items():
            given = dict(add_generation_prompt=True, tools=None, documents=None) | conversation
            try:
                result = {"text": template.render(bos_token="<s>", eos_token="</s>", **given)}
            except jinja2.exceptions.TemplateError as error:
                result = {"raised": str(error)}
            golden.append({"template": path.stem, "conversation": name, **conversation, **result})
    (HERE / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")


main()
