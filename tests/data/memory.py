"""How much memory a process takes: the beginning of the programs that tests run in processes of their own."""

# after `watch()`: `before()` bytes of anonymous memory were in use then, `peak()` at the most since, with that of the
# processes forked, a page that several share divided by their number; `simple[0]` is the peak without the dividing
WATCH = """
import glob, sys, threading, time
from contextlib import suppress

def of(process, file, word):
    with suppress(OSError), open(f"/proc/{process}/{file}") as lines:
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(word)), 0)
    return 0

def anonymous():
    children = []
    for path in glob.glob("/proc/self/task/*/children"):
        with suppress(OSError), open(path) as file:
            children += file.read().split()
    if not children:
        return of("self", "status", "RssAnon")
    forked.update(children)
    simple[0] = max(simple[0], sum(of(p, "status", "RssAnon") for p in ("self", *children)))
    return sum(of(p, "smaps_rollup", "Pss_Anon") for p in ("self", *children))

forked, simple, seen = set(), [0], []
def follow():
    while True:
        seen[1:] = [max(*seen, anonymous())]
        time.sleep(0.002)

def watch():
    seen[:] = [anonymous()] * 2
    threading.Thread(target=follow, daemon=True).start()

def before():
    return seen[0]

def peak():
    return max(*seen, anonymous())
"""
