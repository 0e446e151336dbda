"""What is answered over HTTP is what the engine answers, and errors are those of the command."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from small_index import Shop, run

from benchmarks.served import Server
from retrieval.engine import Engine
from retrieval.request import Request, parse_filters
from service import words

JPEG = b"\xff\xd8\xff"


@pytest.fixture(scope="module")
def engine(shop: Shop) -> Engine:
    return Engine.open(shop.index, "cpu")


def wishes(count: int) -> list[dict[str, object]]:
    """Requests of every kind, drawn."""
    random = np.random.default_rng(0)
    values = ["disc", "square", "green", "blue", "gold", "lace", "trim:red", "round"]
    out = []
    for _ in range(count):
        drawn = random.permutation(len(values))[: random.integers(0, 4)].tolist()
        names = [values[n] for n in drawn]
        if {"disc", "square"} <= set(names) or {"green", "blue"} <= set(names):
            names = names[:1]
        cut = int(random.integers(0, len(names) + 1))
        where = [["price<60"], ["colour=red", "colour=blue"], ["sku!=a-1"], []]
        out.append(
            {
                "present": names[:cut],
                "absent": names[cut:],
                "like": ["colour"] if random.random() < 0.2 else [],
                "where": where[int(random.integers(0, 4))],
                "keep": round(float(random.random()), 3) if random.random() < 0.5 else None,
                "top_k": int(random.integers(1, 30)),
                "offset": int(random.integers(0, 5)),
                "one_per_item": bool(random.random() < 0.3),
            }
        )
    return out


def test_ids_over_http_are_those_of_the_engine(
    shop: Shop, engine: Engine, client: httpx.Client
) -> None:
    """100 mixed requests: a file, an id of a file, an image of the gallery by each of its names."""
    files = sorted((shop.catalogue / "images").glob("*.png"))
    content = client.get("/readyz").json()["content"]
    for number, wish in enumerate(wishes(100)):
        file, row = files[number % 20], 25 + number * 7 % 30  # rows of other files
        layout, codes = engine.store.layout, engine.store.descriptors()[row : row + 1]
        from_gallery = type(engine.encode(file))(
            layout.chances(codes)[0],
            layout.nuance_of(codes)[0],
            engine.store.digests()[row].tobytes(),
        )
        picture = engine.encode(file)
        assert picture.digest is not None
        assert from_gallery.digest is not None
        if number % 4 == 0:
            form = {name: value for name, value in wish.items() if value not in (None, [])}
            upload = {"upload": (file.name, file.read_bytes())}
            answer = client.post("/v1/query", data=form, files=upload)
        elif number % 4 == 1:
            sent = client.post("/v1/pictures", files={"upload": file.read_bytes()}).json()
            assert sent["picture"] == picture.digest.hex()
            answer = client.post("/v1/query", json=wish | {"picture": sent["picture"]})
        elif number % 4 == 2:
            picture = from_gallery
            answer = client.post("/v1/query", json=wish | {"image": f"{content}/{row}"})
        else:
            picture = from_gallery
            digest = from_gallery.digest.hex()
            answer = client.post("/v1/query", json=wish | {"picture": digest})
        assert answer.status_code == 200, answer.text
        found = words.Answer.model_validate(answer.json())
        told = wish | {"where": parse_filters(wish["where"])}  # type: ignore[arg-type]
        expected = engine.query(Request(picture, **told))  # type: ignore[arg-type]
        assert [hit.image for hit in found.hits] == [f"{content}/{hit.row}" for hit in expected]
        assert [hit.score for hit in found.hits] == [round(hit.score, 6) for hit in expected]
        assert found.left_out == expected.left_out


@pytest.mark.parametrize(
    ("options", "wish"),
    [
        (["--attrs", "sqare"], {"present": ["sqare"]}),
        (["--attrs", "disc", "--without", "disc"], {"present": ["disc"], "absent": ["disc"]}),
        (["--attrs", "red"], {"present": ["red"]}),
        (["--where", "prise<3"], {"where": ["prise<3"]}),
        (["--where", "price"], {"where": ["price"]}),
    ],
)
def test_errors_say_what_the_command_says(
    shop: Shop,
    client: httpx.Client,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    wish: dict[str, list[str]],
) -> None:
    picture = shop.catalogue / "images/001.png"
    code, _, told = run(capsys, "query", picture, "--index", shop.index, *options)
    answer = client.post("/v1/query", data=wish, files={"upload": picture.read_bytes()})
    assert (code, answer.status_code) == (2, 400)
    assert answer.headers["content-type"] == "application/problem+json"
    assert f"retrieve: {answer.json()['detail']}" == told.strip()


def test_what_is_not_answered_is_a_problem(client: httpx.Client) -> None:
    broken = {"upload": b"\xff\xd8\xff no picture"}
    for status, answer in [
        (422, client.post("/v1/query", files=broken)),
        (422, client.post("/v1/query", files={"upload": b""})),
        (400, client.post("/v1/query", files={"picture": b"x"})),
        (400, client.post("/v1/query", json={"present": ["disc"]})),
        (400, client.post("/v1/query", json={"picture": "0" * 64, "top_k": 10**9})),
        (400, client.post("/v1/query", json={"picture": "../../etc/passwd"})),
        (
            400,
            client.post(
                "/v1/query", content=b"[" * 10**5, headers={"Content-Type": "application/json"}
            ),
        ),
        (404, client.post("/v1/query", json={"picture": "0" * 64})),
        (410, client.post("/v1/query", json={"image": "0" * 16 + "/1"})),
        (415, client.post("/v1/query", content=b"x", headers={"Content-Type": "text/plain"})),
        (404, client.get("/v1/images/..%2f..%2fetc/1")),
        (410, client.get("/v1/images/0123456789abcdef/1")),
        (405, client.put("/v1/query")),
        (404, client.get("/page/..%2fapp.py")),
        (405, client.post("/v1/images", files={"upload": b"x"})),  # nobody has a token
    ]:
        assert answer.status_code == status, answer.text
        problem = words.Problem.model_validate(answer.json())
        assert problem.status == status
        assert "Traceback" not in answer.text


def test_a_store_in_front_finds_what_the_engine_finds(
    shop: Shop, engine: Engine, client: httpx.Client
) -> None:
    """By the query vector over its copy of the descriptors, then by the full formula."""
    file, codes = shop.catalogue / "images/002.png", engine.store.descriptors()
    for wish in ({}, {"present": ["disc"]}, {"present": ["disc", "gold"], "absent": ["blue"]}):
        files = {"upload": file.read_bytes()}
        vector = words.Vector.model_validate(
            client.post("/v1/embed", data=wish, files=files).json()
        )
        expected = engine.query(Request(str(file), top_k=len(codes), include_query=True, **wish))
        rows = [hit.row for hit in expected]
        scores = codes @ np.array(vector.weights) + vector.constant
        assert vector.linear == (len(wish.get("present", [])) < 2)
        if vector.linear:
            np.testing.assert_allclose(scores[rows], [hit.score for hit in expected], atol=1e-5)
        candidates = [
            {"id": str(row), "descriptor": base64.b64encode(codes[row].tobytes()).decode()}
            for row in range(len(codes))
        ]
        ranked = client.post(
            "/v1/rerank", json=wish | {"picture": vector.picture, "candidates": candidates}
        )
        found = words.Ranking.model_validate(ranked.json()).candidates
        by_id = {int(one.id): one.score for one in found}
        np.testing.assert_allclose(
            [by_id[row] for row in rows], [hit.score for hit in expected], atol=2e-6
        )
        assert [one.score for one in found] == sorted(by_id.values(), reverse=True)


def test_tags_are_the_chances_of_every_value(
    shop: Shop, engine: Engine, client: httpx.Client
) -> None:
    file = shop.catalogue / "images/003.png"
    answer = client.post("/v1/tag", files={"upload": file.read_bytes()})
    tags = words.Tags.model_validate(answer.json())
    chances = [value.chance for own in tags.attributes for value in own.values]
    names = [value.name for own in tags.attributes for value in own.values]
    np.testing.assert_allclose(chances, engine.encode(file).chances, atol=1e-4)
    assert tuple(names) == engine.schema.value_names


def test_pictures_are_given_out_small_and_bare(
    shop: Shop, client: httpx.Client, tmp_path: Path
) -> None:
    """No original leaves, nor what its metadata tells."""
    big = Image.new("RGB", (900, 500), "red")
    exif = Image.Exif()
    exif[0x010F] = "a secret place"
    big.save(tmp_path / "big.jpg", exif=exif, comment=b"a secret word")
    sent = client.post("/v1/pictures", files={"upload": (tmp_path / "big.jpg").read_bytes()}).json()
    shown = client.get(sent["thumbnail"])
    assert b"secret" not in shown.content
    with Image.open(io.BytesIO(shown.content)) as picture:
        assert picture.size == (320, 178)
    drawn = words.Gallery.model_validate(
        client.get("/v1/images", params={"count": 3, "where": "colour=blue"}).json()
    )
    assert len(drawn.images) == 3
    assert all(one.known["colour"] == ["blue"] for one in drawn.images)
    for one in drawn.images:
        original = (shop.catalogue / one.path).read_bytes()
        for path in (one.url, f"{one.url}?side=160", f"/v1/pictures/{one.picture}"):
            image = client.get(path)
            assert image.content[:3] == JPEG
            assert image.content != original
            assert image.headers["content-type"] == "image/jpeg"
        looked = client.get(f"/v1/attention/{one.picture}", params={"present": "disc"})
        assert looked.content[:3] == JPEG
    assert client.get(f"{one.url}?side=5000").status_code == 400


def test_the_schema_counts_what_is_known(shop: Shop, client: httpx.Client) -> None:
    schema = client.get("/v1/schema").json()
    rows = [row for row in shop.rows() if row["image"] not in ("images/gone.png", "broken.jpg")]
    for attribute in schema["attributes"]:
        for value in attribute["values"]:
            own = [row[attribute["name"]].split("|") for row in rows]
            assert value["images"] == sum(value["value"] in cell for cell in own), value
    columns = {column["name"]: column for column in schema["columns"]}
    prices = [float(row["price"]) for row in rows if row["price"]]
    assert (columns["price"]["least"], columns["price"]["most"]) == (min(prices), max(prices))
    texts = {one["text"]: one["images"] for one in columns["sku"]["texts"]}
    assert texts == {t: sum(row["sku"] == t for row in rows) for t in texts}


def test_the_interface_describes_itself(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    assert set(described["paths"]["/v1/query"]["post"]["requestBody"]["content"]) == {
        "application/json",
        "multipart/form-data",
    }
    assert not [
        path
        for path in described["paths"]
        if not path.startswith(("/v1/", "/healthz", "/readyz", "/metrics"))
    ]


def test_logs_and_metrics_tell_of_requests_and_of_no_picture(
    shop: Shop, server: Server, client: httpx.Client
) -> None:
    picture = shop.catalogue / "images/005.png"
    form = {"present": "disc"}
    files = {"upload": ("my secret holiday.png", picture.read_bytes())}
    name = {"X-Request-ID": "mine-1"}
    answer = client.post("/v1/query", data=form, files=files, headers=name)
    assert answer.headers["x-request-id"] == "mine-1"
    odd = client.get("/healthz", headers={"X-Request-ID": 'x"y'}).headers["x-request-id"]
    assert odd.isalnum()
    assert len(odd) == 16
    (line,) = [one for one in server.lines() if one.get("id") == "mine-1"]
    assert (line["route"], line["status"], line["event"]) == ("/v1/query", 200, "request")
    assert "secret" not in server.log.read_text()
    assert "disc" not in server.log.read_text()
    metrics = client.get("/metrics").text
    assert 'retrieve_requests_total{method="POST",route="/v1/query",status="200"}' in metrics


def test_no_torch_is_loaded(server: Server) -> None:
    assert "libtorch" not in Path(f"/proc/{server.process.pid}/maps").read_text()
