"""Faults on purpose: jobs are killed, disks filled, files damaged. The same command again must end as if nothing had been.

    python tools/faults.py                            # all of it, on one core; exits 1 if anything fell
    python tools/faults.py --trials 10                # ten times as many
    python tools/faults.py --only kills --jobs run    # some of it
    python tools/faults.py --seed 7 --show            # other random numbers; say what each trial did

lost         what was finished, or was never ours, is gone
wrong        something else than without the fault, or accepted where it should be refused or listed
stuck        it does not end, or can't be taken up again
tracebacks   an error that is not one line that names a file and what to do

`JOBS` is a table of the commands that are tried, `FAULTS` of what is done to them: each fault is a function that makes one trial.
A trial runs in a fork of this process, made after the imports, so it takes a fraction of a second.
"""
import os
os.environ |= dict(TQDM_DISABLE='1', DINOINV_DEVICE='cpu', HF_HUB_OFFLINE='1', OMP_NUM_THREADS='1')
import importlib.metadata
from functools import lru_cache, partial
importlib.metadata.version = lru_cache(importlib.metadata.version) # slow, and asked for by every trial
import argparse, errno, hashlib, io, json, mmap, pickle, re, resource, shutil, signal, subprocess, sys, tarfile, tempfile, time, traceback
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
import numpy as np, torch
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm
from transformers import Dinov2Config, Dinov2Model
from transformers.utils import logging
from dinoinv import commands, train
from dinoinv.commands import COMMANDS
from dinoinv.core import MARKER, TMP, remove, replacing, save_json, versions

torch.set_num_threads(1)
logging.set_verbosity_error()
ROOT = Path(tempfile.mkdtemp(prefix='faults-'))
REPO = Path(__file__).resolve().parent.parent
KINDS = 'lost','wrong','stuck','tracebacks'


# ── what is tried ────────────────────────────────────────────────────────────────────────────────────────────────────────

@dataclass(frozen=True)
class Job:
    "A command, and what it comes to"
    line:str          # the command; names in braces are folders in `ROOT`, `{out}` is the one it writes
    results:list[str] # patterns of the files it comes to
    share:float       # how many trials it gets
    again:str=''      # further words for a folder in which `begun` is there already
    begun:str=MARKER
    heals:bool=False  # whether a second run makes anew what is damaged, to the last bit

PREPARE = 'prepare {photos} {out} --encoder {encoder} --patch 56 --group_by file --fractions .6,.2,.2 --batch_size 1 --workers 1'
TRAIN = '--epochs 3 --width 16 --blocks 1 --batch_size 4 --crop 56 --val_crop 56'
RUN = ['best/model.safetensors','loss_log.json','val_errors.json','baselines.json','state/model.safetensors']
JOBS = dict(
    pairs=Job(PREPARE, ['*/*/*'], 1, '--verify', heals=True),
    shards=Job(PREPARE + ' --shards --shard_mb 1', ['*/*.tar','*/*.json'], .6, '--verify', heals=True),
    run=Job(f'train {{pairs}} {{out}} {TRAIN}', RUN, .8, '--resume', 'config.json'),
    streamed=Job(f'train {{shards}} {{out}} {TRAIN}', RUN, .3, '--resume', 'config.json'),
    results=Job('infer {run}/best {pairs} {out} --split train --batch_size 1', ['*/info.json','*/*.png','summary.json'], .8, '--resume', heals=True),
    page=Job('gallery {results} {out}/page.html', ['page.html'], .2, heals=True),
    pretraining=Job('pretrain {out} {photos} --steps 6 --batch_size 4 --width 32 --depth 1 --heads 2 --prototypes 8 --crop 42 --small_crop 28 --side 56 --asked 24',
                    ['encoder/model.safetensors','log.json'], .3, '--resume', 'config.json'),
    study=Job('study {photos} {out} --encoder {encoder} --decoders default --patch 56 --epochs 1 --seeds 1 --unseen 0', ['report.json'], .05))

def words_of(name, out, **places):
    "The words of a job's command; `places` are inputs elsewhere than in `ROOT`"
    job = JOBS[name]
    folders = {k: ROOT/k for k in inputs_of(name)} | places | dict(out=out)
    again = job.again if (out/job.begun).exists() else ''
    return f'{job.line} {again}'.format(**folders).split()

def inputs_of(name): return [k for k in re.findall(r'{(\w+)}', JOBS[name].line) if k != 'out']

def photos(folder):
    "Six blurred photos of two sizes, in two folders"
    for i in range(6):
        path = folder/'ab'[i%2]/f'{"uvwxyz"[i]}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (8,8,3), np.uint8)
        Image.fromarray(pixels).resize((64+56*(i%2), 64)).save(path)

def encoder(folder):
    torch.manual_seed(0)
    Dinov2Model(Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56)).save_pretrained(folder)

def pixel():
    file = io.BytesIO()
    Image.new('RGB', (1,1)).save(file, 'PNG')
    return file.getvalue()

PIXEL = pixel()

def savefig(self, file, *args, **kwargs):
    if isinstance(file, io.TextIOBase): file.write('<svg xmlns="http://www.w3.org/2000/svg"/>')
    elif hasattr(file, 'write'): file.write(PIXEL)
    else: Path(file).write_bytes(PIXEL)

def plot_losses(log, baselines, title, path):
    with replacing(path) as p: p.write_bytes(PIXEL)

commands.pretrain = partial(commands.pretrain, every=2) # steps from one checkpoint to the next
Figure.savefig,train.plot_losses = savefig,plot_losses # drawing takes longer than all the rest, and a figure says nothing here


# ── a job in a process of its own ────────────────────────────────────────────────────────────────────────────────────────

@dataclass
class Outcome:
    how:str      # 'done', 'refused', 'usage', 'incomplete', 'killed', 'stuck' or 'traceback'
    said:str     # what it wrote to stderr
    told:str     # and to stdout
    changes:int  # how many changes to the file system it made or tried

class Child:
    "A command in a fork of this process"
    def __init__(self, words, before=None, strike=None):
        "`before()` is called in the fork first, `strike(event, path)` before its changes to the file system, with their number"
        self.said,self.told = (tempfile.TemporaryFile('w+', errors='replace') for _ in range(2))
        self.changes = mmap.mmap(-1, 8) # shared
        self.start = time.time()
        self.pid = os.fork()
        if self.pid: return
        os.setpgid(0, 0) # it may have workers, who are to die with it
        tqdm.set_lock(RLock()) # forks share tqdm's own, and one that is killed while it holds it would stop all later ones
        os.dup2(self.told.fileno(), 1)
        os.dup2(self.said.fileno(), 2)
        watch(self.changes, strike)
        status = 0
        try:
            if before: before()
            COMMANDS[words[0]](words[1:])
        except SystemExit as e: status = e.code or 0
        except BaseException:
            traceback.print_exc()
            status = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    def wait(self, kill_after=None, limit=120):
        "Its `Outcome`; it is killed after some seconds"
        how = None
        while how is None:
            pid,status = os.waitpid(self.pid, os.WNOHANG)
            passed = time.time()-self.start
            if pid: how = self.ended(status)
            elif passed > limit: how = 'stuck'
            elif kill_after is not None and passed > kill_after: how = 'killed'
            else: time.sleep(.001)
        try: os.killpg(self.pid, signal.SIGKILL) # its workers, too
        except ProcessLookupError: pass
        if not pid: os.waitpid(self.pid, 0)
        for file in (self.said,self.told): file.seek(0)
        return Outcome(how, self.said.read().strip(), self.told.read(), int.from_bytes(self.changes[:8], 'little'))

    def ended(self, status):
        if os.WIFSIGNALED(status): return 'killed'
        return {0: 'done', 1: 'refused', 2: 'usage', 3: 'incomplete'}.get(os.WEXITSTATUS(status), 'traceback')

CHANGES = 'os.rename','os.mkdir','os.remove','os.rmdir'

def watch(count, strike):
    "Count what this process changes in `ROOT` from now on, and have `strike` called before each change"
    def seen(event, args):
        opens = event == 'open' and isinstance(args[2], int) and args[2] & (os.O_WRONLY|os.O_RDWR|os.O_CREAT)
        if not opens and event not in CHANGES: return
        path = os.fsdecode(args[0]) if isinstance(args[0], (str,bytes,Path)) else ''
        if path.startswith('/') and not path.startswith(str(ROOT)): return # relative ones are those of `rmtree`
        n = int.from_bytes(count[:8], 'little') + 1
        count[:8] = n.to_bytes(8, 'little')
        if strike: strike(n, event, path)
    sys.addaudithook(seen)

def run(name, out, kill_after=None, before=None, strike=None, **places):
    "Run a job to its end, whatever that is"
    return Child(words_of(name, out, **places), before, strike).wait(kill_after)


# ── what a folder holds ──────────────────────────────────────────────────────────────────────────────────────────────────

VOLATILE = {'ms','versions','made','seconds','minutes','path','photos','pairs','decoder','source','config','eta','images_per_second'}

def lasting(value):
    "A value of JSON without times, places and the like"
    if isinstance(value, dict): return {k: lasting(v) for k,v in value.items() if k not in VOLATILE}
    return [lasting(v) for v in value] if isinstance(value, list) else value

def content(path):
    if path.suffix == '.json': return lasting(json.loads(path.read_bytes()))
    if path.suffix == '.tar':
        with tarfile.open(path) as tar: return {m.name: tar.extractfile(m).read() for m in tar}
    return hashlib.sha256(path.read_bytes()).hexdigest()

def result(name, out):
    "What a job came to: file → content"
    found = {p for pattern in JOBS[name].results for p in out.glob(pattern) if p.is_file() and 'mine' not in p.parts}
    return {p.relative_to(out).as_posix(): content(p) for p in sorted(found)}

def files_in(folder): return sorted(p for p in folder.rglob('*') if p.is_file() and p.name != '.lock')

def snapshot(folder):
    "All of a folder, to the last bit"
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted([folder, *folder.rglob('*')])}

def half_a_file(folder):
    "A file under its final name that is not whole, if there is one"
    for p in files_in(folder):
        if p.name.startswith(TMP) or any(part.startswith(TMP) for part in p.parts): continue
        try:
            if p.suffix == '.json': json.loads(p.read_bytes())
            if p.suffix == '.png': Image.open(p).load()
            if p.suffix == '.pt': torch.load(p, weights_only=True)
        except Exception as e: return f'{p}: {e}'

def left_out(value, inside=False):
    "All text below the keys that name what was left out"
    if isinstance(value, dict): return ' '.join(f'{k if inside else ""} {left_out(v, inside or k in ("skipped","failed","notes"))}' for k,v in value.items())
    if isinstance(value, list): return ' '.join(left_out(v, inside) for v in value)
    return str(value) if inside else ''

def left_out_of(out): return ' '.join(left_out(json.loads(p.read_bytes())) for p in out.glob('*.json')) if out.is_dir() else ''


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────────

class Tally:
    "The trials of a fault, and what fell"
    def __init__(self, fault, seed, show=False):
        self.fault,self.show = fault,show
        self.trials,self.fell = Counter(),Counter()
        self.rng = np.random.default_rng((seed, *fault.encode()))

    def folder(self, name):
        "A folder for the next trial"
        self.trials[name] += 1
        self.trial = f'{self.fault} {name} {self.trials[name]}'
        return ROOT/f'trial-{self.fault}-{name}-{self.trials[name]}'

    def pick(self, items): return items[int(self.rng.integers(len(items)))]
    def bad(self, kind, what):
        self.fell[kind] += 1
        print(f'{self.trial}, {kind}: {what}', flush=True)

    def expect(self, outcome, allowed, what):
        "Whether a job ended in one of the `allowed` ways, and in plain words; what is not so is noted"
        if self.show: print(f'{self.trial}: {what}: {outcome.how} {outcome.said[-300:]}', flush=True)
        if outcome.how not in allowed:
            kind = dict(traceback='tracebacks', done='wrong', incomplete='wrong').get(outcome.how, 'stuck')
            self.bad(kind, f'{what}: {outcome.how}, {outcome.said[-900:]}')
            return False
        if outcome.how == 'refused' and (fault := unclear(outcome.said)): self.bad('tracebacks', f'{what}: {fault}: {outcome.said[-900:]}')
        return True

    def judge(self, name, out, what):
        "Note if what a job came to differs from what it comes to without faults, or if something is left over"
        have,want = result(name, out),WANT[name]
        if have.keys() != want.keys(): self.bad('lost', f'{what}: other files: {sorted(have.keys() ^ want.keys())[:4]}')
        elif have != want: self.bad('wrong', f'{what}: differs: {[k for k in want if have[k] != want[k]][:4]}')
        if litter := [str(p) for p in out.rglob(f'{TMP}*')]: self.bad('wrong', f'{what}: left over: {litter[:3]}')

    def row(self, fault): return dict(fault=self.fault, what=fault.__doc__, trials=self.trials.total()) | {k: self.fell[k] for k in KINDS}

def unclear(said):
    "What a user could not make sense of in an error; None if all is clear"
    last = said.splitlines()[-1] if said else ''
    if 'Traceback' in said: return 'a traceback'
    if not said: return 'no word'
    if 'out of memory:' in said: return None
    if '--debug' in last and 'free some room' not in said: return 'an error that is not ours'
    if '/' not in said and '=' not in said: return 'no file is named'


# ── faults: each function is one trial ───────────────────────────────────────────────────────────────────────────────────

WANT,TIMES,CHANGED = {},{},{} # name of a job → its result, seconds and changes to the file system, undisturbed

def begin(t, name, out):
    "Begin with nothing, with half of a job or, where that is made anew, with a damaged result"
    start = t.pick(['nothing','half'] + ['damaged']*JOBS[name].heals)
    if start == 'half': shutil.copytree(ROOT/f'half-{name}', out)
    if start == 'damaged':
        shutil.copytree(ROOT/name, out)
        samples = [p for p in to_damage(out) if p.parent != out or name == 'page']
        hurt(t, t.pick(samples), t.pick(['cut','gone']))
    return start

def kill(n, event, path): os.killpg(0, signal.SIGKILL)

def at_change(number, act):
    "A `strike` that calls `act` at change number `number`"
    return lambda n,event,path: act(n, event, path) if n == number else None

def kills(t, name):
    "A job is killed once or twice, before a random change to the file system or at a random time; then it runs to its end"
    out = t.folder(name)
    start = begin(t, name, out)
    for _ in range(t.rng.integers(1, 3)):
        number = int(t.rng.integers(1, CHANGED[name]+1))
        when = dict(strike=at_change(number, kill)) if t.rng.integers(3) else dict(kill_after=t.rng.random()*TIMES[name])
        what = f'{start}, killed at {number if "strike" in when else when}'
        t.expect(run(name, out, **when), ['killed','done'], what)
        if start != 'damaged' and (half := half_a_file(out)): t.bad('wrong', f'{what}: half a file, {half}')
    if t.expect(run(name, out), ['done'], f'{what}, again'): t.judge(name, out, what)

def full(t, name):
    "The disk is full, or files may not grow beyond a limit: the job says so in a line, and the same command ends well when there is room"
    how = t.pick(['error','limit','disk'])
    out = t.folder(name)
    whole = [p.stat().st_size for p in files_in(ROOT/name)]
    if how == 'disk':
        small = max(16, int(t.rng.random()*sum(whole)/1024))
        if not mount(out, f'size={small}k'): how = 'limit' # one must be root for it
    number = int(t.rng.integers(1, CHANGED[name]+1))
    def refuse(n, event, path):
        if n >= number and event in ('open','os.mkdir'): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    most = int(t.rng.integers(1, max(whole)))
    def limit(): resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    ways = dict(error=dict(strike=refuse), limit=dict(before=limit), disk={})
    try:
        inner = out/'in' if how == 'disk' else out
        outcome = run(name, inner, **ways[how])
        t.expect(outcome, ['refused','done'], how)
        if outcome.how == 'refused' and 'free some room' not in outcome.said: t.bad('tracebacks', f'{how}: no remedy in {outcome.said}')
        if how == 'disk': mount(out, 'size=800m,remount')
        if t.expect(run(name, inner), ['done'], f'{how}, with room'): t.judge(name, inner, how)
    finally:
        if how == 'disk': subprocess.run(['umount', out], check=True)

def mount(at, options):
    "Whether a small file system could be mounted at a folder"
    at.mkdir(exist_ok=True)
    return not subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', at], capture_output=True).returncode

def memory(t, name):
    "Memory runs out once, or there is little of it: the job says so or lists what it could not do, and the same command ends well"
    out = t.folder(name)
    number = int(t.rng.integers(1, CHANGED[name]+1))
    def refuse(n, event, path): raise MemoryError
    def limit():
        used = int(Path('/proc/self/statm').read_text().split()[0])*resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + int(t.rng.random()*40e6),)*2)
    way = t.pick([dict(strike=at_change(number, refuse)), dict(before=limit)])
    what = f'memory, {[*way][0]}'
    t.expect(run(name, out, **way), ['refused','incomplete','done','killed'], what)
    if t.expect(run(name, out), ['done'], f'{what}, again'): t.judge(name, out, what)

class Hostile:
    "Pickled, it makes a file when it is read"
    def __reduce__(self): return os.mkdir, (str(ROOT/'executed'),)

WAYS = 'gone','empty','cut','flip','junk','list','names','hostile','swapped'

def kind_of_file(path, folder):
    "Files of one kind have this in common: the path with `*` for samples and numbers"
    return re.sub(r'[^/]*__[^/]*|\d+', '*', path.relative_to(folder).as_posix())

def to_damage(folder):
    "A file of each kind"
    return list({kind_of_file(p, folder): p for p in files_in(folder)}.values())

def hurt(t, path, how, folder=None):
    "Damage a file; whether that makes sense for it"
    was = path.read_bytes()
    at = int(t.rng.integers(max(len(was), 1)))
    if how == 'gone': path.unlink()
    elif how == 'empty': path.write_bytes(b'')
    elif how == 'cut': path.write_bytes(was[:at])
    elif how == 'flip': path.write_bytes(was[:at] + bytes([was[at] ^ 1 << int(t.rng.integers(8))]) + was[at+1:])
    elif how == 'junk': path.write_bytes(t.rng.bytes(len(was)))
    elif how == 'list' and path.suffix == '.json': path.write_text('[]')
    elif how == 'names' and path.suffix == '.json': path.write_text(re.sub(r'"[^"/]*__[^"/]*"', '"../mine"', was.decode()))
    elif how == 'hostile' and path.suffix in ('.pt','.pkl','.bin'): path.write_bytes(pickle.dumps(Hostile()))
    elif how == 'swapped' and folder:
        others = [p for p in files_in(folder) if p != path and kind_of_file(p, folder) == kind_of_file(path, folder)]
        if not others: return False
        other = t.pick(others)
        path.write_bytes(other.read_bytes())
        other.write_bytes(was)
    else: return False
    return not path.exists() or path.read_bytes() != was

def foreign_file(out):
    "A file in `out` that no job has made"
    path = out/'mine/thesis.tex'
    path.parent.mkdir()
    path.write_text('years of work')
    return path

def damage(t, name):
    "A file of a finished or interrupted job is damaged: the same command makes it anew, or refuses and names it"
    out = t.folder(name)
    job = JOBS[name]
    shutil.copytree(ROOT/name if job.heals else ROOT/f'half-{name}', out)
    path,how = t.pick(to_damage(out)),t.pick(WAYS)
    was = snapshot(out)
    if not hurt(t, path, how, out): how = 'empty' if hurt(t, path, 'empty') else 'nothing'
    what = f'{how} {path.relative_to(out)}'
    mine = foreign_file(out)
    outcome = run(name, out)
    t.expect(outcome, ['done','refused'], what)
    if outcome.how == 'refused':
        if path.name not in outcome.said and str(path.parent) not in outcome.said: t.bad('tracebacks', f'{what}: it is not named in {outcome.said}')
        mend(was, out)
        outcome = run(name, out)
        t.expect(outcome, ['done'], f'{what}, mended')
    number = not job.heals and how in ('flip','junk') # of a checkpoint
    unseen = number or how in ('flip','names') and path.suffix == '.json'
    if outcome.how == 'done' and not unseen: t.judge(name, out, what)
    if not mine.exists(): t.bad('lost', f'{what}: a foreign file')
    if (ROOT/'executed').exists(): t.bad('wrong', f'{what}: a file was executed')
    remove(ROOT/'executed')

def mend(was, out):
    "Make the files of a `snapshot` what they were"
    for path,content in was.items():
        if content is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(content)

def reading(t, name):
    "A file that a job reads is damaged: it is left out and listed, or the job refuses and names it; mended, all is well"
    out = t.folder(name)
    which = t.pick([k for k in inputs_of(name) if k != 'encoder'])
    copy = out.with_name(out.name + '-input')/which
    shutil.copytree(ROOT/which, copy)
    used = [p for p in to_damage(copy) if which != 'run' or p.parent.name in ('best','linear_probe','scaled_probe','product_probe')]
    path,how = t.pick(used),t.pick(WAYS)
    was = snapshot(copy)
    if not hurt(t, path, how, copy): how = 'empty' if hurt(t, path, 'empty') else 'nothing'
    what = f'{how} {path.relative_to(copy)} of {which}'
    outcome = run(name, out, **{which: copy})
    t.expect(outcome, ['done','incomplete','refused'], what)
    told = f'{outcome.said} {outcome.told} {left_out_of(out)}'
    named = any(k in told for k in (path.name, path.parent.name, str(copy)))
    unseen = which in ('photos','run','results') and how in ('flip','junk','swapped') # other pixels are another photo
    unseen = unseen or which == 'photos' and how == 'gone'
    if outcome.how in ('done','incomplete') and not (named or unseen) and result(name, out) != WANT[name]: t.bad('wrong', f'{what}: neither used as it was nor listed')
    if outcome.how == 'refused' and not named: t.bad('tracebacks', f'{what}: it is not named in {outcome.said}')
    mend(was, copy)
    if JOBS[name].heals:
        if t.expect(run(name, out, **{which: copy}), ['done'], f'{what}, mended'): t.judge(name, out, what)

def writers(t, name):
    "Two at once in one folder: one does the work, the other is told so or finds it done"
    out = t.folder(name)
    both = [Child(words_of(name, out)) for _ in range(2)]
    outcomes = [child.wait() for child in both]
    for outcome in outcomes: t.expect(outcome, ['done','refused'], 'one of two')
    if not any(o.how == 'done' for o in outcomes): t.bad('stuck', f'neither did the work: {[o.said for o in outcomes]}')
    else: t.judge(name, out, 'two writers')

FOREIGN = {'thesis.tex': '1', 'summary.json': '{"passed": 3, "failed": 0}', 'meta.json': '{"complete": true}', 'config.json': '{}',
           'study.json': '{}', 'loss_log.json': '[]', 'exp1/info.json': '{"my": "notes"}', 'exp1/thesis.tex': '1',
           'train/a__b__0_0/info.json': '{}', 'best/config.json': '{}', 'state/notes': '1', 'encoder/config.json': '{}', 'page.html': '<p>'}

def foreign(t, name):
    "The folder to write to holds something else, whatever it looks like: it is refused, and not a byte changes"
    out = t.folder(name)
    others = [k for k in JOBS if JOBS[k].line.split()[0] != JOBS[name].line.split()[0]]
    other = t.pick([None, None, *others]) if name != 'page' else None
    if other: shutil.copytree(ROOT/other, out)
    else:
        for file in [*t.rng.permutation([*FOREIGN])[:int(t.rng.integers(1, 6))]] + ['page.html']*(name == 'page'):
            (out/file).parent.mkdir(parents=True, exist_ok=True)
            (out/file).write_text(FOREIGN[file])
    was = snapshot(out)
    what = f'a folder of {other or sorted(was)}'
    t.expect(run(name, out), ['refused'], what)
    if snapshot(out) != was: t.bad('lost', f'{what}: it has changed')

FAULTS = {f.__name__: f for f in (kills, full, memory, damage, reading, writers, foreign)}
MORE = dict(kills=1.5, damage=2, writers=.3, foreign=.7) # trials of each, beside the others'


# ── all of it ────────────────────────────────────────────────────────────────────────────────────────────────────────────

def undisturbed(names):
    "Run each job once in peace, and note what it came to; and once until it is killed half-way"
    photos(ROOT/'photos')
    encoder(ROOT/'encoder')
    for name in names:
        warm_up(name)
        start = time.time()
        outcome = run(name, ROOT/name)
        assert outcome.how == 'done', f'{name}, undisturbed: {outcome}'
        TIMES[name],CHANGED[name],WANT[name] = time.time()-start, outcome.changes, result(name, ROOT/name)
        half = ROOT/f'half-{name}'
        for part in (.7,.5,.3): # the later the better, but not when all is there
            remove(half)
            run(name, half, strike=at_change(int(part*CHANGED[name]), kill))
            if result(name, half) != WANT[name]: break
        print(f'{name}: {len(WANT[name])} files, {CHANGED[name]} changes, {TIMES[name]:.2f} s', flush=True)

def warm_up(name):
    "Run a job in this process: forks find imported what it needs"
    command,*words = words_of(name, ROOT/'warm-up')
    with redirect_stdout(io.StringIO()): COMMANDS[command](words)
    remove(ROOT/'warm-up')

def needed(names):
    "These jobs and those whose results they read, in order"
    found = set(names)
    for name in reversed(JOBS):
        if name in found: found |= set(inputs_of(name)) & set(JOBS)
    return [k for k in JOBS if k in found]

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--trials', type=float, default=1, help='how many times the usual number')
    p.add_argument('--only', nargs='*', choices=[*FAULTS], default=[*FAULTS], help='some faults')
    p.add_argument('--jobs', nargs='*', choices=[*JOBS], default=[*JOBS], help='some jobs')
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--show', action='store_true', help='say what each trial did')
    p.add_argument('--out', type=Path, default=REPO/'bench/faults.json', help='the table as a file, written if everything ran')
    o = p.parse_args()
    start,rows = time.time(),[]
    try:
        undisturbed(list(JOBS) if 'foreign' in o.only else needed(o.jobs))
        for fault in o.only:
            t = Tally(fault, o.seed, o.show)
            for name in o.jobs:
                for _ in range(max(1, round(20*o.trials*MORE.get(fault, 1)*JOBS[name].share))):
                    FAULTS[fault](t, name)
                    for folder in ROOT.glob('trial-*'): remove(folder)
            rows.append(t.row(FAULTS[fault]))
            print(*(f'{k} {v}' for k,v in rows[-1].items() if k != 'what'), f'after {time.time()-start:.0f} s', flush=True)
    finally: shutil.rmtree(ROOT, ignore_errors=True)
    total = {k: sum(row[k] for row in rows) for k in ('trials',*KINDS)}
    print('all', *(f'{k} {v}' for k,v in total.items()), f'{time.time()-start:.0f} s')
    if o.only == [*FAULTS] and o.jobs == [*JOBS]:
        save_json(o.out, dict(seed=o.seed, seconds=round(time.time()-start), versions=versions(), rows=[*rows, dict(fault='all', what='') | total]))
    sys.exit(any(total[k] for k in KINDS))

if __name__ == '__main__': main()
