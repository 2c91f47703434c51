"""Faults on purpose: jobs are killed, files damaged, disks filled, options wrong. Prints a table that must hold nothing but zeros.

    python tools/faults.py                               # every section, in less than two minutes on two cores
    python tools/faults.py --trials 500                  # at length
    python tools/faults.py --only kills damage --seed 7  # some of it, on other random numbers
    python tools/faults.py --out bench/faults.json       # the table as a file, for the page about it

lost         what was finished is gone, or what could be made is not
wrong        something else than it ought to be, or accepted where it should be refused
stuck        it does not end, or can't be taken up again
tracebacks   an error that is not a `DinoinvError`, so names neither the file nor a remedy

A section is a function of a `Tally` and a number of trials, listed in `SECTIONS`; `points` runs the small `CASES` one by one.
Each trial runs in a fork of this process, made after the imports, so that it takes milliseconds.
"""
import argparse, json, os, re, shutil, signal, subprocess, sys, tarfile, tempfile, time, traceback
from collections import Counter
from dataclasses import fields, replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from threading import RLock
os.environ['TQDM_DISABLE'] = '1'
import numpy as np, torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import Dinov2Config, Dinov2Model
from transformers.utils import logging
from dinoinv.core import DinoinvError, is_litter, load_json, one_writer, remove, save_json, versions
from dinoinv.dataset import Batches, PairsDataset, describe, dinoinv_prepare, prepare_pairs
from dinoinv.features import Encoder, load_encoder
from dinoinv.gallery import Gallery, contact_sheet, load_results
from dinoinv.images import to_tensor
from dinoinv.inference import evaluate, load_decoder
from dinoinv.pairs import FILES, SPLITS, load_meta, load_pair
from dinoinv.sources import find_textures
from dinoinv import train as training
from dinoinv.runs import best_epoch, load_probes
from dinoinv.scores import pairs_key
from dinoinv.train import TrainConfig, dinoinv_train, train_decoder

torch.set_num_threads(1)
logging.set_verbosity_error()
KINDS = 'lost','wrong','stuck','tracebacks'


# ── one trial, in a process of its own ───────────────────────────────────────────────────────────────────────────────────

class Wrong(Exception):
    "Raised in a trial: the result is not what it ought to be"

class Child:
    "`func` in a fork of this process; `die_at`: killed just before its so-many-th change to the file system"
    def __init__(self, func, die_at=None):
        self.read,write = os.pipe()
        self.pid,self.start = os.fork(),time.time()
        if self.pid: os.close(write); return
        os.setpgid(0, 0) # it may have workers, who are to die with it
        tqdm.set_lock(RLock()) # forks share tqdm's own, and one killed while it holds it would stop all later ones
        torch.set_num_threads(1) # PyTorch makes its pool anew after a fork: now, before the threads of an evaluation race for it
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (1,2): os.dup2(null, fd)
        changes = count_changes(die_at)
        try: code,text = 0, func()
        except DinoinvError as e: code,text = 1, str(e)
        except Wrong as e: code,text = 2, str(e)
        except BaseException: code,text = 3, traceback.format_exc()
        os.write(write, json.dumps([text if isinstance(text, str) else None, changes[0]]).encode(errors='replace')[:60_000])
        os._exit(code)

    def wait(self, kill_after=None, limit=60):
        "(how it ended: 'done', 'refused', 'wrong', 'traceback', 'killed' or 'stuck'; what it said; how many changes it made)"
        status = None
        while status is None:
            pid,st = os.waitpid(self.pid, os.WNOHANG)
            if pid: status = st; break
            t = time.time()-self.start
            if t > limit or kill_after is not None and t > kill_after:
                try: os.killpg(self.pid, signal.SIGKILL)
                except ProcessLookupError: os.kill(self.pid, signal.SIGKILL) # its group is not made yet
                os.waitpid(self.pid, 0)
                status = 'killed' if t <= limit else 'stuck'
            time.sleep(.0005)
        with os.fdopen(self.read) as f: said = f.read()
        if isinstance(status, str): return status, '', 0
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            return ('killed' if number == signal.SIGKILL else 'traceback'), f'signal {number}', 0
        text,changes = json.loads(said)
        return ('done','refused','wrong','traceback')[os.WEXITSTATUS(status)], text or '', changes

def attempt(func, die_at=None, **kwargs): return Child(func, die_at).wait(**kwargs)

def count_changes(die_at):
    "Count what this process does to the file system from now on, and kill it before change number `die_at`"
    n = [0]
    def seen(event, args):
        writes = event == 'open' and isinstance(args[2], int) and args[2] & (os.O_WRONLY|os.O_RDWR|os.O_CREAT)
        if not writes and event not in ('os.rename','os.mkdir','os.remove','os.rmdir'): return
        n[0] += 1
        if n[0] == die_at: os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(seen)
    return n

class Tally:
    "What a section found"
    def __init__(self, name, root, seed):
        self.name,self.root,self.n,self.found = name,root,0,Counter()
        self.rng = np.random.default_rng((seed, *name.encode()))
    def trial(self): self.n += 1; return self.root/f'{self.name}{self.n}'
    def bad(self, kind, what): self.found[kind] += 1; self.note(f'{self.n}, {kind}: {what}')
    def note(self, what): print(f'{self.name} {what}', flush=True)
    def check(self, outcome, expected, what):
        "Note what is bad about an outcome of `attempt`; whether it is one of `expected`"
        how,said,_ = outcome
        if how in expected: return True
        kind = dict(traceback='tracebacks', stuck='stuck', wrong='wrong', refused='stuck', done='wrong', killed='stuck')[how]
        self.bad(kind, f'{what} {how}: {said.strip()[-900:]}')
        return False
    def pick(self, items): return items[int(self.rng.integers(len(items)))]


# ── something to work on ─────────────────────────────────────────────────────────────────────────────────────────────────

def tiny():
    torch.manual_seed(0)
    return Dinov2Model(Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14))

ENC = Encoder(tiny(), 'tiny', device='cpu', amp=False)
OPTIONS = dict(encoder=ENC, patch=56, group_by='file', fractions=(.6,.2,.2), batch_size=3)
ROOT = Path(tempfile.mkdtemp(prefix='faults'))
PHOTOS = ROOT/'photos'

def photo(path, h=64, w=64, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (h,w,3), np.uint8)).save(path)

def material():
    for i in range(6): photo(PHOTOS/f'{"ab"[i%2]}/{i}.png', 64, 64+56*(i%3), i)

def prepare(out, photos=PHOTOS, **changes): return lambda: prepare_pairs(photos, out, **OPTIONS|changes) and None

def content(pairs):
    "Everything in a folder of pairs, read in the usual way"
    ds = {s: PairsDataset(pairs, s, None, random=False) for s in SPLITS}
    return {f'{s}/{k}': ds[s][i] for s in SPLITS for i,k in enumerate(ds[s].names)}

def difference(have, want):
    "How two results of `content` differ, '' if they don't"
    if have.keys() != want.keys(): return f'other pairs: {sorted(have.keys()^want.keys())[:4]}'
    same = lambda a,b: torch.equal(a['target'], b['target']) and torch.allclose(a['features'].float(), b['features'].float(), atol=.02)
    return ', '.join(k for k in want if have[k]['features'].shape != want[k]['features'].shape or not same(have[k], want[k]))

def litter(pairs): return [str(p) for p in pairs.rglob('.*') if is_litter(p.name)]

def judge(t, pairs, want, what, ended=True):
    "Note if a folder that is said to be complete is not as it ought to be; one where the job has `ended` is also tidy, and undamaged"
    def look():
        if d := difference(content(pairs), want): raise Wrong(d)
        if ended and litter(pairs): raise Wrong(f'temporary files are left: {litter(pairs)[:3]}')
    how,said,_ = attempt(look)
    if how == 'wrong' and said.startswith('other pairs'): t.bad('lost', f'{what}: {said}')
    else: t.check((how,said,0), ['done'] if ended else ['done','refused'], f'{what}, reading')

def reference(name, **kwargs):
    if not (ROOT/name).exists(): prepare(ROOT/name, **kwargs)()
    return ROOT/name, content(ROOT/name)


# ── sections: preparing pairs ────────────────────────────────────────────────────────────────────────────────────────────

def kills(t, n):
    "Prepare killed once or more, at a random time or before a random change to the file system; then run to its end"
    old,_ = reference('old', patch=70, fractions=(.4,.3,.3))
    ref,want = reference('ref')
    t0 = time.time(); _,_,changes = attempt(prepare(ROOT/'timed')); seconds = time.time()-t0
    for _ in range(n):
        out = t.trial()
        begin = t.pick(('new','damaged','force'))
        if begin == 'force': shutil.copytree(old, out)
        if begin == 'damaged': shutil.copytree(ref, out); hurt(t, t.pick(sorted(out.glob('*/*/*'))), 'cut')
        job = prepare(out, force=begin == 'force', workers=int(t.rng.integers(8) == 0))
        for _ in range(t.rng.integers(1, 4)):
            when = dict(die_at=int(t.rng.integers(1, changes+1))) if t.rng.integers(2) else dict(kill_after=t.rng.random()*seconds)
            t.check(attempt(job, **when), ['killed','done'], f'{begin}, {when}')
            if complete(out): judge(t, out, want, f'{begin}, {when}, said to be complete', ended=False)
        if t.check(patient(job), ['done'], f'{begin}, run again'): judge(t, out, want, begin)
        shutil.rmtree(out)

def complete(pairs):
    "Whether the folder is said to be, and by the options of `OPTIONS`"
    try: return (m := load_meta(pairs))['complete'] and m['options']['patch'] == OPTIONS['patch']
    except DinoinvError: return False

def patient(job):
    "The outcome of `job`, tried again for ten seconds while the workers of a killed process end"
    for _ in range(40):
        outcome = attempt(job)
        if 'another process' not in outcome[1]: break
        time.sleep(.25)
    return outcome

DAMAGE = 'gone','empty','cut','flip','junk','folder','pipe','list','null','deep','nan','shape','dtype','pickle','other'

def hurt(t, path, how):
    "Damage a file; whether that kind of damage makes sense for it"
    b = path.read_bytes()
    if how in ('list','null','deep'):
        if path.suffix == '.json': path.write_text(dict(list='[]', null='null', deep='['*50_000)[how])
        return path.suffix == '.json'
    if how in ('nan','shape','dtype','pickle'):
        if path.suffix != '.pt': return False
        f = torch.load(path).clone()
        if how == 'nan': f[tuple(t.rng.integers(s) for s in f.shape)] = t.pick([float('nan'), float('inf')])
        torch.save(dict(nan=f, shape=f[:,:-1], dtype=f.float(), pickle=PHOTOS)[how], path)
        return True
    if how == 'other': # a picture of other size
        if path.suffix == '.png': Image.new('RGB', (57,56)).save(path)
        return path.suffix == '.png'
    path.unlink()
    i = int(t.rng.integers(len(b)))
    if how in ('folder','pipe'): path.mkdir() if how == 'folder' else os.mkfifo(path)
    elif how != 'gone':
        flipped = b[:i] + bytes([b[i]^1<<int(t.rng.integers(8))]) + b[i+1:]
        path.write_bytes(dict(empty=b'', cut=b[:i], flip=flipped, junk=t.rng.bytes(len(b)))[how])
    return True

def damage(t, n):
    "Every kind of file damaged in every way: reading names the file, preparing again makes the pair anew and says so"
    ref,want = reference('ref')
    every = list(product((*FILES,'info.json','meta.json'), DAMAGE))
    for k in range(max(n, len(every))):
        name,how = every[k%len(every)]
        out = t.trial(); shutil.copytree(ref, out)
        path = out/name if name == 'meta.json' else t.pick(sorted(out.glob('*/*')))/name
        was = path.read_bytes()
        if not hurt(t, path, how): t.n -= 1; shutil.rmtree(out); continue
        what = f'{how} {path.relative_to(out)}'
        spoilt = not path.is_file() or path.read_bytes() != was
        def look():
            if d := difference(content(out), want): raise Wrong(f'taken for whole: {d}')
        outcome = attempt(look)
        expected = ['done','refused'] + ['wrong']*(how == 'flip') # one bit is for --verify to find
        said = outcome[1]
        named = path.name in said or name == 'meta.json' and 'unfinished' in said
        if t.check(outcome, expected, f'{what}, reading') and outcome[0] == 'refused' and not named: t.bad('wrong', f'{what}: not named in {said}')
        force = name == 'meta.json'
        if force: t.check(attempt(prepare(out)), ['done','refused'], f'{what}, without --force')
        if how == 'folder' and force: path.rmdir() # nobody's fault but a human's
        if t.check(attempt(prepare(out, verify=True, force=force)), ['done'], f'{what}, preparing again'):
            judge(t, out, want, what)
            if spoilt and name in FILES and not load_json(out/'meta.json')['damaged']: t.bad('wrong', f'{what}: not listed')
        shutil.rmtree(out)

FORMATS = dict(png={}, jpg={}, webp=dict(lossless=True), tif={}, bmp={})
MODES = 'RGB','L','P','1','RGBA','LA','CMYK','I','F','I;16','YCbCr','HSV'

def picture(t, path):
    "Write a picture in some mode and format, if the format takes it"
    im = Image.fromarray(t.rng.integers(0, 255, (60,75,3), np.uint8))
    mode = t.pick(MODES)
    im = Image.fromarray(t.rng.integers(0, 65535, (60,75)).astype(np.uint16)) if mode == 'I;16' else im.convert(mode)
    exif = Image.Exif(); exif[0x0112] = int(t.rng.integers(0, 12))
    try: im.save(path, exif=exif, **FORMATS[path.suffix[1:]])
    except (OSError, ValueError): im.convert('RGB').save(path, **FORMATS[path.suffix[1:]])

def images(t, n):
    "One photo of many is mutated: it is used or listed, and the others are as before"
    _,want = reference('all', fractions=(1,0,0))
    for _ in range(n):
        out = t.trial(); photos = out.with_suffix('.photos'); shutil.copytree(PHOTOS, photos)
        path = photos/f'mutant.{t.pick(list(FORMATS))}'
        picture(t, path)
        b = bytearray(path.read_bytes())
        for _ in range(int(t.rng.integers(4))): b[int(t.rng.integers(min(len(b), t.pick((32,200,10**6)))))] = int(t.rng.integers(256))
        path.write_bytes(b if t.rng.integers(3) else b[:int(t.rng.integers(len(b)))])
        if t.check(attempt(prepare(out, photos, fractions=(1,0,0))), ['done'], path.name): used_or_listed(t, out, want, path.name)
        shutil.rmtree(out, ignore_errors=True); shutil.rmtree(photos)

def used_or_listed(t, out, want, name):
    def look():
        have = content(out)
        listed = any(name in k for k in load_json(out/'meta.json')['skipped'])
        if not listed and have.keys() == want.keys(): raise Wrong(f'{name} is neither used nor listed')
        if d := difference({k: v for k,v in have.items() if k in want}, want): raise Wrong(d)
    t.check(attempt(look), ['done'], name)

def writers(t, n):
    "Two at once on one folder: one does the work, the other is told so or finds it done"
    _,want = reference('ref')
    for _ in range(n):
        out = t.trial()
        two = [Child(prepare(out)) for _ in range(2)]
        ends = [c.wait() for c in two]
        for how,said,k in ends: t.check((how,said,k), ['done'] + ['refused']*('another process' in said), 'one of two')
        if not any(how == 'done' for how,_,_ in ends): t.bad('stuck', 'neither did the work')
        judge(t, out, want, 'two writers')
        shutil.rmtree(out)

NAN,INF = float('nan'),float('inf')
WORST = dict(patch=[0,-14,13,57,NAN,'56',None,56.], group_by=['','nope',None,3], seed=[-1,NAN,None,'0',.5], fuse=['','max',None],
             fractions=[(NAN,0,1),(.5,.5),(1,1,1),(-1,1,1),(INF,0,0),'.8,.1,.1',None,(0,0,1)],
             layers=[[1,1],[],[-1],[9],3,'1',[NAN],[True,0]], batch_size=[0,-3,NAN,10**9,None], workers=[-1,NAN,10**6,None],
             max_mpx=[0,-1,NAN,INF,None,'1'], encoder=['','nope',None,3])

def options(t, n):
    "Every option's worst values are refused before any work, with its name in the message"
    for k,v in [(k,v) for k,vs in WORST.items() for v in vs]:
        out = t.trial()
        outcome = attempt(prepare(out, **{k: v}), limit=20)
        said = outcome[1]
        if t.check(outcome, ['refused'], f'{k}={v!r}') and k not in said and repr(v) not in said: t.bad('wrong', f'{k}={v!r}: {said}')
        if out.exists(): t.bad('wrong', f'{k}={v!r}: a folder was made')
    for k,v in [('crop',0),('crop',-5),('crop',NAN),('split','../x'),('split',None),('cache_mb',-1),('seed',-1)]:
        t.trial(); t.check(attempt(lambda: PairsDataset(ROOT/'ref', **{k: v}) and None), ['refused'], f'PairsDataset {k}={v!r}')

def disk(t, n):
    "A file system that is too small: said plainly, and taken up when there is room"
    _,want = reference('ref')
    for _ in range(max(n//4, 2)):
        at = t.trial()
        enlarge = small_disk(t, at, 4*int(t.rng.integers(1, 40)))
        if not enlarge: return
        try:
            how,said,_ = attempt(prepare(at/'pairs'))
            if t.check((how,said,0), ['refused'], 'full disk') and 'no space left' not in said: t.bad('tracebacks', said)
            enlarge()
            if t.check(attempt(prepare(at/'pairs')), ['done'], 'with room'): judge(t, at/'pairs', want, 'after a full disk')
        finally: subprocess.run(['umount', at])

def encoder(t, n):
    "Checkpoints that lack something, and images that can't be meant"
    good = ROOT/'checkpoint'; tiny().save_pretrained(good)
    load_encoder(str(good), device='cpu')
    weights = {k: v.clone() for k,v in load_file(good/'model.safetensors').items()}
    used = [k for k in weights if 'mask_token' not in k]
    for _ in range(n):
        out = t.trial(); shutil.copytree(good, out)
        how,file = t.pick(('lacks','renamed','narrow','cut','config','empty')), out/'model.safetensors'
        k = t.pick(used)
        if how == 'lacks': w = {a: b for a,b in weights.items() if a != k}
        if how == 'renamed': w = {f'backbone.{a}': b for a,b in weights.items()}
        if how == 'narrow': w = weights | {k: weights[k][...,:-1].clone()}
        if how in ('lacks','renamed','narrow'): save_file(w, file, dict(format='pt'))
        if how == 'cut': file.write_bytes(file.read_bytes()[:int(t.rng.integers(file.stat().st_size))])
        if how == 'config': b = (out/'config.json').read_bytes(); (out/'config.json').write_bytes(b[:int(t.rng.integers(len(b)-2))])
        if how == 'empty': file.unlink()
        t.check(attempt(lambda: load_encoder(str(out), device='cpu') and None), ['refused'], f'{how} {k}')
        shutil.rmtree(out)
    one = np.zeros((28,28,3), np.uint8)
    images = [one+1.5, one-1., one*NAN, one+INF, one.astype(int), one.astype(np.int32), one.astype(complex), one > 0, np.array(['x']),
              one.T, np.zeros((14,28,28)), torch.zeros(14,28,28), np.zeros((28,28,2)), one[:0], one[:27], [one,one[:14]],
              [], 'a.png', True, None, 3]
    for image in images:
        t.trial(); t.check(attempt(lambda: ENC.encode(image) and None), ['refused'], f'encode {image!r}'[:90])


# ── sections: each numbered point, once ──────────────────────────────────────────────────────────────────────────────────

CASES = {}
def case(name): return lambda f: CASES.setdefault(name, f)

def must_refuse(says, f, *args, **kwargs):
    "Raise `Wrong` unless it is refused in these words"
    try: f(*args, **kwargs)
    except DinoinvError as e:
        if says in str(e): return
        raise Wrong(f'other words: {e}') from None
    raise Wrong(f'accepted, and not refused with {says!r}')

def must(ok, what):
    if not ok: raise Wrong(what)

def a_pair(pairs, split='train'): return next((pairs/split).iterdir())

@case('1 a second writer is told so')
def _(d):
    with one_writer(d/'pairs'): must_refuse('another process', prepare(d/'pairs'))
    prepare(d/'pairs')()

@case('2 damage is found by size, or by --verify, made anew and listed')
def _(d):
    prepare(d/'pairs')()
    a,b = (f for f in sorted((d/'pairs/train').iterdir())[:2])
    (a/FILES[0]).write_bytes(b'x')
    must(list(prepare_pairs(PHOTOS, d/'pairs', **OPTIONS)['damaged']) == [f'train/{a.name}'], 'size')
    w = (b/FILES[1]).read_bytes(); (b/FILES[1]).write_bytes(w[:-1]+b'?')
    meta = prepare_pairs(PHOTOS, d/'pairs', **OPTIONS, verify=True)
    must(list(meta['damaged']) == [f'train/{b.name}'] and meta['made'] == 1 and f'made anew train/{b.name}' in describe(meta), 'checksum')

@case('4 --force marks the folder incomplete before it changes anything')
def _(d):
    prepare(d/'pairs')()
    job = prepare(d/'pairs', layers=[0], force=True)
    total = attempt(job)[2]
    for k in range(1, total, 1+total//12):
        remove(d/'pairs'); prepare(d/'pairs')(); attempt(job, die_at=k)
        meta = load_json(d/'pairs/meta.json')
        if meta['complete'] and meta['options']['layers'] is None:
            must(not difference(content(d/'pairs'), content(ROOT/'ref')), f'change {k}')

@case('5 output inside the input, pairs for photos')
def _(d):
    shutil.copytree(PHOTOS, d/'ph')
    for out in ('ph/pairs','ph','ph/../ph/a/x'): must_refuse('take what is in it for photos', prepare(d/out, d/'ph'))
    prepare(d/'pairs')()
    must_refuse('not photos', prepare(d/'p2', d/'pairs'))
    shutil.copytree(d/'pairs/train', d/'ph/old')
    must(not any(p.path.startswith('old') for p in find_textures(d/'ph')[0]), 'old pairs were taken for photos')

@case('6 features of other values, type or shape, a target of other size')
def _(d):
    prepare(d/'pairs')()
    p = a_pair(d/'pairs'); f,_ = load_pair(p); f = f.clone()
    nan = f.clone(); nan[0,0,0] = NAN
    for x in (nan, nan-INF, f.float(), f[:,:-1], f[None], [f], f[:5]):
        torch.save(x, p/FILES[0]); must_refuse(FILES[0], content, d/'pairs')
    torch.save(f, p/FILES[0])
    for h,w in ((57,56),(112,112),(56,70)):
        Image.new('RGB', (w,h)).save(p/FILES[1]); must_refuse(FILES[1], load_pair, p)

@case('7 an encoder without its last block; images in other ranges')
def _(d):
    tiny().save_pretrained(d/'enc')
    w = {k: v.clone() for k,v in load_file(d/'enc/model.safetensors').items()}
    save_file({k: v for k,v in w.items() if 'layer.0' not in k}, d/'enc/model.safetensors', dict(format='pt'))
    must_refuse('lacks', load_encoder, str(d/'enc'))
    x = np.random.default_rng(0).random((28,28,3))
    must_refuse('[0,1]', ENC.encode, x*255); must_refuse('int64', ENC.encode, (x*255).astype(int))
    deep = Image.fromarray((x[...,0]*65535).astype(np.uint16))
    must(abs(to_tensor(deep)[0].numpy()-x[...,0]).max() < .01, '16 bits')

@case('8 and 17 values are refused at once, all together, with those allowed')
def _(d):
    run = lambda **k: dinoinv_prepare(str(PHOTOS), str(d/'p'), encoder='untrained', **k)
    must_refuse('batch_size=0', run, batch_size=0, seed=-1); must_refuse('seed=-1', run, batch_size=0, seed=-1)
    must_refuse('sum to 1', run, fractions='nan,0,1'); must_refuse('different', run, layers='1,1'); must(not (d/'p').exists(), 'a folder was made')

@case('10 killed before its first rename, prepare starts again')
def _(d):
    (d/'pairs').mkdir(); (d/'pairs/.meta.4711.tmp.json').write_text('{'); (d/'pairs/.lock').touch()
    prepare(d/'pairs')(); must(not litter(d/'pairs'), 'litter')

@case('11 features that are NaN are listed and not stored, the rest is done')
def _(d):
    class Sick: # answers NaN for white pictures
        def __getattr__(self, k): return getattr(ENC, k)
        def encode(self, images, *args): return torch.cat([ENC.encode(o, *args) + (NAN if o.min() > 250 else 0) for o in images])
    shutil.copytree(PHOTOS, d/'ph'); Image.new('RGB', (64,64), 'white').save(d/'ph/white.png')
    meta = prepare_pairs(d/'ph', d/'pairs', **OPTIONS|dict(encoder=Sick(), fractions=(1,0,0)))
    must('NaN' in meta['skipped']['white.png'] and not difference(content(d/'pairs'), reference('all', fractions=(1,0,0))[1]), meta)

@case('13 temporary files of killed runs are removed')
def _(d):
    prepare(d/'pairs')()
    (d/'pairs/train/.a__b__0_0.tmp').mkdir(); (d/'pairs/.meta.1.tmp.json').touch(); (d/'pairs/train/mine').mkdir()
    prepare(d/'pairs')(); must(not litter(d/'pairs') and (d/'pairs/train/mine').exists(), 'litter')

@case('14 odd names and files are used or listed, the rest is done')
def _(d):
    shutil.copytree(PHOTOS, d/'ph')
    for i,name in enumerate(('$x^$', 'n'*125, '木'*45, 'a:b\\c', '-'*90)): photo(d/f'ph/{name}.png', seed=i)
    photo(d/'x.png'); (d/'x.png').rename(os.fsencode(d/'ph').decode() + '/' + os.fsdecode(b'\xe9.png'))
    Image.fromarray(np.full((64,64), NAN, np.float32)).save(d/'ph/nan.tiff')
    Image.new('RGB', (64,64)).save(d/'x.eps'); (d/'x.eps').rename(d/'ph/page.png')
    Image.new('1', (13_000,13_000)).save(d/'ph/huge.png')
    meta = prepare_pairs(d/'ph', d/'pairs', **OPTIONS)
    must(set(meta['skipped']) == {'\\xe9.png','nan.tiff','page.png','huge.png'}, meta['skipped'])
    must(len(content(d/'pairs')) == len(content(ROOT/'ref'))+5, 'pairs are missing')
    describe(meta).encode()

@case('14 nothing is deleted for a photo that is unreadable for a moment, or an info.json that holds []')
def _(d):
    shutil.copytree(PHOTOS, d/'ph'); prepare(d/'pairs', d/'ph')()
    p = a_pair(d/'pairs'); path = d/'ph'/load_json(p/'info.json')['photo']
    was = path.read_bytes(); path.write_bytes(b''); prepare(d/'pairs', d/'ph')() if len(list((d/'pairs/train').iterdir())) > 1 else None
    must((p/FILES[0]).exists(), 'deleted'); path.write_bytes(was)
    (p/'info.json').write_text('[]')
    meta = prepare_pairs(d/'ph', d/'pairs', **OPTIONS)
    must(meta['made'] == 1 and not difference(content(d/'pairs'), content(ROOT/'ref')), meta)

@case('15 a damaged file is named, with the remedy')
def _(d):
    prepare(d/'pairs')()
    for text in ('', '{', '[]', '{}', '{"complete": true}', 'null'):
        (d/'pairs/meta.json').write_text(text)
        try: load_meta(d/'pairs')
        except DinoinvError as e: must('dinoinv_prepare' in str(e), e)
        prepare(d/'pairs', force=True)(); load_meta(d/'pairs')
    (a_pair(d/'pairs')/FILES[0]).write_bytes(b'PK\3\4')
    try: content(d/'pairs')
    except DinoinvError as e: must('weights_only' not in str(e) and FILES[0] in str(e) and '--verify' in str(e), e)

@case('16 a full disk')
def _(d):
    import errno
    real = Path.write_bytes
    def full(self, b): raise OSError(errno.ENOSPC, 'No space left on device')
    Path.write_bytes = full
    try: must_refuse('no space left', prepare(d/'pairs'))
    finally: Path.write_bytes = real
    prepare(d/'pairs')(); must(not difference(content(d/'pairs'), content(ROOT/'ref')), 'after that')

@case('18 names in meta.json are never paths')
def _(d):
    prepare(d/'pairs')(); meta = load_json(d/'pairs/meta.json')
    for splits in ({'train': {'../../x': [56,56]}}, {'../x': {}}, {'train': {'/etc': [56,56]}}, {'train': {'a\\b': [56,56]}}):
        save_json(d/'pairs/meta.json', meta | dict(splits=splits)); must_refuse('meta.json', load_meta, d/'pairs')

# ── sections: training ───────────────────────────────────────────────────────────────────────────────────────────────────

CFG = TrainConfig(epochs=3, width=16, blocks=1, batch_size=4, crop=56, val_crop=56)
training.plot_losses = lambda log,base,title,path: save_json(path, title) # drawing takes longer than all the rest

def train(out, pairs=ROOT/'ref', resume=None, **changes):
    "A job that begins a run, or takes it up if it was begun"
    def job(): train_decoder(pairs, out, replace(CFG, **changes), (out/'config.json').exists() if resume is None else resume)
    return job

def run_of(out):
    "All that a finished run comes to: weights of the end and of the best epoch, its log, its baselines"
    state = torch.load(out/'state.pt', weights_only=True)
    best = load_file(out/'best/model.safetensors') | {'epoch': torch.tensor(best_epoch(out/'best'))}
    return dict(state=state['model'], best=best, log=load_json(out/'loss_log.json'), base=load_json(out/'baselines.json'))

def other_run(have, want):
    "How two results of `run_of` differ, to the last bit; '' if they don't"
    for k in ('state','best'):
        if have[k].keys() != want[k].keys() or not all(torch.equal(have[k][i], want[k][i]) for i in want[k]): return f'other weights in {k}'
    return ', '.join(f'other {k}' for k in ('log','base') if have[k] != want[k])

def finished():
    "A run that was left in peace, one that was stopped after its first epoch, and what the first comes to"
    whole,half = ROOT/'whole',ROOT/'half'
    if not whole.exists():
        reference('ref')
        train(whole)()
        real,count = training.train_epoch,[]
        def interrupt(*args):
            count.append(1)
            if len(count) == 2: raise KeyboardInterrupt
            return real(*args)
        training.train_epoch = interrupt
        try: train(half)()
        except KeyboardInterrupt: pass
        finally: training.train_epoch = real
    return whole, half, run_of(whole)

def judge_run(t, out, want, what):
    def look():
        if d := other_run(run_of(out), want): raise Wrong(d)
        left = litter(out) + [str(p) for p in out.glob('.best.old')]
        if left: raise Wrong(f'temporary files are left: {left[:3]}')
    t.check(attempt(look), ['done'], f'{what}, the result')

def train_kills(t, n):
    "Training killed once or more, then taken up: the same weights to the last bit; between, the best decoder is whole or about to be healed"
    _,_,want = finished()
    t0 = time.time(); _,_,changes = attempt(train(ROOT/'timed_train')); seconds = time.time()-t0
    for _ in range(n):
        out = t.trial()
        for _ in range(t.rng.integers(1, 4)):
            when = dict(die_at=int(t.rng.integers(1, changes+1))) if t.rng.integers(2) else dict(kill_after=t.rng.random()*seconds)
            had = (out/'best').exists()
            t.check(attempt(train(out), **when), ['killed','done'], f'{when}')
            if had and not (out/'best').exists() and not (out/'.best.old').exists(): t.bad('lost', f'{when}: no best decoder')
            if (out/'best').exists(): t.check(attempt(lambda: load_decoder(out/'best') and None), ['done'], f'{when}, the best')
        if t.check(patient(train(out)), ['done'], 'taken up'): judge_run(t, out, want, 'taken up')
        shutil.rmtree(out)

RUN_FILES = ('config.json','state.pt','baselines.json','probes/of.json','probes/linear_probe/config.json',
             'probes/linear_probe/model.safetensors','probes/neighbour_probe/model.safetensors','best/config.json','best/model.safetensors','best/val_errors.json','loss_log.json','val_errors.json')

def hurt_run(t, path, how):
    "Damage a file of a run; whether that makes sense"
    if path.name != 'state.pt' or how not in ('nan','shape','dtype','pickle'): return hurt(t, path, how)
    s = torch.load(path, weights_only=True)
    if how == 'nan': s['model']['out.weight'][0] = NAN
    if how == 'shape': s['model']['out.weight'] = s['model']['out.weight'][:-1].clone()
    if how == 'dtype': s = list(s)
    torch.save(PHOTOS if how == 'pickle' else s, path)
    return True

def train_damage(t, n):
    "Every file of an interrupted run damaged in every way: it isn't needed, or refused by name and remedy, and the remedy works"
    _,half,want = finished()
    every = list(product([k for k in RUN_FILES if (half/k).exists()], DAMAGE)) # few tokens: no neighbour probe
    for k in range(max(n, len(every))):
        name,how = every[k%len(every)]
        out = t.trial(); shutil.copytree(half, out)
        if not hurt_run(t, out/name, how): t.n -= 1; shutil.rmtree(out); continue
        what = f'{how} {name}'
        outcome = attempt(train(out, resume=True))
        said = outcome[1]
        if t.check(outcome, ['done','refused'], what) and outcome[0] == 'refused':
            if str(out) not in said or 'weights_only' in said: t.bad('wrong', f'{what}: not named in {said}')
            state = re.search(r'delete (\S+/state.pt)', said)
            if state or 'delete it' in said:
                remove(state[1] if state else said.split(' is ')[0].split(' cannot ')[0])
                outcome = attempt(train(out, resume=True))
                t.check(outcome, ['done'], f'{what}, after {said}')
        if outcome[0] == 'done' and how != 'flip': judge_run(t, out, want, what)
        shutil.rmtree(out)

def train_writers(t, n):
    "Two at once on one run: one trains, the other is told so or finds it done"
    _,_,want = finished()
    for _ in range(n):
        out = t.trial()
        two = [Child(train(out)) for _ in range(2)]
        for how,said,k in [c.wait() for c in two]:
            told = 'another process' in said or 'holds a run already' in said
            t.check((how,said,k), ['done'] + ['refused']*told, 'one of two')
        judge_run(t, out, want, 'two writers')
        shutil.rmtree(out)

BAD = [None, '1', -1, NAN, INF, True] # for any number; each setting may have more
WORST_TRAIN = {f.name: BAD for f in fields(TrainConfig) if type(f.default) in (int,float)}
WORST_TRAIN |= dict(amp=[7,'no',None,0], head=['','nope',None,3], schedule=['','cosine',None,3])
assert WORST_TRAIN.keys() == {f.name for f in fields(TrainConfig)}, 'a setting of another kind has come: give its worst values'
MORE = dict(epochs=[0,1.5], lr=[0,1e9], batch_size=[0,10**9], crop=[0], val_crop=[0,5], width=[0,20,10**9], blocks=[10**9],
            seed=[2**70], workers=[10**6], shuffle_buffer=[.5], val_every=[0])

def train_options(t, n):
    "Every setting's worst values are refused before any work, with its name in the message"
    for k,v in [(k,v) for k,vs in WORST_TRAIN.items() for v in vs + MORE.get(k, [])]:
        out = t.trial()
        how,said,_ = outcome = attempt(train(out, **{k: v}), limit=20)
        if t.check(outcome, ['refused'], f'{k}={v!r}') and f'{k}={v!r}' not in said: t.bad('wrong', f'{k}={v!r}: {said}')
        if out.exists(): t.bad('wrong', f'{k}={v!r}: a folder was made')
    for preset in ('', 'nope', 3):
        t.trial(); t.check(attempt(lambda: dinoinv_train(str(ROOT/'ref'), str(ROOT/'none'), preset)), ['refused'], f'preset={preset!r}')

def small_disk(t, at, size):
    "A file system of `size` kB at `at`; a function to enlarge it; None if there can't be one"
    def mount(*how): return subprocess.run(['mount','-t','tmpfs','-o', ','.join(how), 'tmpfs', at], capture_output=True, text=True).stderr.strip()
    at.mkdir()
    why = mount(f'size={size}k')
    if not why: return lambda: mount('size=64m', 'remount')
    t.n -= 1; t.note(f'skipped, no small file system could be mounted ({why})')

def train_disk(t, n):
    "A file system that is too small for a run: said plainly, and taken up when there is room"
    _,_,want = finished()
    for _ in range(max(n//4, 2)):
        at = t.trial()
        enlarge = small_disk(t, at, 4*int(t.rng.integers(1, 150)))
        if not enlarge: return
        try:
            how,said,_ = attempt(train(at/'run'))
            if t.check((how,said,0), ['refused','done'], 'full disk') and how == 'refused' and 'no space left' not in said: t.bad('tracebacks', said)
            enlarge()
            if t.check(attempt(train(at/'run')), ['done'], 'with room'): judge_run(t, at/'run', want, 'after a full disk')
        finally: subprocess.run(['umount', at])


@case('1 a second training is told so')
def _(d):
    finished()
    with one_writer(d/'run'): must_refuse('another process', train(d/'run', resume=False))
    train(d/'run')()

@case('3 a run is bound to its pairs')
def _(d):
    _,half,want = finished()
    photos = d/'ph'; shutil.copytree(PHOTOS, photos); prepare(d/'same', photos)(); photo(photos/'a/0.png', 64, 64, seed=99); prepare(d/'pairs', photos)()
    must(pairs_key(d/'same') == pairs_key(ROOT/'ref') != pairs_key(d/'pairs'), 'the key')
    shutil.copytree(half, d/'run')
    must_refuse('other pairs', train(d/'run', d/'pairs')); must_refuse(str(d/'pairs'), train(d/'run', d/'pairs')); must_refuse(str(ROOT/'ref'), train(d/'run', d/'pairs'))
    train(d/'run', d/'same')(); must(not other_run(run_of(d/'run'), want), 'the same pairs elsewhere')
    must_refuse('state.pt', train(d/'run', ROOT/'ref')) if (d/'run/config.json').unlink() else must_refuse('no config.json', train(d/'run'))

@case('3 what a run leaves that failed early is no baseline for other pairs')
def _(d):
    _,_,want = finished()
    shutil.copytree(ROOT/'old' if (ROOT/'old').exists() else reference('old', patch=70, fractions=(.4,.3,.3))[0], d/'other')
    train(d/'other_run', d/'other', epochs=1)()
    (d/'run').mkdir()
    for k in ('probes','baselines.json'): (d/'other_run'/k).rename(d/'run'/k)
    train(d/'run')(); must(not other_run(run_of(d/'run'), want), 'they were taken for its own')

@case('11 NaN in one pair: it is named, nothing is stored, and the run goes on when the pair is mended')
def _(d):
    _,_,want = finished()
    for split in ('train','val'):
        shutil.copytree(ROOT/'ref', d/split); p = a_pair(d/split, split)
        f = load_pair(p)[0].clone(); f[0,0,0] = NAN; torch.save(f, p/FILES[0])
        for workers in (0,1):
            try: train(d/f'run_{split}', d/split, workers=workers)()
            except DinoinvError as e: must(p.name in str(e) and '\n' not in str(e), e)
            else: raise Wrong('accepted')
        must(not (d/f'run_{split}/baselines.json').exists(), 'baselines were stored')
        prepare(d/split, verify=True)()
        train(d/f'run_{split}', d/split, resume=True)()
        have = run_of(d/f'run_{split}'); must(all(np.isfinite(v) for b in have['base'].values() for v in b.values()), 'null')

@case('12 the advice after a divergence is accepted')
def _(d):
    finished(); real = training.train_epoch
    def explode(model, opt, sched, ds, cfg, acc):
        if ds.epoch == 2:
            with torch.no_grad(): next(model.parameters()).fill_(NAN)
        return real(model, opt, sched, ds, cfg, acc)
    training.train_epoch = explode
    try: train(d/'run')()
    except DinoinvError as e: said = str(e)
    finally: training.train_epoch = real
    rate = float(said.split('--lr ')[1].split(')')[0])
    dinoinv_train(str(ROOT/'ref'), str(d/'run'), resume=True, lr=rate)
    must(load_json(d/'run/config.json')['changes'] == [dict(after_epoch=1, lr=[CFG.lr,rate])], 'not noted')
    must([r['epoch'] for r in load_json(d/'run/loss_log.json')] == [0,1,2,3], 'the log')
    must_refuse('lr=inf', dinoinv_train, str(ROOT/'ref'), str(d/'new'), lr=INF); must(not (d/'new').exists(), 'a folder was made')

@case('12 weights that the last step of an epoch spoils are not kept')
def _(d):
    finished(); real = training._step
    def spoil(loss, model, opt, *args):
        real(loss, model, opt, *args)
        with torch.no_grad(): next(model.parameters()).fill_(NAN)
    training._step = spoil
    try: must_refuse('--resume --lr', train(d/'run'))
    finally: training._step = real
    must(all(v.isfinite().all() for v in torch.load(d/'run/state.pt', weights_only=True)['model'].values()), 'kept')

@case('13 a kill between the two renames of the best decoder heals, and temporary files go')
def _(d):
    _,half,want = finished(); shutil.copytree(half, d/'run')
    (d/'run/best').rename(d/'run/.best.old'); shutil.copytree(half/'best', d/'run/.best.tmp'); (d/'run/.state.1.tmp.pt').touch()
    must_refuse('--resume', load_decoder, d/'run/best')
    train(d/'run')(); must(not other_run(run_of(d/'run'), want) and not litter(d/'run') and not (d/'run/.best.old').exists(), 'not healed')

@case('15 a damaged file of a run is named, with the remedy')
def _(d):
    _,half,_ = finished()
    for name,says in (('state.pt','delete it and resume'), ('config.json','new folder'), ('baselines.json','delete it'),
                      ('probes/linear_probe/model.safetensors','delete it'), ('best/val_errors.json','copy it anew')):
        remove(d/'run'); shutil.copytree(half, d/'run'); (d/'run'/name).write_bytes(b'PK\3\4')
        if name.startswith('best'): must_refuse(says, best_epoch, d/'run/best')
        else: must_refuse(says, train(d/'run'))
        if name.startswith('probes'): must_refuse('linear_probe', load_probes, d/'run/probes')

@case('16 a full disk stops a run, which is then taken up')
def _(d):
    _,_,want = finished(); shutil.copytree(ROOT/'half', d/'run'); real = torch.save
    def full(*args, **kwargs): raise RuntimeError('[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0')
    torch.save,usage = full,shutil.disk_usage
    shutil.disk_usage = lambda p: usage(p)._replace(free=0)
    try: must_refuse('no space left', train(d/'run')); must_refuse('--resume', train(d/'run'))
    finally: torch.save,shutil.disk_usage = real,usage
    train(d/'run')(); must(not other_run(run_of(d/'run'), want) and not litter(d/'run'), 'after that')

@case('17 settings are checked together and at once, and a folder of something else is left alone')
def _(d):
    finished()
    must_refuse('schedule', train(d/'run', schedule='cosine', lr=NAN)); must_refuse('lr=nan', train(d/'run', schedule='cosine', lr=NAN))
    must_refuse('multiple of 8', train(d/'run', width=20)); must(not (d/'run').exists(), 'a folder was made')
    must_refuse('something else', train(PHOTOS)); must(not (PHOTOS/'.lock').exists(), 'a lock was left')


# ── sections: inference and gallery ──────────────────────────────────────────────────────────────────────────────────────

def trained():
    "A decoder for `ENC`, trained for a moment on the reference pairs; its results on the training pairs"
    if not (ROOT/'run/best').exists():
        reference('ref')
        train_decoder(ROOT/'ref', ROOT/'run', replace(CFG, epochs=1))
        infer(ROOT/'results')(); infer(ROOT/'older', split='test')()
    return ROOT/'run/best', scored(ROOT/'results')

def infer(out, decoder=ROOT/'run/best', source=ROOT/'ref', **changes):
    return lambda: evaluate(decoder, source, out, **dict(split='train', encoder=ENC)|changes) and None

def scored(out):
    "What is in a folder of results: scores and pictures of each sample, and the summary's score"
    s = load_json(out/'summary.json', dict)
    infos = load_results(out)
    if s['failed']: raise Wrong(f"failed: {s['failed']}")
    if s['n'] != len(infos): raise Wrong(f"{len(infos)} samples, and {s['n']} in the summary")
    pixels = lambda i,k: np.asarray(Image.open(out/i['name']/f'{k}.png')).astype(int)
    look = lambda i: [np.array([*i['scores'].values()]), *(pixels(i, k) for k in ('pred','target','compare_pred_target'))]
    return {i['name']: look(i) for i in infos} | dict(psnr=[np.array(s['psnr'])])

def same_results(have, want):
    """Whether they differ by no more than the rounding of a convolution, which depends on what is in the batch:
    scores by .001, pictures by a few last bits, the figure by a digit of the scores in its title"""
    if have.keys() != want.keys(): return False
    most = 1e-3,.05,0.,2.
    near = lambda a,b,m: a.shape == b.shape and np.abs(a-b).mean() <= m
    return all(near(*o) for k in want for o in zip(have[k], want[k], most))

def judge_results(t, out, want, what, ended=True):
    "Note if a folder that is said to be complete is not as it ought to be"
    def look():
        if not same_results(scored(out), want): raise Wrong('other results')
        if ended and litter(out): raise Wrong(f'temporary files are left: {litter(out)[:3]}')
    t.check(attempt(look), ['done'] if ended else ['done','refused'], f'{what}, reading')

def infer_kills(t, n):
    "Infer killed once or more, into a new folder, over older results or over some of its own; then run to its end or taken up"
    _,want = trained()
    t0 = time.time(); _,_,changes = attempt(infer(ROOT/'timed_infer')); seconds = time.time()-t0
    for _ in range(n):
        out,begin = t.trial(),t.pick(('new','older','resume'))
        if begin == 'older': shutil.copytree(ROOT/'older', out)
        if begin == 'resume': some_results(t, out)
        job = infer(out, resume=begin == 'resume', batch_size=int(t.rng.integers(1, 5)), workers=int(t.rng.integers(1, 4)))
        for _ in range(t.rng.integers(1, 4)):
            when = dict(die_at=int(t.rng.integers(1, changes+1))) if t.rng.integers(2) else dict(kill_after=t.rng.random()*seconds)
            t.check(attempt(job, **when), ['killed','done'], f'{begin}, {when}')
            done = (out/'summary.json').exists() and load_json(out/'summary.json')
            if done and done.get('complete') and done['split'] == 'train': judge_results(t, out, want, f'{begin}, {when}', ended=False)
        if t.check(patient(job), ['done'], f'{begin}, run again'): judge_results(t, out, want, begin)
        shutil.rmtree(out)

def some_results(t, out):
    "A copy of the reference results as a killed run would have left it, some samples missing"
    shutil.copytree(ROOT/'results', out)
    save_json(out/'summary.json', load_json(out/'summary.json') | dict(complete=False))
    for d in sorted(p.parent for p in out.glob('*/info.json')):
        if t.rng.integers(2): remove(d)

SAMPLE_FILES = 'info.json','pred.png','target.png','linear_probe.png','compare_pred_target.png'

def infer_resume(t, n):
    "Every file of a result damaged in every way, and infer taken up: that sample is made anew, the others stay as they are"
    _,want = trained()
    every = list(product(SAMPLE_FILES, DAMAGE))
    for k in range(max(n, len(every))):
        file,how = every[k%len(every)]
        out,name = t.trial(),t.pick(sorted(k for k in want if k != 'psnr'))
        shutil.copytree(ROOT/'results', out)
        was = (out/name/file).read_bytes()
        if not hurt(t, out/name/file, how): t.n -= 1; shutil.rmtree(out); continue
        spoilt = not (out/name/file).is_file() or (out/name/file).read_bytes() != was
        since = {p.parent.name: p.stat().st_mtime_ns for p in out.glob('*/info.json')}
        if t.check(attempt(infer(out, resume=True)), ['done'], f'{how} {file}'):
            judge_results(t, out, want, f'{how} {file}')
            made = load_json(out/'summary.json')['made']
            stayed = all((out/k/'info.json').stat().st_mtime_ns == at for k,at in since.items() if k != name)
            if made != spoilt or not stayed: t.bad('wrong', f'{how} {file}: {made} made')
        shutil.rmtree(out)

DECODER_FILES = 'config.json','model.safetensors','val_errors.json','linear_probe/config.json','linear_probe/model.safetensors'

def infer_damage(t, n):
    "Every file of a decoder damaged in every way: it is refused by name, or (a flipped bit in a weight, what is optional) does its work"
    best,want = trained()
    every = list(product(DECODER_FILES, DAMAGE))
    for k in range(max(n, len(every))):
        name,how = every[k%len(every)]
        d = t.trial(); shutil.copytree(best, d/'best')
        if not hurt(t, d/'best'/name, how): t.n -= 1; shutil.rmtree(d); continue
        free = how == 'flip' or name == 'val_errors.json' and how == 'gone'
        outcome = attempt(infer(d/'out', d/'best'), limit=20)
        if t.check(outcome, ['refused'] + ['done']*free, f'{how} {name}') and outcome[0] == 'refused':
            if str(d/'best') not in outcome[1] or 'weights_only' in outcome[1]: t.bad('wrong', f'{how} {name}: {outcome[1]}')
            if (d/'out').exists(): t.bad('wrong', f'{how} {name}: a folder was made')
        shutil.rmtree(d)

def gallery_kills(t, n):
    "The page killed while it is written over an older one: one of the two is there, whole; then run to its end"
    trained()
    job = lambda out: lambda: Gallery(ROOT/'results').save(out/'page.html') and None
    ref = t.root/'page'; ref.mkdir(exist_ok=True)
    t0 = time.time(); _,_,changes = attempt(job(ref)); seconds = time.time()-t0
    want = (ref/'page.html').read_bytes()
    for _ in range(n):
        out = t.trial(); out.mkdir(); (out/'page.html').write_text('an older page')
        when = dict(die_at=int(t.rng.integers(1, changes+1))) if t.rng.integers(2) else dict(kill_after=t.rng.random()*seconds)
        t.check(attempt(job(out), **when), ['killed','done'], f'{when}')
        if (out/'page.html').read_bytes() not in (want, b'an older page'): t.bad('wrong', f'{when}: half a page')
        t.check(attempt(job(out)), ['done'], 'run again')
        if (out/'page.html').read_bytes() != want: t.bad('wrong', 'another page')
        shutil.rmtree(out)

RESULT_FILES = 'info.json','pred.png','target.png'

def gallery_damage(t, n):
    "Every file of a result damaged in every way: the sample is left out and named, or unharmed, and the others are all there"
    _,want = trained()
    names = sorted(k for k in want if k != 'psnr')
    clean = {s['name']: s for s in Gallery(ROOT/'results').samples}
    every = list(product(RESULT_FILES, DAMAGE))
    for k in range(max(n, len(every))):
        file,how = every[k%len(every)]
        out,name = t.trial(),t.pick(names)
        shutil.copytree(ROOT/'results', out)
        if not hurt(t, out/name/file, how): t.n -= 1; shutil.rmtree(out); continue
        def look():
            g = Gallery(out); g.save(out/'page.html')
            have = {s['name']: s for s in g.samples}
            if have.keys() | {name} != clean.keys(): raise Wrong(f'samples are missing: {clean.keys()-have.keys()}')
            if how != 'flip' and name in have: raise Wrong('the damaged one is shown')
            same = lambda k: {a: b for a,b in have[k].items() if a != 'rank'} == {a: b for a,b in clean[k].items() if a != 'rank'}
            if not all(same(k) for k in have if k != name): raise Wrong('another one has changed')
        t.check(attempt(look), ['done'], f'{how} {name}/{file}')
        shutil.rmtree(out)

def infer_options(t, n):
    "The worst values of what infer and gallery take"
    trained()
    worst = dict(split=['','../x','all',None,3], source=['', '/nowhere', ROOT/'results'/'summary.json'], decoder=['', '/nowhere', ROOT/'run', PHOTOS, ROOT/'ref'],
                 batch_size=[0,-3,NAN,10**9,None], workers=[-1,NAN,10**6,None])
    for k,v in [(k,v) for k,vs in worst.items() for v in vs]:
        out = t.trial()
        t.check(attempt(infer(out, **{k: v}), limit=20), ['refused'], f'infer {k}={v!r}')
        if out.exists(): t.bad('wrong', f'infer {k}={v!r}: a folder was made')
    for k,v in product(('n','megabytes'), (0,-1,NAN,'9',None)):
        t.trial(); t.check(attempt(lambda: Gallery(ROOT/'results', **{k: v}) and None), ['refused'], f'gallery {k}={v!r}')

@case('6 infer lists bad features and scores the rest; without meta.json a folder of pairs is not taken for photos')
def _(d):
    trained(); shutil.copytree(ROOT/'ref', d/'pairs')
    a,b,c = sorted((d/'pairs/train').iterdir())[:3]
    f = load_pair(a)[0].clone(); nan = f.clone(); nan[0,0,0] = NAN
    for p,x in ((a,nan), (b,f[:-1].clone()), (c,f.float())): torch.save(x, p/FILES[0])
    s = evaluate(ROOT/'run/best', d/'pairs', d/'out', 'train')
    must(set(s['failed']) == {a.name,b.name,c.name} and all(np.isfinite(s[k]) for k in ('psnr','ssim','mae')), s['failed'])
    remove(d/'pairs/meta.json'); must_refuse('part of a pair', infer(d/'o', source=d/'pairs'))
    must_refuse('lies in', infer(ROOT/'ref/train')); must_refuse('something else', infer(PHOTOS))

@case('9 infer killed while it empties older results')
def _(d):
    _,want = trained()
    for k in range(1, 30):
        remove(d/'out'); shutil.copytree(ROOT/'older', d/'out'); attempt(infer(d/'out'), die_at=k)
        s = load_json(d/'out/summary.json')
        must(not s['complete'] or s['split'] == 'test' and len(load_results(d/'out')) == s['n'], f'change {k}: an old summary outlived its samples')
    infer(d/'out')(); must(same_results(scored(d/'out'), want), 'after that')

@case('14 a name that could be a formula, or half a character')
def _(d):
    trained(); (d/'ph').mkdir()
    for i,name in enumerate(('$x^$','a_{','木'*30,'\\frac')): photo(d/f'ph/{name}.png', seed=i)
    must(not evaluate(ROOT/'run/best', d/'ph', d/'out', encoder=ENC)['failed'], 'failed')
    contact_sheet(d/'out'); Gallery(d/'out').save(d/'page.html')

@case('16 a full disk stops infer, and leaves nothing behind')
def _(d):
    import errno
    _,want = trained()
    real = Image.Image.save
    def full(*args, **kwargs): raise OSError(errno.ENOSPC, 'No space left on device')
    Image.Image.save = full
    try: must_refuse('no space left', infer(d/'out'))
    finally: Image.Image.save = real
    must(not litter(d/'out') and not load_json(d/'out/summary.json')['complete'], 'litter')
    infer(d/'out')(); must(same_results(scored(d/'out'), want), 'after that')

@case('18 names in info.json are never paths')
def _(d):
    trained(); shutil.copytree(ROOT/'results', d/'out'); photo(d/'x/target.png'); photo(d/'x/pred.png')
    p = next((d/'out').glob('*/info.json')); info = load_json(p)
    others = sorted({i['name'] for i in load_results(d/'out')} - {info['name']})
    for name in ('../x', str(d/'x'), '..', '', None, others[0]):
        save_json(p, info | dict(name=name)); must(sorted(s['name'] for s in Gallery(d/'out').samples) == others, name)


@case('and there is no interval below five textures')
def _(d):
    trained(); s = load_json(ROOT/'results/summary.json')
    must(len(s['groups']) >= 5 or s['psnr_ci95'] is None, s['psnr_ci95']); must(all(g['psnr_ci95'] is None for g in s['groups'].values()), 'groups')


@case('photos in a tar that is cut short, and mended')
def _(d):
    files = [p for p in sorted(PHOTOS.rglob('*')) if p.is_file()]
    (d/'ph').mkdir()
    with tarfile.open(d/'ph/all.tar', 'w') as tar:
        for p in files: tar.add(p, p.relative_to(PHOTOS).as_posix())
    job = prepare(d/'pairs', d/'ph'); job()
    want,whole = content(d/'pairs'),(d/'ph/all.tar').read_bytes()
    must(len(want) == len(content(ROOT/'ref')), 'other pairs than from the folder')
    for n in range(1, len(whole), 1+len(whole)//9):
        (d/'ph/all.tar').write_bytes(whole[:n])
        try: job()
        except DinoinvError as e: must('cut short' in str(e) or 'too few' in str(e) or 'nothing usable' in str(e), f'{n} bytes: {e}')
        else: must('all.tar' in load_json(d/'pairs/meta.json')['skipped'], f'{n} bytes, and no word of it')
        (d/'ph/all.tar').write_bytes(whole)
        job()
        must(not difference(content(d/'pairs'), want), f'{n} bytes, then mended: other pairs')
        must(not load_json(d/'pairs/meta.json')['made'], f'{n} bytes, then mended: pairs were lost')

@case('a dataset without pictures, one that is not there, an address that is none')
def _(d):
    if find_spec('datasets'):
        import datasets; datasets.disable_progress_bars()
        (d/'set').mkdir()
        datasets.Dataset.from_dict(dict(text=['a','b'])).to_parquet(d/'set/train.parquet')
        must_refuse('no column of images', prepare(d/'p', f"hub:{d/'set'}"))
        must_refuse('hub:', prepare(d/'p', f"hub:{d/'none'}"))
    must(not (d/'p').exists(), 'something was written')
    must_refuse('nosuch://', load_meta, 'nosuch://bucket/pairs')
    must_refuse('no shards', lambda: list(Batches(PairsDataset(ROOT/'ref', shuffle_buffer=4))))

def points(t, n):
    "Each fault that was ever found, once"
    reference('ref')
    for name,f in CASES.items():
        d = t.trial(); d.mkdir()
        t.check(attempt(lambda: f(d) and None), ['done'], f'point {name}:')


SECTIONS = {f.__name__: f for f in (points, kills, damage, images, writers, options, encoder, disk, train_kills, train_damage, train_writers,
                                    train_options, train_disk, infer_kills, infer_resume, infer_damage, infer_options, gallery_kills, gallery_damage)}


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────────

def begin(name, trials, seed):
    "One section in a process of its own, that leaves what it found in a file"
    if pid := os.fork(): return pid
    t,start = Tally(name, ROOT, seed),time.time()
    try: SECTIONS[name](t, trials)
    except BaseException: t.bad('tracebacks', traceback.format_exc())
    row = [name, t.n, *(t.found[k] for k in KINDS), time.time()-start]
    save_json(ROOT/f'{name}.json', row)
    print(line(*row), flush=True)
    os._exit(0)

def run_all(names, jobs, *about):
    "What each section found, `jobs` of them at a time"
    left,running = list(names),set()
    while left or running:
        while left and len(running) < jobs: running.add(begin(left.pop(0), *about))
        running.discard(os.wait()[0])
    died = lambda k: [k, 0, 0, 0, 1, 0, 0.] # without a result: stuck
    return [load_json(p) if (p := ROOT/f'{k}.json').exists() else died(k) for k in names]

HEAD = f"{'':<15}{'trials':>8}" + ''.join(f'{k:>12}' for k in KINDS) + f"{'seconds':>10}"

def line(name, n, *counts): return f'{name:<15}{n:>8}' + ''.join(f'{c:>12}' for c in counts[:-1]) + f'{counts[-1]:>10.1f}'

def report(path, rows, seed):
    "Note in the file at `path` what sections found, what they try, and with which versions; those not run now keep their rows"
    found = load_json(path, dict) if path.exists() else {}
    for name,*counts,seconds in rows:
        about = dict(about=SECTIONS[name].__doc__, seed=seed, seconds=round(seconds), versions=versions())
        found[name] = dict(zip(('trials',*KINDS), counts)) | about
    if 'points' in found: found['points']['cases'] = [re.sub(r'^(\d+ (and )?)+', '', k) for k in CASES]
    save_json(path, {k: found[k] for k in SECTIONS if k in found})

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--trials', type=int, default=4, help='of each section that draws at random (%(default)s)')
    p.add_argument('--only', nargs='*', choices=list(SECTIONS), default=list(SECTIONS), help='some sections')
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--jobs', type=int, default=os.cpu_count(), help='sections at once (%(default)s)')
    p.add_argument('--out', type=Path, help='JSON file for the table; sections that are not run keep their rows')
    o = p.parse_args()
    start = time.time()
    material()
    try:
        for make in (lambda: reference('ref'), lambda: reference('old', patch=70, fractions=(.4,.3,.3)),
                     lambda: reference('all', fractions=(1,0,0)), finished, trained): make() # which sections share
        print(HEAD, flush=True)
        rows = run_all(o.only, o.jobs, o.trials, o.seed)
    finally: shutil.rmtree(ROOT, ignore_errors=True)
    total = [sum(c) for c in list(zip(*rows))[1:-1]]
    print(line('all', *total, time.time()-start))
    if o.out: report(o.out, rows, o.seed)
    sys.exit(any(total[1:]))

if __name__ == '__main__': main()
