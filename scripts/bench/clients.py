#!/usr/bin/env python3
"""Unmodified clients from PyPI against a running server; one line per check.

    clients.py URL [--adapter NAME] [--label NAME] [--only TEXT]

URL is the server's address without /v1. With --adapter, a name of the server's adapter library, the checks of adapters
by name run too; a server without such names fails them. Exit code 1 when a check failed.
"""
import argparse
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import Annotated

ap = argparse.ArgumentParser()
ap.add_argument("url")
ap.add_argument("--adapter")
ap.add_argument("--label", default="server")
ap.add_argument("--only", default="")
args = ap.parse_args()
URL = args.url.rstrip("/")

import anthropic  # noqa: E402
import ollama  # noqa: E402
import openai  # noqa: E402
from pydantic import BaseModel, Field  # noqa: E402

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
oai = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0, timeout=120)
ant = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0, timeout=120)
oll = ollama.Client(host=URL, timeout=120)
MODEL = oai.models.list().data[0].id
ASK = [{"role": "user", "content": "Name a colour of the rainbow."}]
SHORT = dict(model=MODEL, messages=ASK, max_tokens=12, temperature=0)
# Newer releases of the anthropic client have no argument for it.
COLD = {"temperature": 0}


def warm():
    """Has the prompt of ASK in the cache, so that answers to be compared go on from the same place: a prompt that is read
    in other parts gives other last bits of the logits, which tips ties."""
    oai.chat.completions.create(**SHORT)


TOOLS = [
    {"type": "function", "function": {"name": n, "description": d, "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"],
        "additionalProperties": False}}}
    for n, d in [("get_weather", "The weather of a city"), ("get_time", "The time in a city")]
]

CHECKS = []


def check(name):
    def add(f):
        CHECKS.append((name, f))
        return f
    return add


def raw(path, body=None, method=None, headers=None):
    data = None if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
    request = urllib.request.Request(URL + path, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as r:
            text = r.read()
            status = r.status
    except urllib.error.HTTPError as e:
        text, status = e.read(), e.code
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text.decode(errors="replace")


@check("1 openai chat")
def _():
    r = oai.chat.completions.create(**SHORT)
    assert r.id.startswith("chatcmpl-") and r.choices[0].finish_reason in ("stop", "length"), r
    assert r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens and r.system_fingerprint


@check("2 openai chat stream, include_usage")
def _():
    whole = oai.chat.completions.create(**SHORT).choices[0].message.content
    chunks = list(oai.chat.completions.create(**SHORT, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant" and len({c.id for c in chunks}) == 1
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0


@check("3 openai chat.completions.stream()")
def _():
    # The helper takes a cut answer for an error, so the answer must end by itself.
    with oai.chat.completions.stream(**{**SHORT, "max_tokens": 60}, extra_body={"grammar": "root ::= [a-z ]{10,30}"}) as s:
        text = "".join(e.delta for e in s if e.type == "content.delta")
        assert s.get_final_completion().choices[0].message.content == text != ""


@check("4 openai completions, stop")
def _():
    ask = dict(model=MODEL, prompt="1, 2, 3, 4,", max_tokens=30, temperature=0, stop=[" 7"])
    r = oai.completions.create(**ask).choices[0]
    assert " 7" not in r.text and "6" in r.text and r.finish_reason == "stop", r
    assert "".join(c.choices[0].text for c in oai.completions.create(**ask, stream=True) if c.choices) == r.text


@check("5 openai tools: auto, required, named object")
def _():
    oai.chat.completions.create(**SHORT, tools=TOOLS)
    ask = {**SHORT, "max_tokens": 80}
    r = oai.chat.completions.create(**ask, tools=TOOLS, tool_choice="required").choices[0]
    assert len(r.message.tool_calls) == 1 and r.finish_reason == "tool_calls", r
    json.loads(r.message.tool_calls[0].function.arguments)
    named = {"type": "function", "function": {"name": "get_time"}}
    r = oai.chat.completions.create(**ask, tools=TOOLS, tool_choice=named).choices[0]
    assert r.message.tool_calls[0].function.name == "get_time", r


@check("6 openai streamed tool call, then its result")
def _():
    ask = {**SHORT, "max_tokens": 80}
    name, text, call = "", "", ""
    for c in oai.chat.completions.create(**ask, tools=TOOLS, tool_choice="required", stream=True):
        for t in (c.choices[0].delta.tool_calls or []) if c.choices else []:
            name, call = t.function.name or name, t.id or call
            text += t.function.arguments or ""
    assert name and json.loads(text)
    messages = ASK + [
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": call, "type": "function", "function": {"name": name, "arguments": text}}]},
        {"role": "tool", "tool_call_id": call, "content": "sunny, 25 degrees"}]
    r = oai.chat.completions.create(**{**SHORT, "messages": messages}, tools=TOOLS, tool_choice="none").choices[0]
    assert r.message.content and not r.message.tool_calls, r


class Colour(BaseModel):
    name: Annotated[str, Field(max_length=12)]
    warm: bool


@check("7 openai parse (pydantic, strict), 20 seeds")
def _():
    for seed in range(20):
        r = oai.chat.completions.parse(model=MODEL, messages=ASK, response_format=Colour, seed=seed, temperature=1, max_tokens=100)
        if r.choices[0].finish_reason == "stop":
            assert isinstance(r.choices[0].message.parsed, Colour), r


@check("8 response_format: nested, flat, json_object, wrong ones")
def _():
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"], "additionalProperties": False}
    good = [{"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}, {"type": "json_schema", "schema": schema},
            {"type": "json_object", "schema": schema}]
    for f in good:
        s, r = raw("/v1/chat/completions", {**SHORT, "max_tokens": 100, "temperature": 1, "response_format": f})
        assert s == 200 and isinstance(json.loads(r["choices"][0]["message"]["content"])["n"], int), (f, r)
    for f in [{"type": "sound"}, {"type": "json_schema", "json_schema": {"schema": 123}},
              {"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "(?<=a)b"}}}]:
        s, r = raw("/v1/chat/completions", {**SHORT, "response_format": f})
        assert s == 400, (f, s, r)


@check("9 grammar by extra_body, good and broken")
def _():
    r = oai.chat.completions.create(**SHORT, extra_body={"grammar": 'root ::= "yes" | "no"'})
    assert r.choices[0].message.content in ("yes", "no")
    try:
        oai.chat.completions.create(**SHORT, extra_body={"grammar": "root ::= nothing"})
        raise AssertionError("a broken grammar was accepted")
    except openai.BadRequestError:
        pass


@check("10 adapter by model name and by field")
def _():
    assert args.adapter, "no --adapter"
    name = f"{MODEL}:{args.adapter}"
    a = oai.chat.completions.create(**{**SHORT, "model": name}).choices[0].message.content
    b = oai.chat.completions.create(**SHORT, extra_body={"adapters": [{"name": args.adapter}]}).choices[0].message.content
    base = oai.chat.completions.create(**SHORT, extra_body={"adapters": "none"}).choices[0].message.content
    assert a == b != base, (a, b, base)


@check("11 cache probe: A, none, A")
def _():
    assert args.adapter, "no --adapter"
    def ask(which, cache=True):
        return oai.chat.completions.create(**SHORT, extra_body={"adapters": which, "cache_prompt": cache})
    which = [[{"name": args.adapter}], "none", [{"name": args.adapter, "scale": 0.5}]]
    cold = [ask(w, False).choices[0].message.content for w in which]
    for i in [0, 1, 2, 0, 2, 1, 0]:
        assert ask(which[i]).choices[0].message.content == cold[i]
    assert ask(which[0]).usage.prompt_tokens_details.cached_tokens > 0


@check("12 eight streams side by side")
def _():
    failures, lock = [], threading.Lock()
    def one(n):
        try:
            extra = {"adapters": [{"name": args.adapter, "scale": 0.25 * (n % 3)}]} if args.adapter else {}
            parts = list(oai.chat.completions.create(**SHORT, stream=True, extra_body=extra))
            assert parts[-1].choices[0].finish_reason
        except Exception as e:
            with lock:
                failures.append(repr(e))
    threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not failures, failures


@check("13 unknown adapter, scale NaN, lora []")
def _():
    for body, statuses in [({"lora": [{"id": 99, "scale": 1}]}, (400, 404)), ({"adapters": [{"name": "no-such"}]}, (400, 404)),
                           ({"lora": []}, (200,))]:
        s, r = raw("/v1/chat/completions", {**SHORT, **body})
        assert s in statuses, (body, s, r)
    s, _ = raw("/v1/chat/completions", json.dumps({**SHORT, "lora": [{"id": 0, "scale": 0}]}).replace('"scale": 0', '"scale": NaN').encode())
    assert s == 400, s


@check("14 logprobs, logit_bias, seed, n=2")
def _():
    r = oai.chat.completions.create(**SHORT, logprobs=True, top_logprobs=3).choices[0]
    assert all(c.logprob <= 0 and len(c.top_logprobs) == 3 for c in r.logprobs.content), r.logprobs
    assert "".join(c.token for c in r.logprobs.content).startswith(r.message.content), r
    word = r.logprobs.content[0]
    ids = raw("/tokenize", {"content": word.token})[1]["tokens"]
    banned = oai.chat.completions.create(**SHORT, logit_bias={str(ids[0]): -100}).choices[0].message.content
    assert not banned.startswith(word.token), banned
    # A cached prefix was computed in another batch, which changes the last bits of the logits.
    hot = {**SHORT, "temperature": 1.0, "seed": 7, "extra_body": {"cache_prompt": False}}
    a, b = (oai.chat.completions.create(**hot).choices[0].message.content for _ in range(2))
    assert a == b and len(oai.chat.completions.create(**hot, n=2).choices) == 2, (a, b)


@check("15 openai embeddings (501 where the model has none)")
def _():
    try:
        r = oai.embeddings.create(model=MODEL, input=["a", "b"])
        assert len(r.data) == 2
    except openai.APIStatusError as e:
        assert e.status_code == 501, e


@check("16 openai models.list, models.retrieve")
def _():
    assert MODEL in [m.id for m in oai.models.list().data] and oai.models.retrieve(MODEL).id == MODEL


@check("17 openai responses: create, stream, stream()")
def _():
    ask = dict(model=MODEL, input="Name a colour.", max_output_tokens=12, temperature=0)
    r = oai.responses.create(**ask)
    assert r.output_text and r.id.startswith("resp_")
    events = list(oai.responses.create(**ask, stream=True))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == r.output_text
    # The helper waits for an answer that ends by itself.
    short = {**ask, "max_output_tokens": 60, "extra_body": {"grammar": "root ::= [a-z ]{10,30}"}}
    with oai.responses.stream(**short) as s:
        assert s.until_done().get_final_response().output_text == oai.responses.create(**short).output_text


@check("18 openai responses.parse")
def _():
    r = oai.responses.parse(model=MODEL, input="A colour.", text_format=Colour, max_output_tokens=200)
    assert r.status == "incomplete" or isinstance(r.output_parsed, Colour), r


@check("19 openai errors: too long (stream too), malformed, unknown model")
def _():
    long = {**SHORT, "messages": [{"role": "user", "content": "word " * 20000}]}
    for stream in (False, True):
        try:
            oai.chat.completions.create(**long, stream=stream)
            raise AssertionError("accepted")
        except openai.BadRequestError as e:
            assert e.body["type"] == "exceed_context_size_error" and e.body["n_ctx"] > 0, e.body
    s, _ = raw("/v1/chat/completions", b'{"messages": ')
    assert s == 400, s


@check("20 anthropic create, stream, count_tokens, stop_sequence")
def _():
    ask = dict(model=MODEL, max_tokens=12, messages=ASK, extra_body=COLD)
    warm()
    r = ant.messages.create(**ask)
    assert r.content[0].type == "text" and r.usage.output_tokens > 0 and r.stop_reason in ("end_turn", "max_tokens")
    with ant.messages.stream(**ask) as s:
        text = "".join(s.text_stream)
    assert text == r.content[0].text, (text, r)
    assert ant.messages.count_tokens(model=MODEL, messages=ASK).input_tokens > 3
    count = dict(model=MODEL, max_tokens=60, messages=[{"role": "user", "content": "Count from 1 to 10."},
                 {"role": "assistant", "content": "1, 2, 3,"}], stop_sequences=[" 7"], extra_body=COLD)
    r = ant.messages.create(**count)
    assert r.stop_reason == "stop_sequence" and r.stop_sequence == " 7", r


@check("21 anthropic tools: named choice, result")
def _():
    tools = [{"name": t["function"]["name"], "description": "d", "input_schema": t["function"]["parameters"]} for t in TOOLS]
    r = ant.messages.create(model=MODEL, max_tokens=80, messages=ASK, tools=tools, tool_choice={"type": "tool", "name": "get_time"})
    use = next(b for b in r.content if b.type == "tool_use")
    assert use.name == "get_time" and isinstance(use.input, dict) and r.stop_reason == "tool_use", r
    messages = ASK + [{"role": "assistant", "content": [b.model_dump() for b in r.content]},
                      {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "12:00"}]}]
    r = ant.messages.create(model=MODEL, max_tokens=12, messages=messages, tools=tools, tool_choice={"type": "none"})
    assert r.content[0].type == "text", r


@check("22 anthropic: the second turn reuses the prefix")
def _():
    system = "You are a careful assistant. " * 10
    first = ant.messages.create(model=MODEL, max_tokens=8, system=system, messages=ASK, extra_body=COLD)
    more = ASK + [{"role": "assistant", "content": first.content[0].text}, {"role": "user", "content": "And another."}]
    r = ant.messages.create(model=MODEL, max_tokens=8, system=system, messages=more, extra_body=COLD)
    assert r.usage.cache_read_input_tokens > 40, r.usage


@check("23 litellm: completion, stream, tools")
def _():
    import litellm
    litellm.suppress_debug_info = True
    ask = dict(model=f"openai/{MODEL}", api_base=f"{URL}/v1", api_key="none", messages=ASK, max_tokens=12, temperature=0)
    warm()
    text = litellm.completion(**ask).choices[0].message.content
    other = oai.chat.completions.create(**SHORT).choices[0].message.content
    assert text == other, (text, other)
    parts = litellm.completion(**ask, stream=True)
    other = "".join(p.choices[0].delta.content or "" for p in parts)
    assert other == text, (text, other)
    r = litellm.completion(**{**ask, "max_tokens": 80}, tools=TOOLS, tool_choice="required")
    assert r.choices[0].message.tool_calls[0].function.name in ("get_weather", "get_time")


@check("24 llm: prompt, stream, schema")
def _():
    from llm.default_plugins.openai_models import Chat
    model = Chat("smoa-check", model_name=MODEL, api_base=f"{URL}/v1", supports_schema=True)
    model.key = "none"
    assert model.prompt("Name a colour.", max_tokens=8, stream=False).text()
    assert "".join(model.prompt("Name a colour.", max_tokens=8, stream=True))
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"], "additionalProperties": False}
    assert isinstance(json.loads(model.prompt("A number.", schema=schema, max_tokens=60, stream=False).text())["n"], int)


@check("25 ollama: list, show, ps, chat, generate, format")
def _():
    assert oll.list().models and oll.ps().models and oll.show(MODEL).details.family
    options = {"temperature": 0, "num_predict": 12}
    whole = oll.chat(model=MODEL, messages=ASK, options=options)
    assert whole.done and whole.eval_count > 0 and whole.message.content
    assert "".join(p.message.content for p in oll.chat(model=MODEL, messages=ASK, options=options, stream=True)) == whole.message.content
    assert oll.generate(model=MODEL, prompt="A colour:", options=options).response
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"], "additionalProperties": False}
    r = oll.chat(model=MODEL, messages=ASK, format=schema, options={"temperature": 1, "num_predict": 60})
    assert isinstance(json.loads(r.message.content)["n"], int)


@check("26 a client that leaves frees its slot in 2 s")
def _():
    stream = oai.completions.create(model=MODEL, prompt="Once", max_tokens=1500, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    end = time.time() + 2
    while any(s["is_processing"] for s in raw("/slots")[1]):
        assert time.time() < end, "a slot is still busy"
        time.sleep(0.05)


failed = 0
for name, run in CHECKS:
    if args.only and args.only not in name:
        continue
    started = time.time()
    try:
        run()
        word, note = "pass", ""
    except Exception as e:  # every client raises its own
        failed += 1
        word, note = "FAIL", f"{type(e).__name__}: {e}".replace("\n", " ")[:160]
    print(f"{args.label}\t{word}\t{name}\t{time.time() - started:.1f} s\t{note}", flush=True)
versions = [f"{m} {__import__('importlib.metadata').metadata.version(m)}" for m in ("openai", "anthropic", "ollama", "litellm", "llm")]
print(f"{args.label}\t{len(CHECKS) - failed} of {len(CHECKS)} pass\t{', '.join(versions)}")
sys.exit(1 if failed else 0)
