"""The page in a real browser: three raters at once by keyboard alone, a reload, a killed server; and two exports."""

import asyncio
import csv
import json
import os
import re
import shutil
import signal
import sqlite3
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from html import unescape

import httpx
import pytest
from scipy.stats import binomtest
from test_commands import one_line

from imitation_jax.preference.rating import rater_app
from imitation_jax.preference.rating.database import vote_of

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
ITEMS = 24
OUTPUTS = [
    (
        f"**answer {number}** of one\n\n```python\nprint({number})\n```\n<script>document.title = 'taken'</script>",
        f"answer {number} of two <img src=x onerror=\"document.title='taken'\"> [x](javascript:alert(1))",
    )
    for number in range(ITEMS)
]


@pytest.fixture(scope="module")
def chromium():
    """Path of a browser, by IMITATION_TEST_BROWSER or on the PATH, or skips."""
    pytest.importorskip("playwright.sync_api", reason="drives a browser by playwright")
    path = os.environ.get("IMITATION_TEST_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if not path:
        pytest.skip("needs Chromium, on the PATH or named by IMITATION_TEST_BROWSER")
    return path


class Served:
    """The command on one port, which can be killed and started again."""

    def __init__(self, command, *flags: str):
        self._command, self._flags, self.port = command, flags, 0
        self.start()

    def start(self) -> None:
        self.process = self._command.start("rate", *self._flags, f"--port={self.port}")
        self.log = []
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"rating page http://127\.0\.0\.1:(\d+)/", line):
                self.port = int(found[1])
                break
        else:
            raise AssertionError("".join(self.log))
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()

    def stop(self, signal_number: int) -> int:
        self.process.send_signal(signal_number)
        return self.process.wait()


@pytest.fixture
def served(command, write_answers, tmp_path):
    started = []

    def start(*flags: str, outputs=OUTPUTS) -> Served:
        a, b = write_answers(len(outputs), outputs)
        db = f"--db={tmp_path / 'ratings.db'}"
        started.append(Served(command, f"--answers_a={a}", f"--answers_b={b}", db, *flags))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop(signal.SIGKILL)


class Rater:
    """One browser window, with nothing but a keyboard."""

    def __init__(self, browser, url: str, name: str, prepare=lambda page: None):
        self.page = browser.new_context().new_page()
        prepare(self.page)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)
        self.page.wait_for_selector("#name:focus")
        self.page.keyboard.type(name)
        self.page.keyboard.press("Enter")

    def ready(self) -> bool:
        """Waits for the next pair; whether there is one."""
        self.page.wait_for_selector("#end:not([hidden]), #votes:not([hidden]) button:not([disabled])", timeout=120_000)
        assert self.page.title() == "Which answer is better?"  # no answer's script has run
        return self.page.locator("#end").is_hidden()

    def seen(self) -> tuple[str, str, str]:
        return tuple(self.page.locator(f"#{part}").inner_text() for part in ("instruction", "first", "second"))

    def vote(self, key: str) -> None:
        """Hits the key twice, as people do."""
        with self.page.expect_response(lambda response: response.url.endswith("/api/task"), timeout=120_000):
            self.page.keyboard.press(key)
            self.page.keyboard.press(key)


def rate_all(chromium: str, url: str, name: str, half: threading.Barrier) -> list[tuple[str, int]]:
    """What a rater did: (instruction, vote on the first file's answer) of every pair, attention checks too."""
    from playwright.sync_api import sync_playwright

    done = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        rater = Rater(browser, url, name)
        while rater.ready():
            instruction, first, second = rater.seen()
            if len(done) == 4:  # what was open is open again, the same way round
                rater.page.reload()
                assert rater.ready() and rater.seen() == (instruction, first, second)
            if len(done) == 8:
                half.wait(300)  # the server dies now
                half.wait(300)  # and comes back while the vote is on its way
            number = int(re.search(r"\d+", instruction)[0])
            key = 1 + (number + len(name)) % 3
            if " of two" in first and " of two" in second:  # an attention check
                mine = [f"answer {number} " in text for text in (first, second)]
                key = 2 if all(mine) else 1 if mine[0] else 3
                vote = None
            else:
                vote = vote_of(key, " of one" in first)
            rater.vote(str(key))
            done.append((instruction, vote))
        assert not rater.errors
        browser.close()
    return done


@pytest.mark.slow
def test_three_raters_at_once_by_keyboard_with_a_reload_and_a_killed_server(chromium, served, command, tmp_path):
    server = served("--check_every=6")
    half = threading.Barrier(4)
    with ThreadPoolExecutor(3) as pool:
        url = f"http://127.0.0.1:{server.port}/"
        raters = {name: pool.submit(rate_all, chromium, url, name, half) for name in ("ann", "bobby", "cemile")}
        half.wait(300)
        server.stop(signal.SIGKILL)
        half.wait(300)
        threading.Event().wait(1.5)  # votes that nobody takes
        server.start()
        done = {name: found.result() for name, found in raters.items()}
    assert server.stop(signal.SIGTERM) == 0
    assert f"{ITEMS} of {ITEMS} items have their 3 ratings" in server.process.stdout.read()

    # Every vote once, as it was cast.
    db = tmp_path / "ratings.db"
    rows = sqlite3.connect(db).execute(
        "SELECT rater.name, instruction, vote, a_first, expected FROM task JOIN rater ON rater.id = rater"
        " JOIN item ON item.id = item WHERE vote IS NOT NULL"
    )
    rows = rows.fetchall()
    stored = Counter((name, instruction, vote) for name, instruction, vote, _, expected in rows if expected is None)
    cast = Counter((name, what, vote) for name in done for what, vote in done[name] if vote is not None)
    assert stored == cast and len(cast) == 3 * ITEMS and set(cast.values()) == {1}
    checks = [(vote, expected) for *_, vote, _, expected in rows if expected is not None]
    assert len(checks) == sum(vote is None for name in done for _, vote in done[name]) >= 9
    assert all(vote == expected for vote, expected in checks)
    assert binomtest(sum(a_first for *_, a_first, _ in rows), len(rows)).pvalue > 1e-4

    # The figures, and the same ones of what was exported and read again.
    def exported(path, workdir) -> dict:
        result = command("rate", f"--db={path}", "--export", f"--workdir={workdir}")
        assert result.returncode == 0, result.stderr
        return json.loads((workdir / "eval" / "student" / "human.json").read_text())

    first = exported(db, tmp_path / "run")
    by_hand = Counter()
    for number in range(ITEMS):
        votes = [
            vote for name in done for what, vote in done[name] if what == f"Instruction {number}?" and vote is not None
        ]
        [(vote, count), *_] = Counter(votes).most_common()
        by_hand[vote if count > 1 else 0] += 1
    assert [first["metrics"][name]["hits"] for name in ("worse", "equal", "better")] == [by_hand[k] for k in (-1, 0, 1)]
    assert command("rate", f"--db={db}", f"--mturk={tmp_path / 'mturk'}").returncode == 0
    again = tmp_path / "again.db"
    files = [f"--answers_{side}={tmp_path / f'{side}.jsonl'}" for side in "ab"]
    results = f"--mturk_results={tmp_path / 'mturk' / 'results.csv'}"
    for _ in range(2):  # read twice it counts once
        assert command("rate", f"--db={again}", *files, "--check_every=6", results).returncode == 0
    second = exported(again, tmp_path / "again")
    for part in ("metrics", "counts", "n"):
        assert first[part] == second[part]


@pytest.mark.slow
def test_what_gets_lost_or_is_refused_on_the_way_stops_no_rater(chromium, served, tmp_path):
    from playwright.sync_api import sync_playwright

    server = served("--check_every=0")
    url, ways = f"http://127.0.0.1:{server.port}/", []

    def on_the_way(route):
        """What `ways` says of the next request that changes something: its answer is lost, or another one comes."""
        way = ways.pop(0) if ways else None
        if way is None:
            route.continue_()
        elif way == "lost":
            route.fetch()
            route.abort()
        else:
            route.fulfill(status=way, json={"error": f"refused with {way}"})

    def stored(query: str):
        return sqlite3.connect(tmp_path / "ratings.db").execute(query).fetchone()[0]

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        ways.append("lost")
        rater = Rater(browser, url, "ann", lambda page: page.route(re.compile("/api/(join|vote)$"), on_the_way))
        assert rater.ready() and not ways and stored("SELECT count(*) FROM rater") == 1
        names = rater.page.evaluate("Object.keys(localStorage)")
        assert len(names) == 1 and re.fullmatch("rater [0-9a-f]{16}", names[0])
        # Asked again after too much traffic; what will never be taken is dropped, and the pair can be rated.
        for refused, votes in (([429, 403], 1), ([400], 1), ([], 2)):
            ways.extend(refused)
            rater.vote("1")
            assert rater.ready() and not ways and stored("SELECT count(vote) FROM task") == votes
        # Somebody else's link in the same tab.
        secret = httpx.post(f"{url}api/join", json={"name": "bob"}).json()["secret"]
        rater.page.evaluate(f"location.hash = 'rater={secret}'")
        rater.page.get_by_text("0 rated, ").wait_for(timeout=60_000)
        assert rater.ready()
        rater.vote("2")
        assert rater.ready() and stored(
            "SELECT count(vote) FROM task JOIN rater ON rater.id = rater WHERE name = 'bob'"
        )
        assert not rater.errors
        browser.close()


@pytest.mark.slow
def test_mechanical_turk_s_layout_in_a_browser(chromium, open_store, command, tmp_path):
    """Its values in place, a worker's vote comes back as what he chose, whichever way round he saw it."""
    from playwright.sync_api import sync_playwright

    open_store(ITEMS, outputs=OUTPUTS)
    db, folder = tmp_path / "ratings.db", tmp_path / "mturk"
    assert command("rate", f"--db={db}", f"--mturk={folder}").returncode == 0
    layout = (folder / "layout.html").read_text(encoding="ascii")
    hits = list(csv.DictReader((folder / "hits.csv").open(encoding="ascii")))
    assert len(hits) == ITEMS and all("$" not in value for hit in hits for value in hit.values())
    results = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        for number, hit in enumerate(hits):
            html = re.sub(r"\$\{(\w+)\}", lambda found, hit=hit: hit[found[1]], layout)
            page.set_content(html, wait_until="domcontentloaded")
            assert page.locator("#pair h2").all_inner_texts() == ["Answer A", "Answer B"] and page.title() == ""
            key = 1 if " of one" in page.locator("#pair > div").first.inner_text() else 3
            page.keyboard.press(str(key))
            sent = page.evaluate(
                "Object.fromEntries([...document.querySelectorAll('input:checked, input[type=hidden]')]"
                ".map(input => ['Answer.' + input.name, input.value]))"
            )
            work = {"AssignmentId": f"as{number}", "WorkerId": f"W{number % 3}", "AssignmentStatus": "Approved"}
            when = {"AcceptTime": "Mon Dec 02 13:04:59 PST 2019", "SubmitTime": "Mon Dec 02 13:05:59 PST 2019"}
            results.append({**work, **when, **sent, **{f"Input.{name}": value for name, value in hit.items()}})
        browser.close()
    orders = Counter(row["Answer.order"] for row in results)
    assert set(orders) == {"12", "21"} and len({row["Answer.vote"] for row in results}) == 2
    path = tmp_path / "Batch_results.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, results[0])
        writer.writeheader()
        writer.writerows(results)
    said = command("rate", f"--db={db}", f"--mturk_results={path}")
    assert f"{ITEMS} votes added" in said.stdout, said.stderr
    votes = sqlite3.connect(db).execute("SELECT vote, voted - shown, item FROM task").fetchall()
    assert len(votes) == ITEMS and {vote[:2] for vote in votes} == {(1, 60.0)}


def test_what_a_rater_may_ask(open_store):
    """No name, no file, no other's vote leaves the server; and no request that is not a rater's gets anything."""
    store = open_store(3)
    transport = httpx.ASGITransport(rater_app.make_app(store, None), raise_app_exceptions=False)

    async def talk():
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:

            async def as_(secret, method, path, **options):
                headers = {"Authorization": f"Bearer {secret}"}
                return await client.request(method, path, headers=headers, **options)

            page = await client.get("/")
            policy = page.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and "About equal" in page.text
            secrets = [
                (await client.post("/api/join", json={"name": name})).json()["secret"] for name in ("ann", "bob")
            ]
            assert (await client.post("/api/join", json={"name": " ann "})).status_code == 409
            for _ in range(2):  # the answer got lost, so it was sent again
                drawn = {"name": "cem", "secret": "0123456789ab" * 3}
                assert (await client.post("/api/join", json=drawn)).json() == {"secret": "0123456789ab" * 3}
            weak = {"name": "dee", "secret": "x"}
            for body in ({}, {"name": " "}, {"name": "x" * 61}, {"name": "a\u202eb"}, [], weak):
                assert (await client.post("/api/join", json=body)).status_code == 400
            first = (await as_(secrets[0], "GET", "/api/task")).json()
            assert set(first) == {"task", "done", "left", "last"}
            assert set(first["task"]) == {"id", "instruction", "first", "second", "choice"}
            key = first["task"]["id"]
            vote = {"task": key, "choice": 1, "instead_of": None}
            assert (await as_(secrets[1], "POST", "/api/vote", json=vote)).status_code == 404
            assert (await as_(secrets[1], "GET", f"/api/task/{key}")).status_code == 404
            for wrong in ({"choice": 4}, {"choice": True}, {"choice": "1"}, {"task": 7}, {"instead_of": "x"}):
                assert (await as_(secrets[0], "POST", "/api/vote", json=vote | wrong)).status_code == 400
            assert (await as_(secrets[0], "POST", "/api/vote", content=b"x" * 2**15)).status_code == 413
            assert (await as_(secrets[0], "POST", "/api/vote", content=b"[" * 9000)).status_code == 400
            assert not store.votes()
            for _ in range(2):
                assert (await as_(secrets[0], "POST", "/api/vote", json=vote)).json() == {"stands": True}
            second = (await as_(secrets[1], "GET", "/api/task")).text
            assert "ann" not in second and "student" not in unescape(second).replace("of the student", "")
            for secret in ("", "x", "ann"):
                assert (await as_(secret, "GET", "/api/task")).status_code == 401
            assert (await client.get("/", headers={"Host": "evil.example"})).status_code == 403
            hostile = {"Origin": "http://evil.example"}
            assert (await client.post("/api/join", json={"name": "eve"}, headers=hostile)).status_code == 403
            assert len(store.votes()) == 1

    asyncio.run(talk())


def test_with_a_code_only_the_invited_come_in(open_store):
    transport = httpx.ASGITransport(rater_app.make_app(open_store(3), "sesame"))

    async def talk():
        async with httpx.AsyncClient(transport=transport, base_url="http://rating.example") as client:
            assert 'id="code"' in (await client.get("/")).text
            for code, status in (("", 403), ("sesam", 403), ("sesame", 200)):
                found = await client.post("/api/join", json={"name": "ann", "code": code})
                assert found.status_code == status

    asyncio.run(talk())


def test_kill_9_loses_no_vote_that_was_answered(served, tmp_path):
    server = served("--check_every=0")
    answered = 0
    for round_ in range(3):
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
            secret = client.post("/api/join", json={"name": f"rater {round_}"}).json()["secret"]
            headers = {"Authorization": f"Bearer {secret}"}
            for _ in range(5):
                task = client.get("/api/task", headers=headers).json()["task"]
                vote = {"task": task["id"], "choice": 2, "instead_of": None}
                answered += client.post("/api/vote", json=vote, headers=headers).json()["stands"]
        server.stop(signal.SIGKILL)
        votes = sqlite3.connect(tmp_path / "ratings.db").execute("SELECT count(vote) FROM task").fetchone()[0]
        assert votes == answered == 5 * (round_ + 1)
        server.start()


def test_what_cannot_be_served_or_exported_is_one_line(command, write_answers, tmp_path):
    a, b = write_answers(3)
    flags = (f"--answers_a={a}", f"--answers_b={b}", f"--db={tmp_path / 'r.db'}")
    assert "others could use this server; set IMITATION_RATING_CODE" in one_line(
        command("rate", *flags, "--host=0.0.0.0")
    )
    assert "--workdir is required with --export" in one_line(command("rate", flags[2], "--export"))
    line = one_line(command("rate", flags[2], "--export", f"--workdir={tmp_path}"))
    assert "no item has its 3 ratings yet, the most is 0" in line
