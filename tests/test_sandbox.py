"""Right programs run as anywhere else, wrong ones end with their reason, and nothing outlives the grader."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from other_user import as_other_user, why_impossible

from rewards import sandbox as sandbox_module
from rewards import seccomp
from rewards.grades import Reason
from rewards.plain import Unsupported
from rewards.sandbox import Limits, Outcome, Sandbox, SandboxError, Scripts, choose_sandbox
from rewards.seccomp import program_filter

LIMITS = Limits(time_s=3.0, memory_mb=512)
HASTY = Limits(time_s=0.3, memory_mb=128)
MOST = 1 << 16
ROOT = Path(__file__).parent.parent


@pytest.fixture(params=["bubblewrap", "landlock"])
def sandbox(request):
    return usable(request.param)


def usable(name: str) -> Sandbox:
    try:
        return choose_sandbox(name)
    except SandboxError as error:
        pytest.skip(str(error))


def printed(sandbox: Sandbox, source: str, stdin: str = "", limits: Limits = LIMITS) -> str:
    with sandbox.start(textwrap.dedent(source), limits) as program:
        outcome = program.stdin(stdin, most_output=MOST)
    assert outcome.reason is None, outcome
    return outcome.output.decode()


def called(sandbox: Sandbox, source: str, entry: str, *args, limits: Limits = LIMITS, prelude=False, **kwargs):
    with sandbox.start(textwrap.dedent(source), limits, prelude=prelude) as program:
        return program.call(entry, args, kwargs, spare_output=MOST)


def ended(sandbox: Sandbox, source: str, limits: Limits = HASTY) -> Outcome:
    with sandbox.start(textwrap.dedent(source), limits) as program:
        return program.stdin("", most_output=MOST)


SCRIPTS = {
    "input": ("print(input()[::-1])", "abc\n", "cba\n"),
    "no newline at the end": ("print(input(), input(), sep='|', end='')", "a\nb", "a|b"),
    "until the end": (
        """
        while True:
            try:
                print(int(input()) + 1)
            except EOFError:
                break
        """,
        "1\n2\n3",
        "2\n3\n4\n",
    ),
    "lines": ("import sys\nfor line in sys.stdin: print(line.strip() + '.')", "a\nb\n", "a.\nb.\n"),
    "readline": ("import sys\ninput = sys.stdin.readline\nprint(int(input()) * 2)", "21\n", "42\n"),
    "bytes": ("import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))", "1 2\n3", "6\n"),
    "bytes out": ("import sys\nsys.stdout.buffer.write(b'x')", "", "x"),
    "open(0)": ("print(sum(map(int, open(0).read().split())))", "1 2 3\n", "6\n"),
    "os.read": (
        "import io, os\nprint(io.BytesIO(os.read(0, os.fstat(0).st_size)).readline().decode().strip())",
        "a b\nc",
        "a b\n",
    ),
    "Unicode": ("print(input().upper(), len('🙂é'))", "straße 🙂\n", "STRASSE 🙂 2\n"),
    "carriage returns": ("print(repr(input()))", "a\r\n", "'a'\n"),
    "exit()": ("print(1)\nexit()\nprint(2)", "", "1\n"),
    "quit(0)": ("print(1)\nquit(0)", "", "1\n"),
    "sys.exit(0)": ("import sys\nprint(1)\nsys.exit(0)", "", "1\n"),
    "os._exit after a flush": ("import os\nprint(1, flush=True)\nos._exit(0)", "", "1\n"),
    "a main function": ("def main():\n    print(__name__)\n\nif __name__ == '__main__':\n    main()", "", "__main__\n"),
    "output at exit": ("import atexit\natexit.register(print, 'last')\nprint('first')", "", "first\nlast\n"),
    "threads": (
        """
        import threading, time
        def late():
            time.sleep(0.05)
            print("late")
        threading.Thread(target=late).start()
        print("main")
        """,
        "",
        "main\nlate\n",
    ),
    "deep recursion": (
        """
        import sys, threading
        def depth(n):
            return 0 if n == 0 else 1 + depth(n - 1)
        def main():
            print(depth(50_000))
        sys.setrecursionlimit(10 ** 6)
        threading.stack_size(1 << 27)
        thread = threading.Thread(target=main)
        thread.start()
        thread.join()
        """,
        "",
        "50000\n",
    ),
    "a pool of threads": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool: print(*pool.map(abs, [-1, -2]))",
        "",
        "1 2\n",
    ),
    "asyncio without a loop": (
        "async def f(): return 5\ntry: f().send(None)\nexcept StopIteration as stop: print(stop.value)",
        "",
        "5\n",
    ),
    "standard modules": (
        """
        import bisect, collections, decimal, fractions, functools, heapq, itertools, json, math, random, re, statistics
        import string, datetime, copy, operator, array, queue, typing, dataclasses, hashlib, struct, time, enum
        @dataclasses.dataclass(order=True)
        class Pair:
            a: int
        print(heapq.nsmallest(1, [3, 1]), bisect.bisect([1, 2], 1), math.gcd(4, 6), fractions.Fraction(1, 3), Pair(1))
        """,
        "",
        "[1] 1 2 1/3 Pair(a=1)\n",
    ),
    "an import inside of a function": (
        "def f():\n    import heapq as h\n    print(h.nlargest(1, [1, 2]))\nf()",
        "",
        "[2]\n",
    ),
    "a variable with a module's name": (
        "array = [1]\nqueue, time, numbers = 2, 3, 4\nprint(array, queue)",
        "",
        "[1] 2\n",
    ),
    "numpy": ("import numpy as np\nprint(np.arange(4).reshape(2, 2).sum())", "", "6\n"),
    "sortedcontainers": ("from sortedcontainers import SortedList\nprint(*SortedList([2, 1]))", "", "1 2\n"),
    "output that is thrown away": ("import os, sys\nprint(1, file=open(os.devnull, 'w'))\nprint(2)", "", "2\n"),
    "an error that is written": ("import sys\nprint('trace', file=sys.stderr)\nprint(1)", "", "1\n"),
    "the standard streams by their paths": (
        """
        import sys
        print(*open("/dev/stdin").read().split()[::-1], file=open("/dev/stdout", "w"))
        open("/dev/stderr", "w").write("done")
        print("end")
        """,
        "ab c",
        "c ab\nend\n",
    ),
    "much on stderr": ("import sys\nprint('x' * 300_000, file=sys.stderr)\nprint(1)", "", "1\n"),
    "a word on stderr": ("import sys\nprint('no MemoryError', file=sys.stderr)\nprint(1)", "", "1\n"),
    "a byte order mark": ("\ufeffprint(1)", "", "1\n"),
    "warnings of the compiler": ("x = 1\n" + "x is 1\n" * 3000 + "print(x)", "", "1\n"),
    "a stack without end": (
        """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        sys.setrecursionlimit(10 ** 6)
        def depth(n):
            return 0 if n == 0 else 1 + depth(n - 1)
        print(depth(50_000))
        """,
        "",
        "50000\n",
    ),
    "a larger stack": (
        "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (1 << 29, 1 << 29))\nprint(1)",
        "",
        "1\n",
    ),
    "input by a map of memory": ("import mmap\nprint(mmap.mmap(0, 0, access=mmap.ACCESS_READ)[:2])", "ab c", "b'ab'\n"),
    "warnings that are counted": (
        """
        import warnings
        with warnings.catch_warnings(record=True) as caught:
            warnings.warn("old")
        print(len(caught))
        """,
        "",
        "1\n",
    ),
    "the number of processors": ("import os\nprint((os.cpu_count() or 1) >= 1)", "", "True\n"),
    "forty threads": (
        """
        import threading, time
        found = []
        def work(number):
            time.sleep(0.05)
            found.append(str(number) * 100_000)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(40)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(len(found))
        """,
        "",
        "40\n",
    ),
    "a prompt": ("x = input('Number? ')\nprint(x)", "5", "Number? 5\n"),
    "a function that exec made": ("exec('def f(): return 7')\nprint(f(), eval('1 + 1'))", "", "7 2\n"),
    "a hundred thousand lines": (
        "print(sum(1 for _ in open(0)))",
        "1\n" * 100_000,
        "100000\n",
    ),
    "the time": ("import time\ntime.sleep(0.01)\nprint(time.time() > 1e9 and time.perf_counter() > 0)", "", "True\n"),
    "random numbers": ("import random, secrets\nprint(0 <= random.random() < 1 and secrets.randbelow(1))", "", "0\n"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_as_anywhere_else(sandbox, name):
    source, stdin, right = SCRIPTS[name]
    assert printed(sandbox, source, stdin) == right


VALUES = [
    *(
        None,
        True,
        0,
        -1,
        2**64,
        -(10**40),
        0.1,
        -0.0,
        float("inf"),
        1 + 2j,
        "",
        'a\n"é🙂\0',
        b"\0\xff",
        [],
        (),
        {},
        set(),
    ),
    *(
        [1, [2, (3,)], {"a": {1: None}}],
        {(1, 2): [3], None: 4, True: 5},
        pytest.param({1, "a", (2,)}, id="a set"),
        frozenset({1}),
        [[]] * 3,
    ),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_go_in_and_come_out_as_they_are(sandbox, value):
    got = called(sandbox, "def f(x): return x", "f", value).value()
    assert got == value and type(got) is type(value)
    assert sorted(repr(got)) == sorted(repr(value))  # 1 is not True; the order of a set's members may be another


def test_a_call_takes_arguments_by_place_and_by_name(sandbox):
    assert called(sandbox, "def f(a, *b, c=0, **d): return [a, b, c, d]", "f", 1, 2, c=3, e=4).value() == [
        *(1, (2,), 3, {"e": 4})
    ]


@pytest.mark.parametrize("entry", ["f", "Solution().f", "Solution.g", "Box(3).f", "outer.inner"])
def test_what_is_called_is_found_by_its_name(sandbox, entry):
    source = """
    class Solution:
        def f(self, x): return x + 1
        @staticmethod
        def g(x): return x + 1
    class outer:
        inner = staticmethod(lambda x: x + 1)
    """
    outcome = called(sandbox, source, entry, 1)
    if entry == "Box(3).f":
        assert outcome.reason is Reason.RUNTIME_ERROR and "NameError" in outcome.detail
    else:
        assert outcome.value() == 2


def test_the_names_that_a_site_imports_are_there_when_they_are_asked_for(sandbox):
    source = """
    class Solution:
        def f(self, xs: List[int]) -> Optional[int]:
            heapify(xs)
            return [heappop(xs), Counter(xs)[2], inf > 1, gcd(4, 6), len(list(permutations(xs))), SortedList(xs)[0]]
    """
    assert called(sandbox, source, "Solution().f", [3, 2, 1], prelude=True).value() == [1, 1, True, 2, 2, 2]
    without = called(sandbox, source, "Solution().f", [3, 2, 1])
    assert without.reason is Reason.RUNTIME_ERROR and "List" in without.detail


def test_values_that_are_not_plain_come_out_as_what_they_are_built_on(sandbox):
    source = """
    import collections, enum
    import numpy as np
    class Color(enum.IntEnum):
        RED = 1
    Point = collections.namedtuple("Point", "x y")
    class Mine: pass
    def f(kind):
        return {
            "numpy": lambda: [np.int64(3), np.float64(0.5), np.array([[1, 2]]), np.bool_(True), np.str_("a")],
            "subclasses": lambda: [collections.Counter("aab"), collections.defaultdict(list, {1: [2]}), Point(1, 2),
                                   Color.RED],
            "others": lambda: [collections.deque([1]), Mine(), range(3), (i for i in [1]), f, {1: 2}.keys()],
        }[kind]()
    """
    assert called(sandbox, source, "f", "numpy").value() == [3, 0.5, [[1, 2]], True, "a"]
    assert called(sandbox, source, "f", "subclasses").value() == [{"a": 2, "b": 1}, {1: [2]}, (1, 2), 1]
    others = called(sandbox, source, "f", "others").value()
    assert [type(value) for value in others] == [Unsupported] * 6
    assert others[1].type_name == "Mine"


ENDS = {
    "a loop": ("while True: pass", Reason.TIMEOUT, "CPU"),
    "a sleep": ("import time\ntime.sleep(100)", Reason.TIMEOUT, ""),
    "memory": ("held = []\nwhile True: held.append(bytearray(1 << 20))", Reason.MEMORY, ""),
    "one piece of memory": ("bytearray(1 << 40)", Reason.MEMORY, ""),
    "much output": ("while True: print('x' * 1000)", Reason.OUTPUT_LIMIT, ""),
    "much output at once": (f"import os\nos.write(1, bytes({2 * MOST}))", Reason.OUTPUT_LIMIT, ""),
    "an exception": ("[1][5]", Reason.RUNTIME_ERROR, "IndexError: list index out of range"),
    "an exception of its own": ("class Odd(Exception): pass\nraise Odd('a\\nb')", Reason.RUNTIME_ERROR, "b"),
    "no text": ("class Odd(Exception): pass\nraise Odd", Reason.RUNTIME_ERROR, "Odd"),
    "a status": ("raise SystemExit(3)", Reason.RUNTIME_ERROR, "exit status 3"),
    "a crash": ("import ctypes\nctypes.string_at(0)", Reason.RUNTIME_ERROR, "signal 11"),
    "no syntax": ("x = = 1", Reason.SYNTAX_ERROR, "SyntaxError"),
    "no indentation": ("if 1:\nx = 1", Reason.SYNTAX_ERROR, "IndentationError"),
    "a null": ("x = 1\0", Reason.SYNTAX_ERROR, "null"),
    "no name": ("missing", Reason.RUNTIME_ERROR, "name 'missing' is not defined"),
    "no input": ("input()", Reason.RUNTIME_ERROR, "EOFError"),
    "no module": ("import nothing_of_this_name", Reason.RUNTIME_ERROR, "ModuleNotFoundError"),
    "recursion": ("def f(): f()\nf()", Reason.RUNTIME_ERROR, "RecursionError"),
    "no flush": ("import sys\nsys.stdout.close()\nraise KeyError('x')", Reason.RUNTIME_ERROR, "KeyError: 'x'"),
    "control characters": ("raise ValueError('\\x1b[2Ja\\0')", Reason.RUNTIME_ERROR, "ValueError: ?[2Ja?"),
}


@pytest.mark.parametrize("name", ENDS)
def test_each_end_has_its_reason(sandbox, name):
    source, reason, detail = ENDS[name]
    outcome = ended(sandbox, source)
    assert outcome.reason is reason
    assert detail in outcome.detail and len(outcome.detail) <= 300 and outcome.detail.isprintable()


def test_time_that_a_program_waits_is_no_cpu_time(sandbox):
    waited = ended(sandbox, "import time\ntime.sleep(100)")
    spun = ended(sandbox, "while True: pass")  # for less than its limit where the machine is busy
    assert waited.cpu_s < min(spun.cpu_s, 0.3) and spun.cpu_s < 1.0


def test_the_clock_of_one_test_does_not_run_in_the_next(sandbox):
    source = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\nprint(1)"
    with sandbox.start(source, HASTY) as program:
        assert [program.stdin("", most_output=MOST).output for _ in range(4)] == [b"1\n"] * 4


def test_output_up_to_the_limit_is_kept_and_one_byte_more_is_told(sandbox):
    with sandbox.start("print('x' * int(input()), end='')", LIMITS) as program:
        full, over = (program.stdin(str(size), most_output=100) for size in (100, 101))
    assert full.reason is None and full.output == b"x" * 100
    assert over.reason is Reason.OUTPUT_LIMIT


def test_nothing_of_one_test_is_seen_by_the_next(sandbox):
    source = """
    import builtins, math, os, sys
    state = []
    def f(x):
        state.append(x)
        found = [len(state), hasattr(builtins, "left"), hasattr(math, "left"), "LEFT" in os.environ, len(sys.path)]
        builtins.left = math.left = 1
        os.environ["LEFT"] = "1"
        sys.path.append("x")
        return found
    """
    with sandbox.start(textwrap.dedent(source), LIMITS) as program:
        first, *others = [program.call("f", [i], {}, spare_output=MOST).value() for i in range(3)]
    assert first[:4] == [1, False, False, False]
    assert others == [first, first]


def test_a_test_that_crashes_ends_no_other(sandbox):
    source = """
    import ctypes, os, time
    actions = {
        "crash": lambda: ctypes.string_at(0), "leave": lambda: os._exit(7), "sleep": lambda: time.sleep(100),
        "memory": lambda: bytearray(1 << 40), "close": lambda: os.closerange(0, 100),
    }
    def f(action):
        return actions[action]() if action in actions else action
    """
    actions = ["a", "crash", "b", "leave", "c", "sleep", "d", "memory", "e", "close", "f"]
    with sandbox.start(textwrap.dedent(source), HASTY) as program:
        outcomes = [program.call("f", [action], {}, spare_output=MOST) for action in actions]
        assert not program.died
    assert [outcome.reason for outcome in outcomes[1:8:2]] == [
        *(Reason.RUNTIME_ERROR, Reason.RUNTIME_ERROR, Reason.TIMEOUT, Reason.MEMORY)
    ]
    assert [outcome.value() for outcome in outcomes[::2]] == list("abcdef")


def test_a_call_that_gives_nothing_has_no_value(sandbox):
    outcome = called(sandbox, "import os\ndef f(): os._exit(0)", "f")
    assert outcome.reason is None
    with pytest.raises(ValueError, match="no value"):
        outcome.value()


def test_a_program_that_does_not_compile_is_not_asked_again(sandbox):
    with sandbox.start("(", LIMITS) as program:
        assert program.verdict.reason is Reason.SYNTAX_ERROR
        assert program.stdin("", most_output=MOST) is program.verdict
        assert program.call("f", [], {}, spare_output=MOST) is program.verdict


def test_a_closed_program_leaves_no_process_and_no_descriptor(sandbox):
    ended(sandbox, "1")
    before = len(os.listdir("/proc/self/fd"))
    others = set(psutil.Process().children(recursive=True))
    with pytest.raises(KeyError), sandbox.start("import time\ntime.sleep(100)", LIMITS) as program:
        program.begin({"kind": "stdin", "stdin": b"", "output": MOST})
        assert set(psutil.Process().children(recursive=True)) - others
        raise KeyError
    program.close()
    assert set(psutil.Process().children(recursive=True)) <= others
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_program_that_is_killed_from_another_thread_ends(sandbox):
    with sandbox.start("import time\ntime.sleep(100)", Limits(time_s=60)) as program:
        threading.Timer(0.3, program.kill).start()
        outcome = program.stdin("", most_output=MOST)
    assert outcome.reason is Reason.RUNTIME_ERROR and program.died


def test_test_code_is_kept_from_the_program(sandbox):
    source = "import gc\ndef f(x):\n    return ' '.join(o for o in gc.get_objects() if type(o) is str) + str(x)"
    with Scripts(sandbox, source, "", LIMITS) as scripts:
        passed = scripts.run("assert f(2)[-1] == '2'\nassert 'never-told' not in f(1)", ["f"])
        failed = scripts.run("assert f(2) == 'never-told'", ["f"])
    assert passed.reason is None
    assert failed.reason is Reason.RUNTIME_ERROR and failed.detail.startswith("AssertionError")


def stub_bwrap(folder: Path, text: str) -> None:
    path = folder / "bwrap"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


@pytest.fixture
def fresh_choice():
    sandbox_module._failure.cache_clear()
    yield
    sandbox_module._failure.cache_clear()


BROKEN = {
    "exit 1": "nothing",
    "echo 'bwrap: No permissions to create new namespace' >&2; exit 1": "No permissions to create new namespace",
    "kill -9 $$": "nothing",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_bubblewrap_that_does_not_start_is_the_sandboxs_failure(monkeypatch, tmp_path, text):
    stub_bwrap(tmp_path, text)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SandboxError, match=f"bubblewrap did not start: .*{re.escape(BROKEN[text])}"):
        Sandbox("bubblewrap").start("print(1)", LIMITS)
    assert len(os.listdir("/proc/self/fd")) == before


def test_auto_takes_landlock_where_there_is_no_bubblewrap(monkeypatch, tmp_path, fresh_choice):
    usable("landlock")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert choose_sandbox("auto") == Sandbox("landlock")
    with pytest.raises(SandboxError, match="no bwrap on PATH"):
        choose_sandbox("bubblewrap")


def test_where_none_holds_the_run_stops_and_says_how_to_mend_it(monkeypatch, tmp_path, fresh_choice):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sandbox_module, "program_filter", lambda: (_ for _ in ()).throw(ImportError("no libseccomp")))
    with pytest.raises(
        SandboxError,
        match=r"bubblewrap: no libseccomp; landlock: no.*Install bubblewrap.*sandbox: unsafe",
    ):
        choose_sandbox()
    assert choose_sandbox("unsafe").name == "unsafe"


@pytest.mark.parametrize("call", ["socket", "fork", "memfd_create", "kill"])
def test_a_sandbox_that_lets_an_attack_through_is_refused(sandbox, monkeypatch, fresh_choice, call):
    """The self-test runs with a filter that allows one call too many: it has to notice."""
    more = (*seccomp._OWN_STATE, *(("clone", "vfork") if call == "fork" else (call,)))
    monkeypatch.setattr(seccomp, "_OWN_STATE", more)
    monkeypatch.setattr(sandbox_module, "program_filter", program_filter.__wrapped__)
    named = {"socket": "IPv4 socket", "fork": "a new process", "memfd_create": "a memory file", "kill": "a signal to"}
    with pytest.raises(SandboxError, match=rf"{sandbox.name}: it let through: .*{named[call]}"):
        choose_sandbox(sandbox.name)


def test_a_sandbox_without_its_file_protection_is_refused_and_nothing_is_left(monkeypatch, fresh_choice):
    init = sandbox_module.Program.__init__
    monkeypatch.setattr(
        sandbox_module.Program,
        "__init__",
        lambda self, sandbox, setup, limits: init(self, sandbox, setup | {"landlock": None}, limits),
    )
    with pytest.raises(
        SandboxError, match=r"it let through: reading /etc/passwd, .*writing to /tmp, writing to /dev/shm"
    ):
        choose_sandbox("landlock")
    assert not any(Path(folder, "elastic-sandbox-probe").exists() for folder in ("/tmp", "/dev/shm", "/"))


def test_a_child_that_cannot_be_locked_in_is_the_sandboxs_failure(sandbox, monkeypatch):
    """A right program that did not run is not wrong."""
    monkeypatch.setattr(sandbox_module, "program_filter", lambda: bytes(8))
    with sandbox.start("print(1)", LIMITS) as program:
        for _ in range(2):
            with pytest.raises(SandboxError, match=r"could not be locked in: .*seccomp: Invalid argument"):
                program.stdin("", most_output=MOST)


def test_a_child_that_cannot_be_made_is_the_sandboxs_failure(sandbox, monkeypatch):
    driver = (ROOT / "rewards" / "sandbox_driver.py").read_text()
    broken = driver.replace("os.fork()", "(_ for _ in ()).throw(BlockingIOError(11, 'no more processes'))")
    assert broken != driver
    modules = [
        (name, compile(broken, name, "exec") if name == "sandbox_driver" else code)
        for name, code in sandbox_module._driver_modules()
    ]
    monkeypatch.setattr(sandbox_module, "_driver_modules", lambda: modules)
    with sandbox.start("print(1)", LIMITS) as program, pytest.raises(SandboxError, match=r"fork: .*no more processes"):
        program.stdin("", most_output=MOST)


def test_a_sandbox_in_which_nothing_runs_is_refused(monkeypatch, fresh_choice):
    monkeypatch.setattr(sandbox_module, "PROBE", "print(41)")
    with pytest.raises(SandboxError, match="adds 20 and 22 gave b'41"):
        choose_sandbox("landlock")
    monkeypatch.setattr(sandbox_module, "PROBE", "print(42)")
    sandbox_module._failure.cache_clear()
    with pytest.raises(SandboxError, match="attacks did not run to their end"):
        choose_sandbox("landlock")


def test_a_name_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"sandbox is 'firejail': give auto, bubblewrap"):
        choose_sandbox("firejail")


def test_programs_of_many_threads_at_once_do_not_meet(sandbox):
    def double(number: int) -> int:
        with sandbox.start("def f(x): return 2 * x", LIMITS, slot=number % 8) as program:
            return sum(program.call("f", [number], {}, spare_output=MOST).value() for _ in range(3))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(double, range(24))) == [6 * number for number in range(24)]


GRADER = """
import sys, threading, time
from rewards.sandbox import Limits, Sandbox
programs = {
    "sleeps": "import time\\ntime.sleep(600)",
    "loops": "while True: pass",
    "compiles": "x = " + "[" * 90 + "1" + " for a in b]" * 90,
}
def grade(kind, slot):
    with Sandbox(sys.argv[1]).start(programs[kind], Limits(time_s=600), slot=slot) as program:
        started.release()
        program.stdin("", most_output=1000)
started = threading.Semaphore(0)
for slot, kind in enumerate(("sleeps", "loops", "sleeps")):
    threading.Thread(target=grade, args=(kind, slot + 40), daemon=True).start()
for _ in range(3):
    started.acquire()
time.sleep(0.3)
print("running", flush=True)
time.sleep(600)
"""


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def check_that_nothing_outlives_a_grader(command: list[str], number: int) -> None:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd="/", env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as grader:
        try:
            assert grader.stdout.readline() == b"running\n"
            found = descendants(grader.pid)
            assert len(found) >= 6  # three drivers, three children
            grader.send_signal(number)
            _, alive = psutil.wait_procs(found, timeout=5)
            assert alive == []
        finally:
            grader.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_a_grader_that_is_stopped(sandbox, number):
    check_that_nothing_outlives_a_grader([sys.executable, "-c", GRADER, sandbox.name], number)


@pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible()))
def test_nothing_outlives_a_grader_of_another_user(sandbox):
    command = as_other_user([sys.executable, "-c", GRADER, sandbox.name])
    check_that_nothing_outlives_a_grader(command, signal.SIGKILL)


PROBED = """
import json, sys
from rewards.sandbox import choose_sandbox, _failure
print(json.dumps({name: _failure(name) for name in ("bubblewrap", "landlock")}))
"""


@pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible()))
def test_both_hold_for_another_user_where_they_hold_for_root():
    for name in ("bubblewrap", "landlock"):
        usable(name)
    run = subprocess.run(
        as_other_user([sys.executable, "-c", PROBED]),
        capture_output=True,
        text=True,
        cwd="/",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert json.loads(run.stdout or "null") == {"bubblewrap": None, "landlock": None}, run.stderr


CRASHED = """
import os
from rewards.sandbox import Limits, Sandbox
with Sandbox("landlock").start("import ctypes; ctypes.string_at(0)", Limits()) as program:
    print(os.stat(f"/proc/{program._process.pid}/environ").st_uid, program.stdin("", most_output=100).detail)
"""


@pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible()))
def test_a_crash_is_not_dumped():
    """The kernel gives root the files of a process that it does not dump."""
    usable("landlock")
    command, environment = as_other_user([sys.executable, "-c", CRASHED]), os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment)
    assert run.stdout == "0 signal 11\n", run.stderr


FORKED = """
import os, sys, threading
from rewards.sandbox import Limits, Sandbox
def graded():
    with Sandbox(sys.argv[1]).start("print(input())", Limits()) as program:
        return program.stdin("5", most_output=100).output
with Sandbox(sys.argv[1]).start("print(input())", Limits()) as outer:
    child = os.fork()
    if child == 0:
        os._exit(0 if graded() == b"5\\n" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert outer.stdin("6", most_output=100).output == b"6\\n"  # the fork has ended none of its parent's
"""


def test_a_fork_of_the_grader_has_programs_of_its_own(sandbox):
    run = subprocess.run([sys.executable, "-c", FORKED, sandbox.name], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr


def test_it_runs_beside_the_threads_of_torch(sandbox):
    code = """
    import sys, threading
    import torch
    from rewards.sandbox import Limits, Sandbox
    torch.set_num_threads(2)
    torch.rand(300, 300) @ torch.rand(300, 300)
    with Sandbox(sys.argv[1]).start("import numpy as np\\nprint(np.ones((50, 50)).sum())", Limits()) as program:
        print(program.stdin("", most_output=100).output.decode())
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), sandbox.name], capture_output=True, text=True, cwd=ROOT
    )
    assert run.stdout.strip() == "2500.0", run.stderr
