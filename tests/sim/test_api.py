from __future__ import annotations

import asyncio
import json
import re

import openai
import pytest

from tests.sim.simulated import ASKS, HELLO, HELLO_TOKENS, MAX_MODEL_LEN, Client, Json, all_apis, simulated


async def test_a_chat_answer_uses_up_its_limit_and_counts_its_tokens(sim: Client) -> None:
    status, answer = await sim.post("/v1/chat/completions", {"model": "tiny", "messages": HELLO, "max_tokens": 5})
    assert status == 200
    assert len(answer["choices"][0]["message"]["content"].split()) == 5
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"] == {
        "prompt_tokens": HELLO_TOKENS,
        "total_tokens": HELLO_TOKENS + 5,
        "completion_tokens": 5,
        "prompt_tokens_details": None,
    }


async def test_without_a_limit_an_answer_stops_by_itself(sim: Client) -> None:
    _, answer = await sim.post("/v1/chat/completions", {"model": "tiny", "messages": HELLO})
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert 0 < answer["usage"]["completion_tokens"] < MAX_MODEL_LEN


async def test_the_same_seed_gives_the_same_answers() -> None:
    answers = []
    for _ in range(2):
        async with simulated("speed=1000&seed=3") as client:
            _, answer = await client.post("/v1/chat/completions", {"messages": HELLO})
            answers.append((answer["id"], answer["choices"], answer["usage"]))
    assert answers[0] == answers[1]


async def test_answers_may_stop_before_their_limit_where_asked_to() -> None:
    async with simulated("speed=1000&stops=true&output_tokens=5") as client:
        _, answer = await client.post("/v1/chat/completions", {"messages": HELLO, "max_tokens": 2000})
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] < 200


async def test_prompt_and_limit_beyond_the_models_length_are_cut_short(sim: Client) -> None:
    body = {"prompt": [1] * 801, "max_tokens": 1800}
    status, answer = await sim.post("/v1/completions", body)
    assert status == 200
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == MAX_MODEL_LEN - 801


@pytest.mark.parametrize(
    ("body", "status", "param", "message"),
    [
        pytest.param(
            {"messages": HELLO, "max_tokens": 4000},
            400,
            "max_tokens",
            "max_tokens=4000 cannot be greater than max_model_len=2048",
            id="limit too large",
        ),
        pytest.param(
            {"messages": HELLO, "max_completion_tokens": 4000},
            400,
            "max_completion_tokens",
            "max_completion_tokens=4000 cannot be greater than max_model_len=2048",
            id="limit too large under its newer name",
        ),
        pytest.param(
            {"messages": HELLO, "max_tokens": 0},
            400,
            "max_tokens",
            "max_tokens must be at least 1, got 0.",
            id="no output",
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": "the " * 3000}]},
            400,
            "input_tokens",
            "This model's maximum context length is 2048 tokens. However, your prompt contains at least 2049 input "
            "tokens",
            id="prompt too long",
        ),
        pytest.param(
            {"model": "huge", "messages": HELLO}, 404, "model", "The model `huge` does not exist.", id="unknown model"
        ),
        pytest.param({"messages": HELLO, "n": 0}, 400, "n", "n must be between", id="no choices"),
        pytest.param({"messages": "hello"}, 400, None, "Expected `array`, got `str`", id="wrong type"),
    ],
)
async def test_what_vllm_refuses_is_refused_as_vllm_does(
    sim: Client,
    body: Json,
    status: int,
    param: str | None,
    message: str,
) -> None:
    for stream in (False, True):
        got, answer = await sim.post("/v1/chat/completions", {**body, "stream": stream})
        kind = {400: "BadRequestError", 404: "NotFoundError"}[status]
        error = answer["error"]
        assert (got, error["code"], error["type"], error["param"]) == (status, status, kind, param)
        assert error["message"].startswith(message)


@all_apis
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"[" * 100_000, id="nested too deep"),
        pytest.param(b'{"messages":"\xff"}', id="invalid UTF-8"),
        pytest.param(b"[]", id="no object"),
    ],
)
async def test_a_body_that_is_no_request_is_a_400(sim: Client, path: str, body: bytes) -> None:
    status, answer = await sim.post(path, body)
    assert status == 400
    assert answer["error"]["message"]


async def test_anthropics_errors_have_their_own_shape(sim: Client) -> None:
    body = {"model": "huge", "messages": HELLO, "max_tokens": 1}
    assert await sim.post("/v1/messages", body) == (
        404,
        {"type": "error", "error": {"type": "not_found_error", "message": "The model `huge` does not exist."}},
    )


async def test_an_alias_is_served_under_its_own_name(sim: Client) -> None:
    _, answer = await sim.post("/v1/chat/completions", {"model": "small", "messages": HELLO, "max_tokens": 1})
    assert answer["model"] == "small"


@pytest.mark.parametrize(
    ("prompt", "prompt_tokens", "choices"),
    [
        pytest.param("the tenant", 2, 1, id="a string"),
        pytest.param(["the tenant", "the"], 3, 2, id="strings"),
        pytest.param([1, 2, 3], 3, 1, id="token ids"),
        pytest.param([[1, 2, 3], [4]], 4, 2, id="lists of token ids"),
    ],
)
async def test_completions_take_prompts_of_every_kind(
    sim: Client,
    prompt: object,
    prompt_tokens: int,
    choices: int,
) -> None:
    body = {"prompt": prompt, "max_tokens": 3, "n": 2}
    _, answer = await sim.post("/v1/completions", body)
    assert [choice["index"] for choice in answer["choices"]] == list(range(2 * choices))
    assert answer["usage"]["prompt_tokens"] == prompt_tokens
    assert answer["usage"]["completion_tokens"] == 3 * 2 * choices


async def test_completions_default_to_16_tokens(sim: Client) -> None:
    _, answer = await sim.post("/v1/completions", {"prompt": "the"})
    assert answer["usage"]["completion_tokens"] == 16


@pytest.mark.parametrize(
    ("content", "prompt_tokens"),
    [
        pytest.param([{"type": "text", "text": "the tenant"}], 2, id="text"),
        pytest.param(
            [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}}], 576, id="image"
        ),
        pytest.param([{"type": "input_audio", "input_audio": {"data": "A" * 9000}}], 500, id="audio"),
    ],
)
async def test_parts_of_a_message_count_by_their_kind(sim: Client, content: object, prompt_tokens: int) -> None:
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1}
    _, answer = await sim.post("/v1/chat/completions", body)
    assert answer["usage"]["prompt_tokens"] == prompt_tokens + 4 + 3


async def test_tools_are_read_by_the_model(sim: Client) -> None:
    body = {"messages": HELLO, "max_tokens": 1, "tools": [{"type": "function", "function": {"name": "weather"}}]}
    _, answer = await sim.post("/v1/chat/completions", body)
    assert answer["usage"]["prompt_tokens"] > HELLO_TOKENS + 10


@all_apis
async def test_a_request_id_becomes_the_answers_id(sim: Client, path: str) -> None:
    _, answer = await sim.post(path, ASKS[path], **{"x-request-id": "abc"})
    assert re.fullmatch(r"(chatcmpl-|cmpl-|resp_|msg_)abc", answer["id"])


async def test_two_requests_of_one_id_do_not_disturb_each_other(sim: Client) -> None:
    ask = sim.post("/v1/chat/completions", ASKS["/v1/chat/completions"], **{"x-request-id": "abc"})
    again = sim.post("/v1/chat/completions", ASKS["/v1/chat/completions"], **{"x-request-id": "abc"})
    assert [status for status, _ in await asyncio.gather(ask, again)] == [200, 200]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_stream_has_an_event_for_each_token_and_no_usage(sim: Client, path: str) -> None:
    events = await sim.stream(path, ASKS[path])
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    texts = [chunk["choices"][0].get("delta", {}).get("content") or chunk["choices"][0].get("text") for chunk in chunks]
    assert len([text for text in texts if text]) == 5
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-2:] == [None, "length"]
    assert not any("usage" in chunk for chunk in chunks)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_usage_comes_last_on_a_stream_that_asks_for_it(sim: Client, path: str) -> None:
    events = await sim.stream(path, {**ASKS[path], "stream_options": {"include_usage": True}})
    assert events[-1] == "[DONE]"
    assert '"choices":[],"usage":{' in events[-2]
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 5
    assert not any("usage" in json.loads(event) for event in events[:-2])


async def test_usage_can_come_with_every_event(sim: Client) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = await sim.stream("/v1/completions", {**ASKS["/v1/completions"], "stream_options": options})
    completion = [json.loads(event)["usage"]["completion_tokens"] for event in events[:-1]]
    assert completion == [1, 2, 3, 4, 5, 5]


async def test_every_choice_of_a_stream_ends(sim: Client) -> None:
    events = await sim.stream("/v1/chat/completions", {"messages": HELLO, "max_tokens": 4, "n": 3})
    ends = [json.loads(event)["choices"][0] for event in events[:-1] if '"finish_reason":"length"' in event]
    assert sorted(choice["index"] for choice in ends) == [0, 1, 2]


@all_apis
async def test_a_stream_says_what_the_whole_answer_says(path: str) -> None:
    texts = []
    for stream in (False, True):
        async with simulated("speed=1000&seed=1") as client:
            if stream:
                texts.append(_streamed_text(await client.stream(path, ASKS[path])))
            else:
                texts.append(_whole_text((await client.post(path, ASKS[path]))[1]))
    assert len(texts[0].split()) == 5
    assert texts[0] == texts[1]


def _whole_text(answer: Json) -> str:
    if "choices" in answer:
        choice = answer["choices"][0]
        return str(choice["text"] if "text" in choice else choice["message"]["content"])
    content = answer["output"][0]["content"] if "output" in answer else answer["content"]
    return str(content[0]["text"])


def _streamed_text(events: list[str]) -> str:
    words: list[str] = []
    for event in (json.loads(event) for event in events if event != "[DONE]"):
        words.extend(choice.get("text") or choice["delta"].get("content", "") for choice in event.get("choices", []))
        if event.get("type") == "response.output_text.delta":
            words.append(event["delta"])
        if event.get("type") == "content_block_delta":
            words.append(event["delta"]["text"])
    return "".join(words)


async def test_a_response_that_hit_its_limit_is_incomplete(sim: Client) -> None:
    _, answer = await sim.post("/v1/responses", ASKS["/v1/responses"])
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (HELLO_TOKENS, 5)


async def test_a_streamed_response_ends_with_its_usage(sim: Client) -> None:
    events = [json.loads(event) for event in await sim.stream("/v1/responses", ASKS["/v1/responses"])]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.completed")
    assert events[-1]["response"]["usage"]["output_tokens"] == 5


async def test_a_streamed_message_tells_input_first_and_output_last(sim: Client) -> None:
    events = [json.loads(event) for event in await sim.stream("/v1/messages", ASKS["/v1/messages"])]
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[0]["message"]["usage"] == {"input_tokens": HELLO_TOKENS, "output_tokens": 0}
    assert events[-2]["usage"] == {"input_tokens": HELLO_TOKENS, "output_tokens": 5}
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"


async def test_a_system_prompt_counts(sim: Client) -> None:
    body = {"messages": HELLO, "max_tokens": 1, "system": "the tenant"}
    _, answer = await sim.post("/v1/messages", body)
    assert answer["usage"]["input_tokens"] == HELLO_TOKENS + 2 + 4


async def test_openais_own_client_understands_every_answer(sim: Client) -> None:
    async with openai.AsyncOpenAI(base_url=f"{sim.url}/v1", api_key="none", max_retries=0) as client:
        chat = await client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "the"}], n=2)
        assert len(chat.choices) == 2
        response = await client.responses.create(model="tiny", input="the", max_output_tokens=4)
        assert len(response.output_text.split()) == 4
        async with client.responses.stream(model="tiny", input="the", max_output_tokens=4) as stream:
            final = await stream.get_final_response()
        assert final.output_text
        vectors = await client.embeddings.create(model="tiny", input=["the", "of"])  # asks for base64
        assert [len(entry.embedding) for entry in vectors.data] == [64, 64]
        assert [model.id async for model in client.models.list()] == ["tiny", "small"]


async def test_embeddings_use_prompt_tokens_only(sim: Client) -> None:
    _, answer = await sim.post("/v1/embeddings", {"model": "tiny", "input": ["the tenant", "the"]})
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (3, 0)
    assert len(answer["data"]) == 2


async def test_models_tell_their_length(sim: Client) -> None:
    models = (await sim.get("/v1/models"))["data"]
    assert [(model["id"], model["max_model_len"]) for model in models] == [("tiny", 2048), ("small", 2048)]


async def test_tokenize_counts_as_the_server_does(sim: Client) -> None:
    _, prompt = await sim.post("/tokenize", {"prompt": "the tenant"})
    _, messages = await sim.post("/tokenize", {"messages": HELLO})
    assert (prompt["count"], len(prompt["tokens"]), prompt["max_model_len"]) == (2, 2, 2048)
    assert messages["count"] == HELLO_TOKENS
