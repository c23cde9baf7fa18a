"""The HTTP interface: what is asked, what is answered, and which mistakes have which status."""

# No "from __future__ import annotations" here: FastAPI reads the annotations of functions within functions.
import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from starlette.requests import ClientDisconnect

from kd import __version__
from kd.classifier import Classifier, Staged, TeacherFailed
from kd.explanation.attribution import without, words_of
from kd.serving.auditing import Auditor
from kd.serving.batching import Batcher, Full
from kd.serving.limits import Limits
from kd.serving.observation import LOG, Metrics, Observed

NOT_BLANK = r"[^\s\x1c-\x1f]"
"""A mark that is no space. The four separators are spaces for some regular expressions only, so they are named."""
SKIPPED = 64
"""A body that is too large is read on, but not kept, up to this multiple of the limit: many clients read no answer
before they have sent everything."""
HELD = 64
"""All bodies that are being read may have this multiple of the limit of one."""

TEACHER_SECONDS = 10
"""Seconds after which a client may send a text again that the teacher could not answer."""


class Mistake(BaseModel):
    """The answer to a request that was refused."""

    detail: str = Field(description="one sentence: what was expected, what was found, what to do")


class Prediction(BaseModel):
    """The answer for one text."""

    label: str = Field(description="the most probable label")
    probabilities: dict[str, float] = Field(description="of each label; their sum is 1")
    answered_by: str | None = Field(None, description="of a cascade: the student, the teacher, or the fallback")


class Predictions(BaseModel):
    """The answer to a request."""

    predictions: list[Prediction] = Field(description="one for each text, in the same order")


class Word(BaseModel):
    """A word of a text that is explained."""

    word: str
    weight: float = Field(description="what it adds to the log-odds of the label; below 0 it speaks against it")


class Explanation(BaseModel):
    """The answer to a request for the words that speak for the label."""

    label: str = Field(description="the most probable label")
    words: list[Word] = Field(description="words and punctuation marks, in the order of the text")
    left_out: int = Field(description="number of words at the end that are left out, because one request has its limit")


def questions(limits: Limits) -> tuple[Any, Any]:
    """Return the classes of the bodies of `/predict` and `/explain`.

    They depend on the limits, so that the OpenAPI schema states them.
    """
    text: Any = Annotated[str, Field(max_length=limits.max_characters, pattern=NOT_BLANK)]
    several: Any = Annotated[list[text], Field(min_length=1, max_length=limits.max_texts)]
    as_list = BeforeValidator(lambda value: [value] if isinstance(value, str) else value, text | several)
    meaning = Field(description="one text, or a list of them", examples=["a charming film", ["dull", "warm and funny"]])
    strict = ConfigDict(extra="forbid", strict=True)
    one: Any = Annotated[text, Field(description="one text", examples=["a charming film"])]
    whole = create_model("Question", __config__=strict, texts=Annotated[several, as_list, meaning])
    return whole, create_model("Why", __config__=strict, text=one)


def refusal(error: ValidationError, example: str) -> HTTPException:
    """Return the answer to a body that is no JSON, or does not fit; it does not repeat the body."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return HTTPException(400, f"expected JSON in UTF-8; {first['msg']}")
    place = ".".join(map(str, first["loc"]))[:100] or "body"  # the name of a wrong key may be long
    reason = "This text is blank" if first["type"] == "string_pattern_mismatch" else first["msg"]
    return HTTPException(422, f"{place}: {reason}; send {example}")


class Service:
    """The classifier behind the interface, with what one server has of its own.

    Args:
        log_texts: write the texts and their labels into the log.
        auditor: of a cascade, if it is audited.
    """

    def __init__(self, classifier: Classifier, limits: Limits, log_texts: bool, auditor: Auditor | None = None) -> None:
        self.classifier, self.limits, self.log_texts, self.auditor = classifier, limits, log_texts, auditor
        self.metrics, self.held = Metrics(), 0
        self.question, self.why = questions(limits)
        self.teacher_failed = False
        self.batcher: Batcher

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Run the batches and the audit."""
        self.batcher = Batcher(self.read, self.limits, self.metrics.on_batch)
        self.metrics.waiting.set_function(lambda: self.batcher.waiting)
        if self.auditor:
            self.auditor.start(self.metrics.registry)
        yield
        await self.batcher.close()
        if self.auditor:
            await self.auditor.close()

    def read(self, texts: Sequence[str], size: int) -> list[tuple[np.ndarray, str | None]]:
        """Return for each text its probabilities, and who answered it if the classifier is a cascade."""
        if isinstance(self.classifier, Staged):
            try:
                rows, by = self.classifier.answers(texts, size)
            except TeacherFailed as error:
                if not self.teacher_failed:  # once until it answers again, not for each request
                    LOG.error("the teacher failed", exc_info=error.__cause__)
                self.teacher_failed = True
                raise
            self.teacher_failed &= "teacher" not in by
            return list(zip(rows, by, strict=True))
        return [(row, None) for row in self.classifier.probabilities(texts, size)]

    async def body(self, request: Request) -> bytes:
        """Return the body of a request, or raise the answer to one that is too large, too slow or not complete."""
        kind = request.headers.get("content-type", "nothing")
        if kind.partition(";")[0].strip().lower() != "application/json":
            # The page of another site can send other types without asking the browser for permission.
            raise HTTPException(415, f"expected Content-Type: application/json, found {kind[:100]}; add this header")
        most, size, body, full = self.limits.max_body, 0, bytearray(), False
        try:
            async with asyncio.timeout(self.limits.read_seconds):
                async for piece in request.stream():
                    size, full = size + len(piece), full or self.held + len(piece) > HELD * most
                    if size > SKIPPED * most:
                        break
                    if size <= most and not full:
                        body += piece
                        self.held += len(piece)
        except TimeoutError as error:
            sentence = f"expected the whole body within {self.limits.read_seconds} s; send it faster, or in parts"
            raise HTTPException(408, sentence, {"Connection": "close"}) from error
        except ClientDisconnect as error:
            raise HTTPException(400, "the client left before the end of the body") from error
        finally:
            self.held -= len(body)
        if size > most:
            raise HTTPException(413, f"expected a body of at most {most} bytes, found more; send fewer texts at a time")
        if full:
            raise _later(1)
        return bytes(body)

    async def asked(self, request: Request, kind: Any, example: str) -> Any:
        """Return the body of a request as an object, or raise the answer to one that does not fit."""
        try:
            return kind.model_validate_json(await self.body(request))
        except ValidationError as error:
            raise refusal(error, example) from error

    async def answers(self, texts: Sequence[str]) -> Sequence[tuple[np.ndarray, str | None]]:
        """Return what `read` gives for texts, or raise the answer to a request for which there is none."""
        try:
            return await self.batcher.classify(texts)
        except Full as full:
            raise _later(full.seconds) from full
        except TeacherFailed as error:
            sentence = f"the teacher of this cascade cannot answer now; send it again in {TEACHER_SECONDS} s"
            raise HTTPException(503, sentence, {"Retry-After": str(TEACHER_SECONDS)}) from error
        except Exception as error:
            LOG.error("the model failed", exc_info=error)
            raise HTTPException(500, "the model failed with this request; the server's log says where") from error

    async def explain(self, request: Request) -> Response:
        """Answer a request for the weights of words: the log-odds of the label without each of them are compared."""
        text = (await self.asked(request, self.why, '{"text": "one text"}')).text
        every = words_of(text)
        spans = every[: self.limits.max_texts - 1]
        request.state.log = {"texts": 1, "words": len(spans)}
        answers = await self.answers([text, *(without(text, spans, [word]) for word in range(len(spans)))])
        rows = np.stack([row for row, _ in answers]).astype(np.float64)
        label = int(rows[0].argmax())
        odds = np.log(np.maximum([rows[:, label], np.delete(rows, label, axis=1).sum(axis=1)], 1e-30))
        weights = np.subtract(*odds)[0] - np.subtract(*odds)[1:]
        words = [
            Word(word=text[start:end], weight=round(float(weight), 4))
            for (start, end), weight in zip(spans, weights, strict=True)
        ]
        found = Explanation(label=self.classifier.label_names[label], words=words, left_out=len(every) - len(spans))
        return Response(found.model_dump_json(), media_type="application/json")

    async def predict(self, request: Request) -> Response:
        """Answer a request for labels."""
        texts = (await self.asked(request, self.question, '{"texts": "one text"} or {"texts": ["one", "two"]}')).texts
        request.state.log = {"texts": len(texts)}
        answers = await self.answers(texts)
        found = [self.prediction(text, row, by) for text, (row, by) in zip(texts, answers, strict=True)]
        if self.log_texts:
            request.state.log |= {"text": texts, "label": [each.label for each in found]}
        content = Predictions(predictions=found).model_dump_json(exclude_none=True)
        return Response(content, media_type="application/json")

    def prediction(self, text: str, row: np.ndarray, by: str | None) -> Prediction:
        """Return the answer for a text, and count it."""
        names = self.classifier.label_names
        found = Prediction(
            label=names[row.argmax()],
            probabilities=dict(zip(names, row.astype(float).round(6).tolist(), strict=True)),
            answered_by=by,
        )
        self.metrics.predictions.labels(found.label, by or "").inc()
        if self.auditor and by:
            self.auditor.see(text, found.label, dict(zip(names, row.tolist(), strict=True)), by)
        return found


def _later(seconds: int) -> HTTPException:
    return HTTPException(429, f"no room for more texts; send it again in {seconds} s", {"Retry-After": str(seconds)})


def post(app: FastAPI, path: str, summary: str, answer: type[BaseModel], asked: Any, function: Any) -> None:
    """Add a request with a body to the application."""
    schema = {"content": {"application/json": {"schema": asked.model_json_schema()}}, "required": True}
    app.post(
        path,
        summary=summary,
        response_model=answer,
        responses={status: {"model": Mistake} for status in (400, 408, 413, 415, 422, 429, 500, 503)},
        openapi_extra={"requestBody": schema},
    )(function)


def create_app(
    classifier: Classifier, limits: Limits, log_texts: bool = False, auditor: Auditor | None = None
) -> FastAPI:
    """Return the application; see `Service`."""
    service = Service(classifier, limits, log_texts, auditor)
    # FastAPI's own page of the interface, which would be /docs, loads its scripts from the network.
    app = FastAPI(title="kd serve", version=__version__, lifespan=service.lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    app.description = (
        f"Gives texts one of {', '.join(classifier.label_names)}. It reads {classifier.max_length} tokens of a text."
    )
    page = HTMLResponse(files("kd.serving").joinpath("page.html").read_text("utf-8"))

    @app.get("/", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    async def show() -> Response:
        return page  # in memory: no request reads a file

    @app.head("/health", include_in_schema=False)
    @app.get("/health", summary="Say that the server runs")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready", summary="Say whether texts are taken", responses={503: {"model": Mistake}})
    async def ready() -> dict[str, str]:
        if not service.batcher.ready:
            raise HTTPException(503, "this server takes no texts now; send them to another one")
        return {"status": "ready"}

    @app.get("/metrics", summary="Give the metrics for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    if auditor:
        app.get("/audit", summary="Say how often the cascade agrees with its teacher")(auditor.report)

    post(app, "/predict", "Classify one text or several", Predictions, service.question, service.predict)
    if not isinstance(classifier, Staged):  # the teacher of a cascade would be asked once a word
        post(app, "/explain", "Say which words speak for the label", Explanation, service.why, service.explain)
    app.add_middleware(
        Observed, metrics=service.metrics, paths={"/", "/docs", "/openapi.json", *app.openapi()["paths"]}
    )
    return app
