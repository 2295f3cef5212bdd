"""How the bench scripts drive the two programs: smoa over JSON Lines, llama-server over HTTP.

Standard library only. Both sides offer start(), complete(body), complete_all(bodies) and close(), take
llama-server's request fields, and answer with its `timings`.
"""

import concurrent.futures
import http.client
import json
import os
import pathlib
import queue
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
SMOA = TARGET / "release" / "smoa"
PEER = pathlib.Path(os.environ.get("SMOA_PEER_DIR", TARGET / "peer")).absolute() / "bin" / "llama-server"
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
WAIT = 600.0  # seconds until an answer that does not come is an error


class Failure(RuntimeError):
    """Something that ends the run with one line."""


def program_path(text):
    return pathlib.Path(text).absolute()  # a bare name would be looked up in PATH


def add_common_arguments(parser):
    parser.add_argument("--smoa", type=program_path, default=SMOA, metavar="FILE", help="our binary (%(default)s)")
    parser.add_argument("--peer", type=program_path, default=PEER, metavar="FILE",
                        help="llama-server, as scripts/bench/peer.sh builds it (%(default)s)")
    parser.add_argument("-m", "--model", type=pathlib.Path, default=MODEL, metavar="FILE", help="model (%(default)s)")
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count() or 2, metavar="N",
                        help="threads on both sides (%(default)s)")
    parser.add_argument("--smoa-args", default="", metavar="ARGS", help="further arguments for every smoa run")
    parser.add_argument("--peer-args", default="", metavar="ARGS", help="further arguments for llama-server")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write everything measured here as well")


def check_files(*paths):
    for path in paths:
        if not pathlib.Path(path).is_file():
            raise Failure(f"{path} is not there (scripts/run.sh builds smoa and fetches the model, "
                          "scripts/bench/peer.sh builds llama-server)")


def version_of(command):
    """The last line with a version in it, of what `command` prints."""
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({error})"
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    lines = [line for line in lines if re.search(r"\d+\.\d+|version", line)]
    return lines[0] if lines else "unknown"


def environment():
    """Ours, without what would silently change a llama.cpp program."""
    return {k: v for k, v in os.environ.items() if not k.startswith("LLAMA_ARG_")}


class Program:
    """A child process with its log in a temporary file."""

    name = "?"

    def __init__(self, command):
        self.command = [str(part) for part in command]
        self.process = None
        self.log = None

    def spawn(self, **streams):
        self.log = tempfile.TemporaryFile()
        streams = {"stdin": subprocess.DEVNULL, "stdout": self.log, "stderr": self.log, **streams}
        try:
            self.process = subprocess.Popen(self.command, env=environment(), **streams)
        except OSError as error:
            raise Failure(f"{self.command[0]}: {error}") from error

    def log_tail(self, lines=15):
        if self.log is None:
            return ""
        self.log.seek(0)
        return b"\n".join(self.log.read().splitlines()[-lines:]).decode(errors="replace")

    def fail(self, what):
        raise Failure(f"{self.name}: {what}\n  {' '.join(self.command)}\n{self.log_tail()}")

    def cpu_seconds(self):
        """What the process has used so far; None where the system does not tell."""
        try:
            fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, AttributeError):
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.log:
            self.log.close()
            self.log = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.close()

    def start(self):
        raise NotImplementedError


class Ours(Program):
    """`smoa run --jsonl`: one long-lived process, one request a line, one result a line."""

    name = "smoa"

    def __init__(self, binary, model, *, threads, ctx, parallel=1, extra=()):
        super().__init__([binary, "run", "--jsonl", "-m", model, "-t", threads, "-c", ctx, "-np", parallel, *extra])
        self.lines = queue.Queue()
        self.count = 0

    def start(self):
        self.spawn(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()

    def _read(self, stdout):
        for line in stdout:
            self.lines.put(line)
        self.lines.put(None)

    def complete_all(self, bodies):
        """Send all at once, return the answers in order."""
        ids = []
        text = []
        for body in bodies:
            self.count += 1
            ids.append(self.count)
            text.append(json.dumps({"id": self.count, **body}) + "\n")
        try:
            self.process.stdin.write("".join(text).encode())
            self.process.stdin.flush()
        except OSError as error:
            self.fail(f"does not take a request: {error}")
        answers = {}
        while len(answers) < len(ids):
            try:
                line = self.lines.get(timeout=WAIT)
            except queue.Empty:
                self.fail(f"no answer within {WAIT:.0f} s")
            if line is None:
                self.process.wait()
                self.fail(f"ended with exit code {self.process.returncode} before it answered")
            try:
                answer = json.loads(line)
            except ValueError:
                self.fail(f"printed something that is no JSON: {line[:200]!r}")
            if answer.get("error"):
                self.fail(f"answered with an error: {answer['error']}")
            answers[answer["id"]] = answer
        return [answers[i] for i in ids]

    def complete(self, body):
        return self.complete_all([body])[0]

    def close(self):
        if self.process and self.process.stdin:
            try:
                self.process.stdin.close()
                self.process.wait(timeout=20)
            except (OSError, subprocess.TimeoutExpired):
                pass
        super().close()


class Peer(Program):
    """`llama-server` on a port of its own."""

    name = "llama-server"

    def __init__(self, binary, model, *, threads, ctx, parallel=1, extra=()):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        super().__init__([binary, "-m", model, "-t", threads, "-c", ctx, "-np", parallel, "--host", "127.0.0.1",
                          "--port", self.port, "--no-ui", "--cache-ram", 0, *extra])

    def start(self):
        self.spawn()
        self.wait_ready()

    def wait_ready(self, poll=0.005):
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            if self.process.poll() is not None:
                self.fail(f"ended with exit code {self.process.returncode}")
            try:
                with self._open("GET", "/health") as (_, response):
                    if response.status == 200:
                        return
            except OSError:
                pass
            time.sleep(poll)
        self.fail("does not come up")

    def _open(self, method, path, body=None):
        return _Exchange(self.port, method, path, body)

    def post(self, path, body):
        try:
            with self._open("POST", path, body) as (_, response):
                data = response.read()
                if response.status != 200:
                    self.fail(f"{path}: HTTP {response.status}: {data[:300]!r}")
                return json.loads(data)
        except OSError as error:
            self.fail(f"{path}: {error}")

    def complete(self, body):
        return self.post("/completion", body)

    def complete_all(self, bodies):
        with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
            return list(pool.map(self.complete, bodies))

    def first_token(self, body):
        """Send a streaming request and return at the first piece of text."""
        with self._open("POST", "/completion", {**body, "stream": True}) as (_, response):
            for line in response:
                if line.startswith(b"data:") and json.loads(line[5:]).get("content"):
                    return
        self.fail("streamed no text")

    def text_of_tokens(self, text, count):
        """The first `count` tokens of `text`, as text."""
        tokens = self.post("/tokenize", {"content": text})["tokens"]
        if len(tokens) < count:
            raise Failure(f"the text has {len(tokens)} tokens, {count} were wanted")
        return self.post("/detokenize", {"tokens": tokens[:count]})["content"]


class _Exchange:
    """One HTTP request on a connection of its own."""

    def __init__(self, port, method, path, body):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
        self.request = (method, path, None if body is None else json.dumps(body).encode(),
                        {} if body is None else {"Content-Type": "application/json"})

    def __enter__(self):
        try:
            self.connection.request(*self.request)
            return self.connection, self.connection.getresponse()
        except http.client.HTTPException as error:
            self.connection.close()
            raise OSError(str(error)) from error
        except OSError:
            self.connection.close()
            raise

    def __exit__(self, *_):
        self.connection.close()


def run_main(main):
    """Run a script's main(); a Failure ends it with its text, Ctrl-C quietly."""
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        raise SystemExit(main())
    except Failure as failure:
        raise SystemExit(f"error: {failure}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
